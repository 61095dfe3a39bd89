//! What is in a data set.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor};

use serde::Serialize;

use mbconv_image::DecodeError;
use mbconv_image::formats::{WIDE_GRAY, wide_gray_warning};

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::source::{Source, StoredImage};
use crate::tools::verify::FileOf;
use crate::tools::{CurateError, Work, header, splits};

/// Least shorter side of each bar of the histogram, in pixels: the sizes that networks take, and
/// what lies between.
const SIDES: [u32; 12] = [0, 32, 64, 128, 224, 256, 320, 384, 512, 768, 1024, 2048];

/// How many of the commonest sizes are listed.
const COMMON: usize = 5;

/// How many unreadable headers are listed; all are counted.
const UNREADABLE_LISTED: usize = 100;

/// What a data set is made of.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The form in which it is stored.
    pub form: String,
    /// Images in all splits.
    pub images: usize,
    /// Bytes of all images as stored.
    pub bytes: u64,
    /// Each split's.
    pub splits: BTreeMap<&'static str, SplitSummary>,
    /// Every class, in order of label.
    pub classes: Vec<ClassCount>,
    /// Images of each file format, told from the content.
    pub formats: BTreeMap<&'static str, usize>,
    /// Images of each kind of pixel.
    pub colours: BTreeMap<&'static str, usize>,
    /// JPEG images whose EXIF data say that they are to be turned.
    pub turned: usize,
    /// Sizes; none where no header could be read.
    pub sizes: Option<Sizes>,
    /// Images whose header could not be read.
    pub unreadable: usize,
    /// The first of them.
    pub unreadable_images: Vec<Unreadable>,
    /// Images that are unlike the others, by what makes them so.
    pub odd: Vec<Odd>,
    /// What was noticed when it was opened.
    pub notes: Vec<String>,
}

/// Images that are unlike the others in one respect.
#[derive(Debug, Serialize)]
pub struct Odd {
    /// The respect: `format`, `colour`, `turned`, `small`, `large` or `shape`.
    pub what: &'static str,
    /// More about it, such as the format.
    pub detail: String,
    /// How many there are.
    pub images: usize,
    /// The first of them, or the most extreme ones.
    pub examples: Vec<FileOf>,
}

/// A split in numbers.
#[derive(Debug, Serialize)]
pub struct SplitSummary {
    /// Its images.
    pub images: usize,
    /// Classes that have any.
    pub classes: usize,
    /// Images of the largest class.
    pub largest: usize,
    /// Images of the smallest class, which may be none.
    pub smallest: usize,
    /// Entropy of the classes' shares over that of equal shares: 1 if all classes are equally
    /// large, 0 if there is one.
    pub evenness: f64,
}

/// A class and its images.
#[derive(Debug, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub label: String,
    /// Its index.
    pub index: usize,
    /// Images in each split.
    pub images: BTreeMap<&'static str, usize>,
}

/// Sizes of images, in pixels as stored: width, height.
#[derive(Debug, Serialize)]
pub struct Sizes {
    /// That of the fewest pixels.
    pub smallest: [u32; 2],
    /// That of the most.
    pub largest: [u32; 2],
    /// Half of the images have no longer a shorter side.
    pub median_shorter_side: u32,
    /// Greatest ratio of longer to shorter side.
    pub longest_shape: f64,
    /// The commonest sizes, commonest first.
    pub common: Vec<CommonSize>,
    /// Number of different sizes.
    pub different: usize,
    /// Histogram of the shorter side.
    pub shorter_side: Vec<Bar>,
}

/// A size that many images have.
#[derive(Debug, Serialize)]
pub struct CommonSize {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How many.
    pub images: usize,
}

/// A bar of a histogram.
#[derive(Debug, Serialize)]
pub struct Bar {
    /// From so many pixels.
    pub from: u32,
    /// To so many, or to any.
    pub to: Option<u32>,
    /// How many images.
    pub images: usize,
}

/// An image whose header could not be read.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Its split.
    pub split: &'static str,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

/// Number of odd images of a kind that are listed.
const EXAMPLES: usize = 5;

/// Images are odd if at most one of so many is like them.
const RARE: usize = 20;

/// Least factor between an odd image's shorter side and the median.
const EXTREME: u32 = 2;

/// Ratio of longer to shorter side from which an image's shape is odd.
const LONG: u32 = 4;

/// What is read of an image.
struct Seen {
    format: &'static str,
    colour: &'static str,
    size: (u32, u32),
    turned: bool,
    bytes: u64,
}

