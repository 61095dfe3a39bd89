//! The parameters of a dropout mask, and its definition.

/// Number of f32 values that encode a seed in a device's memory.
pub const SEED_LEN: usize = 3;
/// Bits of the seed in each value; single precision holds them exactly.
const BITS: u32 = 22;
/// 2³² divided by the golden ratio. It is odd and spreads neighboring integers.
pub(crate) const GOLDEN: u32 = 0x9e37_79b9;

/// Encodes a seed for [`crate::ops::dropout::use_seed`].
pub fn encode_seed(seed: u64) -> [f32; SEED_LEN] {
    std::array::from_fn(|part| ((seed >> (BITS * part as u32)) & ((1 << BITS) - 1)) as f32)
}

/// The parameters of a dropout mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutConfig {
    /// Drop probability, in `[0, 1)`.
    pub probability: f32,
    /// Index of the dropout layer within a step, from 0.
    pub layer: u32,
}

impl DropoutConfig {
    /// Returns element `index` of the mask: `1 / (1 - probability)` or 0.
    pub(crate) fn mask_value(self, seed: [f32; SEED_LEN], index: u32) -> f32 {
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
