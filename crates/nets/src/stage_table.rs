//! Stage tables: a network as the papers describe it, one row per stage.
//!
//! MobileNetV2 and EfficientNet are such tables in Rust; a custom network is one in TOML:
//!
//! ```toml
//! name = "pocket"
//! stem = 16
//! head = 640
//! activation = "relu6"
//! squeeze_divisor = 4
//!
//! [[stages]]
//! channels = 16
//!
//! [[stages]]
//! expansion = 6
//! kernel = 5
//! stride = 2
//! channels = 24
//! repeats = 2
//! ```

use mbconv_kernels::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{
    MAX_CHANNELS, MAX_DIVISOR, MAX_EXPANSION, MAX_KERNEL, MAX_MULTIPLIER, MAX_REPEATS, MAX_RESOLUTION, MAX_STAGES,
    MAX_STRIDE, MIN_MULTIPLIER,
};
use crate::scaling::{round_channels_to, round_repeats};
use crate::types::{Family, Padding};

/// One row of a stage table, before scaling. Only `channels` is required in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Expansion factor `t`: the expanded width is `t` times the block's input channels.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_EXPANSION))]
    pub expansion: usize,
    /// Kernel size of the depthwise convolution.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = MAX_KERNEL))]
    pub kernel: usize,
    /// Stride of the stage's first block; the others have stride 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_STRIDE))]
    pub stride: usize,
    /// Output channels at width 1.
    #[schemars(range(min = 1, max = MAX_CHANNELS))]
    pub channels: usize,
    /// Number of blocks at depth 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_REPEATS))]
    pub repeats: usize,
    /// Whether one dense k×k convolution replaces expansion and depthwise convolution.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub fused: bool,
    /// Channels at width 1 that the first block's expansion factor multiplies, if not its input
    /// channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_CHANNELS))]
    pub expanded_from: Option<usize>,
    /// Whether blocks with equal input and output shapes have a residual connection.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    #[schemars(extend("default" = yes()))]
    pub residual: bool,
    /// Whether the stage has squeeze-excitation, if the network has.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    #[schemars(extend("default" = yes()))]
    pub squeeze: bool,
}

impl Stage {
    /// A stage of inverted residuals.
    pub const fn new(expansion: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Self {
        Self {
            expansion,
            kernel,
            stride,
            channels,
            repeats,
            fused: false,
            expanded_from: None,
            residual: true,
            squeeze: true,
        }
    }

    /// Fuses expansion and depthwise convolution.
    pub const fn fused(self) -> Self {
        Self { fused: true, ..self }
    }
}

/// A network before scaling: constants, and one row per stage. In TOML only `name` and `stages` are
/// required; the defaults are those of EfficientNet-B0.
///
/// ```
/// use mbconv_nets::{Architecture, Stage, StageTable, Strides};
///
/// let stages = vec![Stage::new(1, 3, 1, 16, 1), Stage::new(6, 5, 2, 24, 2)];
/// let table = StageTable { stem: 16, head: 640, ..StageTable::new("pocket", stages) };
/// let network = Architecture::new(&table, 10, 3, &Strides::Imagenet).unwrap();
/// assert_eq!(network.blocks.len(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageTable {
    /// Name of the network.
    pub name: String,
    /// Family, which decides the tensors' keys in other projects' layouts and the initialization.
    #[serde(default)]
    pub family: Family,
    /// Side of the image the network is made for, in pixels.
    #[serde(default = "resolution")]
    #[schemars(range(min = 1, max = MAX_RESOLUTION))]
    pub resolution: usize,
    /// Width multiplier: scales the channels of every layer.
    #[serde(default = "once")]
    #[schemars(range(min = MIN_MULTIPLIER, max = MAX_MULTIPLIER))]
    pub width: f64,
    /// Depth multiplier: scales the repeats of every stage.
    #[serde(default = "once")]
    #[schemars(range(min = MIN_MULTIPLIER, max = MAX_MULTIPLIER))]
    pub depth: f64,
    /// Scaled channels are rounded to a multiple of this (torchvision's `round_nearest`).
    #[serde(default = "eight")]
    #[schemars(range(min = 1, max = MAX_DIVISOR))]
    pub divisor: usize,
    /// Keeps the widths of stem and head and the depths of the first and last stage, as
    /// EfficientNet-Lite does.
    #[serde(default)]
    pub fixed_ends: bool,
    /// Output channels of the stem, a 3×3 convolution.
    #[serde(default = "stem")]
    #[schemars(range(min = 1, max = MAX_CHANNELS))]
    pub stem: usize,
    /// Stride of the stem.
    #[serde(default = "stem_stride")]
    #[schemars(range(min = 1, max = MAX_STRIDE))]
    pub stem_stride: usize,
    /// Output channels of the last pointwise convolution.
    #[serde(default = "head")]
    #[schemars(range(min = 1, max = MAX_CHANNELS))]
    pub head: usize,
    /// Effect of the width multiplier on `head`.
    #[serde(default)]
    pub head_width: HeadWidth,
    /// The squeeze-excitation bottleneck has the block's input channels divided by this; 0 disables
    /// it.
    #[serde(default = "squeeze_divisor")]
    #[schemars(range(max = MAX_CHANNELS))]
    pub squeeze_divisor: usize,
    /// Activation of every layer except the linear bottlenecks.
    #[serde(default = "silu")]
    pub activation: Activation,
    /// Epsilon of batch-norm.
    #[serde(default = "norm_epsilon")]
    #[schemars(range(min = 0, max = 1))]
    pub norm_epsilon: f64,
    /// Momentum of batch-norm, as PyTorch defines it.
    #[serde(default = "norm_momentum")]
    #[schemars(range(min = 0, max = 1))]
    pub norm_momentum: f64,
    /// Zero padding.
    #[serde(default)]
    pub padding: Padding,
    /// Dropout before the classifier.
    #[serde(default = "fifth")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Stochastic depth: drop probability of the last block's branch.
    #[serde(default = "fifth")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub drop_path: f64,
    /// The rows, one per stage.
    #[schemars(length(min = 1, max = MAX_STAGES))]
    pub stages: Vec<Stage>,
}

