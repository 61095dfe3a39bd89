//! Augmentation of training images: bytes in, bytes out, with all randomness from the given
//! generator.
//!
//! [`Operation`]s give Pillow's pixels. A [`Policy`] chooses among them as timm or torchvision
//! does; [`ColorJitter`] and [`RandomErasing`] are separate. [`Augmentation`] combines a recipe's
//! `[augment]`. The choices for an image are a [`AugmentPlan`], which a worker thread applies to
//! the image or a device to a whole batch.

mod erasing;
mod jitter;
mod plan;
mod policies;
mod policy;
mod settings;
mod timm;
mod torchvision;

use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_kernels::image_ops::{Interpolation, RgbPixels};

use crate::preprocess::mean_color;
pub use erasing::{EraseMode, RandomErasing};
pub use jitter::ColorJitter;
pub use mbconv_kernels::image_ops::{Area, Operation, Sampling};
pub use plan::{AugmentPlan, Chain, Mixture};
pub use policy::Policy;
pub use settings::PolicyError;

/// `[augment]`: augmentation after cropping and horizontal flipping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Processor that augments training images.
    #[serde(skip_serializing_if = "AugmentOn::is_auto")]
    #[schemars(extend("default" = AugmentOn::default()))]
    pub on: AugmentOn,
    /// Augmentation policy of timm or torchvision, such as `"rand-m9-mstd0.5-inc1"` or `"ta_wide"`;
    /// docs/augmentation.md lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// Filter of the policy's rotations, shears and translations; by default `"random"` for timm's
    /// policies and `input.interpolation` for torchvision's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<AugmentInterpolation>,
    /// Color, `[red, green, blue]`, of areas outside the image after rotations, shears and
    /// translations; by default `input.mean` for timm's policies and black for torchvision's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<[u8; 3]>,
    /// Probability of a vertical flip.
    #[schemars(range(min = 0, max = 1))]
    pub vertical_flip: f64,
    /// Largest random change of brightness, contrast, saturation and hue, after the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// Random erasing (Zhong et al. 2020): overwrites random rectangles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasing: Option<RandomErasing>,
}

/// The place where training images are augmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AugmentOn {
    /// On the device if it is a GPU, else on worker threads.
    #[default]
    Auto,
    /// On the loader's worker threads.
    Workers,
    /// On the network's device.
    Device,
}

impl AugmentOn {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Resampling filters of a policy's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AugmentInterpolation {
    /// 2×2 pixels.
    Bilinear,
    /// 4×4 pixels.
    Bicubic,
    /// A random choice per operation.
    Random,
}

/// [`AugmentConfig`] with the settings it uses from the recipe's `[input]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augmentation {
    config: AugmentConfig,
    interpolation: Option<Interpolation>,
    fill: [u8; 3],
    mean: [f32; 3],
    std: [f32; 3],
}

impl Augmentation {
    /// Creates the augmentation for images that were resized by `interpolation` and will be
    /// normalized by `mean` and `std`.
    pub fn new(config: AugmentConfig, interpolation: Interpolation, mean: [f32; 3], std: [f32; 3]) -> Self {
        let timms = config.policy.as_ref().is_some_and(Policy::is_timms);
        let by_default = if timms { None } else { Some(interpolation) };
        let interpolation = match config.interpolation {
            None => by_default,
            Some(AugmentInterpolation::Random) => None,
            Some(AugmentInterpolation::Bilinear) => Some(Interpolation::Bilinear),
            Some(AugmentInterpolation::Bicubic) => Some(Interpolation::Bicubic),
        };
        let fill = config.fill.unwrap_or(if timms { mean_color(mean) } else { [0; 3] });
        Self { config, interpolation, fill, mean, std }
    }

    /// Samples flip, policy, jitter and erasing, in this order, for an image of `size`, (width,
    /// height), and adds them to its plan.
    pub fn draw<R: Rng>(&self, plan: &mut AugmentPlan, size: (usize, usize), rng: &mut R) {
        let AugmentConfig { policy, vertical_flip, color_jitter, erasing, .. } = &self.config;
        if *vertical_flip > 0.0 && rng.random::<f64>() < *vertical_flip {
            let upside_down = Operation::Window { left: 0, top: 0, mirrored: false, upside_down: true };
            plan.push(upside_down, Sampling::default());
        }
        if let Some(policy) = policy {
            let either = |rng: &mut R| if rng.random() { Interpolation::Bilinear } else { Interpolation::Bicubic };
            let sampling = |rng: &mut R| Sampling {
                interpolation: self.interpolation.unwrap_or_else(|| either(rng)),
                fill: self.fill,
            };
            policy.draw(plan, size, &sampling, rng);
        }
        if let Some(jitter) = color_jitter {
            jitter.draw(plan, rng);
        }
        if let Some(erasing) = erasing {
            erasing.draw(plan, size, self.mean, self.std, rng);
        }
    }

    /// Samples a plan and applies it.
    pub fn apply(&self, image: RgbPixels, rng: &mut impl Rng) -> RgbPixels {
        let mut plan = AugmentPlan::default();
        self.draw(&mut plan, (image.width, image.height), rng);
        plan.apply(image)
    }
}

#[cfg(test)]
mod tests;
