//! EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, <https://arxiv.org/abs/1905.11946>.

use burn::config::Config;
use burn::tensor::Device;
use mbconv_kernels::Activation;

use crate::architecture::{Blueprint, Choices, round_channels};
use crate::{Architecture, ArchitectureError, Family, Initialisation, Network, Stage, Strides};

/// Table 1 of the paper, found by architecture search: `(expansion, kernel, stride, channels, repeats)`.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];
const STEM: usize = 32;
const HEAD: usize = 1280;
/// Squeeze-excitation narrows to a quarter of the block's input channels.
const SQUEEZE_DIVISOR: usize = 4;

const fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Stage {
    Stage { expansion, kernel, stride, channels, repeats }
}

/// Compound-scaling coefficients of a published network, and the constants torchvision gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Width multiplier.
    pub width: f64,
    /// Depth multiplier.
    pub depth: f64,
    /// Side of the training image.
    pub resolution: usize,
    /// Dropout before the classifier.
    pub dropout: f64,
    /// ε of batch-norm.
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, in PyTorch's sense.
    pub norm_momentum: f64,
}

/// B0 to B7, hand-rounded by the authors. From B5 on torchvision keeps the original's batch-norm constants.
pub const PUBLISHED: [Scaling; 8] = [
    scaling(1.0, 1.0, 224, 0.2, 1e-5, 0.1),
    scaling(1.0, 1.1, 240, 0.2, 1e-5, 0.1),
    scaling(1.1, 1.2, 260, 0.3, 1e-5, 0.1),
    scaling(1.2, 1.4, 300, 0.3, 1e-5, 0.1),
    scaling(1.4, 1.8, 380, 0.4, 1e-5, 0.1),
    scaling(1.6, 2.2, 456, 0.4, 1e-3, 0.01),
    scaling(1.8, 2.6, 528, 0.5, 1e-3, 0.01),
    scaling(2.0, 3.1, 600, 0.5, 1e-3, 0.01),
];

const fn scaling(
    width: f64,
    depth: f64,
    resolution: usize,
    dropout: f64,
    norm_epsilon: f64,
    norm_momentum: f64,
) -> Scaling {
    Scaling { width, depth, resolution, dropout, norm_epsilon, norm_momentum }
}

/// EfficientNet at any width and depth; [`b0`](Self::b0) and [`published`](Self::published) give the named ones.
///
/// ```
/// use mbconv_nets::EfficientNetConfig;
///
/// let b0 = EfficientNetConfig::b0(10).architecture().unwrap();
/// assert_eq!(b0.blocks.len(), 16);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct EfficientNetConfig {
    /// Number of classes.
    pub classes: usize,
    /// Width multiplier.
    #[config(default = 1.0)]
    pub width: f64,
    /// Depth multiplier.
    #[config(default = 1.0)]
    pub depth: f64,
    /// Channels of the input image.
    #[config(default = 3)]
    pub input_channels: usize,
    /// Dropout before the classifier.
    #[config(default = 0.2)]
    pub dropout: f64,
    /// Stochastic depth: drop probability of the last block's branch, growing linearly from 0 at the first.
    #[config(default = 0.2)]
    pub drop_path: f64,
    /// Strides of the stem and the stages.
    #[config(default = "Strides::Imagenet")]
    pub strides: Strides,
    /// ε of batch-norm.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, in PyTorch's sense.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
    /// Side of the training image.
    #[config(default = 224)]
    pub resolution: usize,
}

impl EfficientNetConfig {
    /// EfficientNet-B0, the searched baseline.
    pub fn b0(classes: usize) -> Self {
        Self::new(classes)
    }

    /// EfficientNet-B`number`, or `None` above [`PUBLISHED`].
    pub fn published(number: usize, classes: usize) -> Option<Self> {
        let Scaling { width, depth, resolution, dropout, norm_epsilon, norm_momentum } = *PUBLISHED.get(number)?;
        Some(Self { width, depth, resolution, dropout, norm_epsilon, norm_momentum, ..Self::new(classes) })
    }

    /// The network as data.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        let blueprint = Blueprint {
            family: Family::EfficientNet,
            stages: &STAGES,
            width: self.width,
            depth: self.depth,
            stem: STEM,
            head: round_channels(HEAD as f64 * self.width),
            squeeze_divisor: Some(SQUEEZE_DIVISOR),
            activation: Activation::Silu,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            initialisation: Initialisation::FanOutPerGroup,
            resolution: self.resolution,
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
        self.architecture().unwrap_or_else(|error| panic!("EfficientNetConfig: {error}")).init(device)
    }
}
