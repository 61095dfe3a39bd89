//! Dropout masks computed from a seed in the device's memory, one value per unit.

use burn::tensor::Shape;
use burn_cubecl::{
    cubecl::{self, prelude::*},
    kernel::into_contiguous,
    tensor::CubeTensor,
};

use super::{address, empty};
use crate::chance::{Dropping, GOLDEN, SEED};

const _: () = assert!(SEED == 3, "as many as the kernel reads");

/// Units in a cube.
const UNITS: usize = 256;

/// Returns a dropout mask of `count` factors; `numbers` contains the seed.
pub fn kept(numbers: CubeTensor, count: usize, Dropping { probability, layer }: Dropping) -> CubeTensor {
    let numbers = into_contiguous(numbers);
    let factors = empty(&numbers, Shape::new([count]));
    kept_kernel::launch(
        &numbers.client.clone(),
        CubeCount::Static(count.div_ceil(UNITS) as u32, 1, 1),
        CubeDim::new_1d(UNITS as u32),
        address(&[&factors]),
        numbers.into_buffer_arg(),
        factors.clone().into_buffer_arg(),
        probability,
        layer,
    );
    factors
}

/// Computes [`Dropping::factor`] for every index.
#[cube(launch, address_type = "dynamic")]
fn kept_kernel(numbers: &[f32], factors: &mut [f32], probability: f32, layer: u32) {
    if ABSOLUTE_POS < factors.len() {
        let key = mixed(layer * GOLDEN);
        let key = mixed(key ^ u32::cast_from(numbers[0]));
        let key = mixed(key ^ u32::cast_from(numbers[1]));
        let key = mixed(key ^ u32::cast_from(numbers[2]));
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
