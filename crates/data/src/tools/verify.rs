//! What is wrong with a data set.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use image::ImageFormat;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use mbconv_image::{DecodeError, RgbPixels, formats};

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::source::{Sample, Source, StoredImage};
use crate::tools::perceptual::{self, Groups, perceptual_hash};
use crate::tools::{CurateError, Work, header, images, splits};

/// What to look for besides.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Look for images whose perceptual hashes differ in at most so many of their 64 bits.
    pub near: Option<u32>,
    /// Classes with fewer training images than this are mentioned.
    pub few: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { near: None, few: 10 }
    }
}

/// What can be wrong. Errors stop training, or make its result mean less than it says; the others
/// are warnings. Wrong labels and leaks come first, as nothing else shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The same image under two classes.
    Conflict,
    /// Images of different classes that look alike.
    NearConflict,
    /// The same image in two splits, of the same class.
    Leak,
    /// Images in different splits that look alike.
    NearLeak,
    /// The file has no bytes.
    Empty,
    /// The bytes are of no known image format.
    NotAnImage,
    /// The file ends before its image.
    Truncated,
    /// It is of a format, or a kind of one, that is not supported.
    Unsupported,
    /// The decoder refuses it.
    Corrupt,
    /// It has too many pixels or bytes.
    TooLarge,
    /// The file could not be read at all.
    Unreadable,
    /// The same image several times in a class of a split.
    Copy,
    /// Images of one class and split that look alike.
    Near,
    /// The extension announces another format than the content has.
    Extension,
    /// A split has no images of a class.
    Missing,
    /// A class has few training images.
    Few,
}

/// Kind, name, whether it is an error, and what people read.
const KINDS: [(Kind, &str, bool, &str); 16] = [
    (Kind::Conflict, "conflict", true, "images that are in several classes (label conflicts)"),
    (Kind::NearConflict, "near_conflict", false, "groups of images that look alike but are in several classes"),
    (Kind::Leak, "leak", true, "images that are in several splits (leaks)"),
    (Kind::NearLeak, "near_leak", false, "groups of images that look alike and are in several splits"),
    (Kind::Empty, "empty", true, "files without a byte"),
    (Kind::NotAnImage, "not_an_image", true, "files that are no images"),
    (Kind::Truncated, "truncated", true, "truncated images"),
    (Kind::Unsupported, "unsupported", true, "images of unsupported kinds"),
    (Kind::Corrupt, "corrupt", true, "corrupt images"),
    (Kind::TooLarge, "too_large", true, "images of too many pixels or bytes"),
    (Kind::Unreadable, "unreadable", true, "images that could not be read"),
    (Kind::Copy, "copy", false, "images that a class has several times"),
    (Kind::Near, "near", false, "groups of images of a class that look alike"),
    (Kind::Extension, "extension", false, "files with another format's extension"),
    (Kind::Missing, "missing_class", false, "splits that lack a class"),
    (Kind::Few, "few_images", false, "classes with few images"),
];

impl Kind {
    /// All kinds, in the order of reports.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, bool, &'static str) {
        // The table has a row for each, in order.
        &KINDS[self as usize]
    }

    /// Its name in JSON and CSV.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Whether the data should not be used so.
    pub fn is_error(self) -> bool {
        self.row().2
    }

    /// What people read: a heading over several of them.
    pub fn title(self) -> &'static str {
        self.row().3
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Something that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// More about it.
    pub detail: String,
    /// The files concerned; none where a class is.
    pub files: Vec<FileOf>,
}

/// A sample of a split.
#[derive(Clone, Debug, Serialize)]
pub struct FileOf {
    /// Its split.
    pub split: &'static str,
    /// Its class.
    pub class: String,
    /// Its name: its file's path, where it has one of its own.
    pub name: String,
    /// The file itself.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl fmt::Display for FileOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.split, self.class)
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// The form of the data set.
    pub form: String,
    /// Images of each split.
    pub images: BTreeMap<&'static str, usize>,
    /// Findings that are errors.
    pub errors: usize,
    /// Findings that are not.
    pub warnings: usize,
    /// Findings of each kind.
    pub counts: BTreeMap<&'static str, usize>,
    /// All findings, ordered by kind, split and class.
    pub findings: Vec<Finding>,
    /// What was noticed when the data set was opened.
    pub notes: Vec<String>,
}

