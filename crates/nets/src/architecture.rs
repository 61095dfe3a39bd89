//! A network as data: its family's particulars and one row a block.

use mbconv_kernels::Activation;
use serde::{Deserialize, Serialize};

use crate::Network;

/// Most classes a network may have.
const MAX_CLASSES: usize = 1 << 20;
/// Most channels of a layer, and most blocks, after scaling: so that everything can be counted.
const MAX_WIDTH: usize = 1 << 20;
const MAX_BLOCKS: usize = 8192;
/// Most channels an input image may have.
const MAX_INPUT_CHANNELS: usize = 1024;

/// One row of a paper's stage table, before scaling; in TOML all but `channels` may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Expansion factor `t`: the hidden width is `t` times the block's input width.
    #[serde(default = "one")]
    pub expansion: usize,
    /// Side of the depthwise kernel.
    #[serde(default = "three")]
    pub kernel: usize,
    /// Stride of the stage's first block; the others have stride 1.
    #[serde(default = "one")]
    pub stride: usize,
    /// Output channels at width 1.
    pub channels: usize,
    /// Blocks at depth 1.
    #[serde(default = "one")]
    pub repeats: usize,
    /// Are expansion and depthwise convolution one dense k×k convolution?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fused: bool,
    /// Channels at width 1 that the first block's expansion multiplies, where they are not the block's input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded_from: Option<usize>,
    /// Do inputs join outputs of the same shape?
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub residual: bool,
    /// Does the network's squeeze-excitation, if it has one, stand in this stage?
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub squeeze: bool,
    /// Groups of the k×k convolution in the stage's first block, for those who want to say it: the expanded width, or 1
    /// where it is fused. No other number is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
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

impl Stage {
    /// Inverted residuals.
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
            groups: None,
        }
    }

    /// The same with expansion and depthwise convolution fused.
    pub const fn fused(self) -> Self {
        Self { fused: true, ..self }
    }
}

/// Zeros around a map before a convolution of stride 2; the others have as many on every side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// As many on every side, as in PyTorch.
    #[default]
    Symmetric,
    /// TensorFlow's `SAME`: as few as give ⌈side / stride⌉ positions, the odd one at the end.
    Same,
}

/// The two families, which differ in key layout and initialisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::MobileNetV2 => "MobileNetV2",
            Self::EfficientNet => "EfficientNet",
        })
    }
}

/// How convolution weights start: normal, with standard deviation √(2 / fan-out).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialisation {
    /// fan-out = k²·C_out for every convolution, depthwise ones too (torchvision).
    FanOut,
    /// fan-out = k²·C_out / groups, so k² for a depthwise convolution (the EfficientNet authors' code, timm).
    FanOutPerGroup,
}

/// Strides of the stem and of each stage.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strides {
    /// As published: stride 32 in all, for photographs.
    #[default]
    Imagenet,
    /// For 32-pixel images: the stem and the first stage that would halve the map keep the resolution, stride 8 in all
    /// (kuangliu/pytorch-cifar's MobileNetV2).
    Cifar,
    /// One stride for the stem, then one a stage.
    #[serde(untagged)]
    Custom(Vec<usize>),
}

/// One inverted residual block with its widths resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Stage this block belongs to, from 0.
    pub stage: usize,
    /// Position within the stage, from 0.
    pub index: usize,
    /// Input channels.
    pub input: usize,
    /// Width of the expanded map; equal to `input` where the expansion factor is 1.
    pub hidden: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the depthwise kernel, or of the fused one.
    pub kernel: usize,
    /// Stride of that convolution.
    pub stride: usize,
    /// Are expansion and depthwise convolution one dense convolution (EfficientNet-EdgeTPU)?
    pub fused: bool,
    /// Width of the squeeze-excitation bottleneck, where there is one.
    pub squeeze: Option<usize>,
    /// Probability that training drops the residual branch of a sample.
    pub drop_path: f64,
    /// Does the input join the output? Only where both have the same shape.
    pub residual: bool,
}

impl Block {
    /// Does the block begin with an expansion, pointwise or fused?
    pub fn expands(&self) -> bool {
        self.fused || self.hidden != self.input
    }
}

