//! `[checkpoint]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[checkpoint]`: frequency of checkpoints and models to keep. A resumed run may change all of
/// these settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Minutes between checkpoints within an epoch; 0 saves only at the end of epochs.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub minutes: f64,
    /// Number of last epochs whose models are kept in `epochs/`, in addition to `last.safetensors`.
    pub keep_last: usize,
    /// Number of best epochs whose models are kept in `epochs/`, in addition to `best.safetensors`.
    pub keep_best: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { minutes: 10.0, keep_last: 0, keep_best: 0 }
    }
}
