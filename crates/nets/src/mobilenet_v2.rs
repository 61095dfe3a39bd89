//! MobileNetV2: Inverted Residuals and Linear Bottlenecks, <https://arxiv.org/abs/1801.04381>.

use burn::config::Config;
use burn::tensor::Device;
use mbconv_kernels::Activation;

use crate::architecture::{Blueprint, Choices, round_channels_to};
use crate::{Architecture, ArchitectureError, Family, Initialisation, Network, Padding, Stage, Strides};

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
/// let model = MobileNetV2Config::new(10).with_width(0.5).with_strides(Strides::Cifar).init(&Device::default());
/// assert_eq!(model.architecture().total_stride(), 8);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct MobileNetV2Config {
    /// Number of classes.
    pub classes: usize,
    /// Width multiplier: scales every layer's channels; the head stays at 1280 below 1 (paper, section 4.1).
    #[config(default = 1.0)]
    pub width: f64,
    /// Channels are multiples of this (torchvision's `round_nearest`).
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
    /// Stochastic depth: drop probability of the last block's branch, growing linearly from 0 at the first.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Strides of the stem and the stages.
    #[config(default = "Strides::Imagenet")]
    pub strides: Strides,
    /// Stem and head keep their width, the first and the last stage their depth (timm's 110d and 120d).
    #[config(default = false)]
    pub fixed_ends: bool,
    /// ε of batch-norm.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, in PyTorch's sense.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
    /// Zeros around maps.
    #[config(default = "Padding::Symmetric")]
    pub padding: Padding,
}

impl MobileNetV2Config {
    /// The network as data.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        let head = match self.fixed_ends {
            true => HEAD,
            false => round_channels_to(HEAD as f64 * self.width.max(1.0), self.round_nearest.max(1)),
        };
        let blueprint = Blueprint {
            family: Family::MobileNetV2,
            stages: &STAGES,
            width: self.width,
            divisor: self.round_nearest,
            depth: self.depth,
            fixed_ends: self.fixed_ends,
            stem: STEM,
            head,
            stem_stride: 2,
            squeeze_divisor: None,
            activation: Activation::Relu6,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            padding: self.padding,
            initialisation: Initialisation::FanOut,
            resolution: 224,
        };
        let choices = Choices {
            classes: self.classes,
            input_channels: self.input_channels,
            dropout: self.dropout,
            drop_path: self.drop_path,
            strides: &self.strides,
        };
        Architecture::build(blueprint, choices)
    }

    /// Builds the network with freshly drawn weights.
    ///
    /// # Panics
    /// Where [`architecture`](Self::architecture) gives an error; call that first on values you did not write yourself.
    pub fn init(&self, device: &Device) -> Network {
        self.architecture().unwrap_or_else(|error| panic!("MobileNetV2Config: {error}")).init(device)
    }
}
