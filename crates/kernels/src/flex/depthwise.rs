//! Depthwise convolution, its input gradient, and its weight gradient.
//!
//! The first two are one operation: every pixel of the result gathers products of pixels of the source with weights.
//! Only which ones differs, and [`Taps`] says so for rows and columns.

use rayon::prelude::*;

use super::{
    matmul::add_in_order,
    simd::{self, Loop, multiply_add},
};
use crate::Window;

/// The size of a map: images, rows, columns, channels.
pub type Size = [usize; 4];

/// For each position along one side of the result: which (tap of the window, position in the source) it gathers.
struct Taps {
    taps: Vec<(usize, usize)>,
    starts: Vec<usize>,
}

impl Taps {
    fn of(&self, position: usize) -> &[(usize, usize)] {
        &self.taps[self.starts[position]..self.starts[position + 1]]
    }

    fn collect(positions: impl Iterator<Item: Iterator<Item = (usize, usize)>>) -> Self {
        let (mut taps, mut starts) = (Vec::new(), vec![0]);
        for position in positions {
            taps.extend(position);
            starts.push(taps.len());
        }
        Self { taps, starts }
    }

    /// The taps of a convolution: output position `o` sees input `o * stride + tap - padding`.
    fn forward(window: Window, input: usize, output: usize) -> Self {
        let Window { kernel, stride, padding } = window;
        Self::collect((0..output).map(|position| {
            (0..kernel).filter_map(move |tap| {
                let source = (position * stride + tap).checked_sub(padding)?;
                (source < input).then_some((tap, source))
            })
        }))
    }

    /// The same pairs seen from the input.
    fn backward(window: Window, input: usize, output: usize) -> Self {
        let Window { kernel, stride, padding } = window;
        Self::collect((0..input).map(|position| {
            (0..kernel).filter_map(move |tap| {
                let shifted = (position + padding).checked_sub(tap)?;
                (shifted % stride == 0 && shifted / stride < output).then_some((tap, shifted / stride))
            })
        }))
    }
}

/// The convolution of `x` with `weight` [C, 1, k, k], of the given `output` size.
pub fn forward(x: &[f32], weight: &[f32], window: Window, input: Size, output: Size) -> Vec<f32> {
    let rows = Taps::forward(window, input[1], output[1]);
    let columns = Taps::forward(window, input[2], output[2]);
    gather(x, weight, window.kernel, rows, columns, input, output)
}

/// The gradient of the input, given that of the output.
pub fn input_gradient(gradient: &[f32], weight: &[f32], window: Window, input: Size, output: Size) -> Vec<f32> {
    let rows = Taps::backward(window, input[1], output[1]);
    let columns = Taps::backward(window, input[2], output[2]);
    gather(gradient, weight, window.kernel, rows, columns, output, input)
}

fn gather(
    source: &[f32],
    weight: &[f32],
    kernel: usize,
    rows: Taps,
    columns: Taps,
    [_, source_height, source_width, channels]: Size,
    [_, height, width, _]: Size,
) -> Vec<f32> {
    let images = source.len() / (source_height * source_width * channels).max(1);
    let mut out = vec![0.0; images * height * width * channels];
    if out.is_empty() {
        return out;
    }
    let weight = transpose(weight, channels);
    out.par_chunks_mut(width * channels).enumerate().for_each(|(index, out)| {
        let (image, row) = (index / height, index % height);
        let source = &source[image * source_height * source_width * channels..];
        let source = &source[..source_height * source_width * channels];
        let rows = rows.of(row);
        simd::run(GatherRow { out, source, source_width, weight: &weight, kernel, rows, columns: &columns, channels });
    });
    out
}

/// [rows, columns] → [columns, rows], where there are `rows` rows.
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows.max(1);
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

/// One row of the result.
struct GatherRow<'a> {
    /// [width, C]
    out: &'a mut [f32],
    /// [source height, source width, C]
    source: &'a [f32],
    source_width: usize,
    /// [k * k, C]
    weight: &'a [f32],
    kernel: usize,
    rows: &'a [(usize, usize)],
    columns: &'a Taps,
    channels: usize,
}

impl Loop for GatherRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let width = self.out.len() / self.channels;
        for column in 0..width {
            let mut channel = 0;
            channel = self.pixel::<32, FMA>(column, channel);
            channel = self.pixel::<16, FMA>(column, channel);
            channel = self.pixel::<8, FMA>(column, channel);
            self.pixel::<1, FMA>(column, channel);
        }
    }
}

impl GatherRow<'_> {
    /// Channels of one pixel from `channel` on, `LANES` at a time; returns the first that is left.
    #[inline(always)]
    fn pixel<const LANES: usize, const FMA: bool>(&mut self, column: usize, mut channel: usize) -> usize {
        while channel + LANES <= self.channels {
            let mut sums = [0.0f32; LANES];
            for &(row_tap, row) in self.rows {
                for &(column_tap, source_column) in self.columns.of(column) {
                    let at = (row * self.source_width + source_column) * self.channels + channel;
                    let values = &self.source[at..at + LANES];
                    let at = (row_tap * self.kernel + column_tap) * self.channels + channel;
                    let weights = &self.weight[at..at + LANES];
                    for lane in 0..LANES {
                        sums[lane] = multiply_add::<FMA>(values[lane], weights[lane], sums[lane]);
                    }
                }
            }
            let at = column * self.channels + channel;
            self.out[at..at + LANES].copy_from_slice(&sums);
            channel += LANES;
        }
        channel
    }
}

