//! The key `batch_size`: a number of images, or `"auto"`.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest number of images per batch and of accumulated batches.
pub(super) const MAX_BATCH: usize = 1 << 20;

/// Number of images that stands for `"auto"`.
pub(super) const AUTO: usize = 0;

/// The values of the key.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchSize {
    /// The largest power of two whose training is estimated to need at most 70 % of the available
    /// memory, up to 128 (256 from 100,000 training images on) and with at least 8 updates per
    /// epoch. It needs the CPU, a single process and `accumulate = 1`. The learning rate stays that
    /// of the recipe.
    Auto,
    /// This number of images.
    #[serde(untagged)]
    Images(#[schemars(range(min = 1, max = MAX_BATCH))] usize),
}

pub(super) fn serialize<S: Serializer>(images: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    match *images {
        AUTO => serializer.serialize_str("auto"),
        images => images.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(Images)
}

struct Images;

impl Visitor<'_> for Images {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a whole number from 1 to {MAX_BATCH} or \"auto\" as batch_size")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
        let images = usize::try_from(number).ok().filter(|images| *images != AUTO);
        images.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
        let images = usize::try_from(number).ok().filter(|images| *images != AUTO);
        images.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        if text == "auto" { Ok(AUTO) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }
}
