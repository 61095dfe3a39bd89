//! `[augment]`: see [`AugmentConfig`].

use super::error::{RecipeError, ensure};
use mbconv_data::augment::AugmentConfig;

pub(super) fn check(augment: &AugmentConfig) -> Result<(), RecipeError> {
    match augment.fault() {
        Some((key, value, expected)) => ensure(false, key, value, expected),
        None => Ok(()),
    }
}
