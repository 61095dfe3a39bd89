//! `[model]`.

use mbconv_nets::{ArchitectureOptions, Strides};
use serde::{Deserialize, Serialize};

/// `[model]`: an architecture by name; the number of classes comes from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name, as `mbconv list` shows them.
    pub name: String,
    /// Channels of the input image: 3 for colour, 1 for grey.
    #[serde(default = "three", skip_serializing_if = "is_three")]
    pub input_channels: usize,
    /// Strides: `"imagenet"`, `"cifar"` or a list.
    #[serde(default)]
    pub strides: Strides,
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
}

fn three() -> usize {
    3
}
fn is_three(channels: &usize) -> bool {
    *channels == three()
}

impl ModelConfig {
    /// The named architecture for `classes` classes.
    pub fn options(&self, classes: usize) -> ArchitectureOptions {
        ArchitectureOptions {
            input_channels: self.input_channels,
            strides: self.strides.clone(),
            dropout: self.dropout,
            drop_path: self.drop_path,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            ..ArchitectureOptions::new(&self.name, classes)
        }
    }
}
