//! Brightness, contrast, saturation, sharpness and hue, as in Pillow's `ImageEnhance` and its HSV
//! conversion.

use crate::types::image::pixels::RgbPixels;
use crate::types::image::tone;

/// Pillow's `Image.blend`: interpolates from `a` (`factor` 0) to `b` (`factor` 1) or extrapolates
/// beyond; truncated and saturated.
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    (f32::from(a) + factor * f32::from(i16::from(b) - i16::from(a))) as u8
}

/// Pillow's conversion to gray: ITU-R 601-2 luma in 16-bit fixed point.
fn gray([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

pub(super) fn brightened(factor: f64) -> impl Fn(u8) -> u8 {
    move |value| blend(0, value, factor as f32)
}

pub(super) fn contrast(image: &mut RgbPixels, factor: f64) {
    let (pixels, _) = image.data.as_chunks::<3>();
    let sum: u64 = pixels.iter().map(|&pixel| u64::from(gray(pixel))).sum();
    let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
    tone::map(image, &tone::table(|value| blend(mean, value, factor as f32)));
}

pub(super) fn color(image: &mut RgbPixels, factor: f64) {
    let (pixels, _) = image.data.as_chunks_mut::<3>();
    for pixel in pixels {
        let gray = gray(*pixel);
        *pixel = pixel.map(|value| blend(gray, value, factor as f32));
    }
}

/// Blends with the image smoothed by the kernel 1 1 1, 1 5 1, 1 1 1; the outermost pixels stay
/// unchanged.
pub(super) fn sharpness(image: &mut RgbPixels, factor: f64) {
    let (width, height) = (image.width, image.height);
    if width < 3 || height < 3 {
        return;
    }
    let stride = width * 3;
    let mut above = image.data[..stride].to_vec();
    let mut sums = vec![0u16; stride];
    for y in 1..height - 1 {
        let (rows, below) = image.data.split_at_mut((y + 1) * stride);
        let (row, below) = (&mut rows[y * stride..], &below[..stride]);
        for (sum, ((a, b), c)) in sums.iter_mut().zip(above.iter().zip(&*row).zip(below)) {
            *sum = u16::from(*a) + u16::from(*b) + u16::from(*c);
        }
        above.copy_from_slice(row);
        for (i, value) in row.iter_mut().enumerate().take(stride - 3).skip(3) {
            let sum = u32::from(sums[i - 3] + sums[i] + sums[i + 3]) + 4 * u32::from(*value);
            // sum / 13, rounded; 13 is odd, so a tie cannot occur.
            *value = blend(((2 * sum + 13) / 26) as u8, *value, factor as f32);
        }
    }
}

/// Converts a fraction of the hue circle to steps of an 8-bit hue.
pub(crate) fn hue_steps(turn: f64) -> u8 {
    (turn * 255.0) as i32 as u8
}

/// Adds to the hue in Pillow's 8-bit HSV (torchvision's `adjust_hue` on a Pillow image).
pub(super) fn hue(image: &mut RgbPixels, turn: f64) {
    let turn = hue_steps(turn);
    let (pixels, _) = image.data.as_chunks_mut::<3>();
    for pixel in pixels {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = from_hsv([hue.wrapping_add(turn), saturation, value]);
    }
}

fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (greatest, least) = (r.max(g).max(b), r.min(g).min(b));
    if greatest == least {
        return [0, 0, greatest];
    }
    let chroma = f32::from(greatest - least);
    let saturation = chroma / f32::from(greatest);
    let [rc, gc, bc] = [r, g, b].map(|value| f32::from(greatest - value) / chroma);
    let sixths = if r == greatest {
        bc - gc
    } else if g == greatest {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, greatest]
}

fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let sector = sixths.floor();
    // Uses single and double precision at the same places as Pillow.
    let f = (sixths - sector) as f32;
    let s = (f64::from(saturation) / 255.0) as f32;
    let parts = [f64::from(s), f64::from(s * f), f64::from(s) * (1.0 - f64::from(f))];
    let [p, q, t] = parts.map(|part| (f64::from(value) * (1.0 - part)).round() as u8);
    match sector as u8 % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}