/// The first half of a SHA-256: two different images with the same are not to be expected.
type Fingerprint = [u8; 16];

/// What is kept of every sound image.
struct Kept {
    split: usize,
    index: usize,
    stored: Fingerprint,
    pixels: Fingerprint,
    hash: Option<u64>,
}

/// What a worker says of an image.
struct Checked {
    stored: Fingerprint,
    pixels: Fingerprint,
    hash: Option<u64>,
    /// The format told from the bytes.
    format: Option<ImageFormat>,
    /// Whether it is gray of more than 8 bits.
    is_wide_gray: bool,
}

/// Reads and decodes every image. In memory are, besides the images being worked on and the
/// findings, less than 100 bytes an image, or 300 with a look for near ones.
///
/// # Errors
/// [`CurateError::Interrupted`]; what is wrong with the data is the result.
pub fn verify(data: &DataSet, options: &VerifyOptions, work: &mut Work) -> Result<Verification, CurateError> {
    let mut check = Check { splits: splits(data), classes: &data.classes, findings: Vec::new() };
    let mut kept: Vec<Kept> = Vec::with_capacity(images(data));
    let mut done = 0;
    let mut wide_gray: Option<(String, usize)> = None;
    for (split, (_, source)) in check.splits.clone().iter().enumerate() {
        let each = |index| examine(source.as_ref(), index, options.near.is_some());
        work.map(0..source.len(), done, each, |index, checked| {
            match checked {
                Ok(Checked { stored, pixels, hash, format, is_wide_gray }) => {
                    if is_wide_gray {
                        wide_gray.get_or_insert((source.name(index), 0)).1 += 1;
                    }
                    check.extension(split, index, format);
                    kept.push(Kept { split, index, stored, pixels, hash });
                }
                Err((kind, detail)) => check.add(kind, detail, &[(split, index)]),
            }
            Ok(())
        })?;
        done += source.len();
    }
    let unique = check.copies(&kept);
    if let Some(distance) = options.near {
        check.near(&kept, &unique, distance);
    }
    check.classes(options.few);

    let mut findings = check.findings;
    findings.sort_by_key(|finding| finding.kind);
    let mut counts = BTreeMap::new();
    for finding in &findings {
        *counts.entry(finding.kind.name()).or_default() += 1;
    }
    let wide_gray = wide_gray.map(|(name, count)| formats::wide_gray_warning(count, done, &name));
    let errors = findings.iter().filter(|finding| finding.kind.is_error()).count();
    Ok(Verification {
        form: data.form.to_string(),
        images: check.splits.iter().map(|(name, source)| (*name, source.len())).collect(),
        errors,
        warnings: findings.len() - errors,
        counts,
        findings,
        notes: data.notes.iter().cloned().chain(wide_gray).collect(),
    })
}

