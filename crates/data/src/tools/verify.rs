//! Checks a data set: unreadable images, duplicates, label conflicts, leaks between splits.

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
use crate::source::{Sample, Source, StoredImage, class_counts};
use crate::tools::perceptual::{self, DisjointSets, perceptual_hash};
use crate::tools::{CurateError, Work, header, images, splits};

/// Options of [`verify`].
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Also reports images with perceptual hashes that differ in at most this many of 64 bits.
    pub near: Option<u32>,
    /// Reports classes with fewer training images than this.
    pub few: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { near: None, few: 10 }
    }
}

/// The kinds of findings, in the order of the report. Errors stop training or make results
/// unreliable; the others are warnings. Label conflicts and leaks come first, because nothing else
/// detects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One image in two classes.
    Conflict,
    /// Similar images in different classes.
    NearConflict,
    /// One image in two splits, with the same class.
    Leak,
    /// Similar images in different splits.
    NearLeak,
    /// A file of 0 bytes.
    Empty,
    /// The content is not in a known image format.
    NotAnImage,
    /// The file ends before the image is complete.
    Truncated,
    /// An image format, or a variant of one, that is not supported.
    Unsupported,
    /// The image cannot be decoded.
    Corrupt,
    /// The image has too many pixels or bytes.
    TooLarge,
    /// The file cannot be read.
    Unreadable,
    /// One image several times in one class of a split.
    Copy,
    /// Similar images in the same class and split.
    Near,
    /// The file extension belongs to another format than the content.
    Extension,
    /// A split has no images of a class.
    Missing,
    /// A class has few training images.
    Few,
}

/// Kind, name in JSON and CSV, whether it is an error, and title in reports.
const KINDS: [(Kind, &str, bool, &str); 16] = [
    (Kind::Conflict, "conflict", true, "images in several classes (label conflicts)"),
    (Kind::NearConflict, "near_conflict", false, "groups of similar images in several classes"),
    (Kind::Leak, "leak", true, "images in several splits (leaks)"),
    (Kind::NearLeak, "near_leak", false, "groups of similar images in several splits"),
    (Kind::Empty, "empty", true, "empty files"),
    (Kind::NotAnImage, "not_an_image", true, "files that are not images"),
    (Kind::Truncated, "truncated", true, "truncated images"),
    (Kind::Unsupported, "unsupported", true, "images in unsupported formats"),
    (Kind::Corrupt, "corrupt", true, "corrupt images"),
    (Kind::TooLarge, "too_large", true, "images that are too large"),
    (Kind::Unreadable, "unreadable", true, "images that could not be read"),
    (Kind::Copy, "copy", false, "duplicate images within a class"),
    (Kind::Near, "near", false, "groups of similar images within a class"),
    (Kind::Extension, "extension", false, "files with the wrong extension"),
    (Kind::Missing, "missing_class", false, "classes missing from a split"),
    (Kind::Few, "few_images", false, "classes with few images"),
];

impl Kind {
    /// Returns all kinds, in the order of reports.
    pub fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, bool, &'static str) {
        // The table has one row per kind, in declaration order (a test checks it).
        &KINDS[self as usize]
    }

    /// Returns the name used in JSON and CSV.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns whether this is an error rather than a warning.
    pub fn is_error(self) -> bool {
        self.row().2
    }

    /// Returns the title of this kind in reports.
    pub fn title(self) -> &'static str {
        self.row().3
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A problem found by [`verify`].
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Kind.
    pub kind: Kind,
    /// Description.
    pub detail: String,
    /// Affected files; empty if the finding is about a class.
    pub files: Vec<FileOf>,
}

/// A sample of a split.
#[derive(Clone, Debug, Serialize)]
pub struct FileOf {
    /// Split.
    pub split: &'static str,
    /// Class name.
    pub class: String,
    /// Name: the path of the file, if the sample has its own.
    pub name: String,
    /// Path of the file, if the sample has its own.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl fmt::Display for FileOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.split, self.class)
    }
}

/// The result of [`verify`].
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Form of the data set.
    pub form: String,
    /// Number of images in each split.
    pub images: BTreeMap<&'static str, usize>,
    /// Number of errors.
    pub errors: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// Number of findings of each kind.
    pub counts: BTreeMap<&'static str, usize>,
    /// All findings, ordered by kind, split and class.
    pub findings: Vec<Finding>,
    /// Notes from opening the data set.
    pub notes: Vec<String>,
}

