//! Small sets, decoded once and kept.

use std::sync::{Arc, OnceLock};

use burn::data::dataset::Dataset;
use serde::{Deserialize, Serialize};

use super::formats::dimensions;
use super::{DataError, Decoding, RgbPixels, Sample, Source, StoredImage};

/// `cache = "auto"` keeps decoded sets up to so many bytes.
pub const CACHE_BUDGET: usize = 512 << 20;

/// Whether decoded images are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be \"auto\", true or false")]
pub enum Cache {
    /// Whether the whole set is.
    Always(bool),
    /// Only if all of it fits [`CACHE_BUDGET`].
    WhereItFits(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A source whose images are decoded when first asked for, and kept.
struct Kept {
    source: Arc<dyn Source>,
    decoding: Decoding,
    images: Vec<OnceLock<RgbPixels>>,
}

/// The source with its images kept in memory, and about how many bytes they will take; nothing if they are not to be kept, or
/// are in memory as it is.
///
/// The size is estimated from 64 images spread over the set, of which only the headers are looked at. What cannot be read here
/// is reported when a batch wants it.
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
                // Where another thread was quicker, it has the same.
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
}
