//! Heatmaps drawn on images.

use mbconv_data::RgbPixels;
use mbconv_data::tools::canvas::{LETTER, fit, paste, shortened, write};

use super::colors::turbo;
use super::heatmap::Heatmap;

/// Longer side of an overlay in pixels. Larger images are shrunk, smaller ones enlarged by an
/// integer factor.
const SIDE: usize = 768;
/// Opacity of the heatmap where it is 1; proportional to the value elsewhere.
const OPACITY: f32 = 0.7;
/// Brightness of the image outside the crop, which the network does not see.
const OUTSIDE: f32 = 0.4;

/// Draws a heatmap on an image. `part` is the part of the image that the heatmap covers: left edge,
/// top edge, width and height in pixels, as from
/// [`cropped_part`](mbconv_data::Preprocess::cropped_part). The image is darkened outside it.
pub fn overlay(image: &RgbPixels, heatmap: &Heatmap, part: [f64; 4]) -> RgbPixels {
    let mut out = fit(image, SIDE);
    let scale_x = image.width as f64 / out.width as f64;
    let scale_y = image.height as f64 / out.height as f64;
    let [left, top, width, height] = part;
    let columns = out.width;
    let (pixels, _) = out.data.as_chunks_mut::<3>();
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let x = ((index % columns) as f64 + 0.5) * scale_x;
        let y = ((index / columns) as f64 + 0.5) * scale_y;
        let (x, y) = ((x - left) / width, (y - top) / height);
        let inside = (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y);
        *pixel =
            if inside { blend(*pixel, heatmap.at(x, y)) } else { pixel.map(|byte| (f32::from(byte) * OUTSIDE) as u8) };
    }
    out
}

fn blend(pixel: [u8; 3], value: f32) -> [u8; 3] {
    let opacity = OPACITY * value;
    let color = turbo(value);
    std::array::from_fn(|channel| {
        let byte = f32::from(pixel[channel]);
        (byte + (color[channel] - byte) * opacity).round() as u8
    })
}

/// Side of a cell of [`sheet`] in pixels.
const CELL: usize = 224;
/// Maximum number of letters of a line of text below a cell of [`sheet`].
pub const LETTERS: usize = CELL / LETTER;

/// An image with two lines of text.
pub type Captioned = (RgbPixels, [String; 2]);

/// Arranges images in a grid, each with its lines of text below it.
pub fn sheet(images: &[Captioned]) -> RgbPixels {
    const GAP: usize = 8;
    const LINE: usize = LETTER + 4;
    const INK: [u8; 3] = [32; 3];
    let columns = (images.len() as f64).sqrt().ceil().clamp(1.0, 8.0) as usize;
    let rows = images.len().div_ceil(columns);
    let (across, down) = (CELL + GAP, CELL + 2 * LINE + GAP);
    let (width, height) = (GAP + columns * across, GAP + rows * down);
    let mut sheet = RgbPixels { width, height, data: vec![255; width * height * 3] };
    for (index, (image, lines)) in images.iter().enumerate() {
        let (left, top) = (GAP + index % columns * across, GAP + index / columns * down);
        let image = fit(image, CELL);
        paste(&mut sheet, &image, left + (CELL - image.width) / 2, top + (CELL - image.height) / 2);
        for (number, line) in lines.iter().enumerate() {
            write(&mut sheet, left, top + CELL + 4 + number * LINE, &shortened(line, LETTERS), INK);
        }
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: usize, height: usize) -> RgbPixels {
        RgbPixels { width, height, data: vec![100; width * height * 3] }
    }

    #[test]
    fn heatmaps_are_placed_on_the_crop() {
        let heatmap = Heatmap::normalized(2, vec![0.0, 0.0, 0.0, 1.0]);
        let image = gray(SIDE, 500);
        let out = overlay(&image, &heatmap, [200.0, 100.0, 300.0, 300.0]);
        assert_eq!((out.width, out.height), (SIDE, 500));
        let at = |x: usize, y: usize| &out.data[(y * SIDE + x) * 3..][..3];
        assert_eq!(at(199, 250), [40; 3]);
        assert_eq!(at(499, 399), blend([100; 3], 1.0));
        assert_eq!(at(210, 110), [100; 3]);
        assert_eq!(at(300, 400), [40; 3]);
        assert!(at(499, 399)[0] > at(499, 399)[2], "red where the map is 1");
        // An image of 32 pixels is enlarged with its crop.
        let small = overlay(&gray(32, 32), &heatmap, [0.0, 0.0, 16.0, 32.0]);
        assert_eq!((small.width, small.height), (SIDE, SIDE));
        assert_eq!(small.data[(5 * SIDE + SIDE / 2) * 3], 40);
        assert_eq!(small.data[(5 * SIDE + SIDE / 2 - 1) * 3], 100);
    }

    #[test]
    fn sheets_have_a_cell_per_image() {
        let cell = |name: &str| (gray(10, 20), [name.to_string(), "99 %".to_string()]);
        let sheet = sheet(&[cell("a"), cell("b"), cell("c")]);
        assert_eq!((sheet.width, sheet.height), (8 + 2 * 232, 8 + 2 * 256));
        assert_eq!(super::sheet(&[]).width, 240);
    }
}
