//! Description of an 8-bit network.

use crate::inference::{Kind, Padding};
use crate::types::Activation;

/// Maps real numbers to 8 bits and back: `real = scale * (value - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// Distance between neighboring values, positive.
    pub scale: f32,
    /// The value of real zero.
    pub zero_point: u8,
}

impl Quantizer {
    /// Returns the quantizer of the smallest range that contains `low`, `high` and zero. An empty
    /// range has scale 1.
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / 255.0;
        if !(scale.is_finite() && scale >= f32::MIN_POSITIVE) {
            return Self { scale: 1.0, zero_point: 0 };
        }
        Self { scale, zero_point: (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
    }

    /// Rounds to the nearest value, with ties to even, and saturates. NaN becomes real zero.
    pub fn quantize(self, real: f32) -> u8 {
        let zero = f32::from(self.zero_point);
        let steps = (real / self.scale).clamp(-zero, 255.0 - zero);
        (if steps.is_nan() { zero } else { steps.round_ties_even() + zero }) as u8
    }

    /// Returns the real number of a value.
    pub fn real(self, value: u8) -> f32 {
        self.scale * (f32::from(value) - f32::from(self.zero_point))
    }
}

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
