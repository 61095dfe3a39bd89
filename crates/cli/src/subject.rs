//! What commands about networks are asked of: an architecture by name, a model file, a run, a recipe, a stage table.

use std::path::Path;

use mbconv_nets::NetworkOptions;
use mbconv_train::model_file::{ModelCard, read_card};
use mbconv_train::recipe::{RecipeFile, is_table, read_table};
use mbconv_train::{Recipe, device};

use crate::commands::open_model;
use crate::failure::Failure;

/// Classes of an architecture that comes without any: ImageNet's.
pub const CLASSES: usize = 1000;

/// A network, and how it came.
pub struct Subject {
    /// The network.
    pub options: NetworkOptions,
    /// Side of the images that a model or recipe is for.
    pub input_size: Option<usize>,
    /// A model file's card.
    pub card: Option<ModelCard>,
    /// The recipe that it stands in.
    pub recipe: Option<RecipeFile>,
}

impl Subject {
    /// Finds it; without `classes` it has its model's, or ImageNet's.
    pub fn find(text: &str, classes: Option<usize>) -> Result<Self, Failure> {
        let path = Path::new(text);
        let plain = |options| Self { options, input_size: None, card: None, recipe: None };
        let mut subject = if path.extension().is_some_and(|extension| extension == "toml") {
            if std::fs::read_to_string(path).is_ok_and(|text| is_table(&text)) {
                plain(NetworkOptions::of_table(read_table(path)?, CLASSES))
            } else {
                let file = RecipeFile::read(path, &[])?;
                let recipe = Recipe::try_from(file.clone())?;
                let input_size = Some(recipe.input.size);
                Self { input_size, recipe: Some(file), ..plain(recipe.model.with_classes(CLASSES)) }
            }
        } else if path.exists() || text.ends_with(".safetensors") {
            let card = match read_card(path) {
                Ok(card) => card,
                // Another program's weights, or neither.
                Err(_) => open_model(path, &device::parse("cpu")?)?.card,
            };
            Self { input_size: Some(card.preprocess.crop), ..plain(card.architecture.clone()) }.with_card(card)
        } else {
            plain(NetworkOptions::new(text, CLASSES))
        };
        subject.options.num_classes = classes.unwrap_or(subject.options.num_classes);
        Ok(subject)
    }

    fn with_card(self, card: ModelCard) -> Self {
        Self { card: Some(card), ..self }
    }
}
