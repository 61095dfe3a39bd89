//! Dropout masks of a training step, for whole samples (stochastic depth) and for features.
//!
//! Burn's random numbers depend on a seed that is fixed when an operation is queued, so a captured
//! step would draw the same ones in every replay. These depend on a seed in the device's memory,
//! which is read when the step runs.

use std::cell::RefCell;

use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::Tensor;

use crate::backend::Kernels;
pub use crate::types::dropout::{DropoutConfig, SEED_LEN, encode_seed};

/// The seed of a thread, and the number of dropout layers that have used it.
struct Source {
    seed: DispatchTensor,
    layers: u32,
}

thread_local!(static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) });

/// Removes the seed of its thread when it is dropped.
#[must_use]
pub struct SeedGuard(());

impl Drop for SeedGuard {
    fn drop(&mut self) {
        SOURCE.take();
    }
}

/// Makes [`dropout_mask`] in this thread draw from the first [`SEED_LEN`] values of `seed`, a
/// vector in single precision without autodiff, as encoded by [`encode_seed`].
pub fn use_seed(seed: DispatchTensor) -> SeedGuard {
    SOURCE.set(Some(Source { seed, layers: 0 }));
    SeedGuard(())
}

/// Returns the dropout mask for the next layer, `[count]` without autodiff: each value is
/// `1 / (1 - probability)` or 0. Returns `None` if this thread has no seed.
pub fn dropout_mask(count: usize, probability: f64) -> Option<Tensor<1>> {
    SOURCE.with_borrow_mut(|source| {
        let source = source.as_mut()?;
        let config = DropoutConfig { probability: probability as f32, layer: source.layers };
        source.layers += 1;
        Some(Tensor::from_dispatch(Dispatch::dropout_mask(source.seed.clone(), count, config)))
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn drawn(seed: u64, layers: usize) -> Vec<f32> {
        let numbers = Tensor::<1>::from_floats(encode_seed(seed), &Device::default());
        let _guard = use_seed(numbers.into_dispatch());
        let masks = (0..layers).map(|_| dropout_mask(4096, 0.25).unwrap().into_data().try_to_vec::<f32>().unwrap());
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
    fn dropout_mask_returns_none_without_a_seed() {
        drawn(1, 1);
        assert!(dropout_mask(8, 0.5).is_none());
    }
}
