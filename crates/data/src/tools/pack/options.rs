//! Options for packing a data set into shards.

use serde::{Deserialize, Serialize};

use crate::extent::Extent;
use crate::loader::OnBadImage;

/// The format of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackFormat {
    /// WebDataset: `train-000000.tar`, whose members are `000000.jpg` and `000000.cls`.
    Wds,
    /// Hugging Face: `train-00000-of-00004.parquet`, with the columns `image` (bytes, path) and
    /// `label`.
    Parquet,
}

/// Options of [`pack`](super::pack()).
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Format of the shards.
    pub format: PackFormat,
    /// Maximum length of the shorter side in pixels; longer ones are resized to it.
    pub size: Option<usize>,
    /// JPEG quality of resized images, 1 to 100.
    pub quality: u8,
    /// Maximum number of images per shard.
    pub shard_size: usize,
    /// Seed of the order of the training images.
    pub seed: u64,
    /// Handling of images that cannot be read.
    pub on_bad_image: OnBadImage,
    /// The folders that may contain image files. With `None`, files that links or tables refer to
    /// elsewhere are packed too.
    pub inside: Option<Extent>,
}
