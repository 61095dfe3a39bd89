//! Operations on feature maps without images, pixels or channels: results and gradients are empty,
//! or zero for empty sums.

mod common;

use burn::tensor::{DType, Device, Tensor};
use common::{Layout, Place, differentiate, values};
use mbconv_kernels::{
    Activation, Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_conv2d,
    dropout::{dropout_mask, encode_seed, use_seed},
    global_average,
    optimizer_step::{OptimizerStep, OptimizerTensors, optimizer_step},
    pointwise_conv2d, scale_channels,
};
use proptest::{prelude::*, test_runner::RngSeed};

/// Generates sides of which at least one is zero.
fn sides<const N: usize>() -> impl Strategy<Value = [usize; N]> {
    prop::array::uniform::<_, N>(0usize..3).prop_filter("no side is zero", |sides| sides.contains(&0))
}

/// Generates kernel, stride and padding such that the window fits into the padding alone.
fn window() -> impl Strategy<Value = (usize, usize, usize)> {
    prop::sample::select(vec![(1, 1, 1), (1, 2, 1), (2, 1, 1), (3, 2, 2), (5, 1, 3)])
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

fn place() -> Place {
    Place::new(Device::flex().autodiff(), DType::F32)
}

fn map(shape: [usize; 4], seed: u64) -> Tensor<4> {
    place().tensor(shape, Layout::Plain, seed)
}

fn vector(length: usize, seed: u64) -> Tensor<1> {
    place().tensor([length], Layout::Plain, seed)
}

/// Asserts that the output has the shape `output`, that each gradient has the size of its operand,
/// and that all elements are zero.
fn assert_zeros(
    output: [usize; 4],
    maps: &[Tensor<4>],
    vectors: &[Tensor<1>],
    operation: impl Fn(&[Tensor<4>], &[Tensor<1>]) -> Tensor<4>,
) {
    assert_eq!(operation(maps, vectors).dims(), output);
    let found = differentiate(maps, vectors, operation);
    let operands = maps.iter().map(|map| map.shape().num_elements());
    let operands = operands.chain(vectors.iter().map(|vector| vector.shape().num_elements()));
    let lengths: Vec<usize> = std::iter::once(output.iter().product()).chain(operands).collect();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    assert!(found.iter().flatten().all(|value| *value == 0.0), "{found:?}");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pointwise([batch, height, width, inputs, outputs] in sides::<5>()) {
        let maps = [map([batch, height, width, inputs], 1), map([outputs, inputs, 1, 1], 2)];
        assert_zeros([batch, height, width, outputs], &maps, &[], |m, _| {
            pointwise_conv2d(m[0].clone(), m[1].clone(), None)
        });
    }

    #[test]
    fn dense([batch, height, width, inputs, outputs] in sides::<5>(), (kernel, stride, padding) in window()) {
        let side = |input: usize| (input + 2 * padding - kernel) / stride + 1;
        let maps = [map([batch, height, width, inputs], 1), map([outputs, inputs, kernel, kernel], 2)];
        let y = conv2d(maps[0].clone(), maps[1].clone(), stride, padding);
        prop_assert_eq!(y.dims(), [batch, side(height), side(width), outputs]);
        prop_assert!(values(y).iter().all(|value| *value == 0.0));
    }

    #[test]
    fn dense_gradient_of_the_weight(
        [batch, height, width, inputs, outputs] in sides::<5>(),
        (kernel, stride, padding) in window(),
    ) {
        let side = |input: usize| (input + 2 * padding - kernel) / stride + 1;
        // Images need no gradient.
        let x = map([batch, height, width, inputs], 1);
        let weight = [map([outputs, inputs, kernel, kernel], 2)];
        assert_zeros([batch, side(height), side(width), outputs], &weight, &[], |m, _| {
            conv2d(x.clone(), m[0].clone(), stride, padding)
        });
    }

    #[test]
    fn depthwise([batch, height, width, channels] in sides::<4>(), (kernel, stride, padding) in window()) {
        let side = |input: usize| (input + 2 * padding - kernel) / stride + 1;
        let maps = [map([batch, height, width, channels], 1), map([channels, 1, kernel, kernel], 2)];
        assert_zeros([batch, side(height), side(width), channels], &maps, &[], |m, _| {
            depthwise_conv2d(m[0].clone(), m[1].clone(), stride, padding)
        });
    }

    #[test]
    fn normalization(
        [batch, height, width, channels] in sides::<4>(),
        statistics in prop_oneof![Just(Statistics::Batch), Just(Statistics::Fixed)],
    ) {
        let x = map([batch, height, width, channels], 1);
        let (mean, variance) = channel_statistics(x.clone());
        prop_assert_eq!([values(mean.clone()), values(variance.clone())], [vec![0.0; channels], vec![0.0; channels]]);
        let vectors = [vector(channels, 2), vector(channels, 3)];
        assert_zeros([batch, height, width, channels], &[x], &vectors, |m, v| {
            let [gamma, beta, mean, variance] = [&v[0], &v[1], &mean, &variance].map(Clone::clone);
            batch_norm_activation(m[0].clone(), gamma, beta, mean, variance, 1e-5, statistics, Activation::Silu)
        });
    }

    #[test]
    fn squeeze_excitation([batch, height, width, channels] in sides::<4>()) {
        let (x, gate) = (map([batch, height, width, channels], 1), map([batch, 1, 1, channels], 2));
        assert_zeros([batch, height, width, channels], &[x, gate], &[], |m, _| scale_channels(m[0].clone(), m[1].clone()));
    }

    #[test]
    fn pooling([batch, height, width, channels] in sides::<4>()) {
        let x = map([batch, height, width, channels], 1);
        assert_zeros([batch, 1, 1, channels], &[x], &[], |m, _| global_average(m[0].clone()));
    }
}

#[test]
fn optimizer_steps_skip_empty_parameters() {
    let place = Place::new(Device::flex(), DType::F32);
    let rules = [
        OptimizerStep::Sgd { decay: 0.1, momentum: 0.9, nesterov: true, lr: 0.5 },
        OptimizerStep::RmsPropTf { decay: 0.1, rise: 0.1, momentum: 0.9, epsilon: 1e-3, lr: 0.5 },
        OptimizerStep::AdamW { keep: 0.9, beta: 0.9, rises: [0.1, 0.1], rate: 0.5, root: 1.0, epsilon: 1e-8 },
    ];
    for rule in rules {
        let step = |lengths: &[usize]| {
            let list = |seed| {
                let tensors = lengths.iter().map(|length| place.tensor([*length], Layout::Plain, seed).abs());
                tensors.map(Tensor::into_dispatch).collect::<Vec<_>>()
            };
            let second = if matches!(rule, OptimizerStep::Sgd { .. }) { Vec::new() } else { list(4) };
            let tensors = OptimizerTensors { parameters: list(1), gradients: list(2), moments: [list(3), second] };
            let (parameters, _) = optimizer_step(tensors, rule, None);
            parameters.into_iter().map(|parameter| values(Tensor::<1>::from_dispatch(parameter))).collect::<Vec<_>>()
        };
        let (alone, among) = (step(&[3]), step(&[0, 3, 0]));
        assert_eq!(among, [vec![], alone[0].clone(), vec![]], "{rule:?}");
    }
}

#[test]
fn dropout_masks_may_be_empty() {
    let numbers = Tensor::<1>::from_floats(encode_seed(7), &Device::flex());
    let _drawing = use_seed(numbers.into_dispatch());
    assert_eq!(dropout_mask(0, 0.5).unwrap().dims(), [0]);
    assert_eq!(dropout_mask(4, 0.5).unwrap().dims(), [4]);
}
