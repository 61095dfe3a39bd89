//! Separable resizing of byte planes.
//!
//! A plane is stored as lines whose stride is a multiple of [`LINE`] bytes. A resize computes every
//! output line as a weighted sum of input lines, which vectorizes well. The plane is transposed
//! between the two axes.
// Loops by index over arrays of equal length are vectorized. Iterator closures would be compiled as
// separate functions for the baseline processor.
#![allow(clippy::needless_range_loop)]

use crate::jpeg::{LINE, Plane, Window, ycc_to_rgb};
use crate::resize::Filter;

/// Fractional bits of a weight. Weights of an output line sum to 1, so sums of bytes times weights
/// fit in 32 bits.
const PRECISION: u32 = 14;

/// The input lines and weights of each output line.
pub(crate) struct Weights {
    /// First input line, and start and end of the weights.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i16>,
}

impl Weights {
    /// Computes Pillow's weights for `count` output lines of the input lines in `window`; `filter`
    /// is 0 from `support` on.
    pub fn new(window: Window, count: usize, filter: fn(f64) -> f64, support: f64) -> Self {
        let scale = window.length / count as f64;
        let widening = scale.max(1.0);
        let reach = support * widening;
        let mut all = Weights { spans: Vec::with_capacity(count), weights: Vec::new() };
        let mut exact = Vec::new();
        for out in 0..count {
            let center = window.start + (out as f64 + 0.5) * scale;
            let first = ((center - reach + 0.5) as usize).clamp(window.from, window.to - 1);
            let last = ((center + reach + 0.5) as usize).clamp(first + 1, window.to);
            exact.clear();
            exact.extend((first..last).map(|x| filter((x as f64 - center + 0.5) / widening)));
            let sum: f64 = exact.iter().sum();
            let begin = all.weights.len();
            // Carry each rounding error to the next weight, so that the sum is exactly 1.
            let (mut total, mut before) = (0.0, 0);
            all.weights.extend(exact.iter().map(|weight| {
                total += if sum == 0.0 { 1.0 / exact.len() as f64 } else { weight / sum };
                let now = (total * f64::from(1 << PRECISION)).round() as i32;
                (now - std::mem::replace(&mut before, now)) as i16
            }));
            all.spans.push((first, begin, all.weights.len()));
        }
        all
    }

    /// Computes the output lines; `stride` is the length of input and output lines.
    #[inline(always)]
    pub fn apply(&self, lines: &[u8], stride: usize, out: &mut Vec<u8>) {
        out.resize(self.spans.len() * stride, 0);
        for (out, &(first, begin, end)) in out.chunks_exact_mut(stride.max(1)).zip(&self.spans) {
            let weights = &self.weights[begin..end];
            let lines = &lines[first * stride..(first + weights.len()) * stride];
            for (number, out) in out.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
                let mut sums = [1i32 << (PRECISION - 1); LINE];
                for (row, &weight) in weights.iter().enumerate() {
                    let line = &lines[row * stride + number * LINE..][..LINE];
                    for i in 0..LINE {
                        sums[i] += i32::from(i16::from(line[i])) * i32::from(weight);
                    }
                }
                for i in 0..LINE {
                    out[i] = (sums[i] >> PRECISION).clamp(0, 255) as u8;
                }
            }
        }
    }
}

/// Transposes `rows` lines: byte `x` of line `y` becomes byte `y` of line `x`, for all `x` below
/// `columns`. Returns the stride of the output.
#[inline(always)]
fn turn(lines: &[u8], stride: usize, rows: usize, columns: usize, out: &mut Vec<u8>) -> usize {
    const TILE: usize = 16;
    let height = rows.next_multiple_of(LINE);
    out.resize(columns.next_multiple_of(TILE) * height, 0);
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            let mut tile = [[0u8; TILE]; TILE];
            for (y, line) in tile.iter_mut().enumerate().take(rows - top) {
                if let Some(from) = lines[(top + y) * stride + left..].first_chunk() {
                    *line = *from;
                }
            }
            let tile = transpose(tile);
            for (x, line) in tile.iter().enumerate() {
                out[(left + x) * height + top..][..TILE].copy_from_slice(line);
            }
        }
    }
    height
}

/// Transposes a tile by interleaving the bytes of its halves four times.
#[inline(always)]
fn transpose(mut tile: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    for _ in 0..4 {
        let mut next = [[0; 16]; 16];
        for i in 0..8 {
            let (a, b) = (tile[i], tile[i + 8]);
            #[rustfmt::skip]
            let pair = (
                [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3], a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]],
                [a[8], b[8], a[9], b[9], a[10], b[10], a[11], b[11], a[12], b[12], a[13], b[13], a[14], b[14], a[15], b[15]],
            );
            (next[2 * i], next[2 * i + 1]) = pair;
        }
        tile = next;
    }
    tile
}

/// Buffers reused from image to image.
#[derive(Default)]
pub(crate) struct Scratch {
    across: Vec<u8>,
    turned: Vec<u8>,
    done: [Vec<u8>; 3],
}

/// Resizes the window of each plane (gray, or luma and chroma) to a width and height and converts
/// to RGB, flipped horizontally if `mirrored`.
#[inline(always)]
pub(crate) fn to_rgb(
    planes: &[Plane],
    (width, height): (usize, usize),
    (filter, support): Filter,
    mirrored: bool,
    scratch: &mut Scratch,
) -> Vec<u8> {
    let Scratch { across, turned, done } = scratch;
    let mut stride = 0;
    let mut ready: Option<(&Plane, Weights, Weights)> = None;
    for (plane, done) in planes.iter().zip(done.iter_mut()) {
        // Planes with equal windows share their weights.
        let same = |(of, _, _): &(&Plane, Weights, Weights)| of.across == plane.across && of.down == plane.down;
        if !ready.as_ref().is_some_and(same) {
            let weights = |window, count| Weights::new(window, count, filter, support);
            ready = Some((plane, weights(plane.across, width), weights(plane.down, height)));
        }
        let Some((_, horizontal, vertical)) = &ready else { continue };
        horizontal.apply(&plane.data, plane.stride, across);
        stride = turn(across, plane.stride, width, plane.down.to, turned);
        vertical.apply(turned, stride, done);
    }
    let mut out = vec![0; width * height * 3];
    let mut line_buffers = [const { Vec::new() }; 3];
    line_buffers.iter_mut().for_each(|line: &mut Vec<u8>| line.resize(width, 0));
    for (y, row) in out.chunks_exact_mut((width * 3).max(1)).enumerate() {
        let line = |plane: usize| &done[plane][y * stride..][..width];
        let (row, _) = row.as_chunks_mut::<3>();
        if planes.len() == 1 {
            row.iter_mut().zip(line(0)).for_each(|(pixel, &value)| *pixel = [value; 3]);
        } else {
            let [red, green, blue] = &mut line_buffers;
            let (luma, cb, cr) = (line(0), line(1), line(2));
            let (red, green, blue) = (&mut red[..width], &mut green[..width], &mut blue[..width]);
            for i in 0..width {
                [red[i], green[i], blue[i]] = ycc_to_rgb(luma[i], cb[i], cr[i]);
            }
            for (i, pixel) in row[..width].iter_mut().enumerate() {
                *pixel = [red[i], green[i], blue[i]];
            }
        }
        if mirrored {
            row.reverse();
        }
    }
    out
}
