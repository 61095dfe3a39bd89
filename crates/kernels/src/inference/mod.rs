//! Inference of whole networks on the CPU. Batch-norms are folded into the preceding convolutions,
//! weights are packed once, and each block is computed in bands that fit the caches. Computes in
//! single precision, or with the factors of matrix multiplications in bf16.
//!
//! A [`Chain`] is built from a description ([`Stage`], [`Block`], [`Layer`]) and runs on slices;
//! `execute` does the work.

mod block;
mod description;
pub(crate) mod execute;
pub(crate) mod layer;
pub(crate) mod map;
pub(crate) mod plan;
mod scratch;

use std::{sync::atomic::AtomicU64, time::Duration};

pub use description::{Block, Gate, Kind, Layer, Padding, Precision, Stage};

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
