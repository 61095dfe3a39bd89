//! Inference of whole networks on the CPU. Batch-norms are folded into the preceding convolutions,
//! weights are packed once, and each block is computed in bands that fit the caches. Computes in
//! single precision, or with the factors of matrix multiplications in bf16.
//!
//! A [`Chain`] is built from a description ([`Stage`], [`Block`], [`Layer`]) and runs on slices;
//! `execute` does the work.

mod block;
mod execute;
mod layer;
mod map;
mod plan;
mod scratch;

use std::{sync::atomic::AtomicU64, time::Duration};

use crate::types::{Activation, Conv2dGeometry};

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
    /// The same number of zeros on every side.
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
    /// Whether the input is added.
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
    /// and about doubles the multiplications per cycle if [`has_bf16`].
    Bf16,
}

/// A network with packed weights.
#[derive(Debug)]
pub struct Chain {
    stages: Vec<plan::Stage>,
}

impl Chain {
    /// Packs the weights.
    ///
    /// # Panics
    /// If the size of a weight or bias does not match its layer, a layer has no channels, window or
    /// stride, or its kind does not suit its place.
    pub fn new(stages: &[Stage], precision: Precision) -> Self {
        Self { stages: stages.iter().map(|stage| plan::Stage::new(stage, precision)).collect() }
    }

    /// Runs images [N, H, W, C] and returns the output of the last stage, one image after another.
    ///
    /// The result is bit-identical for any number of threads, and does not depend on the other
    /// images of the batch.
    ///
    /// # Panics
    /// If the channels are not those of the first stage, the length of `images` does not match
    /// `size`, or a window does not fit.
    pub fn run(&self, images: &[f32], size: [usize; 4]) -> (Vec<f32>, [usize; 4]) {
        execute::run(&self.stages, images, size, &[])
    }

    /// Runs as [`run`](Self::run), and returns the time of each stage, summed over all threads.
    pub fn profile(&self, images: &[f32], size: [usize; 4]) -> Vec<Duration> {
        let times: Vec<AtomicU64> = self.stages.iter().map(|_| AtomicU64::new(0)).collect();
        execute::run(&self.stages, images, size, &times);
        times.into_iter().map(|time| Duration::from_nanos(time.into_inner())).collect()
    }
}

/// Returns the name of the instruction set that is used on this machine: the widest available, or a
/// smaller one if the environment variable `MBCONV_CPU` is `avx512` (without bf16), `avx2` or
/// `portable`.
pub fn instructions() -> &'static str {
    crate::cpu::simd::name()
}

/// Returns whether this machine has instructions for bf16 multiplication (AVX512-BF16). Without
/// them, bf16 is slower than single precision.
pub fn has_bf16() -> bool {
    crate::cpu::simd::has_bf16()
}
