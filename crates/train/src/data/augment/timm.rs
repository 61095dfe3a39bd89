//! How timm turns a magnitude into an operation.

use rand::Rng;
use rand_distr::{Distribution, Normal};

use super::Operation;

/// The magnitude at which an operation is at its full strength.
const FULL: f64 = 10.0;

/// timm's names. "Increasing" ones are stronger at greater magnitudes; those without may do the opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

/// How strong operations are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Magnitude {
    /// Mean of the magnitude.
    pub mean: f64,
    /// Standard deviation of the magnitude; infinite for a uniform one from 0 to the mean.
    pub deviation: f64,
    /// Greatest magnitude.
    pub most: f64,
    /// Part of the image's side by which a translation moves it at full strength.
    pub translation: f64,
}

impl Magnitude {
    pub(super) fn new(mean: f64, deviation: f64) -> Self {
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

/// An operation of a policy: what, how likely, how strong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub kind: Kind,
    pub probability: f64,
    pub magnitude: Magnitude,
}

impl Step {
    /// What to do to an image of this size: often nothing.
    pub(super) fn draw(&self, size: (usize, usize), rng: &mut impl Rng) -> Operation {
        if self.probability < 1.0 && rng.random::<f64>() > self.probability {
            return Operation::Identity;
        }
        let magnitude = self.magnitude.draw(rng);
        operation(self.kind, magnitude, self.magnitude.translation, size, rng)
    }
}

/// timm's `LEVEL_TO_ARG` and `NAME_TO_OP`; the generator decides about signs.
pub(super) fn operation(
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
        Kind::Color => Operation::Colour(factor),
        Kind::Contrast => Operation::Contrast(factor),
        Kind::Brightness => Operation::Brightness(factor),
        Kind::Sharpness => Operation::Sharpness(factor),
        Kind::ColorIncreasing => Operation::Colour((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::ContrastIncreasing => Operation::Contrast((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::BrightnessIncreasing => Operation::Brightness((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::SharpnessIncreasing => Operation::Sharpness((1.0 + signed(level * 0.9)).max(0.1)),
        Kind::ShearX => Operation::ShearX(signed(level * 0.3)),
        Kind::ShearY => Operation::ShearY(signed(level * 0.3)),
        Kind::TranslateXRel => Operation::TranslateX(signed(level * translation) * width as f64),
        Kind::TranslateYRel => Operation::TranslateY(signed(level * translation) * height as f64),
        Kind::Desaturate => Operation::Colour((1.0 - (0.5 + 0.5 * level).min(1.0)).clamp(0.0, 1.0)),
        Kind::GaussianBlur => Operation::Blur((0.1 + 1.9 * level).min(2.0)),
        Kind::GaussianBlurRand => Operation::Blur(0.1 + (2.0 * level.min(1.0) - 0.1) * rng.random::<f64>()),
    }
}
