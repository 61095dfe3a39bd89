//! Drawing on images: PNG encoding, thumbnails, text.

use std::io::Cursor;

use font8x8::legacy::{BASIC_LEGACY, LATIN_LEGACY};
use image::{ExtendedColorType, ImageEncoder};

use mbconv_image::resize::resize;
use mbconv_image::{Interpolation, RgbPixels};

/// Side of a letter in pixels.
pub const LETTER: usize = 8;

/// Encodes pixels as PNG.
///
/// # Errors
/// An image that is too large for PNG.
pub fn png(pixels: &RgbPixels) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&pixels.data, pixels.width as u32, pixels.height as u32, ExtendedColorType::Rgb8)
        .map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

/// Scales a whole image to fit a square of `side` pixels. Small images are enlarged by integer
/// factors, so that their pixels stay visible.
pub fn fit(image: &RgbPixels, side: usize) -> RgbPixels {
    let longer = image.width.max(image.height);
    if longer <= side {
        let factor = side / longer;
        return resize(image, image.width * factor, image.height * factor, Interpolation::Nearest);
    }
    let fitted = |length: usize| (length * side).div_ceil(longer).min(side);
    resize(image, fitted(image.width), fitted(image.height), Interpolation::Bilinear)
}

/// Copies an image onto a sheet, in which it must lie.
pub fn paste(sheet: &mut RgbPixels, image: &RgbPixels, left: usize, top: usize) {
    for (y, row) in image.data.chunks_exact(image.width * 3).enumerate() {
        let start = ((top + y) * sheet.width + left) * 3;
        sheet.data[start..start + row.len()].copy_from_slice(row);
    }
}

/// Shortens a name to `letters` letters.
pub fn shortened(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.into();
    }
    name.chars().take(letters - 1).chain(['…']).collect()
}

/// Writes text in Latin letters; other characters become question marks. Letters beyond the right
/// edge are cut off.
pub fn write(sheet: &mut RgbPixels, left: usize, top: usize, text: &str, ink: [u8; 3]) {
    for (place, letter) in text.chars().enumerate() {
        let rows = match u32::from(letter) {
            code @ 0..0x80 => BASIC_LEGACY[code as usize],
            code @ 0xA0..0x100 => LATIN_LEGACY[code as usize - 0xA0],
            0x2026 => [0, 0, 0, 0, 0, 0, 0b0101_0101, 0],
            _ => BASIC_LEGACY['?' as usize],
        };
        for (y, row) in rows.into_iter().enumerate() {
            for x in (0..LETTER).filter(|x| row >> x & 1 == 1) {
                let column = left + place * LETTER + x;
                if column < sheet.width {
                    let start = ((top + y) * sheet.width + column) * 3;
                    sheet.data[start..start + 3].copy_from_slice(&ink);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fit_into_squares() {
        for (width, height, expected) in
            [(500, 375, (96, 72)), (8, 8, (96, 96)), (1, 5000, (1, 96)), (50, 96, (50, 96))]
        {
            let thumb = fit(&RgbPixels { width, height, data: vec![0; width * height * 3] }, 96);
            assert_eq!((thumb.width, thumb.height), expected);
        }
    }

    #[test]
    fn letters_are_drawn() {
        const INK: [u8; 3] = [32; 3];
        let mut sheet = RgbPixels { width: 16, height: 8, data: vec![255; 16 * 8 * 3] };
        write(&mut sheet, 0, 0, "I", INK);
        let (pixels, _) = sheet.data.as_chunks::<3>();
        // The stem is in the middle; the pixels next to the letter are empty.
        assert_eq!(pixels[3 * 16 + 3], INK);
        assert!(pixels.iter().enumerate().all(|(place, &pixel)| place % 16 < 8 || pixel == [255; 3]));
    }
}
