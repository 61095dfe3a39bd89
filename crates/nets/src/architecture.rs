//! A network as data: its constants, and one row per block with all widths resolved.

use mbconv_kernels::Activation;

use crate::error::{ArchitectureError, check};
use crate::stage_table::{Stage, StageTable};
use crate::types::{Family, LayerOptions, Strides};

/// Largest number of classes.
const MAX_CLASSES: usize = 1 << 20;
/// Largest number of channels of a layer after scaling, which keeps every count within `usize`.
const MAX_WIDTH: usize = 1 << 20;
/// Largest number of blocks after scaling.
const MAX_BLOCKS: usize = 8192;
/// Largest number of channels of an input image.
const MAX_INPUT_CHANNELS: usize = 1024;

/// One inverted residual block with resolved widths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Block {
    /// Stage this block belongs to, from 0.
    pub stage: usize,
    /// Position within the stage, from 0.
    pub index: usize,
    /// Input channels.
    pub input: usize,
    /// Channels after the expansion; equal to `input` if the expansion factor is 1.
    pub hidden: usize,
    /// Output channels.
    pub output: usize,
    /// Kernel size of the depthwise or fused convolution.
    pub kernel: usize,
    /// Stride of that convolution.
    pub stride: usize,
    /// Whether one dense convolution replaces expansion and depthwise convolution
    /// (EfficientNet-EdgeTPU).
    pub fused: bool,
    /// Channels of the squeeze-excitation bottleneck, if the block has one.
    pub squeeze: Option<usize>,
    /// Stochastic depth: probability that training drops a sample's residual branch.
    pub drop_path: f64,
    /// Whether the input is added to the output, which needs equal shapes.
    pub residual: bool,
}

impl Block {
    /// Returns whether the block starts with an expansion, pointwise or fused.
    pub fn expands(&self) -> bool {
        self.fused || self.hidden != self.input
    }
}

/// A whole network as data: widths, strides and constants are resolved, nothing is allocated.
///
/// Built by [`MobileNetV2Config`](crate::MobileNetV2Config),
/// [`EfficientNetConfig`](crate::EfficientNetConfig), a [`StageTable`], or by name through
/// [`NetworkOptions`](crate::NetworkOptions).
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Family.
    pub family: Family,
    /// Channels of the input image.
    pub input_channels: usize,
    /// Number of classes.
    pub num_classes: usize,
    /// Output channels of the stem convolution (3×3).
    pub stem: usize,
    /// Stride of the stem convolution.
    pub stem_stride: usize,
    /// The blocks in order.
    pub blocks: Vec<Block>,
    /// Output channels of the last pointwise convolution.
    pub head: usize,
    /// Activation of every layer except the linear bottlenecks.
    pub activation: Activation,
    /// Padding, batch-norm constants and initialization of all layers.
    pub layer_options: LayerOptions,
    /// Dropout before the classifier.
    pub dropout: f64,
    /// Stochastic depth: the blocks' drop probabilities grow linearly from 0 towards this.
    pub drop_path: f64,
    /// Side of the image the network was published for, in pixels.
    pub resolution: usize,
    /// Width multiplier.
    pub width: f64,
    /// Depth multiplier.
    pub depth: f64,
}