/// Effect of the width multiplier on the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadWidth {
    /// The head is scaled like every other layer (EfficientNet).
    #[default]
    Scaled,
    /// The head is scaled only by multipliers above 1 (MobileNetV2).
    Grown,
    /// The head is not scaled.
    Fixed,
}

fn one() -> usize {
    1
}
fn three() -> usize {
    3
}
fn yes() -> bool {
    true
}
fn resolution() -> usize {
    224
}
fn once() -> f64 {
    1.0
}
fn eight() -> usize {
    8
}
fn stem() -> usize {
    32
}
fn stem_stride() -> usize {
    2
}
fn head() -> usize {
    1280
}
fn squeeze_divisor() -> usize {
    4
}
fn silu() -> Activation {
    Activation::Silu
}
fn norm_epsilon() -> f64 {
    1e-5
}
fn norm_momentum() -> f64 {
    0.1
}
fn fifth() -> f64 {
    0.2
}

impl StageTable {
    /// A table with EfficientNet-B0's constants.
    pub fn new(name: impl Into<String>, stages: Vec<Stage>) -> Self {
        Self {
            name: name.into(),
            family: Family::default(),
            resolution: resolution(),
            width: once(),
            depth: once(),
            divisor: eight(),
            fixed_ends: false,
            stem: stem(),
            stem_stride: stem_stride(),
            head: head(),
            head_width: HeadWidth::default(),
            squeeze_divisor: squeeze_divisor(),
            activation: silu(),
            norm_epsilon: norm_epsilon(),
            norm_momentum: norm_momentum(),
            padding: Padding::default(),
            dropout: fifth(),
            drop_path: fifth(),
            stages,
        }
    }

    /// Scales channels by the width multiplier and rounds them.
    pub(crate) fn scaled(&self, channels: usize) -> usize {
        round_channels_to(channels as f64 * self.width, self.divisor)
    }

    /// Returns the output channels of the head after scaling.
    pub(crate) fn scaled_head(&self) -> usize {
        match self.head_width {
            HeadWidth::Scaled if !self.fixed_ends => self.scaled(self.head),
            HeadWidth::Grown if !self.fixed_ends => {
                round_channels_to(self.head as f64 * self.width.max(1.0), self.divisor)
            }
            _ => self.head,
        }
    }

    /// Returns the number of blocks of each stage after scaling.
    pub(crate) fn scaled_repeats(&self) -> Vec<usize> {
        let last = self.stages.len() - 1;
        let fixed = |stage: usize| self.fixed_ends && (stage == 0 || stage == last);
        let scaled = |(stage, row): (usize, &Stage)| match fixed(stage) {
            true => row.repeats,
            false => round_repeats(row.repeats, self.depth),
        };
        self.stages.iter().enumerate().map(scaled).collect()
    }

    /// Returns the channels of the squeeze-excitation bottleneck of a block with `input` channels.
    pub(crate) fn squeezed(&self, input: usize) -> Option<usize> {
        (self.squeeze_divisor > 0).then(|| (input / self.squeeze_divisor.max(1)).max(1))
    }
}
