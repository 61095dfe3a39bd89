//! Statistics of a data set: images per class and split, formats, sizes, unusual images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor};

use serde::Serialize;

use mbconv_image::DecodeError;
use mbconv_image::formats::{WIDE_GRAY, wide_gray_warning};

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::source::{Source, StoredImage, class_counts};
use crate::tools::verify::FileOf;
use crate::tools::{CurateError, Work, header, splits};

/// Lower bounds of the histogram bars of the shorter side, in pixels. Includes the usual input
/// sizes of networks.
const SIDES: [u32; 12] = [0, 32, 64, 128, 224, 256, 320, 384, 512, 768, 1024, 2048];

/// Maximum number of common sizes to list.
const COMMON: usize = 5;

/// Maximum number of unreadable images to list. All are counted.
const UNREADABLE_LISTED: usize = 100;

/// Statistics of a data set, as printed by `mbconv data inspect`.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The form of the data set, such as `image folders`.
    pub form: String,
    /// Number of images in all splits.
    pub images: usize,
    /// Total size of all images as stored, in bytes.
    pub bytes: u64,
    /// Statistics of each split.
    pub splits: BTreeMap<&'static str, SplitSummary>,
    /// All classes, in label order.
    pub classes: Vec<ClassCount>,
    /// Number of images per file format, detected from the content.
    pub formats: BTreeMap<&'static str, usize>,
    /// Number of images per color type.
    #[serde(rename = "colours")]
    pub colors: BTreeMap<&'static str, usize>,
    /// Number of JPEG images with an EXIF orientation other than upright.
    pub turned: usize,
    /// Image sizes; `None` if no header could be read.
    pub sizes: Option<Sizes>,
    /// Number of images with unreadable headers.
    pub unreadable: usize,
    /// The first unreadable images, at most 100.
    pub unreadable_images: Vec<Unreadable>,
    /// Unusual images, grouped by property.
    pub odd: Vec<Odd>,
    /// Notes from opening the data set.
    pub notes: Vec<String>,
}

/// Images with an unusual property.
#[derive(Debug, Serialize)]
pub struct Odd {
    /// The property: `format`, `colour`, `turned`, `small`, `large` or `shape`.
    pub what: &'static str,
    /// The unusual value, for example the format.
    pub detail: String,
    /// Number of such images.
    pub images: usize,
    /// The first such images, or the most extreme ones; at most 5.
    pub examples: Vec<FileOf>,
}

/// Statistics of a split.
#[derive(Debug, Serialize)]
pub struct SplitSummary {
    /// Number of images.
    pub images: usize,
    /// Number of classes with at least one image.
    pub classes: usize,
    /// Number of images of the largest class.
    pub largest: usize,
    /// Number of images of the smallest class; 0 if a class has none.
    pub smallest: usize,
    /// Entropy of the class frequencies divided by that of a uniform distribution: 1 if all classes
    /// have the same size, 0 if there is only one class.
    pub evenness: f64,
}

/// A class and its number of images.
#[derive(Debug, Serialize)]
pub struct ClassCount {
    /// Class name.
    pub label: String,
    /// Label.
    pub index: usize,
    /// Number of images in each split.
    pub images: BTreeMap<&'static str, usize>,
}

/// Statistics of image sizes, `[width, height]` in pixels as stored.
#[derive(Debug, Serialize)]
pub struct Sizes {
    /// The size with the fewest pixels.
    pub smallest: [u32; 2],
    /// The size with the most pixels.
    pub largest: [u32; 2],
    /// Median of the shorter side.
    pub median_shorter_side: u32,
    /// Maximum ratio of the longer to the shorter side.
    pub longest_shape: f64,
    /// The most frequent sizes, in descending order of frequency.
    pub common: Vec<CommonSize>,
    /// Number of distinct sizes.
    pub different: usize,
    /// Histogram of the shorter side.
    pub shorter_side: Vec<Bar>,
}

/// An image size and its frequency.
#[derive(Debug, Serialize)]
pub struct CommonSize {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of images of this size.
    pub images: usize,
}

/// A bar of a histogram.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// Lower bound in pixels, inclusive.
    pub from: u32,
    /// Upper bound in pixels, exclusive; `None` for the last bar.
    pub to: Option<u32>,
    /// Number of images.
    pub images: usize,
}

/// An image whose header could not be read.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Split.
    pub split: &'static str,
    /// Name of the image, as returned by [`Source::name`].
    pub name: String,
    /// The reason.
    pub why: String,
}

/// Maximum number of examples per unusual property.
const EXAMPLES: usize = 5;