/// Reads and decodes one image.
fn examine(source: &dyn Source, index: usize, near: bool) -> Result<Checked, (Kind, String)> {
    // Decoders are other people's code: a panic in one is a corrupt image.
    let examined = catch_unwind(AssertUnwindSafe(|| {
        let Sample { image, .. } = source.get(index).map_err(|error| match error {
            DataError::Image { source, .. } => fault(&source),
            error => (Kind::Unreadable, error.to_string()),
        })?;
        let (stored, format, is_wide_gray, pixels) = match image {
            StoredImage::Pixels(pixels) => (None, None, false, pixels),
            StoredImage::Encoded(bytes) if bytes.is_empty() => return Err((Kind::Empty, "0 bytes".into())),
            StoredImage::Encoded(bytes) => {
                let pixels = mbconv_image::decode_rgb(&bytes).map_err(|error| fault(&error))?;
                let (format, wide) = (formats::recognize(&bytes).ok(), formats::is_wide_gray(&bytes));
                (Some(fingerprint(&[&bytes])), format, wide, pixels)
            }
        };
        let RgbPixels { width, height, data } = &pixels;
        let decoded = fingerprint(&[&(*width as u64).to_le_bytes(), &(*height as u64).to_le_bytes(), data]);
        let hash = near.then(|| perceptual_hash(&pixels)).flatten();
        Ok(Checked { stored: stored.unwrap_or(decoded), pixels: decoded, hash, format, is_wide_gray })
    }));
    examined.unwrap_or_else(|_| Err((Kind::Corrupt, "the decoder panicked".into())))
}

/// Reads and decodes one image, and returns why that is not possible.
pub(crate) fn decodes(source: &dyn Source, index: usize) -> Result<(), DataError> {
    let image = |source: DecodeError, name: String| DataError::Image { name, source };
    let decoded = catch_unwind(AssertUnwindSafe(|| match source.get(index)?.image {
        StoredImage::Pixels(_) => Ok(()),
        StoredImage::Encoded(bytes) => {
            mbconv_image::decode_rgb(&bytes).map(drop).map_err(|error| image(error, source.name(index)))
        }
    }));
    decoded.unwrap_or_else(|_| Err(image(DecodeError::Damaged("the decoder panicked".into()), source.name(index))))
}

fn fault(error: &DecodeError) -> (Kind, String) {
    let kind = match error {
        DecodeError::UnknownFormat => Kind::NotAnImage,
        DecodeError::Truncated => Kind::Truncated,
        DecodeError::TooLarge { .. } | DecodeError::TooManyBytes { .. } => Kind::TooLarge,
        DecodeError::NotAFile => Kind::Unreadable,
        DecodeError::Unsupported(_) => Kind::Unsupported,
        DecodeError::Damaged(_) => Kind::Corrupt,
    };
    (kind, error.to_string())
}

fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    let mut sha = Sha256::new();
    parts.iter().for_each(|part| sha.update(part));
    let mut half = Fingerprint::default();
    half.copy_from_slice(&sha.finalize()[..16]);
    half
}

