//! `[ema]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[ema]`: exponential moving average of the weights. The section enables it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Decay factor of the average.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub decay: f64,
    /// Use the smaller decay `min(decay, (1 + n) / (10 + n))` at step `n`, as in TensorFlow.
    /// Otherwise, the average of a short run remains close to the initial weights.
    pub warmup: bool,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.9999, warmup: true }
    }
}

impl EmaConfig {
    /// Returns the decay factor after `updates` updates of the average.
    pub fn decay_at(&self, updates: usize) -> f64 {
        let n = updates as f64;
        if self.warmup { self.decay.min((1.0 + n) / (10.0 + n)) } else { self.decay }
    }
}
