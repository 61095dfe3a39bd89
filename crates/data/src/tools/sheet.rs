//! Contact sheet: a few images of each class in a row.

use rand::seq::index::sample;
use rayon::prelude::*;

use mbconv_image::RgbPixels;
use mbconv_image::seed::sample_rng;

use crate::dataset::DataSet;
use crate::tools::canvas::{LETTER, fit, paste, shortened, write};
use crate::tools::{CurateError, splits};

/// Side of a thumbnail cell in pixels.
const CELL: usize = 96;
/// Gap between cells in pixels.
const GAP: usize = 4;
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
    for index in 0..source.len() {
        let label = source.label(index);
        match source.label_sets() {
            None => members[label].push(index),
            Some(sets) => sets.classes(label).iter().for_each(|&class| members[class].push(index)),
        }
    }
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
        write(&mut sheet, GAP, top, &shortened(&data.classes[*class], LETTERS), INK);
        write(&mut sheet, GAP, top + LETTER + 2, &format!("{} images", members[*class].len()), PALE);
    }
    // Draw one row at a time, so that few images are in memory.
    for (row, (_, images)) in rows.iter().enumerate() {
        let thumbs: Vec<Option<RgbPixels>> = images
            .par_iter()
            .map(|&index| source.get(index).ok()?.image.into_pixels().ok().map(|pixels| fit(&pixels, CELL)))
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

/// Returns `count` distinct random numbers below `of`, or all of them; ascending.
fn draw(of: usize, count: usize, seed: u64, what: usize) -> Vec<usize> {
    let mut drawn = sample(&mut sample_rng(seed, 0, what), of, count.min(of)).into_vec();
    drawn.sort_unstable();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open;
    use crate::options::OpenOptions;
    use crate::tools::canvas::png;

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
}
