//! Data sets: from a path to batches of pixels.
//!
//! [`open`] detects the form of the data at a path, using the table in `forms`, and returns a
//! [`DataSet`]: class names and splits. Each split is a [`Source`], a
//! [`burn::data::dataset::Dataset`] of encoded images with labels. A [`Loader`] combines a source
//! with a [`Transform`]; its worker threads decode, crop and batch images. Batches depend only on
//! the seed, the epoch and the sample indices, not on the number of worker threads.
//!
//! Decoding and resizing agree with Pillow, and crops with torchvision, because published
//! accuracies were measured with them: see [`decode_rgb`] and [`Preprocess`].

mod archive;
mod assembly;
pub mod augment;
mod cache;
mod cifar;
mod decode;
mod digits;
mod error;
mod extent;
mod fast;
mod folder;
pub mod formats;
mod forms;
mod ilsvrc;
mod image_file;
mod jpeg;
mod kept;
mod labels;
mod layout;
mod listing;
mod loader;
mod location;
mod order;
pub(crate) mod parquet;
mod pattern;
mod resample;
mod resize;
mod seed;
mod shards;
mod subset;
mod table;
mod text;
mod transform;
mod walk;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use burn::data::dataset::Dataset;

use assembly::Role;
pub use decode::{Decoding, Gray16, MAX_PIXELS, decode, decode_rgb};
pub use error::{DataError, DecodeError};
pub use extent::Extent;
pub(crate) use extent::resolved;
pub use folder::list_images;
pub use image_file::MAX_IMAGE_BYTES;
pub(crate) use image_file::read_image;
pub use kept::{Auto, CACHE_BUDGET, Cache, keep};
pub use loader::{Batch, Epoch, Loader, LoaderConfig, OnBadImage, Position};
pub use location::{LabelSource, TableOptions, path_of};
pub use mbconv_kernels::pictures::{Interpolation, RgbPixels};
pub use order::Sampling;
pub(crate) use resize::resize;
pub use seed::sample_rng;
pub(crate) use seed::{mix_rng, order_rng, split_rng};
pub use subset::{Joined, Subset};
pub use text::read_text;
pub(crate) use transform::shorter_side;
pub use transform::{
    Crop, CropRounding, IMAGENET_MEAN, IMAGENET_STD, Preprocess, Progressive, ResizeMode, TrainTransform, Transform,
};
pub use walk::{Walk, is_wild};

/// A stored sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image.
    pub image: StoredImage,
    /// Label, an index into [`DataSet::classes`].
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
    /// Returns the pixels, decoded by [`decode_rgb`] if necessary.
    ///
    /// # Errors
    /// Those of [`decode_rgb`].
    pub fn into_pixels(self) -> Result<RgbPixels, DecodeError> {
        self.into_pixels_as(&Decoding::default())
    }

    /// Returns the pixels, decoded by [`decode()`] if necessary.
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

/// A split of a data set, with thread-safe random access to its samples.
pub trait Source: Dataset<Sample, DataError> {
    /// Returns the sample's name for messages: its file path, or for example
    /// `data_batch_1.bin[17]`.
    ///
    /// # Panics
    /// If the index is out of bounds, like `get`.
    fn name(&self, index: usize) -> String;

    /// Returns the sample's label without reading the image.
    ///
    /// # Panics
    /// If the index is out of bounds, like `get`.
    fn label(&self, index: usize) -> usize;

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
    fn classes(&self, label: impl Fn(usize) -> usize) -> (f64, f64) {
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

/// The form of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, with its fine labels.
    Cifar100,
    /// `train/` and `val/` (or `valid/`, `Testing/` …), each with class folders.
    SplitFolders,
    /// One folder of class folders, split by seed.
    FlatFolder,
    /// ImageNet in its original form: archives of archives, and a flat folder or archive of
    /// validation images.
    Ilsvrc,
    /// WebDataset: `.tar` shards of images and labels.
    Shards,
    /// Hugging Face's `.parquet` shards.
    Parquet,
    /// A CSV or TSV table, or a list, of paths and labels.
    Table,
    /// A `.zip` or `.tar` archive of image folders.
    Archive,
    /// The embedded data set of handwritten digits.
    Digits,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Cifar10 => "CIFAR-10 (binary)",
            Form::Cifar100 => "CIFAR-100 (binary)",
            Form::SplitFolders => "image folders with splits",
            Form::FlatFolder => "image folders",
            Form::Ilsvrc => "ImageNet (ILSVRC2012)",
            Form::Shards => "WebDataset shards",
            Form::Parquet => "Parquet shards",
            Form::Table => "table of paths and labels",
            Form::Archive => "archive of image folders",
            Form::Digits => "digits (embedded)",
        })
    }
}

