//! Options of a network and of its layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_STRIDE;

/// Zero padding of convolutions with stride 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Equal numbers of zeros on every side, as in PyTorch.
    #[default]
    Symmetric,
    /// TensorFlow's `SAME`: the fewest zeros that give ⌈side / stride⌉ positions, the odd one at
    /// the end.
    Same,
}

/// The network family, which decides the key layout and the weight initialization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Sandler et al. 2018, <https://arxiv.org/abs/1801.04381>.
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
    /// Tan and Le 2019, <https://arxiv.org/abs/1905.11946>.
    #[serde(rename = "efficientnet")]
    #[default]
    EfficientNet,
}

impl Family {
    /// Returns the family's published initialization of convolutions.
    pub fn initialization(self) -> Initialization {
        match self {
            Self::MobileNetV2 => Initialization::FanOut,
            Self::EfficientNet => Initialization::FanOutPerGroup,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::MobileNetV2 => "MobileNetV2",
            Self::EfficientNet => "EfficientNet",
        })
    }
}

/// Initialization of convolutions: normal with standard deviation √(2 / fan-out).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initialization {
    /// fan-out = k²·C_out, also for depthwise convolutions (torchvision).
    #[default]
    FanOut,
    /// fan-out = k²·C_out / groups, so k² for a depthwise convolution (EfficientNet's code, timm).
    FanOutPerGroup,
}

/// Strides of the stem and of each stage.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strides {
    /// As published, for photographs: total stride 32.
    #[default]
    Imagenet,
    /// For 32-pixel images: the stem and the first stage with stride 2 keep the resolution, so the
    /// total stride is 8 (kuangliu/pytorch-cifar).
    Cifar,
    /// One stride for the stem, then one per stage.
    #[serde(untagged)]
    Custom(#[schemars(inner(range(min = 1, max = MAX_STRIDE)))] Vec<usize>),
}

/// Options that all layers of a network share. The default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerOptions {
    /// Zero padding.
    pub padding: Padding,
    /// Epsilon of batch-norm.
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it: the weight of the new value.
    pub norm_momentum: f64,
    /// Initialization of convolutions.
    pub initialization: Initialization,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            padding: Padding::Symmetric,
            norm_epsilon: 1e-5,
            norm_momentum: 0.1,
            initialization: Initialization::FanOut,
        }
    }
}
