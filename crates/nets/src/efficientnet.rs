//! EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
//! <https://arxiv.org/abs/1905.11946>.

use burn::config::Config;
use burn::tensor::Device;
use mbconv_kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::error::ArchitectureError;
use crate::network::Network;
use crate::stage_table::{Stage, StageTable};
use crate::types::{Padding, Strides};

/// Table 1 of the paper, found by architecture search: `(expansion, kernel, stride, channels,
/// repeats)`.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];
/// EfficientNet-EdgeTPU's table: fused blocks first, no squeeze-excitation
/// (<https://research.google/blog/efficientnet-edgetpu-creating-accelerator-optimized-neural-networks-with-automl/>).
/// The published code expands the first block from the stage's 24 channels instead of the stem's
/// 32, and the first stage has no residuals, even if depth scaling repeats it.
const EDGETPU_STAGES: [Stage; 6] = [
    Stage { expanded_from: Some(24), residual: false, ..stage(4, 3, 1, 24, 1).fused() },
    stage(8, 3, 2, 32, 2).fused(),
    stage(8, 3, 2, 48, 4).fused(),
    stage(8, 5, 2, 96, 5),
    stage(8, 5, 1, 144, 4),
    stage(8, 5, 2, 192, 2),
];
const STEM: usize = 32;
const HEAD: usize = 1280;
/// The squeeze-excitation bottleneck has a quarter of the block's input channels.
const SQUEEZE_DIVISOR: usize = 4;

const fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Stage {
    Stage::new(expansion, kernel, stride, channels, repeats)
}

/// The three published variants of EfficientNet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The paper's networks: squeeze-excitation and SiLU.
    #[default]
    Standard,
    /// EfficientNet-Lite: the same table with ReLU6 and without squeeze-excitation; scaling keeps
    /// the widths of stem and head and the depths of the first and last stage
    /// (<https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite>).
    Lite,
    /// EfficientNet-EdgeTPU: fused blocks, ReLU, no squeeze-excitation.
    EdgeTpu,
}

/// A published network: its compound-scaling coefficients and torchvision's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The part of its name after `efficientnet_`.
    pub suffix: &'static str,
    /// Variant.
    pub variant: Variant,
    /// Width multiplier.
    pub width: f64,
    /// Depth multiplier.
    pub depth: f64,
    /// Side of the training image.
    pub resolution: usize,
    /// Dropout before the classifier.
    pub dropout: f64,
    /// Epsilon of batch-norm.
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it.
    pub norm_momentum: f64,
}

/// The published networks, with the authors' rounded coefficients. From B5 on, torchvision keeps
/// the original batch-norm constants. Lite3 and Lite4 have the resolutions timm evaluates its
/// weights at.
pub const PUBLISHED: [Published; 18] = [
    published("b0", Variant::Standard, [1.0, 1.0], 224, 0.2, [1e-5, 0.1]),
    published("b1", Variant::Standard, [1.0, 1.1], 240, 0.2, [1e-5, 0.1]),
    published("b2", Variant::Standard, [1.1, 1.2], 260, 0.3, [1e-5, 0.1]),
    published("b3", Variant::Standard, [1.2, 1.4], 300, 0.3, [1e-5, 0.1]),
    published("b4", Variant::Standard, [1.4, 1.8], 380, 0.4, [1e-5, 0.1]),
    published("b5", Variant::Standard, [1.6, 2.2], 456, 0.4, [1e-3, 0.01]),
    published("b6", Variant::Standard, [1.8, 2.6], 528, 0.5, [1e-3, 0.01]),
    published("b7", Variant::Standard, [2.0, 3.1], 600, 0.5, [1e-3, 0.01]),
    published("b8", Variant::Standard, [2.2, 3.6], 672, 0.5, [1e-3, 0.01]),
    published("l2", Variant::Standard, [4.3, 5.3], 800, 0.5, [1e-3, 0.01]),
    published("lite0", Variant::Lite, [1.0, 1.0], 224, 0.2, [1e-5, 0.1]),
    published("lite1", Variant::Lite, [1.0, 1.1], 240, 0.2, [1e-5, 0.1]),
    published("lite2", Variant::Lite, [1.1, 1.2], 260, 0.3, [1e-5, 0.1]),
    published("lite3", Variant::Lite, [1.2, 1.4], 300, 0.3, [1e-5, 0.1]),
    published("lite4", Variant::Lite, [1.4, 1.8], 380, 0.3, [1e-5, 0.1]),
    published("es", Variant::EdgeTpu, [1.0, 1.0], 224, 0.2, [1e-5, 0.1]),
    published("em", Variant::EdgeTpu, [1.0, 1.1], 240, 0.2, [1e-5, 0.1]),
    published("el", Variant::EdgeTpu, [1.2, 1.4], 300, 0.3, [1e-5, 0.1]),
];

