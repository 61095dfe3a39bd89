//! Recipes in the program: those of the repository's `configs/`.

use std::path::{Path, PathBuf};

use super::error::RecipeError;
use super::suggest::nearest;
use crate::history::RECIPE;

/// A recipe in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedRecipe {
    /// Name of the file in `configs/`, without its extension.
    pub name: &'static str,
    /// Contents of the file.
    pub text: &'static str,
}

macro_rules! embedded {
    ($($name:literal),+ $(,)?) => {
        &[$(EmbeddedRecipe { name: $name, text: include_str!(concat!("../../configs/", $name, ".toml")) }),+]
    };
}

/// All recipes of `configs/`.
pub const EMBEDDED: &[EmbeddedRecipe] = embedded![
    "digits",
    "photos_mobilenet_v2",
    "cifar10_mobilenet_v2_cpu",
    "cifar10_mobilenet_v2_cpu_long",
    "cifar10_mobilenet_v2",
    "cifar10_efficientnet_b0",
    "cifar10_proxy",
    "cifar100_mobilenet_v2",
    "cifar100_efficientnet_b0",
    "imagenette_mobilenet_v2",
    "imagenette_efficientnet_b0",
    "imagenet_mobilenet_v2",
    "imagenet_efficientnet_b0",
];

impl EmbeddedRecipe {
    /// Returns the recipe of this name.
    pub fn named(name: &str) -> Option<Self> {
        EMBEDDED.iter().find(|recipe| recipe.name == name).copied()
    }

    /// Returns the first line of the recipe's comment.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}

/// Reads a recipe given as a file, a run folder or the name of a recipe in the program. Existing
/// paths take precedence over names. Returns its path, or its name, and its text.
///
/// # Errors
/// A file that cannot be read, or neither a file nor a name.
pub fn read_recipe(recipe: &Path) -> Result<(PathBuf, String), RecipeError> {
    let in_run = recipe.join(RECIPE);
    let path = if in_run.is_file() { in_run.as_path() } else { recipe };
    let name = recipe.to_str().unwrap_or_default();
    if !path.is_file()
        && let Some(embedded) = EmbeddedRecipe::named(name)
    {
        return Ok((name.into(), embedded.text.into()));
    }
    let text = std::fs::read_to_string(path).map_err(|source| {
        let stem = recipe.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let similar = nearest(stem, EMBEDDED.iter().map(|recipe| recipe.name));
        let is_name = recipe.components().count() == 1 && recipe.extension().is_none() && !recipe.exists();
        match is_name {
            true => RecipeError::Unknown { name: name.into(), similar },
            false => RecipeError::Read { path: path.display().to_string(), source, similar },
        }
    })?;
    Ok((path.to_path_buf(), text))
}