/// The first half of a SHA-256; collisions of different images are not expected.
type Fingerprint = [u8; 16];

/// Checksums of a valid image.
struct ImageHashes {
    split: usize,
    index: usize,
    stored: Fingerprint,
    pixels: Fingerprint,
    hash: Option<u64>,
}

/// Result of checking one image.
struct Checked {
    stored: Fingerprint,
    pixels: Fingerprint,
    hash: Option<u64>,
    /// Format detected from the content.
    format: Option<ImageFormat>,
    /// True for grayscale images with more than 8 bits.
    is_wide_gray: bool,
}

/// Reads and decodes every image. Memory use in addition to the images in progress and the findings
/// is below 100 bytes per image, or 300 bytes when searching for similar images.
///
/// # Errors
/// [`CurateError::Interrupted`]. Problems of the data are part of the result.
pub fn verify(data: &DataSet, options: &VerifyOptions, work: &mut Work) -> Result<Verification, CurateError> {
    let mut check = Check { splits: splits(data), classes: &data.classes, findings: Vec::new() };
    let mut valid: Vec<ImageHashes> = Vec::with_capacity(images(data));
    let mut done = 0;
    let mut wide_gray: Option<(String, usize)> = None;
    for (split, (_, source)) in check.splits.clone().iter().enumerate() {
        let each = |index| check_image(source.as_ref(), index, options.near.is_some());
        work.map(0..source.len(), done, each, |index, checked| {
            match checked {
                Ok(Checked { stored, pixels, hash, format, is_wide_gray }) => {
                    if is_wide_gray {
                        wide_gray.get_or_insert((source.name(index), 0)).1 += 1;
                    }
                    check.extension(split, index, format);
                    valid.push(ImageHashes { split, index, stored, pixels, hash });
                }
                Err((kind, detail)) => check.add(kind, detail, &[(split, index)]),
            }
            Ok(())
        })?;
        done += source.len();
    }
    let unique = check.copies(&valid);
    if let Some(distance) = options.near {
        check.near(&valid, &unique, distance);
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

/// Reads, decodes and hashes one image.
fn check_image(source: &dyn Source, index: usize, near: bool) -> Result<Checked, (Kind, String)> {
    // Third-party decoders process untrusted bytes: a panic counts as a corrupt image.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let Sample { image, .. } = source.get(index).map_err(|error| match error {
            DataError::Image { source, .. } => kind_of_error(&source),
            error => (Kind::Unreadable, error.to_string()),
        })?;
        let (stored, format, is_wide_gray, pixels) = match image {
            StoredImage::Pixels(pixels) => (None, None, false, pixels),
            StoredImage::Encoded(bytes) if bytes.is_empty() => return Err((Kind::Empty, "0 bytes".into())),
            StoredImage::Encoded(bytes) => {
                let pixels = mbconv_image::decode_rgb(&bytes).map_err(|error| kind_of_error(&error))?;
                let (format, wide) = (formats::recognize(&bytes).ok(), formats::is_wide_gray(&bytes));
                (Some(fingerprint(&[&bytes])), format, wide, pixels)
            }
        };
        let RgbPixels { width, height, data } = &pixels;
        let decoded = fingerprint(&[&(*width as u64).to_le_bytes(), &(*height as u64).to_le_bytes(), data]);
        let hash = near.then(|| perceptual_hash(&pixels)).flatten();
        Ok(Checked { stored: stored.unwrap_or(decoded), pixels: decoded, hash, format, is_wide_gray })
    }));
    checked.unwrap_or_else(|_| Err((Kind::Corrupt, "the decoder panicked".into())))
}

/// Reads and decodes one image; returns the error if that is not possible.
pub(crate) fn try_decode(source: &dyn Source, index: usize) -> Result<(), DataError> {
    let image = |source: DecodeError, name: String| DataError::Image { name, source };
    let decoded = catch_unwind(AssertUnwindSafe(|| match source.get(index)?.image {
        StoredImage::Pixels(_) => Ok(()),
        StoredImage::Encoded(bytes) => {
            mbconv_image::decode_rgb(&bytes).map(drop).map_err(|error| image(error, source.name(index)))
        }
    }));
    decoded.unwrap_or_else(|_| Err(image(DecodeError::Damaged("the decoder panicked".into()), source.name(index))))
}

