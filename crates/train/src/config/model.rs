//! `[model]`: the network's options, and its stage table.

use std::path::Path;

use mbconv_nets::registry::canonical_name;
use mbconv_nets::{NetworkOptions, StageTable, TableSource};

use super::error::RecipeError;
use super::schema::schema_of;
use super::suggest::hint;

/// Replaces the path of a stage table by the table, so that recipes and model files are
/// self-contained, and another library's name of an architecture by the name used here.
pub(super) fn resolve(model: &mut NetworkOptions, folder: &Path) -> Result<(), RecipeError> {
    if model.table.is_none() {
        model.name = canonical_name(&model.name);
    }
    if let Some(TableSource::File(file)) = &model.table {
        let beside = folder.join(file);
        let path = if beside.is_file() { &beside } else { file };
        model.table = Some(TableSource::Inline(Box::new(read_table(path)?)));
    }
    Ok(())
}

/// Reads a stage table from a TOML file.
///
/// # Errors
/// A file that cannot be read, or a syntax error with line and column.
pub fn read_table(path: &Path) -> Result<StageTable, RecipeError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Table { path: shown.clone(), source })?;
    toml::from_str(&text).map_err(|error| {
        let table: Option<toml::Table> = text.parse().ok();
        let hint = table.and_then(|table| hint(&schema_of::<StageTable>(), &table, "model.table"));
        RecipeError::Parse { path: shown, message: error.to_string().trim_end().into(), hint }
    })
}

/// Returns whether TOML text is a stage table rather than a recipe. Invalid TOML counts as one if
/// it contains rows of stages.
pub fn is_table(text: &str) -> bool {
    match text.parse::<toml::Table>() {
        Ok(table) => table.contains_key("stages") || table.contains_key("name"),
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("[[stages")),
    }
}
