//! Operations that map each value by a table, as in Pillow's `ImageOps`.

use crate::types::image::pixels::RgbPixels;

/// Maps the values of each channel by its table.
fn map_channels(image: &mut RgbPixels, tables: &[[u8; 256]; 3]) {
    let (pixels, _) = image.data.as_chunks_mut::<3>();
    for pixel in pixels {
        for (value, table) in pixel.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// Maps all values by one table.
pub(super) fn map(image: &mut RgbPixels, table: &[u8; 256]) {
    for value in &mut image.data {
        *value = table[usize::from(*value)];
    }
}

/// Returns the table of a function.
pub(super) fn table(function: impl Fn(u8) -> u8) -> [u8; 256] {
    std::array::from_fn(|value| function(value as u8))
}

fn histograms(image: &RgbPixels) -> [[usize; 256]; 3] {
    let mut counts = [[0; 256]; 3];
    let (pixels, _) = image.data.as_chunks::<3>();
    for pixel in pixels {
        for (value, counts) in pixel.iter().zip(&mut counts) {
            counts[usize::from(*value)] += 1;
        }
    }
    counts
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

pub(super) fn posterized(bits: u32) -> impl Fn(u8) -> u8 {
    let mask = 0xff00u32.wrapping_shr(bits.min(8)) as u8;
    move |value| value & mask
}

pub(super) fn solarized(threshold: f64) -> impl Fn(u8) -> u8 {
    move |value| if f64::from(value) < threshold { value } else { !value }
}

pub(super) fn solarized_by(add: u8) -> impl Fn(u8) -> u8 {
    move |value| if value < 128 { value.saturating_add(add) } else { value }
}

pub(super) fn auto_contrast(image: &mut RgbPixels) {
    let tables = histograms(image).map(|counts| {
        let lowest = counts.iter().position(|&count| count > 0).unwrap_or(0);
        let highest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        if highest <= lowest {
            return identity();
        }
        let scale = 255.0 / (highest - lowest) as f64;
        let offset = -(lowest as f64) * scale;
        // A cast to a byte truncates and saturates.
        std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
    });
    map_channels(image, &tables);
}

pub(super) fn equalize(image: &mut RgbPixels) {
    let tables = histograms(image).map(|counts| {
        let total: usize = counts.iter().sum();
        let last = counts.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
        let step = (total - last) / 255;
        if step == 0 {
            return identity();
        }
        let mut below = step / 2;
        counts.map(|count| {
            let value = below / step;
            below += count;
            value.min(255) as u8
        })
    });
    map_channels(image, &tables);
}
