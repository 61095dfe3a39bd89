//! From a path to batches of pixels.
//!
//! [`open`] finds out what is at a path and gives a [`DataSet`]: class names and the splits there are, each a [`Source`],
//! which is a [`burn::data::dataset::Dataset`] of encoded images and labels. A [`Loader`] takes a source and a
//! [`Transform`], and decodes, crops and collects on worker threads. What it delivers depends on the seed, the epoch and the
//! sample's index alone, so it is the same for any number of workers.
//!
//! Decoding and resizing agree with Pillow, and crops with torchvision, because that is what published accuracies were
//! measured with: see [`decode_rgb`] and [`Preprocess`].

pub mod augment;
mod cache;
mod cifar;
mod decode;
mod digits;
mod error;
mod fast;
mod folder;
mod jpeg;
mod loader;
mod order;
mod resample;
mod resize;
mod seed;
mod transform;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use burn::data::dataset::Dataset;

pub use cache::{Auto, CACHE_BUDGET, Cache, keep};
pub use decode::{Decoding, MAX_PIXELS, decode, decode_rgb};
pub use error::{DataError, DecodeError};
pub use folder::list_images;
pub use loader::{Batch, BurnLoader, Epoch, Loader, LoaderConfig, OnBadImage, Position};
pub use order::Sampling;
pub use resize::Interpolation;
pub(crate) use seed::mix_rng;
pub use seed::sample_rng;
pub use transform::{Crop, CropRounding, Preprocess, Progressive, ResizeMode, TrainTransform, Transform};

/// One sample as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: StoredImage,
    /// The class, an index into [`DataSet::classes`].
    pub label: usize,
}

/// An image as a data set keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredImage {
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels, of data sets that are kept uncompressed.
    Pixels(RgbPixels),
}

impl StoredImage {
    /// The pixels, decoded by [`decode_rgb`] where necessary.
    ///
    /// # Errors
    /// Those of [`decode_rgb`].
    pub fn into_pixels(self) -> Result<RgbPixels, DecodeError> {
        self.into_pixels_as(&Decoding::default())
    }

    /// The pixels, decoded by [`decode()`] where necessary.
    ///
    /// # Errors
    /// Those of [`decode()`].
    pub fn into_pixels_as(self, decoding: &Decoding) -> Result<RgbPixels, DecodeError> {
        match self {
            StoredImage::Encoded(bytes) => decode(&bytes, decoding),
            StoredImage::Pixels(pixels) => Ok(pixels),
        }
    }
}

/// An 8-bit RGB image.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbPixels {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Height in pixels, at least 1.
    pub height: usize,
    /// `[height, width, 3]`, red first.
    pub data: Vec<u8>,
}

impl fmt::Debug for RgbPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbPixels({}×{})", self.width, self.height)
    }
}

/// A split of a data set: random access to its samples, from any thread.
pub trait Source: Dataset<Sample, DataError> {
    /// What to call the sample in messages: its file's path, or `data_batch_1.bin[17]`. Panics like `get` beyond the end.
    fn name(&self, index: usize) -> String;

    /// The sample's class, without reading its image. Panics like `get` beyond the end.
    fn label(&self, index: usize) -> usize;
}

/// The form in which a data set was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, with its fine labels.
    Cifar100,
    /// `train/` and `val/` (or `valid/`, `validation/`, `test/`) of class folders.
    SplitFolders,
    /// One folder of class folders, split by seed.
    FlatFolder,
    /// The embedded set of handwritten digits.
    Digits,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Cifar10 => "CIFAR-10 (binary)",
            Form::Cifar100 => "CIFAR-100 (binary)",
            Form::SplitFolders => "image folders with splits",
            Form::FlatFolder => "image folders",
            Form::Digits => "digits (embedded)",
        })
    }
}

/// A data set that was opened.
#[derive(Clone)]
pub struct DataSet {
    /// The form it was found in.
    pub form: Form,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// What to train on.
    pub train: Option<Arc<dyn Source>>,
    /// What to validate on.
    pub val: Option<Arc<dyn Source>>,
    /// A third split, of folders that have both a validation folder and `test/`.
    pub test: Option<Arc<dyn Source>>,
    /// Things worth telling the user: files passed over, `test/` taken for validation, classes without validation images.
    pub notes: Vec<String>,
}

impl DataSet {
    /// A split by name: `train` or `val`. `valid`, `validation` and `test` also mean the latter, except that `test` means
    /// the third split where there is one.
    ///
    /// # Errors
    /// [`DataError::NoSplit`].
    pub fn split(&self, name: &str) -> Result<Arc<dyn Source>, DataError> {
        let found = match name {
            "train" => &self.train,
            "test" if self.test.is_some() => &self.test,
            "val" | "valid" | "validation" | "test" => &self.val,
            _ => &None,
        };
        found.clone().ok_or_else(|| DataError::NoSplit {
            name: name.into(),
            available: [("train", &self.train), ("val", &self.val), ("test", &self.test)]
                .into_iter()
                .filter(|(_, split)| split.is_some())
                .map(|(name, _)| name.to_string())
                .collect(),
        })
    }
}

impl fmt::Debug for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = |split: &Option<Arc<dyn Source>>| split.as_ref().map(|split| split.len());
        f.debug_struct("DataSet")
            .field("form", &self.form)
            .field("classes", &self.classes.len())
            .field("train", &len(&self.train))
            .field("val", &len(&self.val))
            .field("test", &len(&self.test))
            .field("notes", &self.notes)
            .finish()
    }
}

/// How to open a data set that does not come split.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// The part of each class to hold out for validation, in `[0, 1)`; 0 makes no validation split.
    pub val_fraction: f64,
    /// Decides which samples are held out.
    pub seed: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { val_fraction: 0.2, seed: 0 }
    }
}

/// Opens the data set at a path, or the embedded one that is named `digits`.
///
/// # Errors
/// Every [`DataError`] that concerns files, folders and class names; images are not decoded here.
pub fn open(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(DataError::ValFraction(options.val_fraction));
    }
    if data == "digits" {
        return digits::open(options);
    }
    let path = Path::new(data);
    let metadata = std::fs::metadata(path).map_err(|source| DataError::io(path, source))?;
    if !metadata.is_dir() {
        return Err(DataError::NotAFolder { path: path.into() });
    }
    match cifar::detect(path) {
        Some((form, folder)) => cifar::open(form, &folder),
        None => folder::open(path, options),
    }
}

/// Divides samples into training and validation so that each class gives its part: the indices of both, ascending.
///
/// A class of two or more samples gives at least one to each side (of `fraction` 0, all to training).
fn stratified(labels: &[usize], classes: usize, options: &OpenOptions) -> (Vec<usize>, Vec<usize>) {
    use rand::seq::SliceRandom;

    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (class, mut members) in members.into_iter().enumerate() {
        let most = members.len().saturating_sub(1);
        let wanted = (members.len() as f64 * options.val_fraction).round() as usize;
        let held_out = if options.val_fraction > 0.0 { wanted.max(1).min(most) } else { 0 };
        members.shuffle(&mut seed::split_rng(options.seed, class));
        val.extend_from_slice(&members[..held_out]);
        train.extend_from_slice(&members[held_out..]);
    }
    train.sort_unstable();
    val.sort_unstable();
    (train, val)
}
