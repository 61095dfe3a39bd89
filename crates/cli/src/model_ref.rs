//! Models and networks named on the command line.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_hub::{Spec, similar_weights};
use mbconv_nets::registry::{canonical_name, similar_name, stage_table};
use mbconv_nets::{Inference, Network, NetworkOptions};
use mbconv_train::config::{EmbeddedRecipe, RecipeFile, is_table, read_table};
use mbconv_train::data::ImageSize;
use mbconv_train::device::Device;
use mbconv_train::import::{ImportError, ImportOptions, NotFound, load_weights};
use mbconv_train::model_file::{ModelCard, read_card};
use mbconv_train::pretrained::default_weights;
use mbconv_train::quantized_model::QuantizedModel;
use mbconv_train::{Model, Recipe, device};

use crate::args::{DeviceArgs, DtypeArgs};
use crate::download::download;
use crate::error::CliError;

/// Number of classes of a network that is given without classes: ImageNet's.
pub const IMAGENET_CLASSES: usize = 1000;
/// Stop flag for the commands that an interrupt ends at once.
pub static NEVER: AtomicBool = AtomicBool::new(false);
/// Kinds of models that every command accepts.
const ACCEPTED: &str = "a model is a run folder, a .safetensors or .pth file, a folder written by `save_pretrained`, \
                        an architecture (`mbconv list`), published weights (`mbconv list --pretrained`), \
                        hf:owner/name, or https://…";

/// Returns the file or folder of a model: an existing path, or published weights, which are
/// downloaded into the cache. An architecture's name selects its default published weights.
///
/// # Errors
/// Nothing has this name, or the download fails.
pub fn locate(model: &Path, stop: &AtomicBool) -> Result<PathBuf, CliError> {
    let absent = std::fs::metadata(model).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    // Names of published weights are UTF-8.
    let Some(name) = model.to_str().filter(|_| absent) else { return Ok(model.into()) };
    if !matches!(Spec::parse(name)?, Spec::Path(_)) {
        return download(name, stop);
    }
    match default_weights(name) {
        Some(weights) => {
            eprintln!("{name}: published weights {}", weights.name);
            download(weights.name, stop)
        }
        None if is_architecture(name) => Err(CliError::new(
            format!("no weights of the architecture `{name}` are published"),
            "`mbconv list --pretrained` lists the published weights; `mbconv train` trains a network from its recipe"
                .to_string(),
        )),
        None => Err(unknown(name)),
    }
}

fn is_architecture(name: &str) -> bool {
    stage_table(&canonical_name(name)).is_some()
}

/// Returns the error of a text that names nothing.
fn unknown(name: &str) -> CliError {
    let similar = if name.contains('/') { similar_weights(name) } else { similar_name(name).or(similar_weights(name)) };
    let similar = similar.map(|similar| format!("did you mean `{similar}`? ")).unwrap_or_default();
    CliError::new(format!("there is no model or architecture `{name}`"), similar + ACCEPTED)
}

/// Replaces a recipe's published weights by their files. Errors name the key.
pub fn locate_in(recipe: &mut RecipeFile, stop: &AtomicBool) -> Result<(), CliError> {
    let weights = recipe.finetune.as_mut().and_then(|finetune| finetune.weights.as_mut());
    let teacher = recipe.distillation.as_mut().map(|distillation| &mut distillation.teacher);
    for (key, model) in [("finetune.weights", weights), ("distillation.teacher", teacher)] {
        if let Some(model) = model {
            *model = locate(model, stop).map_err(|error| error.about(key))?;
        }
    }
    Ok(())
}

/// Kinds of descriptions of a network.
pub enum Source {
    /// Stage table or recipe.
    Toml(PathBuf),
    /// Name of an embedded recipe.
    Recipe(String),
    /// Name of an architecture, as used here.
    Architecture(String),
    /// Model file, run folder or weights of another library.
    Weights(PathBuf),
}

impl Source {
    /// Finds out what `text` describes.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let path = Path::new(text);
        if path.extension().is_some_and(|extension| extension == "toml") {
            Ok(Self::Toml(path.into()))
        } else if !path.exists() && EmbeddedRecipe::named(text).is_some() {
            Ok(Self::Recipe(text.into()))
        } else if !path.exists() && is_architecture(text) {
            Ok(Self::Architecture(canonical_name(text)))
        } else {
            Ok(Self::Weights(locate(path, &NEVER)?))
        }
    }
}

