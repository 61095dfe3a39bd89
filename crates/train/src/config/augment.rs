//! `[augment]`: see [`AugmentConfig`](mbconv_data::augment::AugmentConfig).

use mbconv_data::augment::ColorJitter;

use super::error::{RecipeError, ensure};

pub(super) fn check_jitter(jitter: &ColorJitter) -> Result<(), RecipeError> {
    ensure(jitter.hue <= 0.5, "augment.color_jitter", jitter.hue, "at most 0.5 for the hue")
}