/// Findings, as they are collected.
struct Check<'a> {
    splits: Vec<(&'static str, Arc<dyn Source>)>,
    classes: &'a [String],
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn file(&self, (split, index): (usize, usize)) -> FileOf {
        let (name, source) = &self.splits[split];
        let class = self.classes[source.label(index)].clone();
        FileOf { split: name, class, name: source.name(index), path: source.path(index) }
    }

    fn add(&mut self, kind: Kind, detail: String, samples: &[(usize, usize)]) {
        let files = samples.iter().map(|&sample| self.file(sample)).collect();
        self.findings.push(Finding { kind, detail, files });
    }

    /// Compares a file's extension with its content.
    fn extension(&mut self, split: usize, index: usize, format: Option<ImageFormat>) {
        let path = self.splits[split].1.path(index);
        let extension = path.as_ref().and_then(|path| path.extension()?.to_str());
        let (Some(extension), Some(format)) = (extension, format) else { return };
        if header::announced(extension) != Some(format) {
            let detail = format!("the content is {}", header::format_name(format));
            self.add(Kind::Extension, detail, &[(split, index)]);
        }
    }

    /// Finds samples of the same pixels; gives the first of each.
    fn copies(&mut self, kept: &[Kept]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_unstable_by_key(|&place| (kept[place].pixels, place));
        let same = || order.chunk_by(|&a, &b| kept[a].pixels == kept[b].pixels);
        let mut groups: Vec<&[usize]> = same().filter(|group| group.len() > 1).collect();
        groups.sort_unstable();
        for group in groups {
            let members: Vec<&Kept> = group.iter().map(|&place| &kept[place]).collect();
            let labels: Vec<usize> = members.iter().map(|one| self.splits[one.split].1.label(one.index)).collect();
            let kind = if labels.iter().any(|label| *label != labels[0]) {
                Kind::Conflict
            } else if members.iter().any(|one| one.split != members[0].split) {
                Kind::Leak
            } else {
                Kind::Copy
            };
            let identical = members.iter().all(|one| one.stored == members[0].stored);
            let what = if identical { "the same bytes" } else { "the same pixels" };
            let samples: Vec<(usize, usize)> = members.iter().map(|one| (one.split, one.index)).collect();
            self.add(kind, format!("{what}, {} times", members.len()), &samples);
        }
        let mut unique: Vec<usize> = same().map(|group| group[0]).collect();
        unique.sort_unstable();
        unique
    }

    /// Finds images that look alike among those of different pixels.
    fn near(&mut self, kept: &[Kept], unique: &[usize], distance: u32) {
        let hashed: Vec<(usize, u64)> = unique.iter().filter_map(|&place| Some((place, kept[place].hash?))).collect();
        let hashes: Vec<u64> = hashed.iter().map(|&(_, hash)| hash).collect();
        let sample = |member: usize| {
            let Kept { split, index, .. } = kept[hashed[member].0];
            (split, index)
        };
        let split = |member| sample(member).0;
        let label = |member| self.splits[split(member)].1.label(sample(member).1);
        let pairs = perceptual::near(&hashes, distance);
        let mut together = Groups::new(hashes.len());
        for &(a, b, _) in &pairs {
            together.join(a, b);
        }
        let mut groups: BTreeMap<usize, Alike> = BTreeMap::new();
        for (a, b, apart) in pairs {
            let crosses = [label(a) != label(b), split(a) != split(b)];
            groups.entry(together.root(a)).or_default().add([a, b], apart, crosses);
        }
        // The closest first: the likeliest to be one image.
        let mut groups: Vec<Alike> = groups.into_values().collect();
        groups.sort_by_key(|group| group.verdict().1);
        for group in groups {
            let (kind, _, detail) = group.verdict();
            let samples: Vec<(usize, usize)> = group.in_order().into_iter().map(sample).collect();
            self.add(kind, detail, &samples);
        }
    }

    /// Finds classes that a split lacks, or that have few images to train on.
    fn classes(&mut self, few: usize) {
        for (name, source) in self.splits.clone() {
            let mut counts = vec![0; self.classes.len()];
            (0..source.len()).for_each(|index| counts[source.label(index)] += 1);
            for (class, &count) in self.classes.iter().zip(&counts) {
                let (kind, detail) = match count {
                    0 => (Kind::Missing, format!("{name} has no images of {class}")),
                    _ if name == "train" && count < few => (Kind::Few, format!("{class} has {count} in {name}")),
                    _ => continue,
                };
                self.findings.push(Finding { kind, detail, files: Vec::new() });
            }
        }
    }
}

/// A group of images that look alike.
#[derive(Default)]
struct Alike {
    members: Vec<usize>,
    /// Most bits between two that are linked.
    furthest: u32,
    /// The closest two of different classes, and of different splits, with their distance.
    across: [Option<(u32, [usize; 2])>; 2],
}

impl Alike {
    fn add(&mut self, pair: [usize; 2], apart: u32, crosses: [bool; 2]) {
        self.members.extend(pair);
        self.furthest = self.furthest.max(apart);
        for (closest, crosses) in self.across.iter_mut().zip(crosses) {
            let candidate = crosses.then_some((apart, pair));
            *closest = [*closest, candidate].into_iter().flatten().min();
        }
    }

    /// The kind of finding, the distance that matters for it, and the detail.
    fn verdict(&self) -> (Kind, u32, String) {
        match self.across {
            [Some((apart, _)), leak] => {
                let splits = if leak.is_some() { ", in several splits" } else { "" };
                (Kind::NearConflict, apart, format!("{apart} of 64 bits apart across classes{splits}"))
            }
            [None, Some((apart, _))] => (Kind::NearLeak, apart, format!("{apart} of 64 bits apart across splits")),
            [None, None] => (Kind::Near, self.furthest, format!("up to {} of 64 bits apart", self.furthest)),
        }
    }

