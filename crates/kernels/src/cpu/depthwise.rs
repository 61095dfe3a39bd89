//! Depthwise convolution, its input gradient, and its weight gradient.
//!
//! The first two are one operation: every pixel of the result sums products of source pixels and
//! weights. They differ only in the pairs of pixels and weights, which [`Taps`] lists for rows and
//! columns.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{
    buffer::{filled, sum_in_order},
    simd::{self, Loop, Machine, multiply_add},
};
use crate::types::conv2d_geometry::Conv2dGeometry;

/// Size of a feature map: images, rows, columns, channels.
pub type Size = [usize; 4];

/// Returns the number of elements of a feature map.
pub fn elements(size: Size) -> usize {
    let product = size.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
    let product = if size.contains(&0) { Some(0) } else { product };
    product.unwrap_or_else(|| panic!("a map {size:?} does not fit into memory"))
}

/// Panics unless the sizes are those of a depthwise convolution's operand and result, and the
/// feature maps have these sizes.
fn check(geometry: Conv2dGeometry, input: Size, output: Size, [inputs, outputs]: [Option<&[f32]>; 2]) {
    let [images, height, width, channels] = input;
    let expected = [images, geometry.output(height), geometry.output(width), channels];
    assert_eq!(output, expected, "the result of a depthwise convolution {geometry:?} of {input:?}");
    for (map, size) in [(inputs, input), (outputs, output)] {
        assert!(map.is_none_or(|map| map.len() == elements(size)), "a map of another size than {size:?}");
    }
}

fn check_weight(weight: &[f32], Conv2dGeometry { kernel, .. }: Conv2dGeometry, [.., channels]: Size) {
    assert_eq!(weight.len(), elements([1, kernel, kernel, channels]), "the weight of a depthwise convolution");
}

/// For each position along one side of the result, the list of (tap of the geometry, position in
/// the source) that it sums.
struct Taps {
    taps: Vec<(usize, usize)>,
    starts: Vec<usize>,
    /// Away from the borders, a position `period` further on uses the same taps,
    period: usize,
    /// at source positions `step` further on.
    step: usize,
}

impl Taps {
    fn of(&self, position: usize) -> &[(usize, usize)] {
        &self.taps[self.starts[position]..self.starts[position + 1]]
    }

    /// Returns whether `count` positions from this one on, a period apart, use the same taps.
    ///
    /// The taps of a position are consecutive, so their first and their number determine all of
    /// them. A tap that is inside the source at both ends is inside in between. Only positions
    /// without taps may have positions with other taps in between.
    fn alike(&self, position: usize, count: usize) -> bool {
        let last = position + (count - 1) * self.period;
        last + 1 < self.starts.len() && {
            let (first, last) = (self.of(position), self.of(last));
            first.len() == last.len() && matches!((first, last), ([first, ..], [last, ..]) if first.0 == last.0)
        }
    }

    fn collect(period: usize, step: usize, positions: impl Iterator<Item: Iterator<Item = (usize, usize)>>) -> Self {
        let (mut taps, mut starts) = (Vec::new(), vec![0]);
        for position in positions {
            taps.extend(position);
            starts.push(taps.len());
        }
        Self { taps, starts, period, step }
    }

    /// Lists the taps of a convolution: output position `o` reads input
    /// `o * stride + tap - padding`.
    fn forward(geometry: Conv2dGeometry, input: usize, output: usize) -> Self {
        let Conv2dGeometry { kernel, stride, padding } = geometry;
        let positions = (0..output).map(|position| {
            (0..kernel).filter_map(move |tap| {
                let source = (position * stride + tap).checked_sub(padding)?;
                (source < input).then_some((tap, source))
            })
        });
        Self::collect(1, stride, positions)
    }

    /// Lists the same pairs from the input's side.
    fn backward(geometry: Conv2dGeometry, input: usize, output: usize) -> Self {
        let Conv2dGeometry { kernel, stride, padding } = geometry;
        let positions = (0..input).map(|position| {
            (0..kernel).filter_map(move |tap| {
                let shifted = (position + padding).checked_sub(tap)?;
                (shifted % stride == 0 && shifted / stride < output).then_some((tap, shifted / stride))
            })
        });
        Self::collect(stride, 1, positions)
    }

    /// Converts taps and source positions to offsets into arrays with `tap` and `source` elements
    /// for each.
    fn scaled(mut self, tap: usize, source: usize) -> Self {
        for pair in &mut self.taps {
            *pair = (pair.0 * tap, pair.1 * source);
        }
        self.step *= source;
        self
    }
}

/// Convolves `x` with `weight` [C, 1, k, k], with the given `output` size.
///
/// # Panics
/// If the sizes do not match.
pub fn forward(x: &[f32], weight: &[f32], geometry: Conv2dGeometry, input: Size, output: Size) -> Vec<f32> {
    check(geometry, input, output, [Some(x), None]);
    check_weight(weight, geometry, input);
    if elements(output) == 0 {
        return Vec::new();
    }
    let rows = Taps::forward(geometry, input[1], output[1]);
    let columns = Taps::forward(geometry, input[2], output[2]);
    gather(x, weight, geometry.kernel, rows, columns, input, output)
}