impl Architecture {
    /// Scales the rows of `table` by its width and depth and unrolls them into blocks.
    ///
    /// # Errors
    /// A value outside its range.
    pub fn new(
        table: &StageTable,
        num_classes: usize,
        input_channels: usize,
        strides: &Strides,
    ) -> Result<Self, ArchitectureError> {
        table.check()?;
        check(num_classes > 0, "classes", num_classes, "at least 1")?;
        check(input_channels > 0, "input_channels", input_channels, "at least 1")?;
        // The header of a model file is untrusted, and weights are allocated before they are read.
        check(num_classes <= MAX_CLASSES, "classes", num_classes, "at most 1048576")?;
        check(input_channels <= MAX_INPUT_CHANNELS, "input_channels", input_channels, "at most 1024")?;

        let strides = resolve_strides(strides, table.stem_stride, &table.stages)?;
        let stem = if table.fixed_ends { table.stem } else { table.scaled(table.stem) };
        let head = table.scaled_head();
        let widest = table.stages.iter().map(|row| table.scaled(row.channels.max(row.expanded_from.unwrap_or(0))));
        let widest = widest.chain([stem, head]).max().unwrap_or(0);
        check(widest <= MAX_WIDTH, "channels", widest, "at most 1048576 after scaling")?;
        let repeats = table.scaled_repeats();
        let total: usize = repeats.iter().sum();
        check(total <= MAX_BLOCKS, "repeats", total, "at most 8192 in total after scaling")?;

        let mut blocks = Vec::with_capacity(total);
        let mut input = stem;
        for (stage, (row, &stride)) in table.stages.iter().zip(&strides[1..]).enumerate() {
            let output = table.scaled(row.channels);
            for index in 0..repeats[stage] {
                let stride = if index == 0 { stride } else { 1 };
                let expanded =
                    row.expanded_from.filter(|_| index == 0).map_or(input, |channels| table.scaled(channels));
                blocks.push(Block {
                    stage,
                    index,
                    input,
                    hidden: expanded * row.expansion,
                    output,
                    kernel: row.kernel,
                    stride,
                    fused: row.fused,
                    squeeze: table.squeezed(input).filter(|_| row.squeeze),
                    drop_path: table.drop_path * blocks.len() as f64 / total as f64,
                    residual: row.residual && stride == 1 && input == output,
                });
                input = output;
            }
        }
        Ok(Self {
            family: table.family,
            input_channels,
            num_classes,
            stem,
            stem_stride: strides[0],
            blocks,
            head,
            activation: table.activation,
            layer_options: LayerOptions {
                padding: table.padding,
                norm_epsilon: table.norm_epsilon,
                norm_momentum: table.norm_momentum,
                initialization: table.family.initialization(),
            },
            dropout: table.dropout,
            drop_path: table.drop_path,
            resolution: table.resolution,
            width: table.width,
            depth: table.depth,
        })
    }

    /// Returns the product of all strides, by which the image side is divided before pooling.
    pub fn total_stride(&self) -> usize {
        self.stem_stride * self.blocks.iter().map(|block| block.stride).product::<usize>()
    }

    /// Returns the output sides of the stem and of each block for an image of `side` pixels.
    pub fn sides(&self, side: usize) -> Vec<usize> {
        let strides = std::iter::once(self.stem_stride).chain(self.blocks.iter().map(|block| block.stride));
        let shrink = |side: &mut usize, stride: usize| {
            *side = side.div_ceil(stride);
            Some(*side)
        };
        strides.scan(side, shrink).collect()
    }

    /// Checks that no layer has a stride larger than 1 and an input of a single pixel.
    ///
    /// # Errors
    /// [`ArchitectureError::VanishedMap`] names the first such layer.
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

    /// Returns the strides of the stem and of each stage, in the form of [`Strides::Custom`].
    pub fn strides(&self) -> Vec<usize> {
        let firsts = self.blocks.iter().filter(|block| block.index == 0);
        std::iter::once(self.stem_stride).chain(firsts.map(|block| block.stride)).collect()
    }
}

fn resolve_strides(strides: &Strides, stem: usize, stages: &[Stage]) -> Result<Vec<usize>, ArchitectureError> {
    let published = || std::iter::once(stem).chain(stages.iter().map(|stage| stage.stride));
    match strides {
        Strides::Imagenet => Ok(published().collect()),
        Strides::Cifar => {
            // The first stride of 2 is the stem's, the second that of the first stage that halves.
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

#[cfg(test)]
mod tests {
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
    fn invalid_options_are_named() {
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
}
