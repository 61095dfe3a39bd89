//! Rows of a depthwise convolution, from lines whose pixels are interleaved in groups of four.
//!
//! A line is [groups, C, 4]: a lane holds four neighboring pixels of one channel, and an
//! instruction multiplies them by four weights. The weights of each pixel of a result group are
//! aligned to the source groups, with zeros outside of the window, so that no pixel is ever
//! shifted.

use super::{
    finish::{LANES, Rounding},
    machine::{self, Loop, Machine, Vector, pack_lane},
    product::{LANE, STEP},
};
use crate::cpu::buffer::Aligned;

/// Number of channels that pass through all rows before the next do: a cache line of results, which
/// stay in the L1 cache together with the inputs that windows share.
const BLOCK: usize = 64;

/// Weights for one geometry.
#[derive(Debug)]
pub struct Packed {
    /// By vector of channels, line of the window, part of a source group and pixel of the result:
    /// as packed by [`pack_lane`].
    data: Aligned<i8>,
    channels: usize,
    kernel: usize,
    stride: usize,
    /// Pixels of padding to the left.
    left: usize,
}

impl Packed {
    /// Packs a weight [C, k, k] for `left` pixels of padding.
    pub fn new(weight: &[i8], channels: usize, kernel: usize, stride: usize, left: usize) -> Self {
        struct Body<'a>(&'a [i8], [usize; 4]);
        impl Loop for Body<'_> {
            type Output = Packed;
            fn run<M: Machine>(self, _: M) -> Packed {
                let Self(weight, [channels, kernel, stride, left]) = self;
                Packed::for_machine::<M>(weight, channels, kernel, stride, left)
            }
        }
        assert_eq!(weight.len(), channels * kernel * kernel, "the weight of a depthwise layer");
        machine::run(Body(weight, [channels, kernel, stride, left]))
    }

    fn for_machine<M: Machine>(weight: &[i8], channels: usize, kernel: usize, stride: usize, left: usize) -> Self {
        let width = M::Vector::WIDTH;
        let mut data = Vec::new();
        for channel in (0..channels).step_by(width) {
            for line in 0..kernel {
                for (part, pixel) in terms::<M::Vector>(kernel, stride, left) {
                    data.extend((channel..channel + width).flat_map(|channel| {
                        pack_lane::<M::Vector>(|i| {
                            let source = part * M::Vector::FACTORS as isize + i as isize;
                            match tap(kernel, stride, left, source, pixel) {
                                Some(tap) if channel < channels => weight[(channel * kernel + line) * kernel + tap],
                                _ => 0,
                            }
                        })
                    }));
                }
            }
        }
        Self { data: data[..].into(), channels, kernel, stride, left }
    }

    /// Returns the number of groups of padding to the left of a line.
    pub fn lead(&self) -> usize {
        self.left.div_ceil(STEP)
    }

    /// Returns the number of groups in a line that `width` pixels of the result read.
    pub fn groups(&self, width: usize) -> usize {
        let last = width.div_ceil(STEP).max(1) - 1;
        self.lead() + last * self.stride + spread(self.kernel, self.stride, self.left)
    }
}

/// Returns the tap of a window of result pixel `pixel` that reads a source pixel, where source
/// pixels are counted from the first one without padding.
fn tap(kernel: usize, stride: usize, left: usize, source: isize, pixel: usize) -> Option<usize> {
    let tap = source + left as isize - (pixel * stride) as isize;
    (0..kernel as isize).contains(&tap).then_some(tap as usize)
}

/// Returns whether a window of result pixel `pixel` reads a part of a source group, where parts are
/// counted as the pixels of [`tap`].
#[inline(always)]
fn touches<V: Vector>(kernel: usize, stride: usize, left: usize, part: isize, pixel: usize) -> bool {
    let first = (pixel * stride) as isize - left as isize;
    let start = part * V::FACTORS as isize;
    start < first + kernel as isize && start + V::FACTORS as isize > first
}

/// Returns the number of source groups, from the first one without padding, that the windows of
/// four result pixels read.
#[inline(always)]
fn spread(kernel: usize, stride: usize, left: usize) -> usize {
    (3 * stride + kernel).saturating_sub(left).div_ceil(STEP).max(1)
}

/// Returns the parts of source groups and the result pixels that belong together, in the order of
/// use.
#[inline(always)]
fn terms<V: Vector>(kernel: usize, stride: usize, left: usize) -> impl Iterator<Item = (isize, usize)> {
    let parts = (STEP / V::FACTORS) as isize;
    let all = -(left.div_ceil(STEP) as isize) * parts..spread(kernel, stride, left) as isize * parts;
    all.flat_map(move |part| {
        (0..STEP).filter(move |pixel| touches::<V>(kernel, stride, left, part, *pixel)).map(move |pixel| (part, pixel))
    })
}

/// Computes rows of the result.
pub struct Rows<'a> {
    /// [rows, W', C]
    pub out: &'a mut [u8],
    /// `(rows - 1) * stride + kernel` lines [groups, C, 4], each of at least [`Packed::groups`]
    /// groups, with [`Packed::lead`] groups of padding first.
    pub sources: &'a [&'a [u8]],
    pub weight: &'a Packed,
    /// Initial values of the sums, padded to whole vectors.
    pub start: &'a [i32],
    pub rounding: &'a Rounding,
    /// Width W' of the result.
    pub width: usize,
}

