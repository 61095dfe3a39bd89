//! Inference of whole networks in 8 bits on the CPU.
//!
//! Activations have 8 bits with a scale and a zero point per tensor, weights 8 bits with a scale per
//! output channel, and sums are exact 32-bit integers (Jacob et al. 2018). A [`Chain`] is built from
//! a description ([`Stage`], [`Block`], [`Layer`]); [`reference`](mod@reference) defines the result.

mod description;
pub mod reference;

pub use description::{Block, Gate, Layer, Quantizer, Stage, Weights};

/// An 8-bit network, ready to run.
#[derive(Debug)]
pub struct Chain {
    stages: Vec<Stage>,
}

impl Chain {
    /// Packs the weights.
    ///
    /// # Panics
    /// If the size of a weight, scale or bias does not match its layer, or a layer's kind does not
    /// suit its place.
    pub fn new(stages: &[Stage]) -> Self {
        Self { stages: stages.to_vec() }
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
        reference::run(&self.stages, images, size)
    }
}
