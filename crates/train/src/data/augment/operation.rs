//! The operations of which augmentation policies are made; each gives Pillow's pixels.

use super::super::RgbPixels;
use super::super::resize::Interpolation;
use super::{blur, enhance, geometry, tone};

/// One operation with its argument.
///
/// Positions are in pixels. Shears, translations and rotations keep the image's size; what comes in from outside has the
/// colour [`Sampling::fill`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Takes the pixel at `(x, y)` from `(x + factor·y, y)`.
    ShearX(f64),
    /// Takes the pixel at `(x, y)` from `(x, y + factor·x)`.
    ShearY(f64),
    /// Takes the pixel at `(x, y)` from `(x + pixels, y)`.
    TranslateX(f64),
    /// Takes the pixel at `(x, y)` from `(x, y + pixels)`.
    TranslateY(f64),
    /// Turns counter-clockwise about the centre, by degrees.
    Rotate(f64),
    /// Blends with black: 0 is black, 1 changes nothing, above 1 is brighter.
    Brightness(f64),
    /// Blends with the mean grey.
    Contrast(f64),
    /// Blends with the grey image (PyTorch's saturation).
    Colour(f64),
    /// Blends with the smoothed image.
    Sharpness(f64),
    /// Turns the hue by this part of the circle, in [-0.5, 0.5].
    Hue(f64),
    /// Keeps this many high bits of each value; 8 or more change nothing.
    Posterize(u32),
    /// Inverts the values at or above a threshold.
    Solarize(f64),
    /// Adds to the values below 128.
    SolarizeAdd(u8),
    /// Stretches each channel to the whole range.
    AutoContrast,
    /// Makes each channel's histogram flat.
    Equalize,
    /// The negative.
    Invert,
    /// Gaussian blur, approximated by three box blurs; the radius is the standard deviation in pixels.
    Blur(f64),
}

/// How pixels between pixels are found, and what lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Filter of shears, translations and rotations; neither of them is antialiased.
    pub interpolation: Interpolation,
    /// Colour of what comes in from outside.
    pub fill: [u8; 3],
}

impl Operation {
    /// Applies it.
    pub fn apply(self, mut image: RgbPixels, sampling: Sampling) -> RgbPixels {
        match self {
            Self::Identity => {}
            Self::ShearX(factor) => return geometry::affine(&image, [1.0, factor, 0.0, 0.0, 1.0, 0.0], sampling),
            Self::ShearY(factor) => return geometry::affine(&image, [1.0, 0.0, 0.0, factor, 1.0, 0.0], sampling),
            Self::TranslateX(pixels) => return geometry::affine(&image, [1.0, 0.0, pixels, 0.0, 1.0, 0.0], sampling),
            Self::TranslateY(pixels) => return geometry::affine(&image, [1.0, 0.0, 0.0, 0.0, 1.0, pixels], sampling),
            Self::Rotate(degrees) => return geometry::rotate(image, degrees, sampling),
            Self::Brightness(factor) => enhance::brightness(&mut image, factor),
            Self::Contrast(factor) => enhance::contrast(&mut image, factor),
            Self::Colour(factor) => enhance::colour(&mut image, factor),
            Self::Sharpness(factor) => enhance::sharpness(&mut image, factor),
            Self::Hue(turn) => enhance::hue(&mut image, turn),
            Self::Posterize(bits) => tone::posterize(&mut image, bits),
            Self::Solarize(threshold) => tone::solarize(&mut image, threshold),
            Self::SolarizeAdd(add) => tone::solarize_add(&mut image, add),
            Self::AutoContrast => tone::auto_contrast(&mut image),
            Self::Equalize => tone::equalize(&mut image),
            Self::Invert => tone::invert(&mut image),
            Self::Blur(radius) => blur::gaussian(&mut image, radius),
        }
        image
    }
}
