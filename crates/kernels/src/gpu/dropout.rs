//! Dropout masks computed from a seed in the device's memory, one value per unit.

use burn::tensor::Shape;
use burn_cubecl::{
    cubecl::{self, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::tensors::{address, empty};
use crate::types::dropout::{DropoutConfig, GOLDEN, SEED_LEN};

const _: () = assert!(SEED_LEN == 3, "as many as the kernel reads");

/// Units in a cube.
const UNITS: usize = 256;

/// Returns a dropout mask of `count` factors; `seed` encodes the seed.
pub fn dropout_mask(seed: CubeTensor, count: usize, DropoutConfig { probability, layer }: DropoutConfig) -> CubeTensor {
    let seed = into_contiguous(seed);
    let factors = empty(&seed, Shape::new([count]));
    dropout_mask_kernel::launch(
        &seed.client.clone(),
        CubeCount::Static(count.div_ceil(UNITS) as u32, 1, 1),
        CubeDim::new_1d(UNITS as u32),
        address(&[&factors]),
        seed.into_buffer_arg(),
        factors.clone().into_buffer_arg(),
        probability,
        layer,
    );
    factors
}

/// Computes [`DropoutConfig::mask_value`] for every index.
#[cube(launch, address_type = "dynamic")]
fn dropout_mask_kernel(seed: &[f32], factors: &mut [f32], probability: f32, layer: u32) {
    if ABSOLUTE_POS < factors.len() {
        let key = mixed(layer * GOLDEN);
        let key = mixed(key ^ u32::cast_from(seed[0]));
        let key = mixed(key ^ u32::cast_from(seed[1]));
        let key = mixed(key ^ u32::cast_from(seed[2]));
        let drawn = mixed(mixed(key ^ ABSOLUTE_POS as u32) ^ key);
        let share = f32::cast_from(drawn >> 8) / 16_777_216.0;
        factors[ABSOLUTE_POS] = if share >= probability { 1.0 / (1.0 - probability) } else { 0.0f32.runtime() };
    }
}

#[cube]
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)) * 0x85eb_ca6b;
    let x = (x ^ (x >> 13)) * 0xc2b2_ae35;
    x ^ (x >> 16)
}