/// An open data set.
#[derive(Clone)]
pub struct DataSet {
    /// The form.
    pub form: Form,
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// Other names of each class, used to match a model's classes; empty if there are none. For
    /// ImageNet, the WordNet IDs and the words of other lists.
    pub aliases: Vec<Vec<String>>,
    /// True if the data have no splits, so that `val` was held out by seed.
    pub divided: bool,
    /// True if `val` is the split named test, because there is no validation split.
    pub val_is_test: bool,
    /// Training split.
    pub train: Option<Arc<dyn Source>>,
    /// Validation split.
    pub val: Option<Arc<dyn Source>>,
    /// Test split, if there is a validation split too.
    pub test: Option<Arc<dyn Source>>,
    /// Notes for the user: skipped files, a test split used for validation, classes without
    /// validation images.
    pub notes: Vec<String>,
}

impl DataSet {
    /// Returns a split by name, in any usual spelling; `all` returns the images of all splits.
    /// `test` returns the validation split only if the data name it test.
    ///
    /// # Errors
    /// [`DataError::NoSplit`].
    pub fn split(&self, name: &str) -> Result<Arc<dyn Source>, DataError> {
        if name.eq_ignore_ascii_case(ALL) {
            let splits = self.splits().into_iter().map(|(_, split)| split.clone()).collect();
            return Ok(Arc::new(Joined::new(splits)));
        }
        let found = match Role::of_name(name) {
            Some(Role::Train) => &self.train,
            Some(Role::Val) => &self.val,
            Some(Role::Test) if self.val_is_test => &self.val,
            Some(Role::Test) => &self.test,
            _ => &None,
        };
        found.clone().ok_or_else(|| DataError::NoSplit {
            name: name.into(),
            available: self.splits().into_iter().map(|(name, _)| name.into()).chain([ALL.into()]).collect(),
        })
    }

    /// Returns the split to evaluate on, and its name: the requested one, or by default the
    /// validation split, the test split, or all images of data without splits.
    ///
    /// # Errors
    /// [`DataError::NoSplit`].
    pub fn select(&self, name: Option<&str>) -> Result<(&'static str, Arc<dyn Source>), DataError> {
        let splits = self.splits();
        let held_out = splits.iter().find(|(name, _)| *name != "train").filter(|_| !self.divided);
        let default = match held_out {
            Some((name, _)) => name,
            None if splits.len() == 1 && !self.divided => splits[0].0,
            None => ALL,
        };
        let source = self.split(name.unwrap_or(default))?;
        let found = splits.iter().find(|(_, split)| Arc::ptr_eq(split, &source));
        Ok((found.map_or(ALL, |(name, _)| *name), source))
    }

    /// Returns the existing splits with their names in the data.
    fn splits(&self) -> Vec<(&'static str, &Arc<dyn Source>)> {
        let val = if self.val_is_test { "test" } else { "val" };
        let splits = [("train", &self.train), (val, &self.val), ("test", &self.test)];
        splits.into_iter().filter_map(|(name, split)| Some((name, split.as_ref()?))).collect()
    }

    /// Checks that the training images have at least two classes.
    ///
    /// # Errors
    /// [`DataError::SingleClass`], [`DataError::NoSplit`].
    pub fn check_trainable(&self) -> Result<(), DataError> {
        let train = self.split("train")?;
        let images = train.len();
        let mut labels = (0..images).map(|index| train.label(index));
        match labels.next() {
            Some(first) if labels.all(|label| label == first) => {
                Err(DataError::SingleClass { class: self.classes[first].clone(), images, form: self.form })
            }
            _ => Ok(()),
        }
    }
}

/// The beginning of the note about held-out images of data without splits.
pub const NO_SPLITS: &str = "it comes without splits";

/// The name of all splits together.
const ALL: &str = "all";

/// Maximum fraction of unreadable images in a split; with more, results would not be comparable.
pub const MOST_UNREADABLE: f64 = 0.1;

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

/// Options for opening a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// Fraction of each class to hold out for validation, in `[0, 1)`; 0 disables the validation
    /// split.
    pub val_fraction: f64,
    /// Seed that selects the held-out samples.
    pub seed: u64,
    /// Allows splits with different classes, otherwise an error. Labels are the same in all
    /// splits; a class that is missing from a split has no images there.
    pub classes_may_differ: bool,
    /// Columns and folders of tables, if not detected; overridden by options after the path.
    pub table: TableOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { val_fraction: 0.2, seed: 0, classes_may_differ: false, table: TableOptions::default() }
    }
}

/// Opens the data set at a path; the files of a pattern such as `shards/train-{000..146}.tar`, or
/// of several patterns joined by `::`; or the embedded data set `digits`. [`TableOptions`] may
/// follow the path, as in `table.csv?label=species`.
///
/// # Errors
/// Any [`DataError`] about files, folders and class names; images are not decoded.
pub fn open(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(DataError::ValFraction(options.val_fraction));
    }
    if data == "digits" {
        return digits::open(options);
    }
    forms::open(data, options)
}

/// Returns whether a folder is named like a split.
pub(crate) fn is_split_name(name: &str) -> bool {
    Role::of_name(name).is_some()
}

/// Lists the first few names and the number of others.
pub(crate) fn enumerate(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// Splits samples into training and validation by class. Returns the indices of both, ascending.
///
/// A class of two or more samples has at least one in each split (unless the fraction is 0).
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
