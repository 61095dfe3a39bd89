//! Splits of data sets and their samples.

use std::path::PathBuf;
use std::sync::Arc;

use burn::data::dataset::Dataset;

use mbconv_image::{DecodeError, Decoding, RgbPixels, decode};

use crate::error::DataError;
use crate::label_sets::LabelSets;

/// A stored sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: StoredImage,
    /// Label, as returned by [`Source::label`].
    pub label: usize,
}

/// An image as stored in a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredImage {
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels, for data sets that are stored uncompressed.
    Pixels(RgbPixels),
}

impl StoredImage {
    /// Returns the pixels, decoded by [`decode_rgb`](mbconv_image::decode_rgb) if necessary.
    ///
    /// # Errors
    /// Those of [`decode_rgb`](mbconv_image::decode_rgb).
    pub fn into_pixels(self) -> Result<RgbPixels, DecodeError> {
        self.into_pixels_as(&Decoding::default())
    }

    /// Returns the pixels, decoded by [`decode`](mbconv_image::decode()) if necessary.
    ///
    /// # Errors
    /// Those of [`decode`](mbconv_image::decode()).
    pub fn into_pixels_as(self, decoding: &Decoding) -> Result<RgbPixels, DecodeError> {
        match self {
            StoredImage::Encoded(bytes) => decode(&bytes, decoding),
            StoredImage::Pixels(pixels) => Ok(pixels),
        }
    }
}

/// A split of a data set, with thread-safe random access to its samples.
pub trait Source: Dataset<Sample, DataError> {
    /// Returns the sample's name for messages: its file path, or for example
    /// `data_batch_1.bin[17]`.
    ///
    /// # Panics
    /// If the index is out of bounds, like `get`.
    fn name(&self, index: usize) -> String;

    /// Returns the sample's label without reading the image: an index into
    /// [`DataSet::classes`](crate::DataSet::classes), or into
    /// [`label_sets`](Self::label_sets) if there are any.
    ///
    /// # Panics
    /// If the index is out of bounds, like `get`.
    fn label(&self, index: usize) -> usize;

    /// Returns the sets of classes that the labels of multi-label data refer to. All splits of a
    /// data set share them. `None` by default, for data with one class per image.
    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        None
    }

    /// Returns the file that contains only this sample, if there is one.
    ///
    /// # Panics
    /// If the index is out of bounds, like `get`.
    fn path(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Returns the files that contain several samples, such as shards and archives. None by
    /// default.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns runs of samples that are best read together. None by default, if order does not
    /// matter for speed.
    fn runs(&self) -> Runs {
        Runs::default()
    }
}

/// Returns the number of samples of each class. A sample of multi-label data counts for each of its
/// classes.
pub fn class_counts(source: &dyn Source, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    let labels = (0..source.len()).map(|index| source.label(index));
    match source.label_sets() {
        None => labels.for_each(|label| counts[label] += 1),
        Some(sets) => labels.flat_map(|label| sets.classes(label)).for_each(|&class| counts[class] += 1),
    }
    counts
}

/// Runs of samples that are stored together in large files. A shuffled epoch takes groups of
/// `abreast` runs in random order and shuffles the samples of each group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// End index of each run, ascending; the last is the number of samples. Empty if order does not
    /// matter.
    pub ends: Vec<usize>,
    /// Number of runs read concurrently, at least 1.
    pub abreast: usize,
}

impl Runs {
    /// Returns the mean number of classes per run, and the expected number if the samples were
    /// well mixed.
    pub(crate) fn classes(&self, label: impl Fn(usize) -> usize) -> (f64, f64) {
        let samples = self.ends.last().copied().unwrap_or(0);
        let classes = (0..samples).map(|index| label(index) + 1).max().unwrap_or(0);
        let mut last = vec![usize::MAX; classes];
        let (mut found, mut mixed, mut start) = (0, 0.0, 0);
        for (run, &end) in self.ends.iter().enumerate() {
            for class in (start..end).map(&label) {
                found += usize::from(last[class] != run);
                last[class] = run;
            }
            // Expected number of classes in random draws: each draw misses a class with
            // probability 1 - 1 / classes.
            mixed += classes as f64 * (1.0 - (1.0 - 1.0 / classes as f64).powi((end - start) as i32));
            start = end;
        }
        let runs = self.ends.len().max(1) as f64;
        (found as f64 / runs, mixed / runs)
    }
}