/// A property is unusual if at most one in this many images has it.
const RARE: usize = 20;

/// Minimum factor between the shorter side of an unusual image and the median.
const EXTREME: u32 = 2;

/// Minimum ratio of the longer to the shorter side of an image with an unusual shape.
const LONG: u32 = 4;

/// The header data of an image.
struct Seen {
    format: &'static str,
    color: &'static str,
    size: (u32, u32),
    turned: bool,
    bytes: u64,
}

/// Reads the header of every image. Of image files, only the beginning is read.
///
/// # Errors
/// [`CurateError::Interrupted`]. Unreadable images are counted and do not cause an error.
pub fn inspect(data: &DataSet, work: &mut Work) -> Result<Inspection, CurateError> {
    let mut result = Inspection {
        form: data.form.to_string(),
        images: 0,
        bytes: 0,
        splits: BTreeMap::new(),
        classes: Vec::new(),
        formats: BTreeMap::new(),
        colors: BTreeMap::new(),
        turned: 0,
        sizes: None,
        unreadable: 0,
        unreadable_images: Vec::new(),
        odd: Vec::new(),
        notes: data.notes.clone(),
    };
    let mut examples = Examples::default();
    result.classes = data
        .classes
        .iter()
        .enumerate()
        .map(|(index, label)| ClassCount { label: label.clone(), index, images: BTreeMap::new() })
        .collect();
    let mut sizes = BTreeMap::new();
    let mut wide_gray: Option<(String, usize)> = None;
    for (name, source) in splits(data) {
        let counts = class_counts(&*source, data.classes.len());
        for (class, &count) in result.classes.iter_mut().zip(&counts) {
            class.images.insert(name, count);
        }
        result.splits.insert(name, SplitSummary { images: source.len(), ..SplitSummary::of(&counts) });
        work.map(
            0..source.len(),
            result.images,
            |index| read_header(source.as_ref(), index),
            |index, seen| {
                match seen {
                    Ok(seen) => {
                        result.bytes += seen.bytes;
                        result.turned += usize::from(seen.turned);
                        *result.formats.entry(seen.format).or_default() += 1;
                        *result.colors.entry(seen.color).or_default() += 1;
                        if WIDE_GRAY.contains(&seen.color) {
                            wide_gray.get_or_insert((source.name(index), 0)).1 += 1;
                        }
                        *sizes.entry(seen.size).or_default() += 1;
                        examples.note(&seen, || FileOf {
                            split: name,
                            class: data.label_name(source.label(index)).into_owned(),
                            name: source.name(index),
                            path: None,
                        });
                    }
                    Err(why) => {
                        result.unreadable += 1;
                        if result.unreadable_images.len() < UNREADABLE_LISTED {
                            result.unreadable_images.push(Unreadable { split: name, name: source.name(index), why });
                        }
                    }
                }
                Ok(())
            },
        )?;
        result.images += source.len();
    }
    result.notes.extend(wide_gray.map(|(name, count)| wide_gray_warning(count, result.images, &name)));
    result.sizes = Sizes::of(&sizes);
    result.odd = examples.odd(&result, &sizes);
    Ok(result)
}

/// Candidates for [`Odd`], collected before the frequencies are known: the first images of each
/// format and color type, and the most extreme sizes.
#[derive(Default)]
struct Examples {
    formats: BTreeMap<&'static str, Vec<FileOf>>,
    colors: BTreeMap<&'static str, Vec<FileOf>>,
    turned: Vec<FileOf>,
    extremes: [Vec<((u32, u32), FileOf)>; 3],
}

/// A criterion for extreme sizes.
struct Extreme {
    what: &'static str,
    /// Returns whether the first size is more extreme than the second.
    beats: fn((u32, u32), (u32, u32)) -> bool,
    /// Returns whether a size is unusual, given the median shorter side.
    is_odd: fn((u32, u32), u32) -> bool,
}

const EXTREMES: [Extreme; 3] = [
    Extreme {
        what: "small",
        beats: |a, b| shorter(a) < shorter(b),
        is_odd: |size, median| shorter(size).saturating_mul(EXTREME) <= median,
    },
    Extreme {
        what: "large",
        beats: |a, b| shorter(a) > shorter(b),
        is_odd: |size, median| shorter(size) >= median.saturating_mul(EXTREME),
    },
    Extreme {
        what: "shape",
        beats: |a, b| u64::from(longer(a)) * u64::from(shorter(b)) > u64::from(longer(b)) * u64::from(shorter(a)),
        is_odd: |size, _| longer(size) >= shorter(size).saturating_mul(LONG),
    },
];