/// Returns the kind and description of a finding for a decoding error.
fn kind_of_error(error: &DecodeError) -> (Kind, String) {
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

/// Hashes the concatenated parts.
fn fingerprint(parts: &[&[u8]]) -> Fingerprint {
    let mut sha = Sha256::new();
    parts.iter().for_each(|part| sha.update(part));
    let mut half = Fingerprint::default();
    half.copy_from_slice(&sha.finalize()[..16]);
    half
}

/// Collects the findings.
struct Check<'a> {
    splits: Vec<(&'static str, Arc<dyn Source>)>,
    classes: &'a [String],
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn file(&self, (split, index): (usize, usize)) -> FileOf {
        let (name, source) = &self.splits[split];
        let class = match source.label_sets() {
            None => self.classes[source.label(index)].clone(),
            Some(sets) => sets.name(source.label(index), self.classes),
        };
        FileOf { split: name, class, name: source.name(index), path: source.path(index) }
    }

    fn add(&mut self, kind: Kind, detail: String, samples: &[(usize, usize)]) {
        let files = samples.iter().map(|&sample| self.file(sample)).collect();
        self.findings.push(Finding { kind, detail, files });
    }

    /// Compares the extension of a file with its content.
    fn extension(&mut self, split: usize, index: usize, format: Option<ImageFormat>) {
        let path = self.splits[split].1.path(index);
        let extension = path.as_ref().and_then(|path| path.extension()?.to_str());
        let (Some(extension), Some(format)) = (extension, format) else { return };
        if header::format_of_extension(extension) != Some(format) {
            let detail = format!("the content is in {} format", header::format_name(format));
            self.add(Kind::Extension, detail, &[(split, index)]);
        }
    }

    /// Finds samples with the same pixels; returns the index of the first of each group.
    fn copies(&mut self, valid: &[ImageHashes]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..valid.len()).collect();
        order.sort_unstable_by_key(|&place| (valid[place].pixels, place));
        let same = || order.chunk_by(|&a, &b| valid[a].pixels == valid[b].pixels);
        let mut groups: Vec<&[usize]> = same().filter(|group| group.len() > 1).collect();
        groups.sort_unstable();
        for group in groups {
            let members: Vec<&ImageHashes> = group.iter().map(|&place| &valid[place]).collect();
            let labels: Vec<usize> = members.iter().map(|one| self.splits[one.split].1.label(one.index)).collect();
            let kind = if labels.iter().any(|label| *label != labels[0]) {
                Kind::Conflict
            } else if members.iter().any(|one| one.split != members[0].split) {
                Kind::Leak
            } else {
                Kind::Copy
            };
            let identical = members.iter().all(|one| one.stored == members[0].stored);
            let what = if identical { "identical files" } else { "identical pixels" };
            let samples: Vec<(usize, usize)> = members.iter().map(|one| (one.split, one.index)).collect();
            self.add(kind, format!("{what}, {} times", members.len()), &samples);
        }
        let mut unique: Vec<usize> = same().map(|group| group[0]).collect();
        unique.sort_unstable();
        unique
    }

    /// Finds groups of similar images among images with different pixels.
    fn near(&mut self, valid: &[ImageHashes], unique: &[usize], distance: u32) {
        let hashed: Vec<(usize, u64)> = unique.iter().filter_map(|&place| Some((place, valid[place].hash?))).collect();
        let hashes: Vec<u64> = hashed.iter().map(|&(_, hash)| hash).collect();
        let sample = |member: usize| {
            let ImageHashes { split, index, .. } = valid[hashed[member].0];
            (split, index)
        };
        let split = |member| sample(member).0;
        let label = |member| self.splits[split(member)].1.label(sample(member).1);
        let pairs = perceptual::near_pairs(&hashes, distance);
        let mut sets = DisjointSets::new(hashes.len());
        for &(a, b, _) in &pairs {
            sets.join(a, b);
        }
        let mut groups: BTreeMap<usize, SimilarImages> = BTreeMap::new();
        for (a, b, distance) in pairs {
            let crosses = [label(a) != label(b), split(a) != split(b)];
            groups.entry(sets.root(a)).or_default().add([a, b], distance, crosses);
        }
        // Order by distance, because the closest pairs most likely show the same image.
        let mut groups: Vec<SimilarImages> = groups.into_values().collect();
        groups.sort_by_key(|group| group.classify().1);
        for group in groups {
            let (kind, _, detail) = group.classify();
            let samples: Vec<(usize, usize)> = group.in_order().into_iter().map(sample).collect();
            self.add(kind, detail, &samples);
        }
    }

    /// Finds classes without images in a split, and classes with few training images.
    fn classes(&mut self, few: usize) {
        for (name, source) in self.splits.clone() {
            let counts = class_counts(&*source, self.classes.len());
            for (class, &count) in self.classes.iter().zip(&counts) {
                let (kind, detail) = match count {
                    0 => (Kind::Missing, format!("no images of {class} in {name}")),
                    _ if name == "train" && count < few => (Kind::Few, format!("{class} has {count} images in {name}")),
                    _ => continue,
                };
                self.findings.push(Finding { kind, detail, files: Vec::new() });
            }
        }
    }
}

