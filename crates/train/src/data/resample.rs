//! Planes of bytes resized along one axis and then the other.
//!
//! A plane is held as lines, each a multiple of [`LINE`] bytes apart, and a resize makes every new line as a weighted sum of
//! old ones: whole lines at a time, as processors like it. In between the plane is turned over.
// Loops by index over arrays of one length become vectors; what iterators hide in calls is compiled for the oldest processor.
#![allow(clippy::needless_range_loop)]

use super::jpeg::ycc_to_rgb;
use super::jpeg::{Plane, Window};
use super::resize::Filter;

/// Lines begin at multiples of so many bytes.
pub(super) const LINE: usize = 32;

/// Bits behind the point of a weight. Its sum over a pixel is 1, so bytes times weights fit 32 bits.
const PRECISION: u32 = 14;

/// For each new line, which old ones it is made of and in what proportion.
pub(super) struct Weights {
    /// First old line, and where the weights begin and end.
    spans: Vec<(usize, usize, usize)>,
    weights: Vec<i16>,
}

impl Weights {
    /// Pillow's weights for `count` lines made of those in `window`; `filter` is 0 from `support` on.
    pub fn new(window: Window, count: usize, filter: fn(f64) -> f64, support: f64) -> Self {
        let scale = window.length / count as f64;
        let widening = scale.max(1.0);
        let reach = support * widening;
        let mut all = Weights { spans: Vec::with_capacity(count), weights: Vec::new() };
        let mut exact = Vec::new();
        for out in 0..count {
            let centre = window.start + (out as f64 + 0.5) * scale;
            let first = ((centre - reach + 0.5) as usize).clamp(window.from, window.to - 1);
            let last = ((centre + reach + 0.5) as usize).clamp(first + 1, window.to);
            exact.clear();
            exact.extend((first..last).map(|x| filter((x as f64 - centre + 0.5) / widening)));
            let sum: f64 = exact.iter().sum();
            let begin = all.weights.len();
            // What rounding one weight leaves over goes to the next, so that they sum to 1 precisely.
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

    /// Makes the new lines; `stride` is the length of an old line and of a new one.
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

/// Turns `rows` lines over: byte `x` of line `y` becomes byte `y` of line `x`, for all `x` below `columns`.
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

/// Four times, the upper half's bytes go between the lower half's.
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

/// Memory that one image after another is resized in.
#[derive(Default)]
pub(super) struct Scratch {
    across: Vec<u8>,
    turned: Vec<u8>,
    done: [Vec<u8>; 3],
}

/// Resizes the window of each plane (grey, or luma and chroma) to `size`×`size` and makes RGB of them, mirrored if asked for.
#[inline(always)]
pub(super) fn to_square(
    planes: &[Plane],
    size: usize,
    (filter, support): Filter,
    mirrored: bool,
    scratch: &mut Scratch,
) -> Vec<u8> {
    let Scratch { across, turned, done } = scratch;
    let mut stride = 0;
    let mut ready: Option<(&Plane, Weights, Weights)> = None;
    for (plane, done) in planes.iter().zip(done.iter_mut()) {
        // Planes of one shape have the same weights.
        let same = |(of, _, _): &(&Plane, Weights, Weights)| of.across == plane.across && of.down == plane.down;
        if !ready.as_ref().is_some_and(same) {
            let weights = |window| Weights::new(window, size, filter, support);
            ready = Some((plane, weights(plane.across), weights(plane.down)));
        }
        let Some((_, horizontal, vertical)) = &ready else { continue };
        horizontal.apply(&plane.data, plane.stride, across);
        stride = turn(across, plane.stride, size, plane.down.to, turned);
        vertical.apply(turned, stride, done);
    }
    let mut out = vec![0; size * size * 3];
    let mut colours = [const { Vec::new() }; 3];
    colours.iter_mut().for_each(|line: &mut Vec<u8>| line.resize(size, 0));
    for (y, row) in out.chunks_exact_mut((size * 3).max(1)).enumerate() {
        let line = |plane: usize| &done[plane][y * stride..][..size];
        let (row, _) = row.as_chunks_mut::<3>();
        if planes.len() == 1 {
            row.iter_mut().zip(line(0)).for_each(|(pixel, &value)| *pixel = [value; 3]);
        } else {
            let [red, green, blue] = &mut colours;
            let (luma, cb, cr) = (line(0), line(1), line(2));
            let (red, green, blue) = (&mut red[..size], &mut green[..size], &mut blue[..size]);
            for i in 0..size {
                [red[i], green[i], blue[i]] = ycc_to_rgb(luma[i], cb[i], cr[i]);
            }
            for (i, pixel) in row[..size].iter_mut().enumerate() {
                *pixel = [red[i], green[i], blue[i]];
            }
        }
        if mirrored {
            row.reverse();
        }
    }
    out
}
