//! Fake quantization and its straight-through gradient.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::buffer::filled;
use super::simd::{self, Loop, Machine};
use crate::types::quantizer::Quantizer;

/// Number of elements that a thread processes at a time.
const CHUNK: usize = 16 << 10;

/// Rounds `x` to the real numbers of `quantizer`.
pub fn round(x: &mut [f32], quantizer: Quantizer) {
    x.par_chunks_mut(CHUNK).for_each(|x| simd::run(Round { x, quantizer }));
}

/// Rounds `x` as [`round`], into new memory.
pub fn rounded(x: &[f32], quantizer: Quantizer) -> Vec<f32> {
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        chunks.for_each(|(out, x)| simd::run(Round { x: out.write_copy_of_slice(x), quantizer }));
    };
    // SAFETY: every chunk is copied.
    unsafe { filled(x.len(), fill) }
}

/// Replaces the gradient of the rounded `x` by that of `x`.
///
/// # Panics
/// If the lengths do not match.
pub fn round_gradient(x: &[f32], gradient: &mut [f32], quantizer: Quantizer) {
    assert_eq!(x.len(), gradient.len(), "a gradient for each element");
    let chunks = gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(gradient, x)| simd::run(RoundGradient { x, gradient, quantizer }));
}

struct Round<'a> {
    x: &'a mut [f32],
    quantizer: Quantizer,
}

struct RoundGradient<'a> {
    x: &'a [f32],
    gradient: &'a mut [f32],
    quantizer: Quantizer,
}

impl Loop for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let Quantizer { scale, zero_point } = self.quantizer;
        let zero = f32::from(zero_point);
        self.x.iter_mut().for_each(|x| *x = (*x / scale).round_ties_even().clamp(-zero, 255.0 - zero) * scale);
    }
}

impl Loop for RoundGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let Quantizer { scale, zero_point } = self.quantizer;
        let zero = f32::from(zero_point);
        for (gradient, x) in self.gradient.iter_mut().zip(self.x) {
            let steps = (x / scale).round_ties_even();
            *gradient = if steps < -zero || steps > 255.0 - zero { 0.0 } else { *gradient };
        }
    }
}
