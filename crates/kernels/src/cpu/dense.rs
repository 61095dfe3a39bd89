//! Dense convolution as a matrix multiplication (im2col): the pixels in a window form one row of a
//! matrix.

use rayon::prelude::*;

use super::{
    buffer::sum_in_order,
    depthwise::{Size, elements},
    gemm::Packed,
    pointwise,
    thread_pool::ThreadPool,
    weight_gradient::outer_products,
};
use crate::types::conv2d_geometry::Conv2dGeometry;

/// Number of elements of the patch matrix that are unfolded at a time.
const CHUNK: usize = 1 << 16;

/// Cut of the output into chunks of whole rows, which depends only on the shape.
struct Cut {
    geometry: Conv2dGeometry,
    input: Size,
    output: Size,
    /// Number of elements in a geometry: k * k * Ci.
    patch: usize,
    rows_per_chunk: usize,
}

impl Cut {
    /// # Panics
    /// If the sizes do not match.
    fn new(x: &[f32], geometry: Conv2dGeometry, input: Size, output: Size) -> Self {
        let [images, height, width, channels] = input;
        let expected = [images, geometry.output(height), geometry.output(width), output[3]];
        assert_eq!(output, expected, "the result of a convolution {geometry:?} of {input:?}");
        assert_eq!(x.len(), elements(input), "a map of another size than {input:?}");
        let patch = elements([1, geometry.kernel, geometry.kernel, channels]);
        let rows_per_chunk = CHUNK.div_ceil((output[2] * patch).max(1));
        Self { geometry, input, output, patch, rows_per_chunk }
    }

    /// Returns the number of output pixels in a chunk.
    fn pixels(&self) -> usize {
        self.rows_per_chunk * self.output[2]
    }

    /// Unfolds the windows of a chunk's `pixels`: [pixels, k * k * Ci].
    fn patches(&self, x: &[f32], chunk: usize, pixels: usize) -> Vec<f32> {
        let Conv2dGeometry { kernel, stride, padding } = self.geometry;
        let [_, height, width, channels] = self.input;
        let mut patches = vec![0.0; pixels * self.patch];
        for (index, patch) in patches.chunks_exact_mut(self.patch).enumerate() {
            let (row, column) = (chunk * self.rows_per_chunk + index / self.output[2], index % self.output[2]);
            let (image, row) = (row / self.output[1], row % self.output[1]);
            // In each line, the taps inside the feature map are consecutive pixels.
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

/// Convolves `x` with `weight` [Co, Ci, k, k], with the given `output` size.
///
/// # Panics
/// If the sizes do not match.
pub fn forward(x: &[f32], weight: &[f32], geometry: Conv2dGeometry, input: Size, output: Size) -> Vec<f32> {
    let cut = Cut::new(x, geometry, input, output);
    let (outputs, length) = (output[3], elements(output));
    assert_eq!(weight.len(), elements([1, 1, outputs, cut.patch]), "the weight of a convolution");
    if length == 0 || cut.patch == 0 {
        return vec![0.0; length];
    }
    let weight = swap_inner(weight, outputs, input[3], geometry.kernel * geometry.kernel);
    let weight = Packed::from_columns(&weight, cut.patch, outputs);
    let bias = vec![0.0; weight.padded()];
    let mut out = vec![0.0; length];
    out.par_chunks_mut(cut.pixels() * outputs).enumerate().for_each(|(chunk, out)| {
        let pixels = out.len() / outputs;
        pointwise::product(&cut.patches(x, chunk, pixels), pixels, &weight, &bias).compute(out, ThreadPool::Single);
    });
    out
}

/// Returns the gradient of the weight [Co, Ci, k, k], from the gradient of the output.
///
/// # Panics
/// If the sizes do not match.
pub fn weight_gradient(x: &[f32], gradient: &[f32], geometry: Conv2dGeometry, input: Size, output: Size) -> Vec<f32> {
    let cut = Cut::new(x, geometry, input, output);
    let outputs = output[3];
    let weights = elements([1, 1, outputs, cut.patch]);
    assert_eq!(gradient.len(), elements(output), "a map of another size than {output:?}");
    if weights == 0 || gradient.is_empty() {
        return vec![0.0; weights];
    }
    let length = cut.pixels() * outputs;
    let mut partials = vec![0.0; gradient.len().div_ceil(length) * weights];
    let chunks = partials.par_chunks_mut(weights).zip(gradient.par_chunks(length)).enumerate();
    chunks.for_each(|(chunk, (partial, gradient))| {
        let patches = cut.patches(x, chunk, gradient.len() / outputs);
        partial.copy_from_slice(&outer_products(gradient, &patches, outputs, cut.patch));
    });
    swap_inner(&sum_in_order(&partials, weights), outputs, geometry.kernel * geometry.kernel, input[3])
}

/// Transposes [outer, rows, columns] → [outer, columns, rows].
fn swap_inner(data: &[f32], outer: usize, rows: usize, columns: usize) -> Vec<f32> {
    (0..outer * rows * columns)
        .map(|i| {
            let (matrix, column, row) = (i / (rows * columns), i / rows % columns, i % rows);
            data[(matrix * rows + row) * columns + column]
        })
        .collect()
}
