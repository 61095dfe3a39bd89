//! Interpolation between pixels, and the color outside of an image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Interpolation between pixels, which matches Pillow's filter of the same name. When resizing, all
/// but `Nearest` are antialiased.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Linear interpolation between two pixels per axis.
    Bilinear,
    /// Cubic interpolation between four pixels per axis.
    Bicubic,
    /// The pixel that contains the new pixel's center.
    Nearest,
}

/// Interpolation, and the color outside of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Filter of shears, translations and rotations, without antialiasing.
    pub interpolation: Interpolation,
    /// Color of pixels from outside of the image.
    pub fill: [u8; 3],
}

impl Default for Sampling {
    /// Returns the sampling for operations that neither interpolate nor read outside of the image.
    fn default() -> Self {
        Self { interpolation: Interpolation::Nearest, fill: [0; 3] }
    }
}
