//! Recipes: all settings of a training run in one TOML file.
//!
//! Parsing a recipe gives a [`RecipeFile`], with checked keys. Converting it to a [`Recipe`] checks
//! the values too. Runs accept only a [`Recipe`]. Each section is a module, which also checks its
//! values.

mod augment;
pub(crate) mod checkpoint;
pub(crate) mod data;
mod defaults;
pub(crate) mod ema;
pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod finetune;
pub(crate) mod input;
pub(crate) mod loss;
pub(crate) mod mix;
pub(crate) mod model;
pub(crate) mod optimizer;
pub(crate) mod resume;
pub(crate) mod schedule;
mod setting;

pub use checkpoint::CheckpointConfig;
pub use data::DataConfig;
pub use ema::EmaConfig;
pub use error::RecipeError;
pub use file::{OnNan, Recipe, RecipeFile};
pub use finetune::{FinetuneConfig, Freeze};
pub use input::{CropKind, InputConfig, ProgressiveConfig};
pub use loss::{ClassWeights, DistillationConfig, DistillationKind, LossConfig, LossName};
pub use mix::{MixConfig, MixMode};
pub use model::{is_table, read_table};
pub use optimizer::{OptimizerConfig, OptimizerName};
pub use resume::RESUMABLE;
pub use schedule::{Curve, ScheduleConfig};