const fn published(
    suffix: &'static str,
    variant: Variant,
    [width, depth]: [f64; 2],
    resolution: usize,
    dropout: f64,
    [norm_epsilon, norm_momentum]: [f64; 2],
) -> Published {
    Published { suffix, variant, width, depth, resolution, dropout, norm_epsilon, norm_momentum }
}

/// EfficientNet at any width and depth; [`b0`](Self::b0) and [`named`](Self::named) give the named
/// ones.
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
    pub num_classes: usize,
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
    /// Stochastic depth: drop probability of the last block's branch, growing linearly from 0 at
    /// the first.
    #[config(default = 0.2)]
    pub drop_path: f64,
    /// Strides of the stem and the stages.
    #[config(default = "Strides::Imagenet")]
    pub strides: Strides,
    /// Epsilon of batch-norm.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
    /// Side of the training image.
    #[config(default = 224)]
    pub resolution: usize,
    /// Variant.
    #[config(default = "Variant::Standard")]
    pub variant: Variant,
    /// Zero padding.
    #[config(default = "Padding::Symmetric")]
    pub padding: Padding,
}

impl EfficientNetConfig {
    /// EfficientNet-B0, the searched baseline.
    pub fn b0(num_classes: usize) -> Self {
        Self::new(num_classes)
    }

    /// EfficientNet-B`number`, or `None` above B8.
    pub fn published(number: usize, num_classes: usize) -> Option<Self> {
        Self::named(&format!("b{number}"), num_classes)
    }

    /// A published network by the part of its name after `efficientnet_`: `b0` to `b8`, `l2`,
    /// `lite0` to `lite4`, `es`, `em` or `el`.
    pub fn named(suffix: &str, num_classes: usize) -> Option<Self> {
        let &Published { variant, width, depth, resolution, dropout, norm_epsilon, norm_momentum, .. } =
            PUBLISHED.iter().find(|published| published.suffix == suffix)?;
        let config = Self::new(num_classes);
        Some(Self { variant, width, depth, resolution, dropout, norm_epsilon, norm_momentum, ..config })
    }

    /// Returns the variant's table with these options.
    pub fn stage_table(&self) -> StageTable {
        let (stages, squeeze_divisor, activation): (&[Stage], _, _) = match self.variant {
            Variant::Standard => (&STAGES, SQUEEZE_DIVISOR, Activation::Silu),
            Variant::Lite => (&STAGES, 0, Activation::Relu6),
            Variant::EdgeTpu => (&EDGETPU_STAGES, 0, Activation::Relu),
        };
        StageTable {
            resolution: self.resolution,
            width: self.width,
            depth: self.depth,
            fixed_ends: self.variant == Variant::Lite,
            stem: STEM,
            head: HEAD,
            squeeze_divisor,
            activation,
            norm_epsilon: self.norm_epsilon,
            norm_momentum: self.norm_momentum,
            padding: self.padding,
            dropout: self.dropout,
            drop_path: self.drop_path,
            ..StageTable::new("efficientnet", stages.to_vec())
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
        self.architecture().unwrap_or_else(|error| panic!("EfficientNetConfig: {error}")).init(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edgetpu_first_stage_has_no_residuals() {
        // timm marks that stage `noskip`; in M and L its depth is 2.
        for (suffix, first) in [("es", 1), ("em", 2), ("el", 2)] {
            let blocks = EfficientNetConfig::named(suffix, 10).unwrap().architecture().unwrap().blocks;
            assert_eq!(blocks.iter().filter(|block| block.stage == 0).count(), first, "{suffix}");
            for block in &blocks {
                assert_eq!(block.residual, block.stage > 0 && block.index > 0, "{suffix}: {block:?}");
            }
        }
        let b1 = EfficientNetConfig::named("b1", 10).unwrap().architecture().unwrap();
        assert!(b1.blocks.iter().all(|block| block.residual == (block.index > 0)));
    }
}