fn shorter((width, height): (u32, u32)) -> u32 {
    width.min(height)
}

fn longer((width, height): (u32, u32)) -> u32 {
    width.max(height)
}

impl Examples {
    /// Keeps an image as a candidate for the unusual images.
    fn note(&mut self, seen: &Seen, file: impl Fn() -> FileOf) {
        let first = |files: &mut Vec<FileOf>| {
            if files.len() < EXAMPLES {
                files.push(file());
            }
        };
        first(self.formats.entry(seen.format).or_default());
        first(self.colors.entry(seen.color).or_default());
        if seen.turned {
            first(&mut self.turned);
        }
        for (kept, extreme) in self.extremes.iter_mut().zip(&EXTREMES) {
            let place = kept.partition_point(|(size, _)| !(extreme.beats)(seen.size, *size));
            if place < EXAMPLES {
                kept.insert(place, (seen.size, file()));
                kept.truncate(EXAMPLES);
            }
        }
    }

    /// Returns the groups of unusual images.
    fn odd(self, found: &Inspection, sizes: &BTreeMap<(u32, u32), usize>) -> Vec<Odd> {
        let all = found.images - found.unreadable;
        let mut odd = Vec::new();
        for (what, counts, examples) in
            [("format", &found.formats, self.formats), ("colour", &found.colors, self.colors)]
        {
            for (name, examples) in examples {
                let images = counts.get(name).copied().unwrap_or(0);
                if is_rare(images, all) {
                    odd.push(Odd { what, detail: name.into(), images, examples });
                }
            }
        }
        if is_rare(found.turned, all) {
            let detail = "EXIF orientation".into();
            odd.push(Odd { what: "turned", detail, images: found.turned, examples: self.turned });
        }
        let median = found.sizes.as_ref().map_or(0, |sizes| sizes.median_shorter_side);
        for (kept, Extreme { what, is_odd, .. }) in self.extremes.into_iter().zip(&EXTREMES) {
            let images = sizes.iter().filter(|(size, _)| is_odd(**size, median)).map(|(_, images)| images).sum();
            let kept: Vec<_> = kept.into_iter().filter(|(size, _)| is_odd(*size, median)).collect();
            if let Some(((width, height), _)) = kept.first()
                && is_rare(images, all)
            {
                let detail = format!("{width}×{height}");
                odd.push(Odd { what, detail, images, examples: kept.into_iter().map(|(_, file)| file).collect() });
            }
        }
        odd
    }
}

/// Returns whether a group of `images` among `all` images is small enough to be unusual. In small
/// data sets, a few images are unusual if they are the minority.
fn is_rare(images: usize, all: usize) -> bool {
    images > 0 && (images * RARE <= all || images <= EXAMPLES && images * 2 < all)
}

/// Reads the header of a sample. The error is the reason for messages.
fn read_header(source: &dyn Source, index: usize) -> Result<Seen, String> {
    let (header, bytes) = if let Some(path) = source.path(index) {
        let open = || -> std::io::Result<_> {
            // Opening a pipe would block until there is a writer.
            let metadata = std::fs::metadata(&path)?;
            if !metadata.is_file() {
                return Err(std::io::Error::other(DecodeError::NotAFile));
            }
            Ok((File::open(&path)?, metadata.len()))
        };
        let (file, bytes) = open().map_err(|error| error.to_string())?;
        (header::read(&mut BufReader::new(file)), bytes)
    } else {
        match source.get(index) {
            Ok(sample) => match sample.image {
                StoredImage::Encoded(bytes) => (header::read(&mut Cursor::new(&bytes)), bytes.len() as u64),
                StoredImage::Pixels(pixels) => {
                    let size = (pixels.width as u32, pixels.height as u32);
                    let bytes = pixels.data.len() as u64;
                    return Ok(Seen { format: "pixels", color: "RGB", size, turned: false, bytes });
                }
            },
            Err(DataError::Image { source, .. }) => return Err(source.to_string()),
            Err(error) => return Err(error.to_string()),
        }
    };
    let header = header.map_err(|error| error.to_string())?;
    Ok(Seen {
        format: header::format_name(header.format),
        color: header.color,
        size: (header.width, header.height),
        turned: header.orientation != 1,
        bytes,
    })
}

impl SplitSummary {
    /// Computes the statistics from the number of images of each class.
    fn of(counts: &[usize]) -> Self {
        let images: usize = counts.iter().sum();
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / images as f64);
        let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
        let evenness = if counts.len() > 1 { entropy / (counts.len() as f64).ln() } else { 1.0 };
        Self {
            images,
            classes: counts.iter().filter(|&&count| count > 0).count(),
            largest: counts.iter().copied().max().unwrap_or(0),
            smallest: counts.iter().copied().min().unwrap_or(0),
            evenness,
        }
    }
}

