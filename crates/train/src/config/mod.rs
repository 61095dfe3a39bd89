//! Recipes: all settings of a training run in one TOML file.
//!
//! Parsing a recipe gives a [`RecipeFile`], with checked keys. Converting it to a [`Recipe`] checks
//! the values too. Runs accept only a [`Recipe`]. Each section is a module. Its struct is the only
//! list of its keys: types, defaults, ranges and descriptions in [`RecipeFile::schema`], in
//! [`sections`] and in `docs/recipes.md` are derived from it, and values are checked against the
//! ranges of the schema. The module checks what depends on several values.

mod augment;
mod batch_size;
pub(crate) mod checkpoint;
pub(crate) mod data;
mod defaults;
pub(crate) mod ema;
pub(crate) mod embedded;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod finetune;
mod for_data;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod loss;
pub(crate) mod mix;
pub(crate) mod model;
pub(crate) mod optimizer;
pub(crate) mod quantization;
mod range;
pub(crate) mod resume;
pub(crate) mod schedule;
mod schema;
mod setting;
mod suggest;

pub use checkpoint::{CheckpointConfig, Metric};
pub use data::DataConfig;
pub use ema::EmaConfig;
pub use embedded::{EMBEDDED, EmbeddedRecipe, read_recipe};
pub use error::RecipeError;
pub use file::{OnNan, Recipe, RecipeFile, line_of};
pub use finetune::{FinetuneConfig, Freeze};
pub use input::{CropKind, InputConfig, ProgressiveConfig};
pub use keys::{Choice, Key, Section, sections};
pub use loss::{ClassWeights, DistillationConfig, DistillationKind, LossConfig, LossName};
pub use mix::{MixConfig, MixMode};
pub use model::{is_table, read_table};
pub use optimizer::{OptimizerConfig, OptimizerName};
pub use quantization::QuantizationConfig;
pub use resume::RESUMABLE;
pub use schedule::{Curve, ScheduleConfig};
pub use suggest::nearest;