    /// The members, the two first that make it a conflict or a leak.
    fn in_order(&self) -> Vec<usize> {
        let first = self.across.iter().flatten().next().map(|(_, pair)| *pair);
        let mut members = self.members.clone();
        members.sort_unstable_by_key(|member| (!first.is_some_and(|pair| pair.contains(member)), *member));
        members.dedup();
        members
    }
}

/// The files of a finding that a sound data set can do without: bad images, the surplus copies.
/// None where a person must decide: which label is right, whether two images that look alike are
/// one.
///
/// Of copies one is kept, in the test split before the validation split before the training split,
/// so that what is measured on does not change, and there the one of the shortest name.
pub fn surplus(finding: &Finding) -> Vec<&FileOf> {
    // "1 (copy).jpg" goes before "1.jpg" in order of name, but is hardly the original.
    let rank =
        |file: &FileOf| (["test", "val", "train"].iter().position(|split| *split == file.split), file.name.len());
    match finding.kind {
        Kind::Empty | Kind::NotAnImage | Kind::Truncated | Kind::Corrupt | Kind::TooLarge => {
            finding.files.iter().collect()
        }
        Kind::Leak | Kind::Copy => {
            let keep = (0..finding.files.len()).min_by_key(|&place| rank(&finding.files[place]));
            finding.files.iter().enumerate().filter(|(place, _)| Some(*place) != keep).map(|(_, file)| file).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_kinds_is_in_order() {
        for (row, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, row);
        }
    }

    #[test]
    fn groups_that_cross_classes_or_splits_are_findings_of_their_own() {
        let group = |pairs: &[([usize; 2], u32, [bool; 2])]| {
            let mut group = Alike::default();
            pairs.iter().for_each(|&(pair, apart, crosses)| group.add(pair, apart, crosses));
            let (kind, apart, _) = group.verdict();
            (kind, apart, group.in_order())
        };
        let harmless = ([0, 1], 0, [false, false]);
        assert_eq!(group(&[harmless, ([1, 2], 4, [false, false])]), (Kind::Near, 4, vec![0, 1, 2]));
        assert_eq!(group(&[harmless, ([1, 2], 3, [false, true])]), (Kind::NearLeak, 3, vec![1, 2, 0]));
        let conflict = [harmless, ([1, 2], 3, [false, true]), ([2, 3], 4, [true, false]), ([0, 3], 2, [true, true])];
        assert_eq!(group(&conflict), (Kind::NearConflict, 2, vec![0, 3, 1, 2]));
    }

    #[test]
    fn one_copy_is_kept_where_it_is_measured_on() {
        let file = |split, name: &str| FileOf { split, class: "a".into(), name: name.into(), path: None };
        let names = |kind, files| {
            let finding = Finding { kind, detail: String::new(), files };
            surplus(&finding).iter().map(|file| file.name.clone()).collect::<Vec<_>>()
        };
        let leak = vec![file("train", "1"), file("train", "2"), file("val", "3"), file("val", "4")];
        assert_eq!(names(Kind::Leak, leak.clone()), ["1", "2", "4"]);
        assert_eq!(names(Kind::Copy, leak[..2].to_vec()), ["2"]);
        assert_eq!(names(Kind::Copy, vec![file("val", "1 (copy).jpg"), file("val", "1.jpg")]), ["1 (copy).jpg"]);
        assert_eq!(names(Kind::Truncated, leak[..1].to_vec()), ["1"]);
        assert!(names(Kind::Conflict, leak.clone()).is_empty());
        for kind in [Kind::Near, Kind::NearConflict, Kind::NearLeak] {
            assert!(names(kind, leak.clone()).is_empty());
        }
    }
}
