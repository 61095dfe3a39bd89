//! Data sets for image classification: from a path to batches of pixels.
//!
//! [`open`] detects the format of the data at a path and returns a [`DataSet`]: class names and
//! splits. Each split is a [`Source`], a [`burn::data::dataset::Dataset`] of encoded images with
//! labels. A [`Loader`] combines a source with a [`Transform`]; its worker threads decode, crop and
//! batch images. Batches depend only on the seed, the epoch and the sample indices, not on the
//! number of worker threads. [`tools`] checks, splits and converts data sets.
//!
//! Decoding, transforms and augmentation are in `mbconv-image`, whose items are re-exported here.

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod cache;
mod dataset;
mod error;
mod extent;
mod form;
mod formats;
mod image_cache;
mod image_file;
mod image_files;
mod label_lists;
mod label_sets;
mod labels;
mod layout;
mod listing;
mod loader;
mod options;
mod pattern;
mod sampler;
mod source;
mod split_names;
mod splits;
mod stratify;
mod subset;
mod synsets;
mod text;
pub mod tools;
mod walk;

pub use burn::data::dataset::Dataset;
pub use mbconv_image::{
    Crop, CropRounding, DecodeError, Decoding, Gray16, IMAGENET_MEAN, IMAGENET_STD, ImageSize, Interpolation,
    MAX_PIXELS, Preprocess, Progressive, ResizeMode, RgbPixels, TrainTransform, Transform, augment, decode, decode_rgb,
    formats as image_formats, mean_color, sample_rng, seed,
};

pub use dataset::DataSet;
pub use error::{DataError, MOST_UNREADABLE};
pub use extent::Extent;
pub use form::Form;
pub use formats::open;
pub use formats::parquet;
pub use image_cache::{Auto, CACHE_BUDGET, Cache, keep};
pub use image_file::{MAX_IMAGE_BYTES, read_image};
pub use image_files::ImageFiles;
pub use label_sets::LabelSets;
pub use loader::{Batch, Epoch, Loader, LoaderConfig, OnBadImage, Position};
pub use options::{LabelSource, OpenOptions, TableOptions, path_of};
pub use sampler::Sampling;
pub use source::{Runs, Sample, Source, StoredImage, class_counts};
pub use splits::NO_SPLITS;
pub use subset::{Joined, Subset};
pub use text::read_text;
pub use walk::{Walk, has_wildcards, list_images};
