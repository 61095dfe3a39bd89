//! Pillow's resizing: separable convolution with a kernel that widens when the image shrinks, or
//! the nearest pixel.
//!
//! The arithmetic is that of Pillow's `Resample.c`: one axis after the other in the same order, 8
//! bits in between, fixed-point weights. Results are bit-identical to Pillow 13. Pillow up to
//! version 12 always resized horizontally first. For tall images this changes some pixels by 1
//! and, where the cubic kernel overshoots black or white, a few pixels by more.

use std::ops::Range;

use mbconv_kernels::image_ops::{Interpolation, RgbPixels};

/// A filter and its support: the distance in pixels from which on it is 0.
pub type Filter = (fn(f64) -> f64, f64);

/// Returns the filter of an interpolation: a triangle, or a cubic with a = -0.5 (Catmull–Rom).
/// Nearest has none.
pub fn filter(interpolation: Interpolation) -> Option<Filter> {
    match interpolation {
        Interpolation::Bilinear => Some((triangle, 1.0)),
        Interpolation::Bicubic => Some((cubic, 2.0)),
        Interpolation::Nearest => None,
    }
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

/// Crops a rectangle. Pixels outside the image are black.
pub fn crop(image: &RgbPixels, left: isize, top: isize, width: usize, height: usize) -> RgbPixels {
    let mut data = vec![0; width * height * 3];
    let from = left.max(0).min(image.width as isize);
    let to = left.saturating_add_unsigned(width).min(image.width as isize);
    if from < to {
        let (from, columns, offset) = (from as usize, (to - from) as usize, (from - left) as usize);
        for (y, row) in data.chunks_exact_mut(width * 3).enumerate() {
            let source = top.saturating_add_unsigned(y);
            if source < 0 || source >= image.height as isize {
                continue;
            }
            let start = (source as usize * image.width + from) * 3;
            row[offset * 3..(offset + columns) * 3].copy_from_slice(&image.data[start..start + columns * 3]);
        }
    }
    RgbPixels { width, height, data }
}

/// Resizes the whole image to `width`×`height`.
pub fn resize(image: &RgbPixels, width: usize, height: usize, interpolation: Interpolation) -> RgbPixels {
    let whole = Region { left: 0, top: 0, width, height };
    resize_region(image, width, height, whole, interpolation)
}

/// Returns the part `region` of the image resized to `width`×`height`. Only that part is computed,
/// so no time or memory is spent on pixels outside a crop (a 1×60000 image resized by its shorter
/// side would exhaust the memory).
///
/// `region` must lie inside `width`×`height`.
pub fn resize_region(
    image: &RgbPixels,
    width: usize,
    height: usize,
    region: Region,
    interpolation: Interpolation,
) -> RgbPixels {
    let Region { left, top, width: columns, height: rows } = region;
    if (width, height) == (image.width, image.height) {
        return crop(image, left as isize, top as isize, columns, rows);
    }
    let Some((filter, support)) = filter(interpolation) else { return nearest(image, width, height, region) };
    let across = Weights::new(image.width, width, left, columns, filter, support);
    let down = Weights::new(image.height, height, top, rows, filter, support);
    let data = if is_vertical_first(image, width, height) {
        let between = vertical(&image.data, image.width * 3, &down, 0);
        horizontal(&RgbPixels { width: image.width, height: rows, data: between }, &across, 0..rows)
    } else {
        let used = down.used();
        let between = horizontal(image, &across, used.clone());
        vertical(&between, columns * 3, &down, used.start)
    };
    RgbPixels { width: columns, height: rows, data }
}

/// Returns whether Pillow resizes the height before the width: if the height shrinks, and by more
/// than twice as many pixels as the width.
fn is_vertical_first(image: &RgbPixels, width: usize, height: usize) -> bool {
    let less = |from: usize, to: usize| from as i64 - to as i64;
    less(image.height, height) > 0.max(2 * less(image.width, width))
}

/// Returns the source pixels under the centers of the pixels `start..start + count` of a line
/// resized from `from` to `to` pixels. Steps are accumulated as in Pillow's `ImagingScaleAffine`,
/// including its rounding.
fn under(from: usize, to: usize, start: usize, count: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let centers = std::iter::successors(Some(0.5 * step), |center| Some(center + step));
    centers.skip(start).take(count).map(|center| (center as usize).min(from - 1)).collect()
}

fn nearest(image: &RgbPixels, width: usize, height: usize, region: Region) -> RgbPixels {
    let Region { left, top, width: columns, height: rows } = region;
    let across = under(image.width, width, left, columns);
    let (source, _) = image.data.as_chunks::<3>();
    let mut data = Vec::with_capacity(columns * rows * 3);
    for y in under(image.height, height, top, rows) {
        let line = &source[y * image.width..][..image.width];
        data.extend(across.iter().flat_map(|&x| line[x]));
    }
    RgbPixels { width: columns, height: rows, data }
}

/// Fractional bits of a weight, as in Pillow: a weighted sum of bytes and a sign fit in 32 bits.
const PRECISION: u32 = 32 - 8 - 2;

/// The source pixels and weights of each output pixel of a line.
struct Weights {
    /// First source pixel, and the range of its weights in `weights`.
    spans: Vec<(usize, Range<usize>)>,
    weights: Vec<i32>,
}

impl Weights {
    /// Computes weights for the pixels `start..start + count` of a line resized from `from` to `to`
    /// pixels.
    fn new(from: usize, to: usize, start: usize, count: usize, filter: fn(f64) -> f64, support: f64) -> Weights {
        if from == to {
            let spans = (0..count).map(|i| (start + i, i..i + 1)).collect();
            return Weights { spans, weights: vec![1 << PRECISION; count] };
        }
        let scale = from as f64 / to as f64;
        let widening = scale.max(1.0);
        let reach = support * widening;
        let narrowing = 1.0 / widening;
        let mut line = Weights { spans: Vec::with_capacity(count), weights: Vec::new() };
        let mut exact = Vec::new();
        for out in start..start + count {
            let center = (out as f64 + 0.5) * scale;
            // Casts to an integer truncate, and negative numbers become 0.
            let first = ((center - reach + 0.5) as usize).min(from - 1);
            let last = ((center + reach + 0.5) as usize).clamp(first + 1, from);
            exact.clear();
            exact.extend((first..last).map(|x| filter((x as f64 - center + 0.5) * narrowing)));
            let sum: f64 = exact.iter().sum();
            let begin = line.weights.len();
            line.weights.extend(exact.iter().map(|&weight| {
                let weight = if sum == 0.0 { weight } else { weight / sum };
                let scaled = weight * f64::from(1u32 << PRECISION);
                (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            }));
            line.spans.push((first, begin..line.weights.len()));
        }
        line
    }

    /// Returns the range of used source pixels.
    fn used(&self) -> Range<usize> {
        let first = self.spans.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let last = self.spans.iter().map(|(first, span)| first + span.len()).max().unwrap_or(0);
        first..last
    }

    /// Iterates over the first source pixel and the weights of each output pixel.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.spans.iter().map(|(first, span)| (*first, &self.weights[span.clone()]))
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

const HALF: i32 = 1 << (PRECISION - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Resizes the `rows` of the image horizontally.
fn horizontal(image: &RgbPixels, weights: &Weights, rows: Range<usize>) -> Vec<u8> {
    let mut out = vec![0; rows.len() * weights.spans.len() * 3];
    let lines = image.data.chunks_exact(image.width * 3).skip(rows.start);
    for (out, line) in out.chunks_exact_mut((weights.spans.len() * 3).max(1)).zip(lines) {
        let (line, _) = line.as_chunks::<3>();
        let (out, _) = out.as_chunks_mut::<3>();
        for (pixel, (first, weights)) in out.iter_mut().zip(weights.iter()) {
            let mut sum = [HALF; 3];
            for (source, &weight) in line[first..].iter().zip(weights) {
                sum[0] += i32::from(source[0]) * weight;
                sum[1] += i32::from(source[1]) * weight;
                sum[2] += i32::from(source[2]) * weight;
            }
            *pixel = sum.map(to_byte);
        }
    }
    out
}

/// Resizes vertically; `lines` have `length` bytes and start at the source's line `offset`.
fn vertical(lines: &[u8], length: usize, weights: &Weights, offset: usize) -> Vec<u8> {
    let mut out = vec![0; weights.spans.len() * length];
    let mut sums = vec![HALF; length];
    for (out, (first, weights)) in out.chunks_exact_mut(length.max(1)).zip(weights.iter()) {
        sums.fill(HALF);
        let sources = lines[(first - offset) * length..].chunks_exact(length);
        for (source, &weight) in sources.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(source) {
                *sum += i32::from(value) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = to_byte(sum);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: usize, height: usize) -> RgbPixels {
        let data = (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect();
        RgbPixels { width, height, data }
    }

    #[test]
    fn resized_region_equals_crop_of_resized_image() {
        let image = gradient(50, 41);
        for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Nearest] {
            for (width, height) in [(20, 30), (70, 80), (50, 60), (50, 41)] {
                let whole = resize(&image, width, height, interpolation);
                let region = Region { left: 3, top: 7, width: 11, height: 13 };
                let part = resize_region(&image, width, height, region, interpolation);
                assert_eq!(part.data, crop(&whole, 3, 7, 11, 13).data, "{width}×{height}");
            }
        }
    }

    #[test]
    fn crop_beyond_edges_is_black() {
        let image = RgbPixels { width: 2, height: 1, data: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(crop(&image, -1, -1, 2, 3).data, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(crop(&image, 1, 0, 2, 1).data, [4, 5, 6, 0, 0, 0]);
        assert_eq!(crop(&image, 5, 0, 1, 1).data, [0, 0, 0]);
        assert_eq!(crop(&image, -5, 0, 1, 1).data, [0, 0, 0]);
    }
}
