//! `[data]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_data::{Cache, Decoding, Gray16, LabelSource, MAX_PIXELS, OpenOptions, TableOptions};

/// `[data]`: the data set and how to read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Path of the data set, or the name of an embedded one. The command line's `--data` overrides
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Fraction of the images used for validation if the data set has no validation split.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub val_fraction: f64,
    /// Allow splits with different classes. Otherwise an error lists the differences.
    pub classes_may_differ: bool,
    /// Allow a resumed run to continue with data that changed since its checkpoint. Otherwise an
    /// error lists the changes.
    pub may_change: bool,
    /// Number of data-loader threads; 0 means one per CPU core.
    #[schemars(range(max = 1024))]
    pub workers: usize,
    /// Number of batches loaded in advance.
    #[schemars(range(min = 1, max = 1024))]
    pub prefetch: usize,
    /// Decode JPEG files only partly for training crops, with pixel errors of about 1 of 255.
    /// Evaluation always uses exact decoding.
    pub fast_decode: bool,
    /// Cache of decoded images in memory.
    pub cache: Cache,
    /// Rotate images according to their EXIF data, unlike torchvision.
    pub exif_orientation: bool,
    /// Conversion of gray images with more than 8 bits to 8 bits.
    pub gray16: Gray16,
    /// Largest number of pixels of an image; larger images are bad images.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub max_pixels: usize,
    /// Column of images in a table or Parquet files, as a name or a number from 1, if it cannot be
    /// detected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// Column of labels. Several one-hot columns are separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Column of split names or fold numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_column: Option<String>,
    /// Fold used as the validation split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<i64>,
    /// Folder of the images of a table, relative to the table or the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_folder: Option<String>,
    /// Character between the classes in a label of a table or Parquet file, which makes the data
    /// multi-label; `none` if labels are no lists. Detected by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_separator: Option<String>,
    /// Source of the labels in a folder with class folders and a table.
    #[serde(skip_serializing_if = "is_auto")]
    #[schemars(extend("default" = LabelSource::default()))]
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
            label_separator: None,
            form: LabelSource::Auto,
        }
    }
}

impl DataConfig {
    /// Returns the options for opening the data set in a run with this seed.
    pub fn open_options(&self, seed: u64) -> OpenOptions {
        let table = TableOptions {
            image: self.image_column.clone(),
            label: self.label_column.clone(),
            split: self.split_column.clone(),
            fold: self.fold.map(|fold| fold.to_string()),
            images: self.image_folder.clone(),
            separator: self.label_separator.clone(),
            form: self.form,
        };
        OpenOptions { val_fraction: self.val_fraction, seed, classes_may_differ: self.classes_may_differ, table }
    }

    /// Returns the image-decoding options for training or evaluation.
    pub fn decoding(&self, train: bool) -> Decoding {
        let Self { fast_decode, exif_orientation, gray16, max_pixels, .. } = *self;
        Decoding { exif_orientation, gray16, max_pixels, fast: train && fast_decode }
    }

    /// Returns the number of data-loader threads.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}
