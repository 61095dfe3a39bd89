//! Random generators, one for each purpose, keyed by seed, purpose and position.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The purpose of a generator; part of its key, so that no two purposes share a stream.
#[derive(Clone, Copy)]
enum Purpose {
    Augment = 1,
    Order = 2,
    Split = 3,
    Mix = 4,
}

fn rng(purpose: Purpose, seed: u64, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, a, b, purpose as u64]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Returns the generator of a training transform, which depends only on these three values.
pub fn sample_rng(seed: u64, epoch: usize, index: usize) -> ChaCha8Rng {
    repeat_rng(seed, epoch, index, 0)
}

/// Returns the generator of a sample's `repeat`-th repetition in an epoch.
pub fn repeat_rng(seed: u64, epoch: usize, index: usize, repeat: usize) -> ChaCha8Rng {
    rng(Purpose::Augment, seed, epoch as u64, index as u64 | (repeat as u64) << 40)
}

/// Returns the generator that mixes the batch of a step (mixup, CutMix).
pub fn mix_rng(seed: u64, epoch: usize, step: usize) -> ChaCha8Rng {
    rng(Purpose::Mix, seed, epoch as u64, step as u64)
}

/// Returns the generator that shuffles an epoch.
pub fn order_rng(seed: u64, epoch: usize) -> ChaCha8Rng {
    rng(Purpose::Order, seed, epoch as u64, 0)
}

/// Returns the generator that splits off validation samples of a class.
pub fn split_rng(seed: u64, class: usize) -> ChaCha8Rng {
    rng(Purpose::Split, seed, class as u64, 0)
}
