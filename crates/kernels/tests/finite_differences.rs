//! Compares every gradient with the central difference of its operation, in double precision.
//!
//! The other tests compare the backward passes with automatic differentiation of the definitions,
//! and single with double precision. This test needs no derivative at all.

mod common;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{Layout, Place, differentiate, values};
use mbconv_kernels::{
    Activation, Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_conv2d, global_average,
    pointwise_conv2d, scale_channels,
};
use proptest::{prelude::*, test_runner::RngSeed};

/// Half of the difference. The error of the quotient is its square, plus the rounding unit divided
/// by it.
const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-7;

fn place() -> Place {
    Place::new(Device::flex().autodiff(), DType::F64)
}

/// Returns the tensor with `by` added to its element `index`.
fn moved<const D: usize>(tensor: &Tensor<D>, index: usize, by: f64) -> Tensor<D> {
    let mut numbers = values(tensor.clone());
    numbers[index] += by;
    Tensor::from_data(TensorData::new(numbers, tensor.dims()), (&tensor.device(), DType::F64))
}

/// Compares all gradients of `operation` with differences.
fn check(
    maps: &[Tensor<4>],
    vectors: &[Tensor<1>],
    operation: impl Fn(&[Tensor<4>], &[Tensor<1>]) -> Tensor<4>,
) -> Result<(), TestCaseError> {
    let gradients = &differentiate(maps, vectors, &operation)[1..];
    let loss = |maps: &[Tensor<4>], vectors: &[Tensor<1>]| {
        let y = operation(maps, vectors);
        // The weights that `differentiate` uses.
        let weights = place().tensor(y.dims(), Layout::Plain, 99);
        values((y * weights).sum())[0]
    };
    let close = |operand: usize, index: usize, [below, above]: [f64; 2]| {
        let (found, difference) = (gradients[operand][index], (above - below) / (2.0 * STEP));
        let scale = gradients[operand].iter().fold(1.0, |scale: f64, gradient| scale.max(gradient.abs()));
        prop_assert!(
            (found - difference).abs() <= TOLERANCE * scale,
            "operand {operand}, element {index}: {found}, but the difference is {difference}"
        );
        Ok(())
    };
    for operand in 0..maps.len() {
        for index in 0..maps[operand].shape().num_elements() {
            let mut near = maps.to_vec();
            let losses = [-STEP, STEP].map(|by| {
                near[operand] = moved(&maps[operand], index, by);
                loss(&near, vectors)
            });
            close(operand, index, losses)?;
        }
    }
    for operand in 0..vectors.len() {
        for index in 0..vectors[operand].shape().num_elements() {
            let mut near = vectors.to_vec();
            let losses = [-STEP, STEP].map(|by| {
                near[operand] = moved(&vectors[operand], index, by);
                loss(maps, &near)
            });
            close(maps.len() + operand, index, losses)?;
        }
    }
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn convolutions(
        [batch, height, width] in [1usize..3, 1usize..6, 1usize..6],
        [inputs, outputs] in [1usize..4, 1usize..4],
        (kernel, stride) in (prop_oneof![Just(1usize), Just(3), Just(5)], 1usize..3),
        seed in 0u64..1000,
    ) {
        let (place, padding) = (place(), kernel / 2);
        let x = place.tensor([batch, height, width, inputs], Layout::Plain, seed);
        let weight = |shape| place.tensor(shape, Layout::Plain, seed + 1);
        let bias = place.tensor([outputs], Layout::Plain, seed + 2);
        check(&[x.clone(), weight([outputs, inputs, 1, 1])], &[bias], |m, v| {
            pointwise_conv2d(m[0].clone(), m[1].clone(), Some(v[0].clone()))
        })?;
        check(&[x.clone(), weight([inputs, 1, kernel, kernel])], &[], |m, _| {
            depthwise_conv2d(m[0].clone(), m[1].clone(), stride, padding)
        })?;
        check(&[x, weight([outputs, inputs, kernel, kernel])], &[], |m, _| {
            conv2d(m[0].clone(), m[1].clone(), stride, padding)
        })?;
    }

    #[test]
    fn normalization(
        [batch, height, width, channels] in [1usize..4, 1usize..4, 1usize..4, 1usize..5],
        statistics in prop_oneof![Just(Statistics::Batch), Just(Statistics::Fixed)],
        // The other activations have kinks without a derivative.
        activation in prop_oneof![Just(Activation::Identity), Just(Activation::Silu)],
        seed in 0u64..1000,
    ) {
        let place = place();
        let x = place.tensor([batch, height, width, channels], Layout::Plain, seed);
        let vector = |seed| place.tensor([channels], Layout::Plain, seed);
        let fixed = (vector(seed + 3), vector(seed + 4).abs());
        check(&[x], &[vector(seed + 1), vector(seed + 2)], |m, v| {
            // Batch statistics move along with the feature map.
            let (mean, variance) = match statistics {
                Statistics::Batch => channel_statistics(m[0].clone()),
                Statistics::Fixed => fixed.clone(),
            };
            let [gamma, beta] = [0, 1].map(|i: usize| v[i].clone());
            batch_norm_activation(m[0].clone(), gamma, beta, mean, variance, 0.1, statistics, activation)
        })?;
    }

    #[test]
    fn squeeze_excitation([batch, height, width, channels] in [1usize..4, 1usize..5, 1usize..5, 1usize..5], seed in 0u64..1000) {
        let place = place();
        let x = place.tensor([batch, height, width, channels], Layout::Plain, seed);
        let gate = place.tensor([batch, 1, 1, channels], Layout::Plain, seed + 1);
        check(&[x, gate], &[], |m, _| scale_channels(m[0].clone(), global_average(m[0].clone()) * m[1].clone()))?;
    }
}