impl Loop for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(mut self, _: M) {
        let rows = self.rows().expect("the operands of depthwise rows");
        let Packed { kernel, stride, left, .. } = *self.weight;
        // SAFETY: the machine argument proves the instructions, and the sizes were checked.
        unsafe {
            match (kernel, stride, left) {
                (3, 1, 1) => self.compute::<3, 1, 1, M>(rows),
                (3, 2, 1) => self.compute::<3, 2, 1, M>(rows),
                (3, 2, 0) => self.compute::<3, 2, 0, M>(rows),
                (5, 1, 2) => self.compute::<5, 1, 2, M>(rows),
                (5, 2, 2) => self.compute::<5, 2, 2, M>(rows),
                (5, 2, 1) => self.compute::<5, 2, 1, M>(rows),
                _ => self.compute::<0, 0, 0, M>(rows),
            }
        }
    }
}

impl Rows<'_> {
    /// Returns the number of rows, or `None` if the operands do not have matching sizes.
    fn rows(&self) -> Option<usize> {
        let Packed { channels, kernel, stride, .. } = *self.weight;
        let padded = channels.next_multiple_of(LANES);
        let rows = self.out.len().checked_div(self.width.checked_mul(channels)?)?;
        let needed = self.weight.groups(self.width).checked_mul(channels)?.checked_mul(STEP)?;
        let lines = rows.checked_sub(1)?.checked_mul(stride)?.checked_add(kernel)?;
        let fits = self.out.len() == rows * self.width * channels
            && self.sources.len() >= lines
            && self.sources.iter().all(|source| source.len() >= needed)
            && self.start.len() >= padded
            && self.rounding.covers(channels);
        fits.then_some(rows)
    }

    /// Computes all rows, a block of channels after the other: with `K` = 0 for any geometry, else
    /// for that of the parameters.
    ///
    /// # Safety
    /// The CPU must have M's instructions, [`Self::rows`] must return `rows`, and the geometry must
    /// be that of the weight.
    #[inline(always)]
    unsafe fn compute<const K: usize, const S: usize, const LEFT: usize, M: Machine>(&mut self, rows: usize) {
        let (channels, lanes) = (self.weight.channels, M::Vector::WIDTH);
        for block in (0..channels).step_by(BLOCK) {
            for row in 0..rows {
                for channel in (block..channels.min(block + BLOCK)).step_by(lanes) {
                    // SAFETY: passed on; the row and the channels exist.
                    unsafe { self.row::<K, S, LEFT, M>(row, channel) };
                }
            }
        }
    }

    /// Computes a row for one vector of channels.
    ///
    /// # Safety
    /// As for `compute`; the row and the channels must exist.
    #[inline(always)]
    unsafe fn row<const K: usize, const S: usize, const LEFT: usize, M: Machine>(
        &mut self,
        row: usize,
        channel: usize,
    ) {
        let channels = self.weight.channels;
        let count = M::Vector::WIDTH.min(channels - channel);
        for group in 0..self.width.div_ceil(STEP) {
            let pixels = STEP.min(self.width - group * STEP);
            let at = (row * self.width + group * STEP) * channels + channel;
            // SAFETY: the caller's promise, and the size that `run` checked.
            unsafe {
                let to = self.out.as_mut_ptr().add(at);
                if count == M::Vector::WIDTH && pixels == STEP {
                    let values = self.group::<K, S, LEFT, true, M>(row, group, channel, count);
                    M::Vector::store_four(values, to, channels);
                } else {
                    let values = self.group::<K, S, LEFT, false, M>(row, group, channel, count);
                    for (pixel, values) in values.iter().enumerate().take(pixels) {
                        values.store_bytes(to.add(pixel * channels), count);
                    }
                }
            }
        }
    }

    /// Computes four pixels of a row for one vector of channels.
    ///
    /// # Safety
    /// As for `compute`; row, group and channels must exist. `FULL` requires a full vector of
    /// channels.
    #[inline(always)]
    unsafe fn group<const K: usize, const S: usize, const LEFT: usize, const FULL: bool, M: Machine>(
        &self,
        row: usize,
        group: usize,
        channel: usize,
        count: usize,
    ) -> [M::Vector; STEP] {
        let Packed { channels, kernel, stride, left, .. } = *self.weight;
        let (kernel, stride, left) = if K > 0 { (K, S, LEFT) } else { (kernel, stride, left) };
        let lead = left.div_ceil(STEP) as isize;
        let lanes = M::Vector::WIDTH;
        let groups = spread(kernel, stride, left) as isize;
        // SAFETY: the caller's promise, and the sizes that `run` checked.
        unsafe {
            let per_line = terms::<M::Vector>(kernel, stride, left).count();
            let size = lanes * LANE;
            let mut weight = self.weight.data.as_ptr().add(channel / lanes * kernel * per_line * size).cast::<u8>();
            let mut sums = [M::Vector::load(self.start.as_ptr().add(channel).cast()); STEP];
            for line in 0..kernel {
                let source = self.sources.get_unchecked(row * stride + line).as_ptr();
                let source = source.add((group * stride * channels + channel) * STEP);
                for delta in -lead..groups {
                    let at = source.add((lead + delta) as usize * channels * STEP);
                    let loaded = match FULL {
                        true => M::Vector::load(at),
                        false => M::Vector::load_first(at, count),
                    };
                    for part in 0..STEP / M::Vector::FACTORS {
                        let values = loaded.part(part);
                        let part = delta * (STEP / M::Vector::FACTORS) as isize + part as isize;
                        for (pixel, sum) in sums.iter_mut().enumerate() {
                            if touches::<M::Vector>(kernel, stride, left, part, pixel) {
                                *sum = sum.dot(values, M::Vector::load(weight));
                                weight = weight.add(size);
                            }
                        }
                    }
                }
            }
            let mut sums = sums.map(|sums| [sums]);
            self.rounding.apply::<STEP, 1, M>(&mut sums, channel);
            sums.map(|[sums]| sums)
        }
    }
}
