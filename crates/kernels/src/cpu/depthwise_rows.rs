//! Rows of a depthwise convolution, from rows padded with zeros, so that no pixel needs special
//! treatment.

use super::{
    activation::ActivationFn,
    simd::{Loop, Machine, Vector},
};

/// Computes rows of the result: `activation(bias + Σ weight * source)`.
///
/// A few channels pass through all rows before the next channels do, so that inputs shared by
/// several windows are in the L1 cache.
pub struct DepthwiseRows<'a, A> {
    /// [rows, W', C]
    pub out: &'a mut [f32],
    /// `(rows - 1) * stride + kernel` lines, each at least [(W' - 1) * stride + kernel, C].
    pub sources: &'a [&'a [f32]],
    /// [k * k, C]
    pub weight: &'a [f32],
    /// Biases `[C]`.
    pub bias: &'a [f32],
    /// Side length of the window.
    pub kernel: usize,
    /// Distance in source pixels between pixels of the result.
    pub stride: usize,
    /// Width W' of the result.
    pub width: usize,
    /// The activation that follows.
    pub activation: A,
}

impl<A: ActivationFn> Loop for DepthwiseRows<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self, _: M) {
        let rows = self.rows_of_result().expect("the operands of depthwise rows");
        // SAFETY: the machine argument proves the instructions, and the sizes were checked.
        unsafe {
            match (self.kernel, self.stride) {
                (3, 1) => self.rows::<3, 1, M>(rows),
                (3, 2) => self.rows::<3, 2, M>(rows),
                (5, 1) => self.rows::<5, 1, M>(rows),
                (5, 2) => self.rows::<5, 2, M>(rows),
                _ => (0..rows * self.width).for_each(|pixel| self.any::<M>(pixel)),
            }
        }
    }
}

impl<A: ActivationFn> DepthwiseRows<'_, A> {
    /// Returns the number of rows, or `None` if the operands do not have matching sizes.
    fn rows_of_result(&self) -> Option<usize> {
        let Self { out, sources, weight, bias, kernel, stride, width, .. } = self;
        // Number of inputs that `count` positions read along a side.
        let seen = |count: usize| count.checked_sub(1)?.checked_mul(*stride)?.checked_add(*kernel);
        let line = width.checked_mul(bias.len())?;
        let Some(rows) = out.len().checked_div(line) else { return out.is_empty().then_some(0) };
        let needed = seen(*width)?.checked_mul(bias.len())?;
        let fits = out.len() == rows * line
            && weight.len() == kernel.checked_mul(*kernel)?.checked_mul(bias.len())?
            && (rows == 0 || sources.len() >= seen(rows)?)
            && sources.iter().all(|source| source.len() >= needed);
        fits.then_some(rows)
    }

    /// # Safety
    /// The CPU must have M's instructions, [`Self::rows_of_result`] must return `rows`, and kernel
    /// and stride must be `K` and `S`.
    #[inline(always)]
    unsafe fn rows<const K: usize, const S: usize, M: Machine>(&mut self, rows: usize) {
        let (channels, width) = (self.bias.len(), M::Vector::WIDTH);
        let mut channel = 0;
        // SAFETY: passed on; the channels exist.
        unsafe {
            while channel + 2 * width <= channels {
                self.channels::<K, S, 2, false, M>(rows, channel);
                channel += 2 * width;
            }
            while channel + width <= channels {
                self.channels::<K, S, 1, false, M>(rows, channel);
                channel += width;
            }
            if channel < channels {
                self.channels::<K, S, 1, true, M>(rows, channel);
            }
        }
    }

    /// Computes `VECTORS` vectors of channels from `channel` on; with `PART`, the last vector is
    /// partial.
    ///
    /// # Safety
    /// As for `rows`; the channels must exist.
    #[inline(always)]
    unsafe fn channels<const K: usize, const S: usize, const VECTORS: usize, const PART: bool, M: Machine>(
        &mut self,
        rows: usize,
        channel: usize,
    ) {
        for row in 0..rows {
            let mut pixel = 0;
            // SAFETY: passed on; the pixels are within the row.
            unsafe {
                // The sides of common feature maps are multiples of 7 or 4.
                while pixel + 7 <= self.width {
                    self.block::<K, S, 7, VECTORS, PART, M>(row, pixel, channel);
                    pixel += 7;
                }
                while pixel + 4 <= self.width {
                    self.block::<K, S, 4, VECTORS, PART, M>(row, pixel, channel);
                    pixel += 4;
                }
                while pixel < self.width {
                    self.block::<K, S, 1, VECTORS, PART, M>(row, pixel, channel);
                    pixel += 1;
                }
            }
        }
    }

    /// Computes `P` pixels.
    ///
    /// # Safety
    /// As for `channels`; the pixels must be within the row.
    #[inline(always)]
    unsafe fn block<
        const K: usize,
        const S: usize,
        const P: usize,
        const VECTORS: usize,
        const PART: bool,
        M: Machine,
    >(
        &mut self,
        row: usize,
        pixel: usize,
        channel: usize,
    ) {
        let (channels, width) = (self.bias.len(), M::Vector::WIDTH);
        let valid = if PART { channels - channel } else { width };
        // SAFETY: the caller's promise, and the sizes that `run` checked.
        unsafe {
            let load = |from: *const f32, vector: usize| match PART {
                true => M::Vector::load_first(from.add(vector * width), valid),
                false => M::Vector::load(from.add(vector * width)),
            };
            let bias = self.bias.as_ptr().add(channel);
            let mut sums: [[M::Vector; VECTORS]; P] = [std::array::from_fn(|vector| load(bias, vector)); P];
            for line in 0..K {
                let source = self.sources.get_unchecked(row * S + line).as_ptr().add(pixel * S * channels + channel);
                let weight = self.weight.as_ptr().add(line * K * channels + channel);
                for tap in 0..K {
                    let weights: [M::Vector; VECTORS] =
                        std::array::from_fn(|vector| load(weight.add(tap * channels), vector));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (vector, sum) in sums.iter_mut().enumerate() {
                            let value = load(source.add((i * S + tap) * channels), vector);
                            *sum = sum.add_product(value, weights[vector]);
                        }
                    }
                }
            }
            let out = self.out.as_mut_ptr().add((row * self.width + pixel) * channels + channel);
            for (i, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    let sum = sum.map(|sum| self.activation.value::<M>(sum));
                    let out = out.add(i * channels + vector * width);
                    if PART { sum.store_first(out, valid) } else { sum.store(out) }
                }
            }
        }
    }

    /// Computes one pixel for any geometry, summing the taps in the same order.
    #[inline(always)]
    fn any<M: Machine>(&mut self, pixel: usize) {
        let channels = self.bias.len();
        let (row, column) = (pixel / self.width, pixel % self.width);
        let out = &mut self.out[pixel * channels..][..channels];
        out.copy_from_slice(self.bias);
        for (line, source) in self.sources[row * self.stride..][..self.kernel].iter().enumerate() {
            for tap in 0..self.kernel {
                let source = &source[(column * self.stride + tap) * channels..][..channels];
                let weight = &self.weight[(line * self.kernel + tap) * channels..][..channels];
                for i in 0..channels {
                    out[i] = super::simd::multiply_add::<M>(source[i], weight[i], out[i]);
                }
            }
        }
        for value in out {
            *value = self.activation.value::<M>(*value);
        }
    }
}
