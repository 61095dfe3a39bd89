//! New memory that is written once: zeroing it first would cost as much as many a kernel.

use std::mem::MaybeUninit;

use rayon::prelude::*;

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
