//! Options of packing.

use serde::{Deserialize, Serialize};

use crate::extent::Extent;
use crate::loader::OnBadImage;

/// The form of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackFormat {
    /// WebDataset: `train-000000.tar`, whose members are `000000.jpg` and `000000.cls`.
    Wds,
    /// Hugging Face: `train-00000-of-00004.parquet`, with the columns `image` (bytes, path) and
    /// `label`.
    Parquet,
}

/// How to pack.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The form of the shards.
    pub format: PackFormat,
    /// What the shorter side of larger images becomes, in pixels.
    pub size: Option<usize>,
    /// Quality of the JPEG images that are made for it, 1 to 100.
    pub quality: u8,
    /// The most images a shard.
    pub shard_size: usize,
    /// Decides the order of the training images.
    pub seed: u64,
    /// What to do about images that cannot be read.
    pub on_bad_image: OnBadImage,
    /// The folders that image files must lie in; none to take also those that links or tables lead
    /// to elsewhere.
    pub inside: Option<Extent>,
}
