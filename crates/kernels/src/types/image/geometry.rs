//! Shears, translations and rotations, as in Pillow's `Image.transform(AFFINE)`.

use crate::types::image::pixels::RgbPixels;
use crate::types::image::sampling::{Interpolation, Sampling};

/// Takes the pixel at `(x, y)` from `(a·x + b·y + c, d·x + e·y + f)` of the source; pixel centers
/// are at half-integer coordinates.
pub(super) fn affine(image: &RgbPixels, matrix: [f64; 6], sampling: Sampling) -> RgbPixels {
    match sampling.interpolation {
        Interpolation::Bilinear => warp::<2>(image, matrix, sampling.fill, |[a, b], at| a + (b - a) * at),
        Interpolation::Bicubic => warp::<4>(image, matrix, sampling.fill, cubic),
        Interpolation::Nearest => warp::<1>(image, matrix, sampling.fill, |[pixel], _| pixel),
    }
}

/// Returns the matrix that rotates counterclockwise about the center, or `None` for full turns.
pub(super) fn rotation(degrees: f64, width: usize, height: usize) -> Option<[f64; 6]> {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return None;
    }
    // Pillow rounds to 15 decimals, so that right angles are exact.
    let rounded = |value: f64| format!("{value:.15}").parse().unwrap_or(value);
    let angle = -degrees.to_radians();
    let (cos, sin): (f64, f64) = (rounded(angle.cos()), rounded(angle.sin()));
    let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
    Some([cos, sin, cos * -x + sin * -y + 0.0 + x, -sin, cos, -sin * -x + cos * -y + 0.0 + y])
}

/// Shifts the image left and up, filling with black, then mirrors and flips it.
pub(super) fn window(image: &mut RgbPixels, [left, top]: [isize; 2], [mirrored, upside_down]: [bool; 2]) {
    let (width, height) = (image.width, image.height);
    let (source, _) = image.data.as_chunks::<3>();
    let from = |at: usize, length: usize, turned: bool, start: isize| {
        let at = if turned { length - 1 - at } else { at };
        start.checked_add_unsigned(at).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < length)
    };
    let columns: Vec<_> = (0..width).map(|x| from(x, width, mirrored, left)).collect();
    let mut data = vec![0; image.data.len()];
    let (out, _) = data.as_chunks_mut::<3>();
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let Some(row) = from(y, height, upside_down, top) else { continue };
        let row = &source[row * width..][..width];
        for (pixel, column) in out.iter_mut().zip(&columns) {
            *pixel = column.map_or([0; 3], |column| row[column]);
        }
    }
    image.data = data;
}

/// Pillow's bicubic interpolation (a = -1) of four neighbors, at the fraction `at` of the way from
/// the second to the third.
fn cubic([v1, v2, v3, v4]: [f64; 4], at: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + at * (p2 + at * (p3 + at * p4))
}

/// Transforms every pixel, interpolating `N`×`N` neighbors by `mix`, first horizontally, then
/// vertically.
fn warp<const N: usize>(
    image: &RgbPixels,
    [a, b, c, d, e, f]: [f64; 6],
    fill: [u8; 3],
    mix: impl Fn([f64; N], f64) -> f64,
) -> RgbPixels {
    let (width, height) = (image.width, image.height);
    let (source, _) = image.data.as_chunks::<3>();
    let mut data = vec![0; image.data.len()];
    let (out, _) = data.as_chunks_mut::<3>();
    // Returns the indices of the `N` neighbors of a coordinate, clamped to the edges, and its
    // fractional position among them.
    let neighbors = |at: f64, length: usize| -> ([usize; N], f64) {
        let at = if N == 1 { at } else { at - 0.5 };
        let floor = at.floor();
        let first = floor as isize - (N as isize / 2 - 1).max(0);
        let inside = first >= 0 && first as usize + N <= length;
        let index = |i: usize| {
            let i = first + i as isize;
            if inside { i as usize } else { i.clamp(0, length as isize - 1) as usize }
        };
        (std::array::from_fn(index), at - floor)
    };
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let y = y as f64 + 0.5;
        for (x, pixel) in out.iter_mut().enumerate() {
            let x = x as f64 + 0.5;
            let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
            let inside = from_x >= 0.0 && from_x < width as f64 && from_y >= 0.0 && from_y < height as f64;
            if !inside {
                *pixel = fill;
                continue;
            }
            let (columns, dx) = neighbors(from_x, width);
            let (rows, dy) = neighbors(from_y, height);
            let across: [[f64; 3]; N] = rows.map(|row| {
                let line = &source[row * width..][..width];
                let taps = columns.map(|column| line[column]);
                std::array::from_fn(|channel| mix(taps.map(|tap| f64::from(tap[channel])), dx))
            });
            // A cast to a byte truncates and saturates, as in Pillow.
            *pixel = std::array::from_fn(|channel| mix(across.map(|value| value[channel]), dy) as u8);
        }
    }
    RgbPixels { width, height, data }
}