/// Looks at every image's header. Of files only their beginning is read.
///
/// # Errors
/// [`CurateError::Interrupted`]; bad images are counted, not errors.
pub fn inspect(data: &DataSet, work: &mut Work) -> Result<Inspection, CurateError> {
    let mut result = Inspection {
        form: data.form.to_string(),
        images: 0,
        bytes: 0,
        splits: BTreeMap::new(),
        classes: Vec::new(),
        formats: BTreeMap::new(),
        colours: BTreeMap::new(),
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
        let mut counts = vec![0; data.classes.len()];
        (0..source.len()).for_each(|index| counts[source.label(index)] += 1);
        for (class, &count) in result.classes.iter_mut().zip(&counts) {
            class.images.insert(name, count);
        }
        result.splits.insert(name, SplitSummary::of(&counts));
        work.map(
            0..source.len(),
            result.images,
            |index| look(source.as_ref(), index),
            |index, seen| {
                match seen {
                    Ok(seen) => {
                        result.bytes += seen.bytes;
                        result.turned += usize::from(seen.turned);
                        *result.formats.entry(seen.format).or_default() += 1;
                        *result.colours.entry(seen.colour).or_default() += 1;
                        if WIDE_GRAY.contains(&seen.colour) {
                            wide_gray.get_or_insert((source.name(index), 0)).1 += 1;
                        }
                        *sizes.entry(seen.size).or_default() += 1;
                        examples.note(&seen, || FileOf {
                            split: name,
                            class: data.classes[source.label(index)].clone(),
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

/// Candidates for [`Odd`], collected before it is known what is common: the first images of every
/// format and kind of pixel, and the most extreme sizes.
#[derive(Default)]
struct Examples {
    formats: BTreeMap<&'static str, Vec<FileOf>>,
    colours: BTreeMap<&'static str, Vec<FileOf>>,
    turned: Vec<FileOf>,
    extremes: [Vec<((u32, u32), FileOf)>; 3],
}

/// The ways in which a size can be extreme.
struct Extreme {
    what: &'static str,
    /// Whether the first size is more extreme than the second.
    beats: fn((u32, u32), (u32, u32)) -> bool,
    /// Whether a size is odd where this is the median shorter side.
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
    fn note(&mut self, seen: &Seen, file: impl Fn() -> FileOf) {
        let first = |files: &mut Vec<FileOf>| {
            if files.len() < EXAMPLES {
                files.push(file());
            }
        };
        first(self.formats.entry(seen.format).or_default());
        first(self.colours.entry(seen.colour).or_default());
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

    fn odd(self, found: &Inspection, sizes: &BTreeMap<(u32, u32), usize>) -> Vec<Odd> {
        let all = found.images - found.unreadable;
        let mut odd = Vec::new();
        for (what, counts, examples) in
            [("format", &found.formats, self.formats), ("colour", &found.colours, self.colours)]
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

/// Whether images of one kind among `all` are odd. Of few images, a handful are, if they are the
/// lesser part.
fn is_rare(images: usize, all: usize) -> bool {
    images > 0 && (images * RARE <= all || images <= EXAMPLES && images * 2 < all)
}

fn look(source: &dyn Source, index: usize) -> Result<Seen, String> {
    let (header, bytes) = if let Some(path) = source.path(index) {
        let open = || -> std::io::Result<_> {
            // Opening a pipe would wait for a writer.
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
                    return Ok(Seen { format: "pixels", colour: "RGB", size, turned: false, bytes });
                }
            },
            Err(DataError::Image { source, .. }) => return Err(source.to_string()),
            Err(error) => return Err(error.to_string()),
        }
    };
    let header = header.map_err(|error| error.to_string())?;
    Ok(Seen {
        format: header::format_name(header.format),
        colour: header.colour,
        size: (header.width, header.height),
        turned: header.orientation != 1,
        bytes,
    })
}

impl SplitSummary {
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
    /// From the number of images of each width and height.
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
    fn sizes_in_numbers() {
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
            let seen = Seen { format: "JPEG", colour: "RGB", size, turned: false, bytes: 1 };
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
    fn evenness_of_classes() {
        let even = SplitSummary::of(&[5, 5, 5]);
        assert!((even.evenness - 1.0).abs() < 1e-12 && even.classes == 3);
        let one = SplitSummary::of(&[9, 0]);
        assert_eq!((one.evenness, one.classes, one.smallest, one.largest), (0.0, 1, 0, 9));
        assert_eq!(SplitSummary::of(&[4]).evenness, 1.0);
    }
}