/// Returns the gradient of the input, from the gradient of the output.
///
/// # Panics
/// If the sizes do not match.
pub fn input_gradient(
    gradient: &[f32],
    weight: &[f32],
    geometry: Conv2dGeometry,
    input: Size,
    output: Size,
) -> Vec<f32> {
    check(geometry, input, output, [None, Some(gradient)]);
    check_weight(weight, geometry, input);
    if elements(input) == 0 {
        return Vec::new();
    }
    let rows = Taps::backward(geometry, input[1], output[1]);
    let columns = Taps::backward(geometry, input[2], output[2]);
    gather(gradient, weight, geometry.kernel, rows, columns, output, input)
}

/// Computes all pixels of the result. The operands must have passed the checks, and the taps must
/// be those of the window and of the feature maps.
fn gather(
    source: &[f32],
    weight: &[f32],
    kernel: usize,
    rows: Taps,
    columns: Taps,
    [images, source_height, source_width, channels]: Size,
    [_, height, width, _]: Size,
) -> Vec<f32> {
    let length = elements([images, height, width, channels]);
    let weight = transpose(weight, channels);
    let rows = rows.scaled(kernel * channels, source_width * channels);
    let columns = columns.scaled(channels, channels);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(width * channels).enumerate().for_each(|(index, out)| {
            let (image, row) = (index / height, index % height);
            let length = source_height * source_width * channels;
            let source = &source[image * length..][..length];
            simd::run(GatherRow { out, source, weight: &weight, rows: rows.of(row), columns: &columns, channels });
        });
    };
    // SAFETY: each row of the result is a chunk, and `GatherRow` writes all channels of every
    // column.
    unsafe { filled(length, fill) }
}

/// Transposes a matrix with `rows` rows: [rows, columns] → [columns, rows].
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows.max(1);
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

/// Computes one row of the result.
struct GatherRow<'a> {
    /// [width, C]
    out: &'a mut [MaybeUninit<f32>],
    /// [source height, source width, C]
    source: &'a [f32],
    /// [k * k, C]
    weight: &'a [f32],
    /// Offsets into the weight and the source, like those of `columns`.
    rows: &'a [(usize, usize)],
    columns: &'a Taps,
    channels: usize,
}

impl Loop for GatherRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self, _: M) {
        let width = self.out.len() / self.channels;
        let period = self.columns.period;
        for phase in 0..period.min(width) {
            let mut column = phase;
            while column < width {
                // Neighbors with the same taps share the loads of the weights.
                column += period
                    * if self.columns.alike(column, 4) {
                        self.pixels::<4, M>(column)
                    } else {
                        self.pixels::<1, M>(column)
                    };
            }
        }
    }
}

impl GatherRow<'_> {
    /// Computes all channels of `PIXELS` pixels with the same taps.
    #[inline(always)]
    fn pixels<const PIXELS: usize, M: Machine>(&mut self, column: usize) -> usize {
        let mut channel = 0;
        channel = self.channels::<PIXELS, 16, M>(column, channel);
        channel = self.channels::<PIXELS, 8, M>(column, channel);
        self.channels::<PIXELS, 1, M>(column, channel);
        PIXELS
    }

    /// Computes channels from `channel` on, `LANES` at a time, and returns the first remaining
    /// channel.
    #[inline(always)]
    fn channels<const PIXELS: usize, const LANES: usize, M: Machine>(
        &mut self,
        column: usize,
        mut channel: usize,
    ) -> usize {
        let step = self.columns.step;
        while channel + LANES <= self.channels {
            let mut sums = [[0.0f32; LANES]; PIXELS];
            for &(row_weight, row) in self.rows {
                for &(column_weight, source) in self.columns.of(column) {
                    // SAFETY: the lengths were checked before `gather`, `Taps` holds only taps of
                    // the window and positions of the source, `alike` extends that to all the
                    // pixels, and `channel + LANES` is within the channels.
                    let weights = unsafe { lanes::<LANES>(self.weight, row_weight + column_weight + channel) };
                    let at = row + source + channel;
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: as above.
                        let values = unsafe { lanes::<LANES>(self.source, at + pixel * step) };
                        for lane in 0..LANES {
                            sums[lane] = multiply_add::<M>(values[lane], weights[lane], sums[lane]);
                        }
                    }
                }
            }
            for (pixel, sums) in sums.iter().enumerate() {
                let at = (column + pixel * self.columns.period) * self.channels + channel;
                self.out[at..at + LANES].write_copy_of_slice(sums);
            }
            channel += LANES;
        }
        channel
    }
}

/// Returns `LANES` elements from `at` on.
///
/// # Safety
/// They must be inside the slice. (A check would cost more than the arithmetic that follows.)
#[inline(always)]
unsafe fn lanes<const LANES: usize>(slice: &[f32], at: usize) -> [f32; LANES] {
    debug_assert!(at + LANES <= slice.len());
    // SAFETY: the caller promises that the elements exist; an array has the alignment of its
    // elements.
    unsafe { slice.as_ptr().add(at).cast::<[f32; LANES]>().read() }
}

