//! New memory that is written once: zeroing it first would cost as much as many a kernel. And memory that begins where a
//! line of the cache does.

use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use rayon::prelude::*;

/// Numbers in a line of the cache.
const LINE: usize = 16;

/// A line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Numbers that begin where a line of the cache does: vectors as wide as a line are twice as slow to load across two.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// Zeros.
    pub fn zeros(length: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); length.div_ceil(LINE)], length }
    }

    /// The first `length` elements, whatever they hold; more of them, if need be.
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
        // SAFETY: the lines, which are nothing but numbers one after another, are at least as many.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// A vector of `length` elements that `fill` writes.
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

/// The sum of the arrays that follow one another in `partials`, from first to last, into all of `out`.
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

/// The same, in new memory.
pub fn sum_in_order(partials: &[f32], length: usize) -> Vec<f32> {
    // SAFETY: `add_in_order` writes every element.
    unsafe { filled(length, |out| add_in_order(partials, out)) }
}
