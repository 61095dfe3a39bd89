//! New memory that is written once: zeroing it first would cost as much as many a kernel.

use std::mem::MaybeUninit;

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
