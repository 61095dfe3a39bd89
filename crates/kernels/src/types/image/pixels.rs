//! Images of bytes on the CPU.

use std::fmt;

/// An 8-bit RGB image.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbPixels {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Width in pixels, at least 1.
    pub height: usize,
    /// `[height, width, 3]`, red first.
    pub data: Vec<u8>,
}

impl fmt::Debug for RgbPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbPixels({}×{})", self.width, self.height)
    }
}
