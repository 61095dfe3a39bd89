//! New memory that is written only once, since zeroing it first would cost as much as many a
//! kernel; and memory aligned to cache lines.

use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use rayon::prelude::*;

/// Number of values in a cache line.
const LINE: usize = 16;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Values aligned to a cache line. Loads of vectors as wide as a cache line are half as fast if
/// they cross two lines.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// Creates zeros.
    pub fn zeros(length: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); length.div_ceil(LINE)], length }
    }

    /// Returns the first `length` elements with unspecified values, and grows the memory if
    /// necessary.
    pub fn room(&mut self, length: usize) -> &mut [f32] {
        if self.length < length {
            self.lines.resize(length.div_ceil(LINE), Line([0.0; LINE]));
            self.length = length;
        }
        &mut self[..length]
    }
}

impl From<&[f32]> for Aligned {
    fn from(values: &[f32]) -> Self {
        let mut copy = Self::zeros(values.len());
        copy.copy_from_slice(values);
        copy
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines consist only of consecutive values, at least `length` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// Creates a vector of `length` elements that `fill` writes.
///
/// # Safety
/// `fill` must write every element.
pub unsafe fn filled(length: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut data = Vec::with_capacity(length);
    fill(&mut data.spare_capacity_mut()[..length]);
    // SAFETY: the capacity was reserved, and the caller promises that all of it is written.
    unsafe { data.set_len(length) };
    data
}

/// Sums the consecutive arrays in `partials`, from first to last, and writes all of `out`.
fn add_in_order(partials: &[f32], out: &mut [MaybeUninit<f32>]) {
    let length = out.len();
    const CHUNK: usize = 4096;
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
        let (first, rest) = partials.split_at(length);
        let out = out.write_copy_of_slice(&first[index * CHUNK..][..out.len()]);
        for partial in rest.chunks_exact(length) {
            let partial = &partial[index * CHUNK..][..out.len()];
            out.iter_mut().zip(partial).for_each(|(sum, value)| *sum += value);
        }
    });
}

/// Returns the sum of the consecutive arrays in `partials`, from first to last.
pub fn sum_in_order(partials: &[f32], length: usize) -> Vec<f32> {
    // SAFETY: `add_in_order` writes every element.
    unsafe { filled(length, |out| add_in_order(partials, out)) }
}
