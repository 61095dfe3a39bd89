//! Description of an 8-bit network.

use crate::inference::{Kind, Padding};
use crate::types::Activation;
pub use crate::types::quantizer::Quantizer;

/// The weight and bias of a layer, in PyTorch's layout.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// In 8 bits, symmetric, with one scale per output channel.
    Int8 {
        /// From -127 to 127.
        weight: Vec<i8>,
        /// Scales `[Co]`.
        scales: Vec<f32>,
        /// Biases `[Co]`, in units of the input's scale times the channel's.
        bias: Vec<i32>,
    },
    /// A layer that stays in single precision, between inputs and outputs in 8 bits.
    Float {
        /// The weight.
        weight: Vec<f32>,
        /// Biases `[Co]`.
        bias: Vec<f32>,
    },
}

/// A convolution with bias and activation on 8-bit feature maps.
///
/// Its sums are exact integers: `bias + Σ weight * (x - zero_point)`, with padding of real zeros.
/// They become real by the scales of input and channel, pass the activation, and are rounded to the
/// output's quantizer.
#[derive(Clone, Debug, PartialEq)]
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
    /// Weight and bias.
    pub weights: Weights,
    /// The activation that follows.
    pub activation: Activation,
    /// Quantizer of the input.
    pub input: Quantizer,
    /// Quantizer of the output.
    pub output: Quantizer,
}

/// Squeeze-and-excitation: `x * sigmoid(expand(activation(reduce(mean(x)))))`.
///
/// The mean has the quantizer of the input of `reduce`; the product that of the projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Reduces to the bottleneck.
    pub reduce: Layer,
    /// Expands back to every channel. Its activation is always the sigmoid, and its output the
    /// quantizer of the gate.
    pub expand: Layer,
}

/// An inverted residual: expand → depthwise → gate → project, plus the input. In a fused block the
/// expansion is dense and there is no depthwise convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Pointwise or dense.
    pub expand: Option<Layer>,
    /// Depthwise.
    pub depthwise: Option<Layer>,
    /// Squeeze-and-excitation.
    pub gate: Option<Gate>,
    /// Pointwise.
    pub project: Layer,
    /// Quantizer of the sum with the input, if the input is added.
    pub sum: Option<Quantizer>,
}

/// A stage of a network. The quantizer of each input is that of the output before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// A dense or pointwise convolution. The output of a network's last layer is not quantized: it
    /// is real, after the activation.
    Layer(Layer),
    /// An inverted residual.
    Block(Box<Block>),
    /// Averages over all pixels: [N, H, W, C] → [N, 1, 1, C].
    Pool(Quantizer),
}

impl Stage {
    /// Returns the quantizer of the stage's input. A pooling stage keeps that of its output.
    pub fn input(&self) -> Quantizer {
        match self {
            Self::Layer(layer) => layer.input,
            Self::Block(block) => block.first().input,
            Self::Pool(output) => *output,
        }
    }

    /// Returns the quantizer of the stage's output.
    pub fn output(&self) -> Quantizer {
        match self {
            Self::Layer(layer) => layer.output,
            Self::Block(block) => block.sum.unwrap_or(block.project.output),
            Self::Pool(output) => *output,
        }
    }
}

impl Block {
    /// Returns the block's first layer.
    pub fn first(&self) -> &Layer {
        self.expand.as_ref().or(self.depthwise.as_ref()).unwrap_or(&self.project)
    }
}