/// A whole network as data: widths, strides and constants resolved, nothing allocated.
///
/// Made by [`MobileNetV2Config`](crate::MobileNetV2Config), [`EfficientNetConfig`](crate::EfficientNetConfig) or by
/// name through [`ArchitectureOptions`](crate::ArchitectureOptions).
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Family, for key layout and initialisation.
    pub family: Family,
    /// Channels of the input image.
    pub input_channels: usize,
    /// Number of classes.
    pub classes: usize,
    /// Output channels of the stem convolution (3×3).
    pub stem: usize,
    /// Stride of the stem convolution.
    pub stem_stride: usize,
    /// The blocks in order.
    pub blocks: Vec<Block>,
    /// Output channels of the last pointwise convolution.
    pub head: usize,
    /// Activation of every layer but the linear bottlenecks.
    pub activation: Activation,
    /// ε of batch-norm.
    pub norm_epsilon: f64,
    /// Momentum of batch-norm's running statistics, in PyTorch's sense (the share of the new value).
    pub norm_momentum: f64,
    /// Zeros around maps.
    pub padding: Padding,
    /// Dropout before the classifier.
    pub dropout: f64,
    /// Stochastic depth: what the blocks' drop probabilities grow towards, from 0 at the first one.
    pub drop_path: f64,
    /// Initialisation of convolutions.
    pub initialisation: Initialisation,
    /// Side of the image the network was published for.
    pub resolution: usize,
    /// Multiplier of the stage table's widths.
    pub width: f64,
    /// Multiplier of the stage table's repeats.
    pub depth: f64,
}

/// What can be wrong with a described architecture.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArchitectureError {
    /// No network of that name.
    #[error("unknown architecture `{name}`")]
    UnknownName {
        /// The name as given.
        name: String,
    },
    /// A number outside its range.
    #[error("`{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// The option at fault.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A list of strides of the wrong length.
    #[error("`strides` has {found} entries, but this network has a stem and {stages} stages: give {} numbers", stages + 1)]
    StrideCount {
        /// Entries given.
        found: usize,
        /// Stages of the network.
        stages: usize,
    },
    /// A row of a stage table that no network can have.
    #[error("stage {stage} of the table: `{key}` is {value}, but must be {expected}")]
    Stage {
        /// Which row, from 1.
        stage: usize,
        /// The key at fault.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A stride where nothing is left to stride over.
    #[error(
        "stride {stride} of {place} meets a map of 1×1 pixels: {strides} strides in all are too many for images of {side}×{side}"
    )]
    VanishedMap {
        /// The stem or a stage.
        place: String,
        /// Its stride.
        stride: usize,
        /// Product of the strides of all layers.
        strides: usize,
        /// Side of the image.
        side: usize,
    },
}

impl ArchitectureError {
    /// What would mend it, where that is not obvious from the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownName { .. } => Some("`mbconv list` shows the known architectures".into()),
            Self::VanishedMap { .. } => {
                Some("give larger images, or strides of 1: strides = \"cifar\", or a list".into())
            }
            _ => None,
        }
    }
}

/// A family's table and constants before scaling: what [`Architecture::build`] needs.
pub(crate) struct Blueprint<'a> {
    pub family: Family,
    pub stages: &'a [Stage],
    pub width: f64,
    /// Channels are multiples of this.
    pub divisor: usize,
    pub depth: f64,
    /// The stem keeps its width, the first and the last stage their depth.
    pub fixed_ends: bool,
    pub stem: usize,
    pub stem_stride: usize,
    pub head: usize,
    /// Squeeze-excitation width = block input channels / this.
    pub squeeze_divisor: Option<usize>,
    pub activation: Activation,
    pub norm_epsilon: f64,
    pub norm_momentum: f64,
    pub padding: Padding,
    pub initialisation: Initialisation,
    pub resolution: usize,
}

/// What a user may choose for either family.
pub(crate) struct Choices<'a> {
    pub classes: usize,
    pub input_channels: usize,
    pub dropout: f64,
    pub drop_path: f64,
    pub strides: &'a Strides,
}

impl Architecture {
    /// Builds the network on `device` with freshly drawn weights.
    pub fn init(&self, device: &burn::tensor::Device) -> Network {
        Network::new(self, device)
    }

    /// Product of all strides: the input side is divided by this before pooling.
    pub fn total_stride(&self) -> usize {
        self.stem_stride * self.blocks.iter().map(|block| block.stride).product::<usize>()
    }

    /// Sides of the maps that the stem and each block give for an image of `side` pixels.
    pub fn sides(&self, side: usize) -> Vec<usize> {
        let strides = std::iter::once(self.stem_stride).chain(self.blocks.iter().map(|block| block.stride));
        let shrink = |side: &mut usize, stride: usize| {
            *side = side.div_ceil(stride);
            Some(*side)
        };
        strides.scan(side, shrink).collect()
    }

    /// Is there something to stride over for every stride, in an image of `side` pixels?
    ///
    /// # Errors
    /// [`ArchitectureError::VanishedMap`] names the first layer that strides over a single pixel.
    pub fn check_side(&self, side: usize) -> Result<(), ArchitectureError> {
        let before = std::iter::once(side).chain(self.sides(side));
        let stem = std::iter::once(("the stem".to_string(), self.stem_stride));
        let blocks = self.blocks.iter().map(|block| (format!("stage {}", block.stage + 1), block.stride));
        match before.zip(stem.chain(blocks)).find(|(side, (_, stride))| *side <= 1 && *stride > 1) {
            None => Ok(()),
            Some((_, (place, stride))) => {
                Err(ArchitectureError::VanishedMap { place, stride, strides: self.total_stride(), side })
            }
        }
    }

