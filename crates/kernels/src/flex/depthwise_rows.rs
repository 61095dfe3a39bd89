//! A row of a depthwise convolution from rows that have borders of zeros, so that no pixel is special.

use super::{
    curve::Curve,
    simd::{Loop, Machine, multiply_add},
};

/// Channels that are computed together: with seven pixels, fourteen vectors of eight sums.
const LANES: usize = 16;

/// One row of the result: `activation(bias + Σ weight * source)`.
pub struct DepthwiseRow<'a, A> {
    /// [W', C]
    pub out: &'a mut [f32],
    /// `kernel` rows, each at least [(W' - 1) * stride + kernel, C].
    pub sources: &'a [&'a [f32]],
    /// [k * k, C]
    pub weight: &'a [f32],
    /// `[C]`
    pub bias: &'a [f32],
    /// Side of the window.
    pub kernel: usize,
    /// Source pixels from one pixel of the result to the next.
    pub stride: usize,
    /// Follows.
    pub activation: A,
}

impl<A: Curve> Loop for DepthwiseRow<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self) {
        let channels = self.bias.len();
        if channels == 0 {
            return;
        }
        let width = self.out.len() / channels;
        let needed = (width.max(1) - 1) * self.stride + self.kernel;
        assert!(
            self.out.len() == width * channels
                && self.weight.len() == self.kernel * self.kernel * channels
                && self.sources.len() == self.kernel
                && self.sources.iter().all(|row| row.len() >= needed * channels || width == 0),
            "the operands of a depthwise row"
        );
        // SAFETY: just checked.
        unsafe {
            match (self.kernel, self.stride) {
                (3, 1) => self.row::<3, 1, M>(width),
                (3, 2) => self.row::<3, 2, M>(width),
                (5, 1) => self.row::<5, 1, M>(width),
                (5, 2) => self.row::<5, 2, M>(width),
                _ => (0..width).for_each(|pixel| self.any::<M>(pixel)),
            }
        }
    }
}

impl<A: Curve> DepthwiseRow<'_, A> {
    /// # Safety
    /// The operands must have the sizes that [`Loop::run`] checks, kernel and stride be `K` and `S`.
    #[inline(always)]
    unsafe fn row<const K: usize, const S: usize, M: Machine>(&mut self, width: usize) {
        let mut pixel = 0;
        // SAFETY: passed on; the pixels are within the row.
        unsafe {
            // The sides of the usual maps are multiples of 7 or of 4.
            while pixel + 7 <= width {
                self.pixels::<K, S, 7, M>(pixel);
                pixel += 7;
            }
            while pixel + 4 <= width {
                self.pixels::<K, S, 4, M>(pixel);
                pixel += 4;
            }
            while pixel < width {
                self.pixels::<K, S, 1, M>(pixel);
                pixel += 1;
            }
        }
    }

    /// All channels of `P` pixels from `pixel` on.
    ///
    /// # Safety
    /// As for `row`; the pixels must be within the row.
    #[inline(always)]
    unsafe fn pixels<const K: usize, const S: usize, const P: usize, M: Machine>(&mut self, pixel: usize) {
        let channels = self.bias.len();
        let mut channel = 0;
        // SAFETY: passed on; the channels are there.
        unsafe {
            while channel + LANES <= channels {
                self.block::<K, S, P, LANES, M>(pixel, channel);
                channel += LANES;
            }
            while channel + LANES / 2 <= channels {
                self.block::<K, S, P, { LANES / 2 }, M>(pixel, channel);
                channel += LANES / 2;
            }
            while channel < channels {
                self.block::<K, S, P, 1, M>(pixel, channel);
                channel += 1;
            }
        }
    }

    /// # Safety
    /// As for `pixels`; so must be `L` channels from `channel` on.
    #[inline(always)]
    unsafe fn block<const K: usize, const S: usize, const P: usize, const L: usize, M: Machine>(
        &mut self,
        pixel: usize,
        channel: usize,
    ) {
        let channels = self.bias.len();
        // SAFETY: the caller's promise, and the sizes that `run` checked.
        unsafe {
            let bias = lanes::<L>(self.bias.as_ptr().add(channel));
            let mut sums = [bias; P];
            for row in 0..K {
                let source = self.sources.get_unchecked(row).as_ptr().add(pixel * S * channels + channel);
                let weight = self.weight.as_ptr().add(row * K * channels + channel);
                for tap in 0..K {
                    // The sources are operands in memory: the registers are for the sums, enough of them to hide the
                    // latency of an addition.
                    let weights = lanes::<L>(weight.add(tap * channels));
                    let source = source.add(tap * channels);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let values = lanes::<L>(source.add(i * S * channels));
                        for lane in 0..L {
                            sums[lane] = multiply_add::<M>(values[lane], weights[lane], sums[lane]);
                        }
                    }
                }
            }
            for (i, mut sums) in sums.into_iter().enumerate() {
                for sum in &mut sums {
                    *sum = self.activation.value::<M>(*sum);
                }
                let out = self.out.as_mut_ptr().add((pixel + i) * channels + channel);
                out.cast::<[f32; L]>().write(sums);
            }
        }
    }

    /// One pixel, for any window, with the taps in the same order.
    #[inline(always)]
    fn any<M: Machine>(&mut self, pixel: usize) {
        let channels = self.bias.len();
        let out = &mut self.out[pixel * channels..][..channels];
        out.copy_from_slice(self.bias);
        for (row, source) in self.sources.iter().enumerate() {
            for tap in 0..self.kernel {
                let source = &source[(pixel * self.stride + tap) * channels..][..channels];
                let weight = &self.weight[(row * self.kernel + tap) * channels..][..channels];
                for i in 0..channels {
                    out[i] = multiply_add::<M>(source[i], weight[i], out[i]);
                }
            }
        }
        for value in out {
            *value = self.activation.value::<M>(*value);
        }
    }
}

/// # Safety
/// `L` elements must be there.
#[inline(always)]
unsafe fn lanes<const L: usize>(from: *const f32) -> [f32; L] {
    // SAFETY: the caller's promise; an array is aligned as its elements.
    unsafe { from.cast::<[f32; L]>().read() }
}
