//! Dropout masks of a training step: the samples and features that it drops.
//!
//! Burn's random numbers depend on a seed that is fixed when an operation is queued, so a recorded
//! step would draw the same ones in every replay. These depend on a seed in the device's memory,
//! which is read when the step runs.

use std::cell::RefCell;

use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::Tensor;

use crate::extension::Kernels;

/// Number of f32 values that encode a seed in a device's memory.
pub const SEED: usize = 3;
/// Bits of the seed in each value; single precision holds them exactly.
const BITS: u32 = 22;
/// 2³² divided by the golden ratio. It is odd and spreads neighboring integers.
pub(crate) const GOLDEN: u32 = 0x9e37_79b9;

/// Encodes a seed for [`draw_from`].
pub fn seed_numbers(seed: u64) -> [f32; SEED] {
    std::array::from_fn(|part| ((seed >> (BITS * part as u32)) & ((1 << BITS) - 1)) as f32)
}

/// The parameters of a dropout mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropping {
    /// Drop probability, in `[0, 1)`.
    pub probability: f32,
    /// Index of the dropout layer within a step, from 0.
    pub layer: u32,
}

impl Dropping {
    /// Returns element `index` of the mask: `1 / (1 - probability)` or 0.
    pub(crate) fn factor(self, seed: [f32; SEED], index: u32) -> f32 {
        let Self { probability, layer } = self;
        let key = seed.iter().fold(mixed(layer.wrapping_mul(GOLDEN)), |key, &part| mixed(key ^ part as u32));
        let drawn = mixed(mixed(key ^ index) ^ key);
        // Single precision holds 24 bits exactly.
        if (drawn >> 8) as f32 / (1 << 24) as f32 >= probability { 1.0 / (1.0 - probability) } else { 0.0 }
    }
}

/// The finalizer of MurmurHash3: every bit of the result depends on every bit of `x`.
fn mixed(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

struct Source {
    numbers: DispatchTensor,
    layers: u32,
}

thread_local!(static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) });

/// Stops drawing in its thread when it is dropped.
#[must_use]
pub struct Drawing(());

impl Drop for Drawing {
    fn drop(&mut self) {
        SOURCE.take();
    }
}

/// Makes [`kept`] in this thread draw from the seed at the start of `numbers`, a vector in single
/// precision without autodiff, as encoded by [`seed_numbers`].
pub fn draw_from(numbers: DispatchTensor) -> Drawing {
    SOURCE.set(Some(Source { numbers, layers: 0 }));
    Drawing(())
}

/// Returns the dropout mask for the next layer, `[count]` without autodiff: each value is
/// `1 / (1 - probability)` or 0. Returns `None` if this thread has no seed.
pub fn kept(count: usize, probability: f64) -> Option<Tensor<1>> {
    SOURCE.with_borrow_mut(|source| {
        let source = source.as_mut()?;
        let dropping = Dropping { probability: probability as f32, layer: source.layers };
        source.layers += 1;
        Some(Tensor::from_dispatch(Dispatch::kept(source.numbers.clone(), count, dropping)))
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn drawn(seed: u64, layers: usize) -> Vec<f32> {
        let numbers = Tensor::<1>::from_floats(seed_numbers(seed), &Device::default());
        let _drawing = draw_from(numbers.into_dispatch());
        let masks = (0..layers).map(|_| kept(4096, 0.25).unwrap().into_data().try_to_vec::<f32>().unwrap());
        masks.collect::<Vec<_>>().concat()
    }

    #[test]
    fn dropout_masks_differ_by_layer_and_seed_and_keep_the_expected_share() {
        let one = drawn(7, 3);
        assert_eq!(one, drawn(7, 3));
        assert!(one.iter().all(|&factor| factor == 0.0 || factor == 4.0 / 3.0));
        // Standard deviations: 0.005 of the kept share of 12,288 values, and 0.008 of the agreement
        // of two layers.
        let kept = |list: &[f32]| list.iter().filter(|&&factor| factor > 0.0).count() as f64 / list.len() as f64;
        assert!((kept(&one) - 0.75).abs() < 0.02, "{}", kept(&one));
        let agree = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
        let expected = 0.75f64.powi(2) + 0.25f64.powi(2);
        let layers: Vec<&[f32]> = one.chunks(4096).collect();
        assert!((agree(layers[0], layers[1]) - expected).abs() < 0.03);
        for other in [8, 7 + (1 << 22), 7 + (1 << 44), u64::MAX] {
            assert!((agree(&one, &drawn(other, 3)) - expected).abs() < 0.02, "{other}");
        }
        // Neighbors in one layer.
        assert!((agree(&one[1..], &one[..one.len() - 1]) - expected).abs() < 0.02);
    }

    #[test]
    fn kept_returns_none_without_a_seed() {
        drawn(1, 1);
        assert!(kept(8, 0.5).is_none());
    }
}