    /// Strides of the stem and of each stage, as [`Strides::Custom`] takes them.
    pub fn strides(&self) -> Vec<usize> {
        let firsts = self.blocks.iter().filter(|block| block.index == 0);
        std::iter::once(self.stem_stride).chain(firsts.map(|block| block.stride)).collect()
    }

    /// The one stage-table builder: scales the table's widths and depths and unrolls it into blocks.
    pub(crate) fn build(blueprint: Blueprint, choices: Choices) -> Result<Self, ArchitectureError> {
        check(choices.classes > 0, "classes", choices.classes, "at least 1")?;
        check(choices.input_channels > 0, "input_channels", choices.input_channels, "at least 1")?;
        // A model file's header may ask for anything; its weights are allocated before they are read.
        check(choices.classes <= MAX_CLASSES, "classes", choices.classes, "at most 1048576")?;
        check(choices.input_channels <= MAX_INPUT_CHANNELS, "input_channels", choices.input_channels, "at most 1024")?;
        check((0.0..1.0).contains(&choices.dropout), "dropout", choices.dropout, "in [0, 1)")?;
        check((0.0..1.0).contains(&choices.drop_path), "drop_path", choices.drop_path, "in [0, 1)")?;
        let reasonable = |scale: f64| (0.01..=20.0).contains(&scale);
        check(reasonable(blueprint.width), "width", blueprint.width, "between 0.01 and 20")?;
        check(reasonable(blueprint.depth), "depth", blueprint.depth, "between 0.01 and 20")?;
        check((1..=64).contains(&blueprint.divisor), "round_nearest", blueprint.divisor, "between 1 and 64")?;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        check(share(blueprint.norm_epsilon), "norm_epsilon", blueprint.norm_epsilon, "in [0, 1]")?;
        check(share(blueprint.norm_momentum), "norm_momentum", blueprint.norm_momentum, "in [0, 1]")?;

        let strides = resolve_strides(choices.strides, blueprint.stem_stride, blueprint.stages)?;
        let widened = |channels: usize| round_channels_to(channels as f64 * blueprint.width, blueprint.divisor);
        let stem = if blueprint.fixed_ends { blueprint.stem } else { widened(blueprint.stem) };
        let last = blueprint.stages.len() - 1;
        let repeats = |stage: usize, row: &Stage| {
            let fixed = blueprint.fixed_ends && (stage == 0 || stage == last);
            if fixed { row.repeats } else { round_repeats(row.repeats, blueprint.depth) }
        };
        let of_row = |row: &Stage| widened(row.channels.max(row.expanded_from.unwrap_or(0)));
        let widest = blueprint.stages.iter().map(of_row);
        let widest = widest.chain([stem, blueprint.head]).max().unwrap_or(0);
        check(widest <= MAX_WIDTH, "channels", widest, "at most 1048576, scaled")?;
        let total: usize = blueprint.stages.iter().enumerate().map(|(stage, row)| repeats(stage, row)).sum();
        check(total <= MAX_BLOCKS, "repeats", total, "at most 8192 in all, scaled")?;
        let mut blocks = Vec::with_capacity(total);
        let mut input = stem;
        for (stage, (row, &stride)) in blueprint.stages.iter().zip(&strides[1..]).enumerate() {
            let output = widened(row.channels);
            for index in 0..repeats(stage, row) {
                let stride = if index == 0 { stride } else { 1 };
                let expanded = row.expanded_from.filter(|_| index == 0).map_or(input, widened);
                blocks.push(Block {
                    stage,
                    index,
                    input,
                    hidden: expanded * row.expansion,
                    output,
                    kernel: row.kernel,
                    stride,
                    fused: row.fused,
                    squeeze: blueprint.squeeze_divisor.filter(|_| row.squeeze).map(|divisor| (input / divisor).max(1)),
                    drop_path: choices.drop_path * blocks.len() as f64 / total as f64,
                    residual: row.residual && stride == 1 && input == output,
                });
                input = output;
            }
        }
        Ok(Self {
            family: blueprint.family,
            input_channels: choices.input_channels,
            classes: choices.classes,
            stem,
            stem_stride: strides[0],
            blocks,
            head: blueprint.head,
            activation: blueprint.activation,
            norm_epsilon: blueprint.norm_epsilon,
            norm_momentum: blueprint.norm_momentum,
            padding: blueprint.padding,
            dropout: choices.dropout,
            drop_path: choices.drop_path,
            initialisation: blueprint.initialisation,
            resolution: blueprint.resolution,
            width: blueprint.width,
            depth: blueprint.depth,
        })
    }
}

