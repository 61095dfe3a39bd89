//! The square window of a spatial convolution.

/// A square window that slides over a feature map, with the same parameters for height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dGeometry {
    /// Side length in pixels; not zero.
    pub kernel: usize,
    /// Distance in pixels between positions; not zero.
    pub stride: usize,
    /// Pixels of zeros on each side of the feature map.
    pub padding: usize,
}

impl Conv2dGeometry {
    /// Returns the number of positions along a side of `input` pixels.
    ///
    /// # Panics
    /// If the window is larger than the padded input, or the stride is zero.
    pub fn output(self, input: usize) -> usize {
        let padded = self.padded(input);
        assert!(self.stride > 0, "the stride of a convolution must not be zero");
        assert!(
            self.kernel > 0 && self.kernel <= padded,
            "a window of {} pixels does not fit into {input} pixels with padding {}",
            self.kernel,
            self.padding
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Returns the number of padded input pixels beyond the last geometry, which a strided
    /// convolution does not read.
    pub fn remainder(self, input: usize) -> usize {
        (self.padded(input) - self.kernel) % self.stride
    }

    fn padded(self, input: usize) -> usize {
        let padded = self.padding.checked_mul(2).and_then(|both| both.checked_add(input));
        padded.unwrap_or_else(|| panic!("{input} pixels with padding {} are too many", self.padding))
    }
}