/// Rows of the output whose products one thread adds up before they join the others: at least this many elements.
const CHUNK: usize = 1 << 16;

/// The gradient of the weight [C, 1, k, k], given that of the output.
pub fn weight_gradient(x: &[f32], gradient: &[f32], window: Window, input: Size, output: Size) -> Vec<f32> {
    let [images, height, width, channels] = output;
    let weights = window.kernel * window.kernel * channels;
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
            for row_tap in 0..window.kernel {
                let Some(source) = (row * window.stride + row_tap).checked_sub(window.padding) else { continue };
                if source >= input[1] {
                    continue;
                }
                let x = &x[(image * input[1] + source) * input[2] * channels..][..input[2] * channels];
                let sums = &mut partial[row_tap * window.kernel * channels..][..window.kernel * channels];
                simd::run(CorrelateRow { sums, gradient, x, window, channels });
            }
        }
    });
    let mut sums = vec![0.0; weights];
    add_in_order(&partials, &mut sums);
    transpose(&sums, window.kernel * window.kernel)
}

/// One row of the output's gradient with one row of the input.
struct CorrelateRow<'a> {
    /// [k, C]: one row of the window.
    sums: &'a mut [f32],
    /// [W', C]
    gradient: &'a [f32],
    /// [W, C]
    x: &'a [f32],
    window: Window,
    channels: usize,
}

impl Loop for CorrelateRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        // As many taps at a time as have their sums in registers.
        let mut tap = 0;
        while tap < self.window.kernel {
            tap += match self.window.kernel - tap {
                5.. => self.taps::<5, FMA>(tap),
                3..5 => self.taps::<3, FMA>(tap),
                _ => self.taps::<1, FMA>(tap),
            }
        }
    }
}

impl CorrelateRow<'_> {
    /// `TAPS` taps from `tap` on, over all channels.
    #[inline(always)]
    fn taps<const TAPS: usize, const FMA: bool>(&mut self, tap: usize) -> usize {
        let mut channel = 0;
        channel = self.block::<TAPS, 16, FMA>(tap, channel);
        channel = self.block::<TAPS, 8, FMA>(tap, channel);
        self.block::<TAPS, 1, FMA>(tap, channel);
        TAPS
    }

    #[inline(always)]
    fn block<const TAPS: usize, const LANES: usize, const FMA: bool>(
        &mut self,
        tap: usize,
        mut channel: usize,
    ) -> usize {
        let Window { stride, padding, .. } = self.window;
        let (output, input) = (self.gradient.len() / self.channels, self.x.len() / self.channels);
        // Positions where all the taps lie inside the input.
        let first = padding.saturating_sub(tap).div_ceil(stride).min(output);
        let end = (input + padding).checked_sub(tap + TAPS).map_or(0, |last| last / stride + 1).clamp(first, output);
        while channel + LANES <= self.channels {
            let mut sums = [[0.0f32; LANES]; TAPS];
            for position in (0..first).chain(end..output) {
                for (offset, sums) in sums.iter_mut().enumerate() {
                    let source = (position * stride + tap + offset).checked_sub(padding);
                    if let Some(source) = source.filter(|source| *source < input) {
                        self.add::<LANES, FMA>(sums, position, source, channel);
                    }
                }
            }
            for position in first..end {
                let source = position * stride + tap - padding;
                let at = position * self.channels + channel;
                let gradient = &self.gradient[at..at + LANES];
                let at = source * self.channels + channel;
                let x = &self.x[at..at + (TAPS - 1) * self.channels + LANES];
                for (offset, sums) in sums.iter_mut().enumerate() {
                    let x = &x[offset * self.channels..][..LANES];
                    for lane in 0..LANES {
                        sums[lane] = multiply_add::<FMA>(gradient[lane], x[lane], sums[lane]);
                    }
                }
            }
            for (offset, sums) in sums.iter().enumerate() {
                let at = (tap + offset) * self.channels + channel;
                self.sums[at..at + LANES].iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            }
            channel += LANES;
        }
        channel
    }

    #[inline(always)]
    fn add<const LANES: usize, const FMA: bool>(
        &self,
        sums: &mut [f32; LANES],
        position: usize,
        source: usize,
        channel: usize,
    ) {
        let gradient = &self.gradient[position * self.channels + channel..][..LANES];
        let x = &self.x[source * self.channels + channel..][..LANES];
        for lane in 0..LANES {
            sums[lane] = multiply_add::<FMA>(gradient[lane], x[lane], sums[lane]);
        }
    }
}
