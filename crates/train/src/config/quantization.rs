//! `[quantization]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[quantization]`: quantization-aware training. The section enables it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizationConfig {
    /// Number of epochs at the beginning that update the running statistics of batch-norms. Later
    /// epochs use them as they are, as the 8-bit network does. `finetune.freeze_norms` freezes them
    /// from the beginning.
    pub norm_epochs: usize,
    /// Number of epochs at the beginning that update the ranges of the activations: moving averages
    /// of the smallest and largest value of each batch. With 0, the first batch sets them.
    pub range_epochs: usize,
}

impl Default for QuantizationConfig {
    /// The defaults of torchvision's `train_quantization.py`.
    fn default() -> Self {
        Self { norm_epochs: 3, range_epochs: 4 }
    }
}
