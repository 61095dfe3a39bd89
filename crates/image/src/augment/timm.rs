//! timm's conversion of magnitudes to operations.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Normal};

use mbconv_kernels::image_ops::Operation;

/// Magnitude of full strength.
const FULL: f64 = 10.0;

/// timm's operation names. "Increasing" operations get stronger with the magnitude; the others may
/// get weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    PosterizeIncreasing,
    PosterizeOriginal,
    Solarize,
    SolarizeIncreasing,
    SolarizeAdd,
    Color,
    ColorIncreasing,
    Contrast,
    ContrastIncreasing,
    Brightness,
    BrightnessIncreasing,
    Sharpness,
    SharpnessIncreasing,
    ShearX,
    ShearY,
    TranslateXRel,
    TranslateYRel,
    Desaturate,
    GaussianBlur,
    GaussianBlurRand,
}

/// Distribution of an operation's magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Magnitude {
    /// Mean magnitude.
    pub mean: f64,
    /// Standard deviation; infinite selects a uniform distribution from 0 to the mean.
    pub deviation: f64,
    /// Maximum magnitude.
    pub most: f64,
    /// Translation at full strength, as a fraction of the image size.
    pub translation: f64,
}

impl Magnitude {
    pub(crate) fn new(mean: f64, deviation: f64) -> Self {
        Self { mean, deviation, most: FULL, translation: 0.45 }
    }

    fn draw(self, rng: &mut impl Rng) -> f64 {
        let drawn = if self.deviation == f64::INFINITY {
            self.mean * rng.random::<f64>()
        } else {
            match Normal::new(self.mean, self.deviation) {
                Ok(normal) if self.deviation > 0.0 => normal.sample(rng),
                _ => self.mean,
            }
        };
        drawn.clamp(0.0, self.most)
    }
}

/// A step of a policy: operation, probability, magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub kind: Kind,
    pub probability: f64,
    pub magnitude: Magnitude,
}

impl Step {
    /// Samples the operation for an image of this size, often the identity.
    pub(crate) fn draw(&self, size: (usize, usize), rng: &mut impl Rng) -> Operation {
        if self.probability < 1.0 && rng.random::<f64>() > self.probability {
            return Operation::Identity;
        }
        let magnitude = self.magnitude.draw(rng);
        operation(self.kind, magnitude, self.magnitude.translation, size, rng)
    }
}

/// timm's `LEVEL_TO_ARG` and `NAME_TO_OP`; the generator chooses the signs.
pub(crate) fn operation(
    kind: Kind,
    magnitude: f64,
    translation: f64,
    (width, height): (usize, usize),
    rng: &mut impl Rng,
) -> Operation {
    let level = magnitude / FULL;
    let mut signed = |value: f64| if rng.random::<f64>() > 0.5 { -value } else { value };
    let factor = level * 1.8 + 0.1;
    let posterize = (level * 4.0) as u32;
    let solarize = (level * 256.0).min(256.0).trunc();
    match kind {
        Kind::AutoContrast => Operation::AutoContrast,
        Kind::Equalize => Operation::Equalize,
        Kind::Invert => Operation::Invert,
        Kind::Rotate => Operation::Rotate(signed(level * 30.0)),
        Kind::Posterize => Operation::Posterize(posterize),
        Kind::PosterizeIncreasing => Operation::Posterize(4u32.saturating_sub(posterize)),
        Kind::PosterizeOriginal => Operation::Posterize(posterize + 4),
        Kind::Solarize => Operation::Solarize(solarize),
        Kind::SolarizeIncreasing => Operation::Solarize(256.0 - solarize),
        Kind::SolarizeAdd => Operation::SolarizeAdd((level * 110.0).min(128.0) as u8),
        Kind::Color => Operation::Color(factor),
        Kind::Contrast => Operation::Contrast(factor),
        Kind::Brightness => Operation::Brightness(factor),
        Kind::Sharpness => Operation::Sharpness(factor),
        Kind::ColorIncreasing => Operation::Color((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::ContrastIncreasing => Operation::Contrast((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::BrightnessIncreasing => Operation::Brightness((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::SharpnessIncreasing => Operation::Sharpness((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::ShearX => Operation::ShearX(signed(level * 0.3)),
        Kind::ShearY => Operation::ShearY(signed(level * 0.3)),
        Kind::TranslateXRel => Operation::TranslateX(signed(level * translation) * width as f64),
        Kind::TranslateYRel => Operation::TranslateY(signed(level * translation) * height as f64),
        Kind::Desaturate => Operation::Color((1.0 - (0.5 + 0.5 * level).min(1.0)).clamp(0.0, 1.0)),
        Kind::GaussianBlur => Operation::Blur((0.1 + 1.9 * level).min(2.0)),
        Kind::GaussianBlurRand => Operation::Blur(0.1 + (2.0 * level.min(1.0) - 0.1) * rng.random::<f64>()),
    }
}
