//! Inference of whole networks in 8 bits on the CPU.
//!
//! Activations have 8 bits with a scale and a zero point per tensor, weights 8 bits with a scale
//! per output channel, and sums are exact 32-bit integers (Jacob et al. 2018). A [`Chain`] is built
//! from a description ([`Stage`], [`Block`], [`Layer`]); [`reference`](mod@reference) defines the
//! result.

use std::{sync::atomic::AtomicU64, time::Duration};

mod block;
mod depthwise;
mod description;
mod execute;
pub mod feature_map;
mod finish;
mod layer;
mod machine;
mod plan;
mod product;
pub mod reference;
mod scratch;

pub use description::{Block, Gate, Layer, Quantizer, Stage, Weights};

/// An 8-bit network, ready to run.
#[derive(Debug)]
pub struct Chain(execute::Network);

impl Chain {
    /// Packs the weights.
    ///
    /// # Panics
    /// If the size of a weight, scale or bias does not match its layer, or a layer's kind does not
    /// suit its place.
    pub fn new(stages: &[Stage]) -> Self {
        let input = stages.first().map_or(Quantizer { scale: 1.0, zero_point: 0 }, Stage::input);
        let output = stages.last().map_or(input, Stage::output);
        Self(execute::Network { stages: stages.iter().map(plan::Stage::new).collect(), input, output })
    }

    /// Runs images [N, H, W, C] and returns the real output of the last stage [N, H, W, C] with its
    /// size, one image after another.
    ///
    /// The result is bit-identical for any number of threads, and does not depend on the other
    /// images of the batch.
    ///
    /// # Panics
    /// If the channels are not those of the first stage, the length of `images` does not match
    /// `size`, or a window does not fit.
    pub fn run(&self, images: &[f32], size: [usize; 4]) -> (Vec<f32>, [usize; 4]) {
        execute::run(&self.0, images, size, &[])
    }

    /// Runs as [`run`](Self::run), and returns the time of each stage, summed over all threads.
    pub fn profile(&self, images: &[f32], size: [usize; 4]) -> Vec<Duration> {
        let times: Vec<AtomicU64> = self.0.stages.iter().map(|_| AtomicU64::new(0)).collect();
        execute::run(&self.0, images, size, &times);
        times.into_iter().map(|time| Duration::from_nanos(time.into_inner())).collect()
    }
}

/// Returns the name of the instruction set that is used on this machine; see
/// [`inference::instructions`](crate::inference::instructions).
pub fn instructions() -> &'static str {
    machine::name()
}
