//! Models and networks named on the command line.

use std::path::Path;

use mbconv_nets::NetworkOptions;
use mbconv_train::config::{EmbeddedRecipe, RecipeFile, is_table, read_table};
use mbconv_train::device::Device;
use mbconv_train::import::{ImportError, ImportOptions, NotFound, load_weights};
use mbconv_train::model_file::{ModelCard, read_card};
use mbconv_train::{Model, Recipe, device};

use crate::error::CliError;

/// Number of classes of a network that is given without classes: ImageNet's.
pub const IMAGENET_CLASSES: usize = 1000;

/// A network given as architecture name, model file, run folder, recipe or stage table.
pub struct ModelRef {
    /// The network.
    pub options: NetworkOptions,
    /// Image size of the model or recipe.
    pub input_size: Option<usize>,
    /// Card of the model file.
    pub card: Option<ModelCard>,
    /// Recipe that contains the network.
    pub recipe: Option<RecipeFile>,
}

impl ModelRef {
    /// Resolves `text`. The default number of classes is the model's, or ImageNet's.
    pub fn resolve(text: &str, classes: Option<usize>) -> Result<Self, CliError> {
        let path = Path::new(text);
        let mut found = if path.extension().is_some_and(|extension| extension == "toml") {
            Self::from_toml(path)?
        } else if !path.exists() && EmbeddedRecipe::named(text).is_some() {
            Self::from_recipe(path)?
        } else if path.exists() || text.ends_with(".safetensors") {
            Self::from_model(path)?
        } else {
            Self::from_options(NetworkOptions::new(text, IMAGENET_CLASSES))
        };
        found.options.num_classes = classes.unwrap_or(found.options.num_classes);
        Ok(found)
    }

    fn from_options(options: NetworkOptions) -> Self {
        Self { options, input_size: None, card: None, recipe: None }
    }

    /// Reads a stage table or a recipe.
    fn from_toml(path: &Path) -> Result<Self, CliError> {
        if std::fs::read_to_string(path).is_ok_and(|text| is_table(&text)) {
            return Ok(Self::from_options(NetworkOptions::of_table(read_table(path)?, IMAGENET_CLASSES)));
        }
        Self::from_recipe(path)
    }

    /// Reads a recipe.
    fn from_recipe(path: &Path) -> Result<Self, CliError> {
        let file = RecipeFile::read(path, &[])?;
        let recipe = Recipe::try_from(file.clone())?;
        let input_size = Some(recipe.input.size);
        let options = recipe.model.with_classes(IMAGENET_CLASSES);
        Ok(Self { input_size, recipe: Some(file), ..Self::from_options(options) })
    }

    /// Reads a model file, or weights of another library.
    fn from_model(path: &Path) -> Result<Self, CliError> {
        let card = match read_card(path) {
            Ok(card) => card,
            Err(_) => open_model(path, &device::parse("cpu")?)?.card,
        };
        let input_size = Some(card.preprocess.crop);
        Ok(Self { input_size, ..Self::from_options(card.architecture.clone()) }.with_card(card))
    }

    fn with_card(self, card: ModelCard) -> Self {
        Self { card: Some(card), ..self }
    }
}

/// Opens a model file, a run's best model, or weights of another library as `mbconv import` reads
/// them. Prints the origin of imported weights.
pub fn open_model(path: &Path, device: &Device) -> Result<Model, CliError> {
    let opened = load_weights(path, &ImportOptions::default(), device);
    let loaded = opened.map_err(|error| match error.hint() {
        Some(hint) if needs_import_option(&error) => {
            let import = format!("`mbconv import {} MODEL.safetensors`", path.display());
            CliError::new(error.to_string(), format!("convert it with {import} and an option: {hint}"))
        }
        _ => error.into(),
    })?;
    if !loaded.origin.is_empty() {
        eprintln!("{}", loaded.origin);
    }
    Ok(loaded.model)
}

/// Returns whether an option of `import` and `finetune` resolves the error.
fn needs_import_option(error: &ImportError) -> bool {
    match error {
        ImportError::Ambiguous { .. } => true,
        ImportError::NoNetwork { reason: NotFound::Several(_), .. } => true,
        ImportError::NoNetwork { reason: NotFound::Beside(prefix, _), .. } => !prefix.is_empty(),
        _ => false,
    }
}

/// Opens a model like [`open_model`], for classification. The temperature of a calibrated model is
/// included in the weights.
///
/// # Errors
/// A model with a single class, whose softmax is 1 for every image.
pub fn open_classifier(path: &Path, device: &Device) -> Result<Model, CliError> {
    open_uncalibrated(path, device).map(Model::calibrated)
}

/// Opens a model like [`open_classifier`], without including the temperature in the weights.
pub fn open_uncalibrated(path: &Path, device: &Device) -> Result<Model, CliError> {
    let model = open_model(path, device)?;
    if model.card.classes.len() < 2 {
        return Err(CliError::new(
            format!("the model {} has a single class: its probability is 1 for every image", path.display()),
            "train or fine-tune it on two classes or more".to_string(),
        ));
    }
    Ok(model)
}
