//! Layers with tensors, the rows of the tables of keys.

use crate::architecture::Block;

/// A layer with tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Layer<'a> {
    /// 3×3 convolution from the image, with batch-norm.
    Stem,
    /// A layer of the block with this index.
    Block(usize, &'a Block, Part),
    /// 1×1 convolution to the features, with batch-norm.
    Head,
    /// Linear layer with bias.
    Classifier,
}

/// A layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Expansion with batch-norm, 1×1 or fused k×k; only if [`Block::expands`].
    Expand,
    /// k×k depthwise convolution with batch-norm; not in fused blocks.
    Depthwise,
    /// Squeeze-excitation's 1×1 convolution to the bottleneck, with bias.
    SqueezeReduce,
    /// Squeeze-excitation's 1×1 convolution back, with bias.
    SqueezeExpand,
    /// 1×1 projection with batch-norm.
    Project,
}

/// Prefixes of `.weight` in the keys of a layer and of its batch-norm; the second is unused for
/// layers without one.
pub(super) type Keys = [String; 2];
