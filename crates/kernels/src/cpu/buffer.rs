//! New memory that is written only once, since zeroing it first would cost as much as many a
//! kernel; and memory aligned to cache lines.

use std::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

use rayon::prelude::*;

/// Number of bytes in a cache line.
const LINE: usize = 64;

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// A number whose memory may hold any bits; all zeros are the number zero.
///
/// # Safety
/// Every pattern of bits must be a value, no byte may be padding, and a cache line must hold a
/// whole number of them.
pub unsafe trait Plain: Copy {}

// SAFETY: numbers of 1 and 4 bytes.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}

/// Values aligned to a cache line. Loads of vectors as wide as a cache line are half as fast if
/// they cross two lines.
#[derive(Clone, Debug)]
pub struct Aligned<T = f32> {
    lines: Vec<Line>,
    length: usize,
    values: PhantomData<T>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), length: 0, values: PhantomData }
    }
}

impl<T: Plain> Aligned<T> {
    /// Creates zeros.
    pub fn zeros(length: usize) -> Self {
        Self { lines: vec![Line([0; LINE]); Self::lines(length)], length, values: PhantomData }
    }

    /// Returns the first `length` elements with unspecified values, and grows the memory if
    /// necessary.
    pub fn room(&mut self, length: usize) -> &mut [T] {
        if self.length < length {
            self.lines.resize(Self::lines(length), Line([0; LINE]));
            self.length = length;
        }
        &mut self[..length]
    }

    /// Returns the bytes of the values.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.length * size_of::<T>();
        // SAFETY: the lines consist of at least as many bytes, and any bytes are values.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), length) }
    }

    fn lines(length: usize) -> usize {
        length.div_ceil(LINE / size_of::<T>())
    }
}

impl<T: Plain> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut copy = Self::zeros(values.len());
        copy.copy_from_slice(values);
        copy
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines consist only of consecutive values, at least `length` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
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
