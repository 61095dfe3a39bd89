//! Writing of a model folder.

use std::path::Path;

use mbconv_nets::Network;
use mbconv_nets::weights::Precision;
use serde_json::Value;

use mbconv_files::write_folder_atomically;

use super::error::FolderError;
use super::library::{Library, WEIGHTS, last_part};
use super::{readme, timm, transformers};
use crate::model_file::{Model, ModelCard};

/// Names of all files of both libraries' folders. An existing folder with any other file is not
/// replaced.
const FILES: [&str; 4] = [WEIGHTS, "config.json", "preprocessor_config.json", "README.md"];

/// Returns the configuration files of a model for `library`, by name.
///
/// # Errors
/// A network that the library does not have.
pub fn configuration(library: Library, card: &ModelCard) -> Result<Vec<(&'static str, Value)>, FolderError> {
    match library {
        Library::Timm => Ok(vec![("config.json", timm::config(card)?)]),
        Library::Transformers => Ok(vec![
            ("config.json", transformers::config(card)?),
            ("preprocessor_config.json", transformers::processor(card)),
        ]),
    }
}

/// Writes a model as a folder for `library`, atomically. The card in the weights file contains no
/// paths of folders on this machine.
///
/// # Errors
/// See [`FolderError`].
pub fn write(
    network: &Network,
    card: &ModelCard,
    library: Library,
    precision: Precision,
    folder: &Path,
) -> Result<(), FolderError> {
    let card = without_folders(card);
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, json) in configuration(library, &card)? {
        files.push((name, format!("{json:#}\n").into_bytes()));
    }
    files.push(("README.md", readme::text(&card, library, folder).into_bytes()));
    files.push((WEIGHTS, Model::to_bytes(network, &card, library.layout(), precision)?));
    write_folder_atomically(folder, &files, &FILES)
        .map_err(|source| FolderError::Write { path: folder.display().to_string(), source })
}

/// Returns the card with only the last parts of the paths in its recipe.
fn without_folders(card: &ModelCard) -> ModelCard {
    let mut card = card.clone();
    for key in ["/data/path", "/finetune/weights", "/distillation/teacher"] {
        if let Some(Value::String(path)) = card.recipe.as_mut().and_then(|recipe| recipe.pointer_mut(key)) {
            *path = last_part(path).into();
        }
    }
    card
}
