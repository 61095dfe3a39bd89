//! Cache of decoded images for small data sets.

use std::sync::{Arc, OnceLock};

use burn::data::dataset::Dataset;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_image::formats::dimensions;
use mbconv_image::{Decoding, RgbPixels};

use crate::error::DataError;
use crate::label_sets::LabelSets;
use crate::source::{Sample, Source, StoredImage};

/// Maximum number of bytes that `cache = "auto"` keeps.
pub const CACHE_BUDGET: usize = 512 << 20;

/// `cache`: whether to keep decoded images in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be \"auto\", true or false")]
pub enum Cache {
    /// Always, or never.
    Always(bool),
    /// If all images fit into 512 MiB.
    WhereItFits(Auto),
}

/// The value `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// `auto`.
    #[default]
    Auto,
}

impl Default for Cache {
    fn default() -> Self {
        Cache::WhereItFits(Auto::Auto)
    }
}

/// A source that decodes images on first access and keeps them.
struct Kept {
    source: Arc<dyn Source>,
    decoding: Decoding,
    images: Vec<OnceLock<RgbPixels>>,
}

/// Returns the source with a cache of decoded images, and the estimated size of the full cache in
/// bytes. Returns `None` if images should not be kept or are already in memory.
///
/// The size is estimated from the headers of 64 images spread over the set. Images that cannot be
/// read here are reported when a batch uses them.
pub fn keep(source: &Arc<dyn Source>, cache: Cache, decoding: Decoding) -> Option<(Arc<dyn Source>, usize)> {
    const PROBES: usize = 64;
    if cache == Cache::Always(false) || source.is_empty() {
        return None;
    }
    let probes = PROBES.min(source.len());
    let sizes: Vec<usize> = (0..probes)
        .filter_map(|probe| match source.get(probe * source.len() / probes).ok()?.image {
            StoredImage::Encoded(bytes) => dimensions(&bytes).ok().map(|(width, height)| width * height * 3),
            StoredImage::Pixels(_) => None,
        })
        .collect();
    if sizes.is_empty() {
        return None;
    }
    let mean = sizes.iter().sum::<usize>() / sizes.len() + size_of::<OnceLock<RgbPixels>>();
    let bytes = mean.saturating_mul(source.len());
    if cache == Cache::default() && bytes > CACHE_BUDGET {
        return None;
    }
    let images = (0..source.len()).map(|_| OnceLock::new()).collect();
    Some((Arc::new(Kept { source: source.clone(), decoding, images }), bytes))
}

impl Dataset<Sample, DataError> for Kept {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let kept = &self.images[index];
        let image = match kept.get() {
            Some(image) => image.clone(),
            None => {
                let failed = |source| DataError::Image { name: self.source.name(index), source };
                let image = self.source.get(index)?.image.into_pixels_as(&self.decoding).map_err(failed)?;
                // If another thread finished first, its image is identical.
                kept.get_or_init(|| image).clone()
            }
        };
        Ok(Sample { image: StoredImage::Pixels(image), label: self.source.label(index) })
    }

    fn len(&self) -> usize {
        self.images.len()
    }
}

impl Source for Kept {
    fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    fn label(&self, index: usize) -> usize {
        self.source.label(index)
    }

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.source.label_sets()
    }
}