impl Sizes {
    /// Computes statistics from the number of images of each size.
    fn of(counts: &BTreeMap<(u32, u32), usize>) -> Option<Self> {
        let pixels = |size: &&(u32, u32)| u64::from(size.0) * u64::from(size.1);
        let smallest = *counts.keys().min_by_key(pixels)?;
        let largest = *counts.keys().max_by_key(pixels)?;
        let mut sides = BTreeMap::new();
        for (&(width, height), &images) in counts {
            *sides.entry(width.min(height)).or_insert(0) += images;
        }
        let images: usize = counts.values().sum();
        let mut below = 0;
        let median = sides.iter().find(|(_, count)| {
            below += **count;
            2 * below >= images
        });
        let median_shorter_side = median.map_or(0, |(&side, _)| side);
        let longest_shape = counts
            .keys()
            .map(|&(width, height)| f64::from(width.max(height)) / f64::from(width.min(height).max(1)))
            .fold(1.0, f64::max);
        let mut common: Vec<CommonSize> =
            counts.iter().map(|(&(width, height), &images)| CommonSize { width, height, images }).collect();
        common.sort_by_key(|size| std::cmp::Reverse(size.images));
        common.truncate(COMMON);
        let ends = SIDES[1..].iter().map(|&side| Some(side)).chain([None]);
        let shorter_side = SIDES
            .into_iter()
            .zip(ends)
            .map(|(from, to)| {
                let images = sides.range(from..to.unwrap_or(u32::MAX)).map(|(_, images)| images).sum();
                Bar { from, to, images }
            })
            .collect();
        Some(Self {
            smallest: smallest.into(),
            largest: largest.into(),
            median_shorter_side,
            longest_shape,
            common,
            different: counts.len(),
            shorter_side,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_statistics_are_computed() {
        let counts = BTreeMap::from([((500, 375), 6), ((32, 32), 2), ((100, 4000), 1), ((1, 1), 1)]);
        let sizes = Sizes::of(&counts).unwrap();
        assert_eq!((sizes.smallest, sizes.largest, sizes.different), ([1, 1], [100, 4000], 4));
        assert_eq!((sizes.median_shorter_side, sizes.longest_shape), (375, 40.0));
        assert_eq!((sizes.common[0].width, sizes.common[0].images), (500, 6));
        let bars: Vec<usize> = sizes.shorter_side.iter().map(|bar| bar.images).collect();
        assert_eq!(bars, [1, 2, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0]);
        assert!(Sizes::of(&BTreeMap::new()).is_none());
    }

    #[test]
    fn the_most_extreme_sizes_are_kept() {
        let mut examples = Examples::default();
        for (number, size) in (0..200).map(|number| (number, (400 + number % 7, 300))).chain([
            (200, (1, 1)),
            (201, (60, 60)),
            (202, (4000, 3000)),
            (203, (3000, 300)),
        ]) {
            let seen = Seen { format: "JPEG", color: "RGB", size, turned: false, bytes: 1 };
            let name = number.to_string();
            examples.note(&seen, || FileOf { split: "train", class: "a".into(), name: name.clone(), path: None });
        }
        let found: Vec<(&str, Vec<String>)> = EXTREMES
            .iter()
            .zip(&examples.extremes)
            .map(|(extreme, kept)| {
                let kept = kept.iter().filter(|(size, _)| (extreme.is_odd)(*size, 300));
                (extreme.what, kept.map(|(_, file)| file.name.clone()).collect())
            })
            .collect();
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(found, [("small", names(&["200", "201"])), ("large", names(&["202"])), ("shape", names(&["203"]))]);
        assert!(is_rare(1, 9) && is_rare(5, 100) && is_rare(50, 1000));
        assert!(!is_rare(0, 9) && !is_rare(1, 2) && !is_rare(51, 1000));
    }

    #[test]
    fn evenness_is_normalized_entropy() {
        let even = SplitSummary::of(&[5, 5, 5]);
        assert!((even.evenness - 1.0).abs() < 1e-12 && even.classes == 3);
        let one = SplitSummary::of(&[9, 0]);
        assert_eq!((one.evenness, one.classes, one.smallest, one.largest), (0.0, 1, 0, 9));
        assert_eq!(SplitSummary::of(&[4]).evenness, 1.0);
    }
}