/// Minimum number of elements in the output rows that one thread sums up before the sums are
/// combined.
const CHUNK: usize = 1 << 16;

/// Returns the gradient of the weight [C, 1, k, k], from the gradient of the output.
///
/// # Panics
/// If the sizes do not match.
pub fn weight_gradient(x: &[f32], gradient: &[f32], geometry: Conv2dGeometry, input: Size, output: Size) -> Vec<f32> {
    check(geometry, input, output, [Some(x), Some(gradient)]);
    let [images, height, width, channels] = output;
    let weights = elements([1, geometry.kernel, geometry.kernel, channels]);
    let rows = images * height;
    let rows_per_chunk = CHUNK.div_ceil((width * channels).max(1));
    let chunks = rows.div_ceil(rows_per_chunk);
    let mut partials = vec![0.0; chunks * weights];
    if partials.is_empty() {
        return vec![0.0; weights];
    }
    partials.par_chunks_mut(weights).enumerate().for_each(|(chunk, partial)| {
        for index in chunk * rows_per_chunk..rows.min((chunk + 1) * rows_per_chunk) {
            let (image, row) = (index / height, index % height);
            let gradient = &gradient[index * width * channels..][..width * channels];
            for row_tap in 0..geometry.kernel {
                let Some(source) = (row * geometry.stride + row_tap).checked_sub(geometry.padding) else { continue };
                if source >= input[1] {
                    continue;
                }
                let x = &x[(image * input[1] + source) * input[2] * channels..][..input[2] * channels];
                let sums = &mut partial[row_tap * geometry.kernel * channels..][..geometry.kernel * channels];
                simd::run(CorrelateRow { sums, gradient, x, geometry, channels });
            }
        }
    });
    transpose(&sum_in_order(&partials, weights), geometry.kernel * geometry.kernel)
}

/// Correlates one row of the output's gradient with one row of the input.
struct CorrelateRow<'a> {
    /// Sums [k, C] for one row of the window.
    sums: &'a mut [f32],
    /// [W', C]
    gradient: &'a [f32],
    /// [W, C]
    x: &'a [f32],
    geometry: Conv2dGeometry,
    channels: usize,
}

impl Loop for CorrelateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self, _: M) {
        // Use the most taps whose sums fit into registers.
        let mut tap = 0;
        while tap < self.geometry.kernel {
            tap += match self.geometry.kernel - tap {
                5.. => self.taps::<5, M>(tap),
                3..5 => self.taps::<3, M>(tap),
                _ => self.taps::<1, M>(tap),
            }
        }
    }
}

impl CorrelateRow<'_> {
    /// Sums `TAPS` taps from `tap` on, over all channels.
    #[inline(always)]
    fn taps<const TAPS: usize, M: Machine>(&mut self, tap: usize) -> usize {
        let mut channel = 0;
        channel = self.block::<TAPS, 16, M>(tap, channel);
        channel = self.block::<TAPS, 8, M>(tap, channel);
        self.block::<TAPS, 1, M>(tap, channel);
        TAPS
    }

    #[inline(always)]
    fn block<const TAPS: usize, const LANES: usize, M: Machine>(&mut self, tap: usize, mut channel: usize) -> usize {
        let Conv2dGeometry { stride, padding, .. } = self.geometry;
        let (output, input) = (self.gradient.len() / self.channels, self.x.len() / self.channels);
        // Positions at which all taps are inside the input.
        let first = padding.saturating_sub(tap).div_ceil(stride).min(output);
        let end = (input + padding).checked_sub(tap + TAPS).map_or(0, |last| last / stride + 1).clamp(first, output);
        while channel + LANES <= self.channels {
            let mut sums = [[0.0f32; LANES]; TAPS];
            for position in first..end {
                // SAFETY: `position` is within the output; from `first` to `end`, all taps are
                // within the input; and `channel + LANES` is within the channels.
                let gradient = unsafe { lanes::<LANES>(self.gradient, position * self.channels + channel) };
                let at = (position * stride + tap - padding) * self.channels + channel;
                for (offset, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let x = unsafe { lanes::<LANES>(self.x, at + offset * self.channels) };
                    for lane in 0..LANES {
                        sums[lane] = multiply_add::<M>(gradient[lane], x[lane], sums[lane]);
                    }
                }
            }
            for (offset, mut sums) in sums.into_iter().enumerate() {
                for position in (0..first).chain(end..output) {
                    let source = (position * stride + tap + offset).wrapping_sub(padding);
                    if source < input {
                        // SAFETY: `position` is within the output, `source` within the input,
                        // `channel + LANES` within the channels.
                        let gradient = unsafe { lanes::<LANES>(self.gradient, position * self.channels + channel) };
                        // SAFETY: as above.
                        let x = unsafe { lanes::<LANES>(self.x, source * self.channels + channel) };
                        for lane in 0..LANES {
                            sums[lane] = multiply_add::<M>(gradient[lane], x[lane], sums[lane]);
                        }
                    }
                }
                let at = (tap + offset) * self.channels + channel;
                self.sums[at..at + LANES].iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
            channel += LANES;
        }
        channel
    }
}
