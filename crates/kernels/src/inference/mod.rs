//! A whole network for inference on the CPU: batch-norms folded into the convolutions before them, weights packed once, and
//! each block computed band by band in the caches. In single precision, or with the factors of matrix products in bf16.
//!
//! A [`Chain`] is built from a description ([`Stage`], [`Block`], [`Layer`]) and runs on slices; `execute` does the work.

mod block;
mod execute;
mod layer;
mod map;
mod plan;
mod scratch;

use std::{sync::atomic::AtomicU64, time::Duration};

use crate::Activation;

/// The three convolutions of MBConv networks; weights have PyTorch's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1x1, weight [Co, Ci, 1, 1].
    Pointwise,
    /// Each channel by itself, weight [C, 1, k, k].
    Depthwise,
    /// All channels to all channels, weight [Co, Ci, k, k].
    Dense,
}

/// Zeros around a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// As many on every side.
    Even(usize),
    /// TensorFlow's: as many as give ⌈side / stride⌉ positions, the odd one at the end.
    Same,
}

impl Padding {
    /// Positions along a side of `input` pixels, and the zeros before and after it.
    ///
    /// # Panics
    /// If the window does not fit.
    pub fn along(self, input: usize, kernel: usize, stride: usize) -> (usize, [usize; 2]) {
        match self {
            Self::Even(padding) => {
                let window = crate::Window { kernel, stride, padding };
                (window.output(input), [padding; 2])
            }
            Self::Same => {
                let output = input.div_ceil(stride);
                let total = ((output.max(1) - 1) * stride + kernel).saturating_sub(input);
                (output, [total / 2, total - total / 2])
            }
        }
    }
}

/// A convolution with bias and activation: what is left of convolution, batch-norm and activation.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Which convolution.
    pub kind: Kind,
    /// Ci
    pub inputs: usize,
    /// Co
    pub outputs: usize,
    /// Side of the window.
    pub kernel: usize,
    /// Pixels from one position to the next.
    pub stride: usize,
    /// Zeros around the map.
    pub padding: Padding,
    /// In PyTorch's layout.
    pub weight: Vec<f32>,
    /// One number for each output.
    pub bias: Vec<f32>,
    /// Follows.
    pub activation: Activation,
}

/// Squeeze-and-excitation: `x * sigmoid(expand(activation(reduce(mean(x)))))`.
#[derive(Clone, Debug)]
pub struct Gate {
    /// To the bottleneck.
    pub reduce: Layer,
    /// Back to every channel; its activation is the sigmoid, whatever it says.
    pub expand: Layer,
}

/// An inverted residual: expand → depthwise → gate → project, plus the input. In a fused block the expansion is dense and
/// there is no depthwise convolution.
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

/// A part of a network.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Dense or pointwise.
    Layer(Layer),
    /// An inverted residual.
    Block(Box<Block>),
    /// The mean over all pixels: [N, H, W, C] → [N, 1, 1, C].
    Pool,
}

/// In which precision the factors of matrix products are: of pointwise and dense convolutions, but those of gates and over
/// very few channels. Sums, maps, depthwise convolutions and activations are in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// 8 bits of precision, with the range of single precision: half the weights' memory, and about twice the products a cycle where
    /// [`has_bf16`].
    Bf16,
}

/// A network, ready to run.
#[derive(Debug)]
pub struct Chain {
    stages: Vec<plan::Stage>,
}

impl Chain {
    /// Packs the weights.
    ///
    /// # Panics
    /// If a weight or bias has not the size that its layer says, or a layer stands where its kind cannot.
    pub fn new(stages: &[Stage], precision: Precision) -> Self {
        Self { stages: stages.iter().map(|stage| plan::Stage::new(stage, precision)).collect() }
    }

    /// Images [N, H, W, C] → the last stage's map, one image after another.
    ///
    /// The bits do not depend on the number of threads, nor on the images that come along.
    ///
    /// # Panics
    /// If the channels are not those of the first stage, the length is not that of `size`, or a window does not fit.
    pub fn run(&self, images: &[f32], size: [usize; 4]) -> (Vec<f32>, [usize; 4]) {
        execute::run(&self.stages, images, size, &[])
    }

    /// As [`run`](Self::run); also the time that all threads together spent in each stage.
    pub fn profile(&self, images: &[f32], size: [usize; 4]) -> Vec<Duration> {
        let times: Vec<AtomicU64> = self.stages.iter().map(|_| AtomicU64::new(0)).collect();
        execute::run(&self.stages, images, size, &times);
        times.into_iter().map(|time| Duration::from_nanos(time.into_inner())).collect()
    }
}

/// The instructions that are used on this machine, as users know them: the widest that it has, or fewer where the
/// environment variable `MBCONV_CPU` says `avx512` (without bf16), `avx2` or `portable`.
pub fn instructions() -> &'static str {
    crate::flex::simd::name()
}

/// Whether this machine has instructions for products of bf16 (AVX512-BF16); without them, they are slower than those of single
/// precision.
pub fn has_bf16() -> bool {
    crate::flex::simd::has_bf16()
}
