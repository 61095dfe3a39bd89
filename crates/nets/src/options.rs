//! The options of a network: the `[model]` table of a recipe, and the network of a model file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use crate::architecture::Architecture;
use crate::error::{ArchitectureError, check};
use crate::limits::{MAX_MULTIPLIER, MAX_RESOLUTION, MIN_MULTIPLIER};
use crate::registry::{similar_name, stage_table};
use crate::stage_table::StageTable;
use crate::summary::trainable_parameters;
use crate::types::Strides;

/// Largest number of parameters of a custom network.
const MAX_PARAMETERS: usize = 100_000_000_000;

/// An architecture by name or stage table, with changes. Every option except the number of classes
/// has a default: the value of the named network or of the table.
///
/// ```
/// use mbconv_nets::NetworkOptions;
///
/// let half = NetworkOptions::new("mobilenet_v2_0.5", 10).architecture().unwrap();
/// assert_eq!(half.stem, 16);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{ "required": ["name"] }, { "required": ["table"] }]))]
pub struct NetworkOptions {
    /// Architecture, as listed by `mbconv list`, or the name of the stage table's network.
    #[serde(default)]
    pub name: String,
    /// Number of classes. In a recipe it comes from the data, and the key is not set.
    #[serde(default, rename = "classes", skip_serializing_if = "is_zero")]
    #[schemars(skip)]
    pub num_classes: usize,
    /// Channels of the input image: 3 for color, 1 for gray.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    #[schemars(extend("enum" = [1, 3], "default" = three()))]
    pub input_channels: usize,
    /// Strides of the stem and the stages.
    #[serde(default)]
    pub strides: Strides,
    /// Width multiplier; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = MIN_MULTIPLIER, max = MAX_MULTIPLIER))]
    pub width: Option<f64>,
    /// Depth multiplier; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = MIN_MULTIPLIER, max = MAX_MULTIPLIER))]
    pub depth: Option<f64>,
    /// Dropout probability before the classifier; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: Option<f64>,
    /// Stochastic depth: drop probability of the last block, to which those of the others rise
    /// linearly; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub drop_path: Option<f64>,
    /// Epsilon of batch-norm; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub norm_epsilon: Option<f64>,
    /// Momentum of batch-norm, as PyTorch defines it; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub norm_momentum: Option<f64>,
    /// Side of the image the network is made for, in pixels. In a recipe, `input.size` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub resolution: Option<usize>,
    /// Stage table of a custom network, instead of `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableSource>,
}

/// A stage table, or the path of a TOML file that holds one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TableSource {
    /// Path of a TOML file, relative to the recipe or to the working directory.
    File(PathBuf),
    /// The table itself.
    Inline(Box<StageTable>),
}

impl<'de> Deserialize<'de> for TableSource {
    /// A string is a path, a table is a stage table. Unlike serde's `untagged`, errors name the
    /// faulty key.
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
fn is_zero(classes: &usize) -> bool {
    *classes == 0
}

impl NetworkOptions {
    /// The named architecture as published.
    pub fn new(name: impl Into<String>, num_classes: usize) -> Self {
        Self { name: name.into(), num_classes, input_channels: three(), ..Self::default() }
    }

    /// The network of a stage table.
    pub fn of_table(table: StageTable, num_classes: usize) -> Self {
        let name = table.name.clone();
        Self { table: Some(TableSource::Inline(Box::new(table))), ..Self::new(name, num_classes) }
    }

    /// Returns the options without the number of classes and the resolution: the `[model]` table of
    /// a recipe.
    pub fn for_recipe(&self) -> Self {
        Self { num_classes: 0, resolution: None, ..self.clone() }
    }

    /// Returns the options with `num_classes` classes. A network without a name takes that of its
    /// table.
    pub fn with_classes(&self, num_classes: usize) -> Self {
        let name = match &self.table {
            Some(TableSource::Inline(table)) if self.name.is_empty() => table.name.clone(),
            _ => self.name.clone(),
        };
        Self { name, num_classes, ..self.clone() }
    }

    /// Returns the network's title: its name, and the multipliers that differ from the name's.
    pub fn title(&self) -> String {
        let multipliers = [("width", self.width), ("depth", self.depth)];
        let changes = multipliers.iter().filter_map(|(name, value)| value.map(|value| format!(" {name} {value}")));
        std::iter::once(self.name.clone()).chain(changes).collect()
    }

    /// Resolves the name or the table, and applies the changes.
    ///
    /// # Errors
    /// An unknown name, an invalid table, or a value outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        let table = match &self.table {
            Some(TableSource::Inline(table)) => (**table).clone(),
            Some(TableSource::File(path)) => {
                let (key, value) = ("table", path.display().to_string());
                return Err(ArchitectureError::OutOfRange { key, value, expected: "read from its file first" });
            }
            None => stage_table(&self.name).ok_or_else(|| ArchitectureError::UnknownName {
                name: self.name.clone(),
                similar: similar_name(&self.name),
            })?,
        };
        let table = self.changed(table);
        check((1..=MAX_RESOLUTION).contains(&table.resolution), "resolution", table.resolution, "between 1 and 8192")?;
        let architecture = Architecture::new(&table, self.num_classes, self.input_channels, &self.strides)?;
        if self.table.is_some() {
            architecture.check_side(architecture.resolution)?;
            // Refused here, before an allocation that exceeds any machine's memory.
            let parameters = trainable_parameters(&architecture);
            check(parameters <= MAX_PARAMETERS, "parameters", parameters, "at most 100000000000")?;
        }
        Ok(architecture)
    }

    /// Applies the changes to `table`.
    fn changed(&self, table: StageTable) -> StageTable {
        StageTable {
            width: self.width.unwrap_or(table.width),
            depth: self.depth.unwrap_or(table.depth),
            dropout: self.dropout.unwrap_or(table.dropout),
            drop_path: self.drop_path.unwrap_or(table.drop_path),
            norm_epsilon: self.norm_epsilon.unwrap_or(table.norm_epsilon),
            norm_momentum: self.norm_momentum.unwrap_or(table.norm_momentum),
            resolution: self.resolution.unwrap_or(table.resolution),
            ..table
        }
    }
}