/// Channels rounded to a multiple of 8, never below 0.9 of what was asked
/// (`_make_divisible` of the MobileNet authors' code, which every peer copies).
pub fn round_channels(channels: f64) -> usize {
    round_channels_to(channels, 8)
}

/// [`round_channels`] with multiples of `divisor`, which is positive.
pub fn round_channels_to(channels: f64, divisor: usize) -> usize {
    let rounded = ((channels + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (rounded as f64) < 0.9 * channels { rounded + divisor } else { rounded }
}

/// Repeats of a stage at a depth multiplier: ⌈depth · repeats⌉.
pub fn round_repeats(repeats: usize, depth: f64) -> usize {
    (depth * repeats as f64).ceil() as usize
}

fn resolve_strides(strides: &Strides, stem: usize, stages: &[Stage]) -> Result<Vec<usize>, ArchitectureError> {
    let published = || std::iter::once(stem).chain(stages.iter().map(|stage| stage.stride));
    match strides {
        Strides::Imagenet => Ok(published().collect()),
        Strides::Cifar => {
            // The stem's stride is the first 2 of the list, the earliest halving stage's the second.
            let mut kept = 0;
            Ok(published()
                .map(|stride| {
                    let keep = stride > 1 && kept < 2;
                    kept += usize::from(keep);
                    if keep { 1 } else { stride }
                })
                .collect())
        }
        Strides::Custom(list) => {
            if list.len() != stages.len() + 1 {
                return Err(ArchitectureError::StrideCount { found: list.len(), stages: stages.len() });
            }
            match list.iter().find(|&&stride| !(1..=4).contains(&stride)) {
                Some(stride) => check(false, "strides", stride, "made of numbers from 1 to 4").map(|()| vec![]),
                None => Ok(list.clone()),
            }
        }
    }
}

pub(crate) fn check(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    expected: &'static str,
) -> Result<(), ArchitectureError> {
    if holds { Ok(()) } else { Err(ArchitectureError::OutOfRange { key, value: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EfficientNetConfig, MobileNetV2Config};

    #[test]
    fn cifar_strides_keep_the_resolution_early() {
        let mobilenet = MobileNetV2Config::new(10).with_strides(Strides::Cifar).architecture().unwrap();
        assert_eq!(mobilenet.strides(), [1, 1, 1, 2, 2, 1, 2, 1]);
        let efficientnet = EfficientNetConfig::b0(10).with_strides(Strides::Cifar).architecture().unwrap();
        assert_eq!(efficientnet.strides(), [1, 1, 1, 2, 2, 1, 2, 1]);
        assert_eq!(efficientnet.total_stride(), 8);
    }

    #[test]
    fn impossible_options_are_named() {
        let error = MobileNetV2Config::new(0).architecture().unwrap_err();
        assert_eq!(error.to_string(), "`classes` is 0, but must be at least 1");
        let error = MobileNetV2Config::new(2).with_strides(Strides::Custom(vec![1, 2])).architecture().unwrap_err();
        assert!(error.to_string().contains("give 8 numbers"), "{error}");
        let error =
            MobileNetV2Config::new(2).with_strides(Strides::Custom(vec![1, 1, 1, 9, 1, 1, 1, 1])).architecture();
        assert!(error.unwrap_err().to_string().contains("`strides` is 9"));
        assert!(EfficientNetConfig::b0(2).with_drop_path(1.0).architecture().is_err());
        assert!(EfficientNetConfig::b0(usize::MAX).architecture().is_err());
        assert!(MobileNetV2Config::new(2).with_input_channels(1 << 40).architecture().is_err());
    }

    #[test]
    fn drop_path_grows_linearly_from_zero() {
        let blocks = EfficientNetConfig::b0(10).with_drop_path(0.2).architecture().unwrap().blocks;
        assert_eq!(blocks.len(), 16);
        assert_eq!(blocks[0].drop_path, 0.0);
        assert!((blocks[8].drop_path - 0.1).abs() < 1e-12);
    }

    #[test]
    fn strides_read_from_names_and_lists() {
        let read = |text: &str| serde_json::from_str::<Strides>(text).unwrap();
        assert_eq!(read("\"cifar\""), Strides::Cifar);
        assert_eq!(read("[1, 2]"), Strides::Custom(vec![1, 2]));
    }

    proptest! {
        #[test]
        fn rounded_channels_are_multiples_of_8_and_not_much_less(channels in 0.1f64..5000.0) {
            let rounded = round_channels(channels);
            prop_assert_eq!(rounded % 8, 0);
            prop_assert!(rounded as f64 >= 0.9 * channels);
            prop_assert!(rounded as f64 <= channels + 8.0);
        }
    }
}
