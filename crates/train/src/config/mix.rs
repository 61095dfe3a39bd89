//! `[mix]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{RecipeError, ensure};

/// `[mix]`: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019), as in timm's `Mixup`.
///
/// Image `i` of a batch is mixed with image `n - 1 - i`, and their targets in the same proportion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MixConfig {
    /// Parameter α of mixup's distribution Beta(α, α); 0 disables mixup.
    #[schemars(range(min = 0, max = 100))]
    pub mixup: f64,
    /// Parameter α of cutmix's distribution Beta(α, α); 0 disables cutmix.
    #[schemars(range(min = 0, max = 100))]
    pub cutmix: f64,
    /// Range of the sides of the pasted rectangle relative to the image, used instead of the Beta
    /// distribution. Enables cutmix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 0, max = 1)), extend("x-rising" = true))]
    pub cutmix_range: Option<[f64; 2]>,
    /// Probability of mixing a batch, pair or image.
    #[schemars(range(min = 0, max = 1))]
    pub probability: f64,
    /// Probability of cutmix rather than mixup if both are enabled.
    #[schemars(range(min = 0, max = 1))]
    pub switch_probability: f64,
    /// Granularity of the random mixing proportion and rectangle.
    pub mode: MixMode,
    /// Number of epochs without mixing at the end.
    pub off_epochs: usize,
}

/// Granularity of the random mixing proportion and rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MixMode {
    /// One for the whole batch.
    #[default]
    Batch,
    /// One for each pair of images.
    Pair,
    /// One for each image.
    Elem,
}

impl Default for MixConfig {
    fn default() -> Self {
        Self {
            mixup: 0.0,
            cutmix: 0.0,
            cutmix_range: None,
            probability: 1.0,
            switch_probability: 0.5,
            mode: MixMode::Batch,
            off_epochs: 0,
        }
    }
}

impl MixConfig {
    pub(super) fn check(&self, epochs: usize) -> Result<(), RecipeError> {
        if let Some([low, high]) = self.cutmix_range {
            ensure(low < high, "mix.cutmix_range", format!("[{low}, {high}]"), "[low, high] with low < high")?;
        }
        let fits = self.off_epochs <= epochs;
        ensure(fits, "mix.off_epochs", self.off_epochs, &format!("at most epochs ({epochs})"))
    }

    /// Returns whether an epoch, counted from 0, uses mixing.
    pub fn is_on(&self, epoch: usize, epochs: usize) -> bool {
        let any = self.mixup > 0.0 || self.cutmix > 0.0 || self.cutmix_range.is_some();
        any && self.probability > 0.0 && epoch + self.off_epochs < epochs
    }
}
