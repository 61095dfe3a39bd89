//! Contact sheet: a few images of each class in a row.

use std::io::Cursor;

use font8x8::legacy::{BASIC_LEGACY, LATIN_LEGACY};
use image::{ExtendedColorType, ImageEncoder};
use rand::seq::index::sample;
use rayon::prelude::*;

use mbconv_image::resize::resize;
use mbconv_image::{Interpolation, RgbPixels};

use mbconv_image::seed::sample_rng;

use crate::dataset::DataSet;
use crate::tools::{CurateError, splits};

/// Side of a thumbnail cell in pixels.
const CELL: usize = 96;
/// Gap between cells in pixels.
const GAP: usize = 4;
/// Side of a letter in pixels.
const LETTER: usize = 8;
/// Maximum number of letters of a class name.
const LETTERS: usize = 28;

const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [32; 3];
const PALE: [u8; 3] = [128; 3];
const BAD: [u8; 3] = [244, 204, 204];

/// Options of [`contact_sheet`].
#[derive(Clone, Copy, Debug)]
pub struct SheetOptions {
    /// Maximum number of classes; of more classes, a random subset is shown.
    pub classes: usize,
    /// Maximum number of images per class, selected at random.
    pub images: usize,
    /// Seed of the selection.
    pub seed: u64,
}

/// Draws one row per class: its name, its number of images, and some of them, from the training
/// split if there is one. Images keep their aspect ratio; unreadable images are shown as red
/// squares.
///
/// # Errors
/// A data set without images.
pub fn contact_sheet(data: &DataSet, options: &SheetOptions) -> Result<RgbPixels, CurateError> {
    let Some((_, source)) = splits(data).into_iter().next() else {
        return Err(CurateError::Request {
            message: "the data set has no images for a contact sheet".into(),
            hint: "check the path of DATA".into(),
        });
    };
    let mut members = vec![Vec::new(); data.classes.len()];
    (0..source.len()).for_each(|index| members[source.label(index)].push(index));
    let present: Vec<usize> = (0..members.len()).filter(|&class| !members[class].is_empty()).collect();
    let rows = draw(present.len(), options.classes, options.seed, data.classes.len());
    let rows: Vec<(usize, Vec<usize>)> = rows
        .into_iter()
        .map(|row| {
            let class = present[row];
            let chosen = draw(members[class].len(), options.images, options.seed, class);
            (class, chosen.into_iter().map(|place| members[class][place]).collect())
        })
        .collect();

    let columns = rows.iter().map(|(_, images)| images.len()).max().unwrap_or(0);
    let letters = rows.iter().map(|&(class, _)| data.classes[class].chars().count()).max().unwrap_or(0);
    let margin = letters.clamp(12, LETTERS) * LETTER + 2 * GAP;
    let width = margin + columns * (CELL + GAP);
    let height = GAP + rows.len() * (CELL + GAP);
    let mut sheet = RgbPixels { width, height, data: PAPER.repeat(width * height) };
    for (row, (class, _)) in rows.iter().enumerate() {
        let top = GAP + row * (CELL + GAP) + CELL / 2 - LETTER;
        write(&mut sheet, GAP, top, &shortened(&data.classes[*class]), INK);
        write(&mut sheet, GAP, top + LETTER + 2, &format!("{} images", members[*class].len()), PALE);
    }
    // Draw one row at a time, so that few images are in memory.
    for (row, (_, images)) in rows.iter().enumerate() {
        let thumbs: Vec<Option<RgbPixels>> = images
            .par_iter()
            .map(|&index| source.get(index).ok()?.image.into_pixels().ok().map(|pixels| thumbnail(&pixels)))
            .collect();
        for (column, thumb) in thumbs.iter().enumerate() {
            let (left, top) = (margin + column * (CELL + GAP), GAP + row * (CELL + GAP));
            match thumb {
                Some(thumb) => {
                    paste(&mut sheet, thumb, left + (CELL - thumb.width) / 2, top + (CELL - thumb.height) / 2);
                }
                None => {
                    let square = RgbPixels { width: CELL, height: CELL, data: BAD.repeat(CELL * CELL) };
                    paste(&mut sheet, &square, left, top);
                }
            }
        }
    }
    Ok(sheet)
}

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

/// Returns `count` distinct random numbers below `of`, or all of them; ascending.
fn draw(of: usize, count: usize, seed: u64, what: usize) -> Vec<usize> {
    let mut drawn = sample(&mut sample_rng(seed, 0, what), of, count.min(of)).into_vec();
    drawn.sort_unstable();
    drawn
}

/// Returns the whole image scaled to fit a cell. Small images are enlarged by integer factors, so
/// that their pixels stay visible.
fn thumbnail(image: &RgbPixels) -> RgbPixels {
    let longer = image.width.max(image.height);
    if longer <= CELL {
        let factor = CELL / longer;
        return resize(image, image.width * factor, image.height * factor, Interpolation::Nearest);
    }
    let fitted = |side: usize| (side * CELL).div_ceil(longer).min(CELL);
    resize(image, fitted(image.width), fitted(image.height), Interpolation::Bilinear)
}

/// Copies an image onto the sheet.
fn paste(sheet: &mut RgbPixels, image: &RgbPixels, left: usize, top: usize) {
    for (y, row) in image.data.chunks_exact(image.width * 3).enumerate() {
        let start = ((top + y) * sheet.width + left) * 3;
        sheet.data[start..start + row.len()].copy_from_slice(row);
    }
}

/// Shortens a name to [`LETTERS`] letters.
fn shortened(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.into();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// Writes text in Latin letters; other characters become question marks.
fn write(sheet: &mut RgbPixels, left: usize, top: usize, text: &str, ink: [u8; 3]) {
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
    use crate::formats::open;
    use crate::options::OpenOptions;

    #[test]
    fn sheet_has_one_row_per_class_and_depends_on_the_seed() {
        let data = open("digits", &OpenOptions { val_fraction: 0.0, ..OpenOptions::default() }).unwrap();
        let sheet = |classes, seed| contact_sheet(&data, &SheetOptions { classes, images: 3, seed }).unwrap();
        let all = sheet(100, 0);
        assert_eq!((all.width, all.height), (12 * 8 + 8 + 3 * 100, 4 + 10 * 100));
        assert_eq!(all, sheet(100, 0));
        assert_ne!(all.data, sheet(100, 1).data);
        assert_eq!(sheet(2, 0).height, 4 + 2 * 100);
        let decoded = mbconv_image::decode_rgb(&png(&all).unwrap()).unwrap();
        assert_eq!(decoded, all);
    }

    #[test]
    fn thumbnails_fit_into_cells() {
        for (width, height, expected) in
            [(500, 375, (96, 72)), (8, 8, (96, 96)), (1, 5000, (1, 96)), (50, 96, (50, 96))]
        {
            let thumb = thumbnail(&RgbPixels { width, height, data: vec![0; width * height * 3] });
            assert_eq!((thumb.width, thumb.height), expected);
        }
    }

    #[test]
    fn letters_are_drawn() {
        let mut sheet = RgbPixels { width: 16, height: 8, data: PAPER.repeat(16 * 8) };
        write(&mut sheet, 0, 0, "I", INK);
        let (pixels, _) = sheet.data.as_chunks::<3>();
        // The stem is in the middle; the pixels next to the letter are empty.
        assert_eq!(pixels[3 * 16 + 3], INK);
        assert!(pixels.iter().enumerate().all(|(place, &pixel)| place % 16 < 8 || pixel == PAPER));
    }
}
