//! Gaussian blur as in Pillow: three box blurs of fractional radius (Gwosdek et al. 2011).

use crate::types::image::pixels::RgbPixels;

pub(crate) const PASSES: i32 = 3;

/// A weighted mean over neighbors, with weights in 24-bit fixed point; the two outermost neighbors
/// count less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoxBlur {
    /// Number of neighbors on each side with full weight.
    pub whole: u32,
    /// Weight of these neighbors and of the pixel itself.
    pub weight: u32,
    /// Weight of the next neighbor on each side.
    pub edge_weight: u32,
}

impl BoxBlur {
    /// Returns the box blur that approximates a Gaussian of this standard deviation when applied
    /// [`PASSES`] times in each direction. Returns `None` if it would change nothing.
    pub(crate) fn of_gaussian(deviation: f64) -> Option<Self> {
        let radius = box_radius(deviation as f32);
        if radius.is_nan() || radius <= 0.0 {
            return None;
        }
        let whole = radius as u32;
        let weight = ((1u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
        let edge_weight = ((1u32 << 24).saturating_sub((whole * 2 + 1).wrapping_mul(weight))) / 2;
        Some(Self { whole, weight, edge_weight })
    }
}

pub(super) fn gaussian(image: &mut RgbPixels, radius: f64) {
    let Some(window) = BoxBlur::of_gaussian(radius) else { return };
    let (width, height) = (image.width, image.height);
    let (pixels, _) = image.data.as_chunks_mut::<3>();
    for row in pixels.chunks_exact_mut(width) {
        blur_line(row, window);
    }
    let mut column = vec![[0; 3]; height];
    for x in 0..width {
        column.iter_mut().zip(pixels[x..].iter().step_by(width)).for_each(|(to, from)| *to = *from);
        blur_line(&mut column, window);
        pixels[x..].iter_mut().step_by(width).zip(&column).for_each(|(to, from)| *to = *from);
    }
}

/// Returns the radius of a box that, applied [`PASSES`] times, has the variance of a Gaussian with
/// the standard deviation `radius`.
fn box_radius(radius: f32) -> f32 {
    let variance = radius * radius / PASSES as f32;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let fraction = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    whole + fraction / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
}

fn blur_line(line: &mut [[u8; 3]], BoxBlur { whole, weight, edge_weight }: BoxBlur) {
    let last = line.len() - 1;
    let mut source = vec![[0; 3]; line.len()];
    for _ in 0..PASSES {
        source.copy_from_slice(line);
        let at = |i: isize| source[i.clamp(0, last as isize) as usize].map(u32::from);
        let whole = whole as isize;
        let mut sum = [0u32; 3];
        for i in -whole - 1..whole {
            sum = std::array::from_fn(|c| sum[c] + at(i)[c]);
        }
        for (x, pixel) in line.iter_mut().enumerate() {
            let x = x as isize;
            let (old, new) = (at(x - whole - 1), at(x + whole));
            sum = std::array::from_fn(|c| sum[c] + new[c] - old[c]);
            let beyond = at(x + whole + 1);
            *pixel = std::array::from_fn(|c| {
                let total = sum[c].wrapping_mul(weight).wrapping_add((old[c] + beyond[c]).wrapping_mul(edge_weight));
                (total.wrapping_add(1 << 23) >> 24) as u8
            });
        }
    }
}
