//! The square window of a spatial convolution.

/// A square window that slides over a map, with the same numbers for height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Side of the window, in pixels; not zero.
    pub kernel: usize,
    /// Pixels from one position to the next; not zero.
    pub stride: usize,
    /// Pixels of zeros on each side of the map.
    pub padding: usize,
}

impl Window {
    /// Positions along an input side of `input` pixels.
    ///
    /// # Panics
    /// If the window is larger than the padded input, or the stride is zero.
    pub fn output(self, input: usize) -> usize {
        let padded = input + 2 * self.padding;
        assert!(self.stride > 0, "the stride of a convolution must not be zero");
        assert!(
            self.kernel > 0 && self.kernel <= padded,
            "a window of {} pixels does not fit into {input} pixels with padding {}",
            self.kernel,
            self.padding
        );
        (padded - self.kernel) / self.stride + 1
    }

    /// Input pixels beyond the last window: those that a strided convolution never sees.
    pub fn remainder(self, input: usize) -> usize {
        (input + 2 * self.padding - self.kernel) % self.stride
    }
}
