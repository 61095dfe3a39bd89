//! Augmentation of training images: bytes in, bytes out, all chance from the generator that is passed in.
//!
//! [`Operation`]s give Pillow's pixels; a [`Policy`] chooses among them as timm or torchvision does; [`ColorJitter`] and
//! [`RandomErasing`] stand beside it. [`Augmentation`] is all of a recipe's `[augment]`.

mod blur;
mod enhance;
mod erasing;
mod geometry;
mod jitter;
mod operation;
mod policies;
mod policy;
mod settings;
mod timm;
mod tone;
mod torchvision;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::RgbPixels;
use super::resize::Interpolation;

pub use erasing::{EraseMode, RandomErasing};
pub use jitter::ColorJitter;
pub use operation::{Operation, Sampling};
pub use policy::Policy;
pub use settings::PolicyError;

/// `[augment]`: what happens to a training image after it was cut out and mirrored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// A policy by name, such as `"rand-m9-mstd0.5-inc1"` or `"ta_wide"`: see [`Policy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Filter of the policy's rotations, shears and translations; `"random"` (for each operation) is what timm's policies
    /// take by default, `input.interpolation` those of torchvision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<AugmentInterpolation>,
    /// Colour of what a rotation, shear or translation brings in from outside; `input.mean` by default for timm's policies,
    /// black for those of torchvision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<[u8; 3]>,
    /// Probability of turning upside down.
    pub vertical_flip: f64,
    /// Random brightness, contrast, saturation and hue, after the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// Rectangles that are painted over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasing: Option<RandomErasing>,
}

/// Filters of a policy's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AugmentInterpolation {
    /// Two by two pixels.
    Bilinear,
    /// Four by four pixels.
    Bicubic,
    /// One of them, chosen for each operation.
    Random,
}

impl AugmentConfig {
    /// The first thing that is out of range, as key, value and what it may be.
    pub fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        let unit = 0.0..=1.0;
        if !unit.contains(&self.vertical_flip) {
            return Some(("augment.vertical_flip", self.vertical_flip.to_string(), "in [0, 1]"));
        }
        if let Some(ColorJitter { brightness, contrast, saturation, hue }) = self.color_jitter {
            let holds = [brightness, contrast, saturation].iter().all(|x| (0.0..=100.0).contains(x));
            if !holds || !(0.0..=0.5).contains(&hue) {
                let shown = format!("[{brightness}, {contrast}, {saturation}, {hue}]");
                return Some(("augment.color_jitter", shown, "at least 0, the hue in [0, 0.5]"));
            }
        }
        let RandomErasing { probability, area, aspect, count, .. } = self.erasing.as_ref()?;
        let range = |[low, high]: [f64; 2], most: f64| low > 0.0 && low <= high && high <= most;
        if !unit.contains(probability) {
            return Some(("augment.erasing.probability", probability.to_string(), "in [0, 1]"));
        }
        if !range(*area, 1.0) {
            return Some(("augment.erasing.area", format!("{area:?}"), "[low, high] with 0 < low ≤ high ≤ 1"));
        }
        if !range(*aspect, 1e3) {
            return Some(("augment.erasing.aspect", format!("{aspect:?}"), "[low, high] with 0 < low ≤ high ≤ 1000"));
        }
        if !(1..=100).contains(&count[0]) || !(count[0]..=100).contains(&count[1]) {
            return Some(("augment.erasing.count", format!("{count:?}"), "[low, high] with 1 ≤ low ≤ high ≤ 100"));
        }
        None
    }
}

/// [`AugmentConfig`] with what it takes over from the recipe's `[input]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augmentation {
    config: AugmentConfig,
    interpolation: Option<Interpolation>,
    fill: [u8; 3],
    mean: [f32; 3],
    std: [f32; 3],
}

impl Augmentation {
    /// The recipe's `[augment]`, for images that are later normalised by `mean` and `std` and were resized by
    /// `interpolation`.
    pub fn new(config: AugmentConfig, interpolation: Interpolation, mean: [f32; 3], std: [f32; 3]) -> Self {
        let timms = config.policy.as_ref().is_some_and(Policy::is_timms);
        let by_default = if timms { None } else { Some(interpolation) };
        let interpolation = match config.interpolation {
            None => by_default,
            Some(AugmentInterpolation::Random) => None,
            Some(AugmentInterpolation::Bilinear) => Some(Interpolation::Bilinear),
            Some(AugmentInterpolation::Bicubic) => Some(Interpolation::Bicubic),
        };
        let average = mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even().min(255.0) as u8);
        let fill = config.fill.unwrap_or(if timms { average } else { [0; 3] });
        Self { config, interpolation, fill, mean, std }
    }

    /// Applies flip, policy, jitter and erasing, in this order.
    pub fn apply<R: Rng>(&self, mut image: RgbPixels, rng: &mut R) -> RgbPixels {
        let AugmentConfig { policy, vertical_flip, color_jitter, erasing, .. } = &self.config;
        if *vertical_flip > 0.0 && rng.random::<f64>() < *vertical_flip {
            upside_down(&mut image);
        }
        if let Some(policy) = policy {
            let either = |rng: &mut R| if rng.random() { Interpolation::Bilinear } else { Interpolation::Bicubic };
            let sampling = |rng: &mut R| Sampling {
                interpolation: self.interpolation.unwrap_or_else(|| either(rng)),
                fill: self.fill,
            };
            image = policy.apply(image, &sampling, rng);
        }
        if let Some(jitter) = color_jitter {
            image = jitter.apply(image, rng);
        }
        if let Some(erasing) = erasing {
            erasing.apply(&mut image, self.mean, self.std, rng);
        }
        image
    }
}

fn upside_down(image: &mut RgbPixels) {
    let stride = image.width * 3;
    let (upper, lower) = image.data.split_at_mut(image.height / 2 * stride);
    for (upper, lower) in upper.chunks_exact_mut(stride).zip(lower.rchunks_exact_mut(stride)) {
        upper.swap_with_slice(lower);
    }
}

#[cfg(test)]
mod tests;
