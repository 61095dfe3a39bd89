//! Rounding of real numbers to 8 bits.

/// Maps real numbers to 8 bits and back: `real = scale * (value - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    /// Distance between neighboring values, positive.
    pub scale: f32,
    /// The value of real zero.
    pub zero_point: u8,
}

impl Quantizer {
    /// Returns the quantizer of the smallest range that contains `low`, `high` and zero. An empty
    /// range has scale 1.
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / 255.0;
        if !(scale.is_finite() && scale >= f32::MIN_POSITIVE) {
            return Self { scale: 1.0, zero_point: 0 };
        }
        Self { scale, zero_point: (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
    }

    /// Rounds to the nearest value, with ties to even, and saturates. NaN becomes real zero.
    #[inline(always)]
    pub fn quantize(self, real: f32) -> u8 {
        let zero = f32::from(self.zero_point);
        let steps = (real / self.scale).clamp(-zero, 255.0 - zero);
        (if steps.is_nan() { zero } else { steps.round_ties_even() + zero }) as u8
    }

    /// Returns the real number of a value.
    #[inline(always)]
    pub fn real(self, value: u8) -> f32 {
        self.scale * (f32::from(value) - f32::from(self.zero_point))
    }
}
