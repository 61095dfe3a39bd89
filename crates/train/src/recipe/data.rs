//! `[data]`.

use serde::{Deserialize, Serialize};

use super::{RecipeError, ensure, ensure_count};
use crate::data::{Cache, Decoding, Gray16, LabelSource, MAX_PIXELS, OpenOptions, TableOptions};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Path of the data set, or the name of an embedded one. The command line's `--data` replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Share of the images kept for validation where the data does not come split.
    pub val_fraction: f64,
    /// Whether splits may have images of different classes; otherwise that is an error which names them.
    pub classes_may_differ: bool,
    /// Whether a resumed run may go on with data that changed since its checkpoint; otherwise that is an error which names
    /// the changes.
    pub may_change: bool,
    /// Threads that decode and transform; 0 means one a processor core.
    pub workers: usize,
    /// Batches ready ahead of the training step.
    pub prefetch: usize,
    /// Whether a training crop is made without decoding the whole JPEG file, within a unit or so of 255 of the exact one.
    /// Evaluation is exact always.
    pub fast_decode: bool,
    /// Whether decoded images are kept in memory: `"auto"` keeps sets that fit 512 MiB.
    pub cache: Cache,
    /// Whether images are turned as their EXIF data say; torchvision does not.
    pub exif_orientation: bool,
    /// How gray of more than 8 bits becomes 8 bits: `"clip"` as Pillow does, `"image"` scales each image's own range and
    /// `"full"` 0 to 65535.
    pub gray16: Gray16,
    /// The most pixels that an image may have.
    pub max_pixels: usize,
    /// Column of images in a table or in Parquet files, by name or by number from 1, if it cannot be guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// Column of labels; several one-hot columns are separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Column of split names or of fold numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_column: Option<String>,
    /// The fold that is the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<i64>,
    /// Folder of a table's images, relative to the table or to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_folder: Option<String>,
    /// Labels to use in a folder that has class folders and a table: `"folders"`, `"table"`, or `"auto"`.
    #[serde(skip_serializing_if = "is_auto")]
    pub form: LabelSource,
}

fn is_auto(form: &LabelSource) -> bool {
    *form == LabelSource::Auto
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: None,
            val_fraction: 0.2,
            classes_may_differ: false,
            may_change: false,
            workers: 0,
            prefetch: 4,
            fast_decode: true,
            cache: Cache::default(),
            exif_orientation: false,
            gray16: Gray16::default(),
            max_pixels: MAX_PIXELS,
            image_column: None,
            label_column: None,
            split_column: None,
            fold: None,
            image_folder: None,
            form: LabelSource::Auto,
        }
    }
}

impl DataConfig {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        let Self { val_fraction, workers, prefetch, max_pixels, .. } = *self;
        let inside = val_fraction > 0.0 && val_fraction < 1.0;
        ensure(inside, "data.val_fraction", val_fraction, "between 0 and 1, both excluded")?;
        ensure(workers <= 1024, "data.workers", workers, "at most 1024")?;
        ensure_count("data.max_pixels", max_pixels, u32::MAX as usize)?;
        ensure_count("data.prefetch", prefetch, 1024)
    }

    /// How to open the data set in a run of this seed.
    pub fn open_options(&self, seed: u64) -> OpenOptions {
        let table = TableOptions {
            image: self.image_column.clone(),
            label: self.label_column.clone(),
            split: self.split_column.clone(),
            fold: self.fold.map(|fold| fold.to_string()),
            images: self.image_folder.clone(),
            form: self.form,
        };
        OpenOptions { val_fraction: self.val_fraction, seed, classes_may_differ: self.classes_may_differ, table }
    }

    /// How image files become pixels, for training or for evaluation.
    pub fn decoding(&self, train: bool) -> Decoding {
        let Self { fast_decode, exif_orientation, gray16, max_pixels, .. } = *self;
        Decoding { exif_orientation, gray16, max_pixels, fast: train && fast_decode }
    }

    /// Number of loader threads.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}
