//! Interpolation between pixels.

use serde::{Deserialize, Serialize};

/// Interpolation between pixels, which matches Pillow's filter of the same name. When resizing, all
/// but `Nearest` are antialiased.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Linear interpolation between two pixels per axis.
    Bilinear,
    /// Cubic interpolation between four pixels per axis.
    Bicubic,
    /// The pixel that contains the new pixel's center.
    Nearest,
}