/// A group of similar images.
#[derive(Default)]
struct SimilarImages {
    members: Vec<usize>,
    /// Maximum distance between linked images, in bits.
    max_distance: u32,
    /// The closest pair of different classes, and the closest pair of different splits, with their
    /// distances.
    across: [Option<(u32, [usize; 2])>; 2],
}

impl SimilarImages {
    /// Adds a linked pair; `crosses` states whether it has different classes, and different splits.
    fn add(&mut self, pair: [usize; 2], distance: u32, crosses: [bool; 2]) {
        self.members.extend(pair);
        self.max_distance = self.max_distance.max(distance);
        for (closest, crosses) in self.across.iter_mut().zip(crosses) {
            let candidate = crosses.then_some((distance, pair));
            *closest = [*closest, candidate].into_iter().flatten().min();
        }
    }

    /// Returns the kind of finding, the distance relevant for it, and its description.
    fn classify(&self) -> (Kind, u32, String) {
        match self.across {
            [Some((distance, _)), leak] => {
                let splits = if leak.is_some() { " and splits" } else { "" };
                (
                    Kind::NearConflict,
                    distance,
                    format!("similar images in several classes{splits}: distance {distance} of 64 bits"),
                )
            }
            [None, Some((distance, _))] => {
                (Kind::NearLeak, distance, format!("similar images in several splits: distance {distance} of 64 bits"))
            }
            [None, None] => (
                Kind::Near,
                self.max_distance,
                format!("similar images: distance up to {} of 64 bits", self.max_distance),
            ),
        }
    }

    /// Returns the members, starting with the pair that makes the group a conflict or a leak.
    fn in_order(&self) -> Vec<usize> {
        let first = self.across.iter().flatten().next().map(|(_, pair)| *pair);
        let mut members = self.members.clone();
        members.sort_unstable_by_key(|member| (!first.is_some_and(|pair| pair.contains(member)), *member));
        members.dedup();
        members
    }
}

/// Returns the files of a finding that can be removed: bad images and redundant copies. Returns
/// none for label conflicts and similar images, which need a human decision.
///
/// One copy is kept: in the test split, else in the validation split, else in the training split,
/// so that evaluation results do not change; within the split, the copy with the shortest name.
pub fn surplus(finding: &Finding) -> Vec<&FileOf> {
    // By name, "1 (copy).jpg" sorts before "1.jpg", but it is hardly the original.
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
    fn table_of_kinds_matches_declaration_order() {
        for (row, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, row);
        }
    }

    #[test]
    fn groups_across_classes_or_splits_are_separate_findings() {
        let group = |pairs: &[([usize; 2], u32, [bool; 2])]| {
            let mut group = SimilarImages::default();
            pairs.iter().for_each(|&(pair, distance, crosses)| group.add(pair, distance, crosses));
            let (kind, distance, _) = group.classify();
            (kind, distance, group.in_order())
        };
        let harmless = ([0, 1], 0, [false, false]);
        assert_eq!(group(&[harmless, ([1, 2], 4, [false, false])]), (Kind::Near, 4, vec![0, 1, 2]));
        assert_eq!(group(&[harmless, ([1, 2], 3, [false, true])]), (Kind::NearLeak, 3, vec![1, 2, 0]));
        let conflict = [harmless, ([1, 2], 3, [false, true]), ([2, 3], 4, [true, false]), ([0, 3], 2, [true, true])];
        assert_eq!(group(&conflict), (Kind::NearConflict, 2, vec![0, 3, 1, 2]));
    }

    #[test]
    fn surplus_keeps_the_copy_used_for_evaluation() {
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
