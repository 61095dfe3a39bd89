//! Loops over the pixels of images: sums per channel, and channels scaled by a gate.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{
    buffer::filled,
    simd::{self, Loop, Machine, multiply_add},
};

/// Adds the channels of each pixel to the sums.
pub struct AddPixels<'a> {
    /// `[C]`
    pub sums: &'a mut [f32],
    /// [pixels, C]
    pub pixels: &'a [f32],
}

impl Loop for AddPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        for pixel in self.pixels.chunks_exact(self.sums.len()) {
            self.sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// Multiplies the channels of each pixel by the gate.
pub struct ScalePixels<'a> {
    /// [pixels, C]
    pub pixels: &'a mut [f32],
    /// `[C]`
    pub gate: &'a [f32],
}

impl Loop for ScalePixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        for pixel in self.pixels.chunks_exact_mut(self.gate.len()) {
            pixel.iter_mut().zip(self.gate).for_each(|(value, gate)| *value *= gate);
        }
    }
}

/// Returns the number of elements and of channels per image, for feature maps [N, .., C] with a
/// `gate` [N, C], none of them empty.
fn image_of(x: &[f32], gate: &[f32], images: usize) -> (usize, usize) {
    let fits =
        images > 0 && !gate.is_empty() && gate.len().is_multiple_of(images) && x.len().is_multiple_of(gate.len());
    assert!(fits, "{images} images of {} elements with a gate of {}", x.len(), gate.len());
    (x.len() / images, gate.len() / images)
}

/// Averages every channel over each image: [N, `line` elements per line] → [N, C]. Without pixels
/// the average is zero.
///
/// # Panics
/// If the lengths do not match.
pub fn average(x: &[f32], images: usize, line: usize, channels: usize) -> Vec<f32> {
    let mut means = vec![0.0; images.checked_mul(channels).expect("means that fit into memory")];
    if x.is_empty() {
        return means;
    }
    let (size, _) = image_of(x, &means, images);
    assert!(line > 0 && line.is_multiple_of(channels), "lines of {line} elements with {channels} channels");
    let share = channels as f32 / size as f32;
    means.par_chunks_mut(channels).zip(x.par_chunks(size)).for_each(|(mean, image)| {
        sum_lines(mean, image, line, |sums, line| simd::run(AddPixels { sums, pixels: line }));
        mean.iter_mut().for_each(|sum| *sum *= share);
    });
    means
}

/// Sums all lines. `add` sums each line separately, since one long sum of small numbers would lose
/// precision.
fn sum_lines(sums: &mut [f32], image: &[f32], line: usize, mut add: impl FnMut(&mut [f32], &[f32])) {
    let mut own = vec![0.0; sums.len()];
    for line in image.chunks(line) {
        own.fill(0.0);
        add(&mut own, line);
        sums.iter_mut().zip(&own).for_each(|(sum, own)| *sum += own);
    }
}

/// Scales every channel of an image in place: `x` [N, .., C] by `gate` [N, C].
///
/// # Panics
/// If the lengths do not match.
pub fn scale_channels(x: &mut [f32], gate: &[f32], images: usize) {
    if x.is_empty() {
        return;
    }
    let (size, channels) = image_of(x, gate, images);
    x.par_chunks_mut(size).zip(gate.par_chunks(channels)).for_each(|(pixels, gate)| {
        simd::run(ScalePixels { pixels, gate });
    });
}

/// Number of elements that stay in the L1 cache between two loops.
const CHUNK: usize = 4 << 10;

/// Scales every channel of an image as [`scale_channels`], into new memory.
///
/// # Panics
/// If the lengths do not match.
pub fn scaled_channels(x: &[f32], gate: &[f32], images: usize) -> Vec<f32> {
    if x.is_empty() {
        return Vec::new();
    }
    let (size, channels) = image_of(x, gate, images);
    let chunk = channels * CHUNK.div_ceil(channels);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let images = out.par_chunks_mut(size).zip(x.par_chunks(size)).zip(gate.par_chunks(channels));
        images.for_each(|((out, x), gate)| {
            for (out, x) in out.chunks_mut(chunk).zip(x.chunks(chunk)) {
                simd::run(ScalePixels { pixels: out.write_copy_of_slice(x), gate });
            }
        });
    };
    // SAFETY: feature map and gate have the same number of images, so every chunk of every image is
    // copied.
    unsafe { filled(x.len(), fill) }
}

/// Replaces `gradient` by the gradient of the feature map, and returns the gradient of the gate [N,
/// C].
///
/// # Panics
/// If the lengths do not match.
pub fn scale_channels_gradients(x: &[f32], gate: &[f32], gradient: &mut [f32], images: usize, line: usize) -> Vec<f32> {
    assert_eq!(x.len(), gradient.len(), "a map and its gradient");
    let mut gate_gradient = vec![0.0; gate.len()];
    if x.is_empty() {
        return gate_gradient;
    }
    let (size, channels) = image_of(x, gate, images);
    let images = x.par_chunks(size).zip(gradient.par_chunks_mut(size)).zip(gate.par_chunks(channels));
    images.zip(gate_gradient.par_chunks_mut(channels)).for_each(|(((x, gradient), gate), sums)| {
        let mut lines = gradient.chunks_mut(line);
        sum_lines(sums, x, line, |sums, x| {
            if let Some(gradient) = lines.next() {
                simd::run(ScaleChannelsGradients { x, gradient, gate, sums });
            }
        });
    });
    gate_gradient
}

/// Computes the gradients for one line.
struct ScaleChannelsGradients<'a> {
    x: &'a [f32],
    gradient: &'a mut [f32],
    gate: &'a [f32],
    sums: &'a mut [f32],
}

impl Loop for ScaleChannelsGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let channels = self.gate.len();
        let (gate, sums) = (self.gate, &mut self.sums[..channels]);
        for (x, gradient) in self.x.chunks_exact(channels).zip(self.gradient.chunks_exact_mut(channels)) {
            for i in 0..channels {
                sums[i] = multiply_add::<M>(x[i], gradient[i], sums[i]);
                gradient[i] *= gate[i];
            }
        }
    }
}