/// A network given as architecture name, model, recipe or stage table.
pub struct ModelRef {
    /// The network.
    pub options: NetworkOptions,
    /// Image size of the model or recipe.
    pub input_size: Option<ImageSize>,
    /// Card of the model file.
    pub card: Option<ModelCard>,
    /// Recipe that contains the network.
    pub recipe: Option<RecipeFile>,
}

impl ModelRef {
    /// Resolves `text`. The default number of classes is the model's, or ImageNet's.
    pub fn resolve(text: &str, classes: Option<usize>) -> Result<Self, CliError> {
        Self::read(Source::parse(text)?, classes)
    }

    /// Reads the network that `source` describes, with `classes` classes.
    pub fn read(source: Source, classes: Option<usize>) -> Result<Self, CliError> {
        let mut found = match source {
            Source::Toml(path) => Self::from_toml(&path)?,
            Source::Recipe(name) => Self::from_recipe(Path::new(&name))?,
            Source::Architecture(name) => Self::from_options(NetworkOptions::new(name, IMAGENET_CLASSES)),
            Source::Weights(path) => Self::from_model(&path)?,
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
        let recipe = Recipe::try_from(file.clone().or_batch(1))?;
        let input_size = Some(recipe.input.size);
        let options = recipe.model.with_classes(IMAGENET_CLASSES);
        Ok(Self { input_size, recipe: Some(file), ..Self::from_options(options) })
    }

    /// Reads a model file, or weights of another library.
    fn from_model(path: &Path) -> Result<Self, CliError> {
        let card = match read_card(path) {
            Ok(card) => card,
            Err(_) => open_model(path, &device::parse("cpu")?, &NEVER)?.card,
        };
        let input_size = Some(card.preprocess.crop);
        Ok(Self { input_size, ..Self::from_options(card.architecture.clone()) }.with_card(card))
    }

    fn with_card(self, card: ModelCard) -> Self {
        Self { card: Some(card), ..self }
    }
}

/// Opens a model that [`locate`] finds; weights of another library as `mbconv import` reads them.
/// Prints the origin of imported weights.
pub fn open_model(model: &Path, device: &Device, stop: &AtomicBool) -> Result<Model, CliError> {
    let path = locate(model, stop)?;
    let opened = load_weights(&path, &ImportOptions::default(), device);
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
pub fn open_classifier(model: &Path, device: &Device, stop: &AtomicBool) -> Result<Model, CliError> {
    open_uncalibrated(model, device, stop).map(Model::calibrated)
}

/// A classifier that is ready for inference.
pub struct ReadyModel {
    /// The metadata.
    pub card: ModelCard,
    /// The network. Its logits are divided by the temperature of a calibrated model.
    pub inference: Inference,
    /// The network in single precision, if the model does not have 8 bits.
    pub network: Option<Network>,
    /// The device.
    pub device: Device,
    /// Path of the file.
    pub path: PathBuf,
}

/// Opens a model like [`open_uncalibrated`], or an 8-bit model, for inference.
///
/// # Errors
/// A device or precision that the model does not support.
pub fn open_ready(
    model: &Path,
    device: &DeviceArgs,
    dtype: &DtypeArgs,
    stop: &AtomicBool,
) -> Result<ReadyModel, CliError> {
    let path = locate(model, stop)?;
    if is_quantized(&path) {
        dtype.check_8_bits()?;
        let device = device.open_for_8_bits()?;
        let model = QuantizedModel::open(&path)?;
        let card = model.card.clone();
        let model = model.calibrated();
        return Ok(ReadyModel { card, inference: model.inference(), network: None, device, path: model.path });
    }
    let device = device.open()?;
    let precision = dtype.check(&device)?;
    let model = open_uncalibrated(&path, &device, stop)?;
    let card = model.card.clone();
    let Model { network, path, .. } = model.calibrated();
    Ok(ReadyModel { card, inference: precision.inference(&network), network: Some(network), device, path })
}

/// Returns whether the file or run folder contains an 8-bit model.
pub fn is_quantized(path: &Path) -> bool {
    read_card(path).is_ok_and(|card| card.quantization.is_some())
}

/// Opens a model like [`open_classifier`], without including the temperature in the weights.
pub fn open_uncalibrated(model: &Path, device: &Device, stop: &AtomicBool) -> Result<Model, CliError> {
    let opened = open_model(model, device, stop)?;
    if opened.card.classes.len() < 2 {
        return Err(CliError::new(
            format!("the model {} has a single class: its probability is 1 for every image", model.display()),
            "train or fine-tune it on two classes or more".to_string(),
        ));
    }
    Ok(opened)
}
