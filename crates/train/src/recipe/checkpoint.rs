//! `[checkpoint]`.

use serde::{Deserialize, Serialize};

use super::{RecipeError, ensure};

/// `[checkpoint]`: what is saved, and when. A run may be resumed with other values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Minutes from one checkpoint to the next within an epoch; 0 saves at the end of epochs only.
    pub minutes: f64,
    /// Models of the last so many epochs are kept in `epochs/`, besides `last.safetensors`.
    pub keep_last: usize,
    /// Models of the best so many epochs are kept in `epochs/`, besides `best.safetensors`.
    pub keep_best: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { minutes: 10.0, keep_last: 0, keep_best: 0 }
    }
}

impl CheckpointConfig {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        ensure((0.0..=1e6).contains(&self.minutes), "checkpoint.minutes", self.minutes, "between 0 and 1e6")
    }
}
