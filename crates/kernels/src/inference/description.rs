//! Description of a network for inference.

use crate::types::activation::Activation;
use crate::types::conv2d_geometry::Conv2dGeometry;

/// The three convolutions of MBConv networks; weights have PyTorch's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1x1, weight [Co, Ci, 1, 1].
    Pointwise,
    /// One kernel per channel, weight [C, 1, k, k].
    Depthwise,
    /// All input channels to all output channels, weight [Co, Ci, k, k].
    Dense,
}

/// Zero padding of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Equal numbers of zeros on every side.
    Even(usize),
    /// TensorFlow's `SAME`: zeros for ⌈side / stride⌉ positions, with one more at the end if their
    /// number is odd.
    Same,
}

impl Padding {
    /// Returns the number of positions along a side of `input` pixels, and the zeros before and
    /// after it.
    ///
    /// # Panics
    /// If the window does not fit.
    pub fn along(self, input: usize, kernel: usize, stride: usize) -> (usize, [usize; 2]) {
        match self {
            Self::Even(padding) => {
                let geometry = Conv2dGeometry { kernel, stride, padding };
                (geometry.output(input), [padding; 2])
            }
            Self::Same => {
                let output = input.div_ceil(stride);
                let total = ((output.max(1) - 1) * stride + kernel).saturating_sub(input);
                (output, [total / 2, total - total / 2])
            }
        }
    }
}

/// A convolution with bias and activation: the result of folding a batch-norm.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Kind of convolution.
    pub kind: Kind,
    /// Input channels Ci.
    pub inputs: usize,
    /// Output channels Co.
    pub outputs: usize,
    /// Side length of the window.
    pub kernel: usize,
    /// Distance in pixels between positions.
    pub stride: usize,
    /// Zero padding of the input.
    pub padding: Padding,
    /// Weight in PyTorch's layout.
    pub weight: Vec<f32>,
    /// One bias per output channel.
    pub bias: Vec<f32>,
    /// The activation that follows.
    pub activation: Activation,
}

/// Squeeze-and-excitation: `x * sigmoid(expand(activation(reduce(mean(x)))))`.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Reduces to the bottleneck.
    pub reduce: Layer,
    /// Expands back to every channel; its activation is always the sigmoid, whatever its
    /// `activation`.
    pub expand: Layer,
}

/// An inverted residual: expand → depthwise → gate → project, plus the input. In a fused block the
/// expansion is dense and there is no depthwise convolution.
#[derive(Clone, Debug)]
pub struct Block {
    /// Pointwise or dense.
    pub expand: Option<Layer>,
    /// Depthwise.
    pub depthwise: Option<Layer>,
    /// Squeeze-and-excitation.
    pub gate: Option<Gate>,
    /// Pointwise.
    pub project: Layer,
    /// True if the input is added.
    pub residual: bool,
}

/// A stage of a network.
#[derive(Clone, Debug)]
pub enum Stage {
    /// A dense or pointwise convolution.
    Layer(Layer),
    /// An inverted residual.
    Block(Box<Block>),
    /// Averages over all pixels: [N, H, W, C] → [N, 1, 1, C].
    Pool,
}

/// Precision of the factors of matrix multiplications: those of pointwise and dense convolutions,
/// except in gates and over very few channels. Sums, feature maps, depthwise convolutions and
/// activations are in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// A significand of 8 bits, with the range of single precision: halves the memory of weights,
    /// and about doubles the multiplications per cycle if [`has_bf16`](super::has_bf16).
    Bf16,
}
