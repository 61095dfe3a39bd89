//! Dense convolution as a matrix product: the pixels that a window sees are laid out as one row of a matrix.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{
    buffer::filled,
    depthwise::Size,
    matmul::{Matrix, product_into, sum_in_order},
};
use crate::Window;

/// Elements of the patch matrix that are laid out at a time.
const CHUNK: usize = 1 << 16;

/// How the output is cut: by whole rows, and by the shape alone.
struct Cut {
    window: Window,
    input: Size,
    output: Size,
    /// Elements of one window: k * k * Ci.
    patch: usize,
    rows_per_chunk: usize,
}

impl Cut {
    fn new(window: Window, input: Size, output: Size) -> Self {
        let patch = window.kernel * window.kernel * input[3];
        let rows_per_chunk = CHUNK.div_ceil((output[2] * patch).max(1));
        Self { window, input, output, patch, rows_per_chunk }
    }

    /// Output pixels of a chunk.
    fn pixels(&self) -> usize {
        self.rows_per_chunk * self.output[2]
    }

    /// What the windows of the chunk's `pixels` see: [pixels, k * k * Ci].
    fn patches(&self, x: &[f32], chunk: usize, pixels: usize) -> Vec<f32> {
        let Window { kernel, stride, padding } = self.window;
        let [_, height, width, channels] = self.input;
        let mut patches = vec![0.0; pixels * self.patch];
        for (index, patch) in patches.chunks_exact_mut(self.patch).enumerate() {
            let (row, column) = (chunk * self.rows_per_chunk + index / self.output[2], index % self.output[2]);
            let (image, row) = (row / self.output[1], row % self.output[1]);
            // The taps inside the map are one run of pixels of the source.
            let left = column * stride;
            let taps = padding.saturating_sub(left).min(kernel)..(width + padding).saturating_sub(left).min(kernel);
            if taps.is_empty() {
                continue;
            }
            for tap in 0..kernel {
                let Some(source) = (row * stride + tap).checked_sub(padding).filter(|row| *row < height) else {
                    continue;
                };
                let from = ((image * height + source) * width + left + taps.start - padding) * channels;
                let to = (tap * kernel + taps.start) * channels;
                let length = taps.len() * channels;
                patch[to..to + length].copy_from_slice(&x[from..from + length]);
            }
        }
        patches
    }
}

/// The convolution of `x` with `weight` [Co, Ci, k, k], of the given `output` size.
pub fn forward(x: &[f32], weight: &[f32], window: Window, input: Size, output: Size) -> Vec<f32> {
    let cut = Cut::new(window, input, output);
    let (outputs, length) = (output[3], output.iter().product());
    if length == 0 || cut.patch == 0 {
        return vec![0.0; length];
    }
    let weight = swap_inner(weight, outputs, input[3], window.kernel * window.kernel);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(cut.pixels() * outputs).enumerate().for_each(|(chunk, out)| {
            let pixels = out.len() / outputs;
            let patches = cut.patches(x, chunk, pixels);
            let weight = Matrix::new(&weight, outputs, cut.patch);
            product_into(Matrix::new(&patches, pixels, cut.patch), weight.transposed(), out);
        });
    };
    // SAFETY: `product_into` writes every element of a chunk.
    unsafe { filled(length, fill) }
}

/// The gradient of the weight [Co, Ci, k, k], given that of the output.
pub fn weight_gradient(x: &[f32], gradient: &[f32], window: Window, input: Size, output: Size) -> Vec<f32> {
    let cut = Cut::new(window, input, output);
    let outputs = output[3];
    let weights = outputs * cut.patch;
    if weights == 0 || gradient.is_empty() {
        return vec![0.0; weights];
    }
    let length = cut.pixels() * outputs;
    let fill = |partials: &mut [MaybeUninit<f32>]| {
        let chunks = partials.par_chunks_mut(weights).zip(gradient.par_chunks(length)).enumerate();
        chunks.for_each(|(chunk, (partial, gradient))| {
            let pixels = gradient.len() / outputs;
            let patches = cut.patches(x, chunk, pixels);
            let gradient = Matrix::new(gradient, pixels, outputs);
            product_into(gradient.transposed(), Matrix::new(&patches, pixels, cut.patch), partial);
        });
    };
    // SAFETY: there are as many partial sums as chunks, and `product_into` writes every element of each.
    let partials = unsafe { filled(gradient.len().div_ceil(length) * weights, fill) };
    swap_inner(&sum_in_order(&partials, weights), outputs, window.kernel * window.kernel, input[3])
}

/// [outer, rows, columns] → [outer, columns, rows]
fn swap_inner(data: &[f32], outer: usize, rows: usize, columns: usize) -> Vec<f32> {
    (0..outer * rows * columns)
        .map(|i| {
            let (matrix, column, row) = (i / (rows * columns), i / rows % columns, i % rows);
            data[(matrix * rows + row) * columns + column]
        })
        .collect()
}
