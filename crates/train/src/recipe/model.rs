//! `[model]`.

use std::path::{Path, PathBuf};

use mbconv_nets::{ArchitectureOptions, StageTable, Strides};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::RecipeError;

/// `[model]`: an architecture by name or by its stage table; the number of classes comes from the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name, as `mbconv list` shows them; the table's, where there is one.
    #[serde(default)]
    pub name: String,
    /// Channels of the input image: 3 for colour, 1 for grey.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub input_channels: usize,
    /// Strides: `"imagenet"`, `"cifar"` or a list.
    #[serde(default)]
    pub strides: Strides,
    /// Width multiplier; the name's or the table's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Depth multiplier; the name's or the table's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    /// Dropout before the classifier; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Stochastic depth at the last block; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// ε of batch-norm; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_epsilon: Option<f64>,
    /// Momentum of batch-norm, in PyTorch's sense; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_momentum: Option<f64>,
    /// A stage table instead of a known name: here, or in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableSource>,
}

/// Where a stage table is. Reading a recipe puts what a file holds in its place, so that recipes and model files are whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TableSource {
    /// In a TOML file, beside the recipe or in the working folder.
    File(PathBuf),
    /// Here.
    Inline(Box<StageTable>),
}

impl<'de> Deserialize<'de> for TableSource {
    /// Text is a path, a table is one: unlike serde's own, this way keeps what is wrong with the table.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrTable;
        impl<'de> Visitor<'de> for PathOrTable {
            type Value = TableSource;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("the path of a stage table, or a stage table")
            }
            fn visit_str<E: Error>(self, path: &str) -> Result<TableSource, E> {
                Ok(TableSource::File(path.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TableSource, A::Error> {
                let table = StageTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(TableSource::Inline(Box::new(table)))
            }
        }
        deserializer.deserialize_any(PathOrTable)
    }
}

fn three() -> usize {
    3
}
fn is_three(channels: &usize) -> bool {
    *channels == three()
}

impl ModelConfig {
    /// The architecture of these options, but for its classes and resolution, which are the data's.
    pub fn of(options: &ArchitectureOptions) -> Self {
        let ArchitectureOptions {
            name,
            input_channels,
            strides,
            width,
            depth,
            dropout,
            drop_path,
            norm_epsilon,
            norm_momentum,
            ..
        } = options.clone();
        let table = options.table.clone().map(|table| TableSource::Inline(Box::new(table)));
        Self { name, input_channels, strides, width, depth, dropout, drop_path, norm_epsilon, norm_momentum, table }
    }

    /// The architecture for `classes` classes.
    pub fn options(&self, classes: usize) -> ArchitectureOptions {
        let table = match &self.table {
            Some(TableSource::Inline(table)) => Some((**table).clone()),
            Some(TableSource::File(_)) | None => None,
        };
        let name = match &table {
            Some(table) if self.name.is_empty() => table.name.clone(),
            _ => self.name.clone(),
        };
        ArchitectureOptions {
            input_channels: self.input_channels,
            strides: self.strides.clone(),
            dropout: self.dropout,
            drop_path: self.drop_path,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            width: self.width,
            depth: self.depth,
            table,
            ..ArchitectureOptions::new(name, classes)
        }
    }

    /// Puts the table in the place of the file's path.
    pub(super) fn load_table(&mut self, folder: &Path) -> Result<(), RecipeError> {
        if let Some(TableSource::File(file)) = &self.table {
            let beside = folder.join(file);
            let path = if beside.is_file() { &beside } else { file };
            self.table = Some(TableSource::Inline(Box::new(read_table(path)?)));
        }
        Ok(())
    }
}

/// Reads a stage table from a TOML file.
///
/// # Errors
/// A file that cannot be read, or what is wrong in it, with line and column.
pub fn read_table(path: &Path) -> Result<StageTable, RecipeError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Table { path: shown.clone(), source })?;
    toml::from_str(&text)
        .map_err(|error| RecipeError::Parse { path: shown, message: error.to_string().trim_end().into() })
}

/// Is it a stage table, rather than a recipe, that the TOML text holds? Of text that is no TOML: is one begun?
pub fn is_table(text: &str) -> bool {
    match text.parse::<toml::Table>() {
        Ok(table) => table.contains_key("stages") || table.contains_key("name"),
        Err(_) => text.lines().any(|line| line.trim_start().starts_with("[[stages")),
    }
}
