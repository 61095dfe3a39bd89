//! MobileNetV2: Inverted Residuals and Linear Bottlenecks, <https://arxiv.org/abs/1801.04381>.

use burn::config::Config;
use burn::tensor::Device;
use mbconv_kernels::Activation;

use crate::architecture::Architecture;
use crate::error::ArchitectureError;
use crate::network::Network;
use crate::stage_table::{HeadWidth, Stage, StageTable};
use crate::types::{Family, Padding, Strides};

/// Table 2 of the paper: `(t, c, n, s)`, every kernel 3×3.
const STAGES: [Stage; 7] = [
    stage(1, 16, 1, 1),
    stage(6, 24, 2, 2),
    stage(6, 32, 3, 2),
    stage(6, 64, 4, 2),
    stage(6, 96, 3, 1),
    stage(6, 160, 3, 2),
    stage(6, 320, 1, 1),
];
const STEM: usize = 32;
const HEAD: usize = 1280;

const fn stage(expansion: usize, channels: usize, repeats: usize, stride: usize) -> Stage {
    Stage::new(expansion, 3, stride, channels, repeats)
}

/// MobileNetV2 at any width multiplier, with torchvision's constants.
///
/// ```
/// use burn::tensor::Device;
/// use mbconv_nets::{MobileNetV2Config, Strides};
///
/// let config = MobileNetV2Config::new(10).with_width(0.5).with_strides(Strides::Cifar);
/// let model = config.init(&Device::default());
/// assert_eq!(model.architecture().total_stride(), 8);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct MobileNetV2Config {
    /// Number of classes.
    pub num_classes: usize,
    /// Width multiplier: scales every layer's channels; the head stays at 1280 below 1 (paper,
    /// section 4.1).
    #[config(default = 1.0)]
    pub width: f64,
    /// Channels are rounded to multiples of this (torchvision's `round_nearest`).
    #[config(default = 8)]
    pub round_nearest: usize,
    /// Depth multiplier: scales every stage's repeats.
    #[config(default = 1.0)]
    pub depth: f64,
    /// Channels of the input image.
    #[config(default = 3)]
    pub input_channels: usize,
    /// Dropout before the classifier.
    #[config(default = 0.2)]
    pub dropout: f64,
    /// Stochastic depth: drop probability of the last block's branch, growing linearly from 0 at
    /// the first.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Strides of the stem and the stages.
    #[config(default = "Strides::Imagenet")]
    pub strides: Strides,
    /// Keeps the widths of stem and head and the depths of the first and last stage (timm's 110d
    /// and 120d).
    #[config(default = false)]
    pub fixed_ends: bool,
    /// Epsilon of batch-norm.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
    /// Zero padding.
    #[config(default = "Padding::Symmetric")]
    pub padding: Padding,
}

impl MobileNetV2Config {
    /// Returns Table 2 of the paper with these options.
    pub fn stage_table(&self) -> StageTable {
        StageTable {
            family: Family::MobileNetV2,
            width: self.width,
            depth: self.depth,
            divisor: self.round_nearest,
            fixed_ends: self.fixed_ends,
            stem: STEM,
            head: HEAD,
            head_width: HeadWidth::Grown,
            squeeze_divisor: 0,
            activation: Activation::Relu6,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            padding: self.padding,
            dropout: self.dropout,
            drop_path: self.drop_path,
            ..StageTable::new("mobilenet_v2", STAGES.to_vec())
        }
    }

    /// Returns the network as data.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        Architecture::new(&self.stage_table(), self.num_classes, self.input_channels, &self.strides)
    }

    /// Builds the network with random weights.
    ///
    /// # Panics
    /// If [`architecture`](Self::architecture) returns an error. Call that first on untrusted
    /// values.
    pub fn init(&self, device: &Device) -> Network {
        self.architecture().unwrap_or_else(|error| panic!("MobileNetV2Config: {error}")).init(device)
    }
}
