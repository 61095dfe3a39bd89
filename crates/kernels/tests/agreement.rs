//! Compares every operation and all of its gradients with its definition in plain tensor
//! operations.
//!
//! Single precision runs the backend's kernels, double precision the default bodies. The operations
//! run on Burn's default device, which `BURN_DEVICE` selects, the definitions on the CPU.

mod common;

use burn::{
    backend::DispatchTensor,
    tensor::{DType, Device, Tensor},
};
use common::{Layout, Place, assert_close, differentiate, values};
use mbconv_kernels::{
    Activation, Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_between_activations,
    depthwise_conv2d, global_average,
    optimizer_step::{OptimizerStep, OptimizerTensors, StepScalars, lerp, optimizer_step, overwrite},
    pointwise_conv2d, reference, scale_channels, shift_activation,
};
use proptest::{prelude::*, test_runner::RngSeed};

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Plain), Just(Layout::Permuted), Just(Layout::Sliced)]
}

/// Generates the precision of feature maps, with the relative error that it allows.
fn precision() -> impl Strategy<Value = (DType, f64)> {
    let short = [(DType::BF16, 5e-2), (DType::F16, 1e-2)];
    let short = short.into_iter().find(|(dtype, _)| Device::default().supports_dtype(*dtype));
    // GPUs sum in another order and have no double precision.
    let single = (DType::F32, if is_cpu() { 2e-5 } else { 1e-4 });
    let double = if is_cpu() { (DType::F64, 1e-10) } else { single };
    prop_oneof![2 => Just(single), 1 => Just(double), 1 => Just(short.unwrap_or(single))]
}

/// Generates kernel, stride, padding, height and width such that the window fits.
fn window() -> impl Strategy<Value = (usize, usize, usize, [usize; 2])> {
    (prop_oneof![Just(1usize), Just(3), Just(5), Just(7)], 1usize..=3)
        .prop_flat_map(|(kernel, stride)| (Just(kernel), Just(stride), 0..=kernel))
        .prop_flat_map(|(kernel, stride, padding)| {
            let least = kernel.saturating_sub(2 * padding).max(1);
            (Just(kernel), Just(stride), Just(padding), [least..least + 9, least..least + 9])
        })
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::Identity), Just(Activation::Relu), Just(Activation::Relu6), Just(Activation::Silu)]
}

fn is_cpu() -> bool {
    Device::default() == Device::flex()
}

/// Computes the expected results by the definition on the CPU.
fn define(
    maps: &[Tensor<4>],
    vectors: &[Tensor<1>],
    operation: impl Fn(&[Tensor<4>], &[Tensor<1>]) -> Tensor<4>,
) -> Vec<Vec<f64>> {
    let home = Device::flex().autodiff();
    let maps: Vec<_> = maps.iter().map(|tensor| at(&home, tensor)).collect();
    let vectors: Vec<_> = vectors.iter().map(|tensor| at(&home, tensor)).collect();
    differentiate(&maps, &vectors, operation)
}

/// Copies a tensor to a device, in at least single precision.
fn at<const D: usize>(device: &Device, tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(tensor.to_data(), (device, parameters(tensor.dtype())))
}

/// Returns the precision of weights and vectors for feature maps of `dtype`.
fn parameters(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

fn config() -> ProptestConfig {
    // Fixed cases, since near a kink rounding alone decides a gradient. Few on GPUs, where every
    // shape is compiled first.
    let cases = if is_cpu() { 200 } else { 6 };
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pointwise(
        (dtype, tolerance) in precision(),
        [batch, height, width] in [1usize..4, 1usize..6, 1usize..6],
        [inputs, outputs] in [1usize..40, 1usize..40],
        layouts in [layout(), layout()],
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default().autodiff(), dtype);
        let maps = [
            place.tensor([batch, height, width, inputs], layouts[0], seed),
            place.of(parameters(dtype)).tensor([outputs, inputs, 1, 1], layouts[1], seed + 1),
        ];
        let bias = [place.of(parameters(dtype)).tensor([outputs], Layout::Plain, seed + 2)];
        let found = differentiate(&maps, &bias, |m, v| pointwise_conv2d(m[0].clone(), m[1].clone(), Some(v[0].clone())));
        let expected = define(&maps, &bias, |m, v| {
            reference::pointwise_conv2d(m[0].clone(), m[1].clone(), Some(v[0].clone()))
        });
        assert_close(&found, &expected, tolerance);
    }

    #[test]
    fn depthwise(
        (dtype, tolerance) in precision(),
        (kernel, stride, padding, [height, width]) in window(),
        batch in 1usize..4,
        channels in 1usize..70,
        layouts in [layout(), layout()],
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default().autodiff(), dtype);
        let maps = [
            place.tensor([batch, height, width, channels], layouts[0], seed),
            place.of(parameters(dtype)).tensor([channels, 1, kernel, kernel], layouts[1], seed + 1),
        ];
        let found = differentiate(&maps, &[], |m, _| depthwise_conv2d(m[0].clone(), m[1].clone(), stride, padding));
        let expected =
            define(&maps, &[], |m, _| reference::depthwise_conv2d(m[0].clone(), m[1].clone(), stride, padding));
        assert_close(&found, &expected, tolerance);
    }

    #[test]
    fn dense(
        (dtype, tolerance) in precision(),
        (kernel, stride, padding, [height, width]) in window(),
        batch in 1usize..4,
        [inputs, outputs] in [1usize..18, 1usize..20],
        layouts in [layout(), layout()],
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default().autodiff(), dtype);
        let maps = [
            place.tensor([batch, height, width, inputs], layouts[0], seed),
            place.of(parameters(dtype)).tensor([outputs, inputs, kernel, kernel], layouts[1], seed + 1),
        ];
        let found = differentiate(&maps, &[], |m, _| conv2d(m[0].clone(), m[1].clone(), stride, padding));
        let expected = define(&maps, &[], |m, _| reference::conv2d(m[0].clone(), m[1].clone(), stride, padding));
        assert_close(&found, &expected, tolerance);
    }

    #[test]
    fn normalization(
        (dtype, tolerance) in precision(),
        [batch, height, width, channels] in [1usize..4, 1usize..7, 1usize..7, 1usize..300],
        layouts in [layout(), layout()],
        statistics in prop_oneof![Just(Statistics::Batch), Just(Statistics::Fixed)],
        activation in activation(),
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default().autodiff(), dtype);
        let maps = [place.tensor([batch, height, width, channels], layouts[0], seed)];
        let vector = |seed| place.of(parameters(dtype)).tensor([channels], layouts[1], seed);
        // Scaled so that values reach both kinks of ReLU6.
        let vectors = [vector(seed + 1) * 3.0, vector(seed + 2) * 3.0];
        let (mean, variance) = match statistics {
            Statistics::Batch => channel_statistics(maps[0].clone()),
            Statistics::Fixed => (vector(seed + 3), vector(seed + 4).abs()),
        };
        // Large enough to keep the problem well conditioned with few pixels, whose deviation may be
        // almost zero.
        let epsilon = 0.1;
        let apply = |operation: Operation, m: &[Tensor<4>], v: &[Tensor<1>]| {
            let (gamma, beta) = (v[0].clone(), v[1].clone());
            let [mean, variance] = [&mean, &variance].map(|vector| at(&m[0].device(), vector));
            operation(m[0].clone(), gamma, beta, mean, variance, epsilon, statistics, activation)
        };
        let found = differentiate(&maps, &vectors, |m, v| apply(batch_norm_activation, m, v));
        let expected = define(&maps, &vectors, |m, v| apply(reference::batch_norm_activation, m, v));
        assert_close(&found, &expected, 2.0 * tolerance);
    }

    #[test]
    fn depthwise_between(
        (dtype, tolerance) in precision(),
        (kernel, stride, padding, [height, width]) in window(),
        batch in 1usize..4,
        channels in 1usize..70,
        layouts in [layout(), layout()],
        activation in activation(),
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default(), dtype);
        let x = place.tensor([batch, height, width, channels], layouts[0], seed);
        let place = place.of(parameters(dtype));
        let weight: Tensor<4> = place.tensor([channels, 1, kernel, kernel], layouts[1], seed + 1);
        let shift = |seed| place.tensor([channels], layouts[1], seed) * 3.0;
        let (before, after) = (shift(seed + 2), shift(seed + 3));
        let found = depthwise_between_activations(
            x.clone(), before.clone(), weight.clone(), after.clone(), stride, padding, activation,
        );
        let shifted = shift_activation(x.clone(), before.clone(), activation);
        let home = Device::flex();
        let defined = |x: Tensor<4>, shift: &Tensor<1>| activation.apply(x + at(&home, shift).unsqueeze());
        let seen = defined(at(&home, &x), &before);
        let expected = reference::depthwise_conv2d(seen.clone(), at(&home, &weight), stride, padding);
        let expected = defined(expected, &after);
        assert_close(&[values(found), values(shifted)], &[values(expected), values(seen)], tolerance);
    }

    #[test]
    fn squeeze_excitation(
        (dtype, tolerance) in precision(),
        [batch, height, width, channels] in [1usize..4, 1usize..9, 1usize..9, 1usize..100],
        layouts in [layout(), layout()],
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default().autodiff(), dtype);
        let maps = [
            place.tensor([batch, height, width, channels], layouts[0], seed),
            place.tensor([batch, 1, 1, channels], layouts[1], seed + 1),
        ];
        // The gate depends on the feature map as in a network, and the feature map is used twice.
        let found = differentiate(&maps, &[], |m, _| {
            scale_channels(m[0].clone(), global_average(m[0].clone()) * m[1].clone()) + scale_channels(m[0].clone(), m[1].clone())
        });
        let expected = define(&maps, &[], |m, _| {
            let average = reference::global_average(m[0].clone());
            reference::scale_channels(m[0].clone(), average * m[1].clone()) + reference::scale_channels(m[0].clone(), m[1].clone())
        });
        assert_close(&found, &expected, 2.0 * tolerance);
        // A gate without a gradient.
        let constant = maps[1].clone();
        let found = differentiate(&maps[..1], &[], |m, _| scale_channels(m[0].clone(), constant.clone().detach()));
        let expected = define(&maps[..1], &[], |m, _| reference::scale_channels(m[0].clone(), at(&m[0].device(), &constant)));
        assert_close(&found, &expected, 2.0 * tolerance);
    }

    #[test]
    fn statistics(
        (dtype, tolerance) in precision(),
        [batch, height, width, channels] in [1usize..5, 1usize..40, 1usize..40, 1usize..50],
        layout in layout(),
        offset in prop_oneof![Just(0.0f64), Just(100.0)],
        seed in 0u64..1000,
    ) {
        let place = Place::new(Device::default(), dtype);
        let x = place.tensor([batch, height, width, channels], layout, seed) + offset;
        let (mean, variance) = channel_statistics(x.clone());
        let exact = at(&Device::flex(), &x).cast(DType::F64);
        let (exact_mean, exact_variance) = reference::channel_statistics(exact);
        let (found, expected) = ([values(mean), values(variance)], [values(exact_mean), values(exact_variance)]);
        assert_close(&found, &expected, tolerance);
    }
}

type Operation = fn(Tensor<4>, Tensor<1>, Tensor<1>, Tensor<1>, Tensor<1>, f64, Statistics, Activation) -> Tensor<4>;

#[test]
fn outputs_are_the_same_without_autodiff() {
    for dtype in [DType::F32, DType::F64] {
        let run = |device: Device| {
            let place = Place::new(device, dtype);
            let x = place.tensor([2, 9, 9, 24], Layout::Plain, 1);
            let x = depthwise_conv2d(x, place.tensor([24, 1, 3, 3], Layout::Plain, 2), 2, 1);
            let x = pointwise_conv2d(x, place.tensor([16, 24, 1, 1], Layout::Plain, 3), None);
            let (mean, variance) = channel_statistics(x.clone());
            let vector = |seed| place.tensor([16], Layout::Plain, seed);
            let (batch, silu) = (Statistics::Batch, Activation::Silu);
            values(batch_norm_activation(x, vector(4), vector(5), mean, variance, 1e-5, batch, silu))
        };
        assert_eq!(run(Device::flex()), run(Device::flex().autodiff()));
    }
}

#[test]
fn gradient_checkpointing_keeps_gradients() {
    let run = |device: Device| {
        let place = Place::new(device, DType::F32);
        let maps = [
            place.tensor([2, 6, 6, 8], Layout::Plain, 1),
            place.tensor([8, 1, 3, 3], Layout::Plain, 2),
            place.tensor([4, 8, 1, 1], Layout::Plain, 3),
            place.tensor([3, 4, 1, 1], Layout::Plain, 6),
        ];
        let vectors = [place.tensor([4], Layout::Plain, 4), place.tensor([4], Layout::Plain, 5)];
        differentiate(&maps, &vectors, |m, v| {
            // Operations of Burn that are recomputed come before and between those of this crate.
            let x = depthwise_conv2d(m[0].clone() * 2.0, m[1].clone(), 1, 1);
            let x = pointwise_conv2d(x.exp().clamp(0.0, 3.0), m[2].clone(), None) * 0.5;
            let (mean, variance) = channel_statistics(x.clone());
            let (gamma, beta) = (v[0].clone(), v[1].clone());
            let x = batch_norm_activation(x, gamma, beta, mean, variance, 1e-5, Statistics::Batch, Activation::Silu);
            // Reads a recomputed activation.
            pointwise_conv2d(x, m[3].clone(), None)
        })
    };
    let plain = Device::flex().autodiff();
    assert_eq!(run(plain.clone().gradient_checkpointing()), run(plain));
}

#[test]
fn parameters_get_gradients_in_their_own_precision() {
    let device = Device::flex().autodiff();
    let (maps, single) = (Place::new(device.clone(), DType::BF16), Place::new(device, DType::F32));
    let x = maps.tensor([2, 5, 5, 8], Layout::Plain, 1).require_grad();
    let weight = single.tensor([4, 8, 1, 1], Layout::Plain, 2).require_grad();
    let gamma = single.tensor([4], Layout::Plain, 3).require_grad();
    let y = pointwise_conv2d(x.clone(), weight.clone(), None);
    let (mean, variance) = channel_statistics(y.clone());
    assert_eq!([mean.dtype(), variance.dtype()], [DType::F32; 2]);
    let (batch, silu) = (Statistics::Batch, Activation::Silu);
    let y = batch_norm_activation(y, gamma.clone(), gamma.clone(), mean, variance, 1e-5, batch, silu);
    assert_eq!(y.dtype(), DType::BF16);
    let gradients = y.sum().backward();
    assert_eq!(x.grad(&gradients).unwrap().dtype(), DType::BF16);
    assert_eq!(weight.grad(&gradients).unwrap().dtype(), DType::F32);
    assert_eq!(gamma.grad(&gradients).unwrap().dtype(), DType::F32);
}

#[test]
fn shared_operands_keep_their_values() {
    let place = Place::new(Device::flex(), DType::F32);
    let x = place.tensor([1, 4, 4, 8], Layout::Plain, 1);
    let before = values(x.clone());
    let vector = || place.tensor([8], Layout::Plain, 2).abs();
    let (fixed, silu) = (Statistics::Fixed, Activation::Silu);
    let y = batch_norm_activation(x.clone(), vector(), vector(), vector(), vector(), 1e-5, fixed, silu);
    assert_ne!(values(y), before);
    let gate = || place.tensor([1, 1, 1, 8], Layout::Plain, 3);
    let excited = values(scale_channels(x.clone(), gate()));
    assert_ne!(excited, before);
    assert_eq!(values(x.clone()), before);
    // The last use may compute in place.
    assert_eq!(values(scale_channels(x, gate())), excited);
}

#[test]
fn relu_and_relu6_have_no_gradient_at_their_kinks() {
    for dtype in [DType::F32, DType::F64] {
        let place = Place::new(Device::flex().autodiff(), dtype);
        let data = burn::tensor::TensorData::new(vec![-1.0f32, 0.0, 3.0, 6.0, 7.0], [1, 1, 5, 1]);
        let x = Tensor::<4>::from_data(data, (&place.device, dtype)).require_grad();
        let vector = |value: f32| {
            Tensor::<1>::from_data(burn::tensor::TensorData::new(vec![value], [1]), (&place.device, dtype))
        };
        for (activation, outputs, slopes) in [
            (Activation::Relu6, [0.0, 0.0, 3.0, 6.0, 6.0], [0.0, 0.0, 1.0, 0.0, 0.0]),
            (Activation::Relu, [0.0, 0.0, 3.0, 6.0, 7.0], [0.0, 0.0, 1.0, 1.0, 1.0]),
        ] {
            let [zero, one] = [0.0, 1.0].map(vector);
            let (fixed, mean, beta) = (Statistics::Fixed, zero.clone(), zero);
            let y = batch_norm_activation(x.clone(), one.clone(), beta, mean, one, 0.0, fixed, activation);
            assert_eq!(values(y.clone()), outputs);
            assert_eq!(values(x.grad(&y.sum().backward()).unwrap()), slopes);
            let y = activation.apply(x.clone());
            assert_eq!(values(y.clone()), outputs);
            assert_eq!(values(x.grad(&y.sum().backward()).unwrap()), slopes);
        }
    }
}

/// Uses many tensors of many sizes, some of them shared, whose values must stay unchanged.
#[test]
fn optimizer_steps_of_many_tensors_match_single_steps() {
    let device = Device::default();
    let rules = [
        OptimizerStep::Sgd { decay: 0.1, momentum: 0.0, nesterov: false, lr: 0.3 },
        OptimizerStep::Sgd { decay: 0.1, momentum: 0.9, nesterov: false, lr: 0.3 },
        OptimizerStep::Sgd { decay: 0.1, momentum: 0.9, nesterov: true, lr: 0.3 },
        OptimizerStep::RmsPropTf { decay: 0.1, rise: 0.1, momentum: 0.9, epsilon: 1e-3, lr: 0.3 },
        OptimizerStep::AdamW { keep: 0.9, beta: 0.99, rises: [0.1, 0.01], rate: 0.3, root: 3.0, epsilon: 1e-3 },
    ];
    let sizes: Vec<usize> = (0..75).map(|index| [1, 3, 64, 257, 40_000][index % 5] + index).collect();
    let numbers = |seed: usize| -> Vec<Vec<f32>> {
        let number = |index: usize| ((index * 31 + seed * 17) % 101) as f32 / 50.0 - 1.0;
        sizes.iter().map(|size| (0..*size).map(number).collect()).collect()
    };
    let upload = |lists: &[Vec<f32>]| -> Vec<Tensor<1>> {
        lists.iter().map(|list| Tensor::from_floats(list.as_slice(), &device)).collect()
    };
    let lower = |tensors: Vec<Tensor<1>>| tensors.into_iter().map(Tensor::into_dispatch).collect::<Vec<_>>();
    let read = |tensors: Vec<DispatchTensor>| -> Vec<Vec<f32>> {
        tensors.into_iter().map(|tensor| Tensor::<1>::from_dispatch(tensor).into_data().try_to_vec().unwrap()).collect()
    };
    let close = |found: &[Vec<f32>], expected: &[Vec<f32>], what: &str| {
        for (a, b) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{what}: {a}, not {b}");
        }
        assert_eq!(found.len(), expected.len(), "{what}");
    };
    // With the rule's own numbers, and with numbers in the device's memory that replace those of
    // another rule of its kind.
    let cases = rules.into_iter().zip([0, 1, 1, 2, 2]).flat_map(|case| [(case, false), (case, true)]);
    for ((rule, moments), later) in cases {
        let what = format!("{rule:?}, {later}");
        let (given, later) = if later {
            let all = [&[7.0; 3], &rule.scalars()[..]].concat();
            let all = Tensor::<1>::from_floats(all.as_slice(), &device).into_dispatch();
            (changed(rule), Some(StepScalars { all, start: 3 }))
        } else {
            (rule, None)
        };
        let (mut p, g) = (numbers(1), numbers(2));
        // Mean squares are not negative.
        let positive = numbers(4).into_iter().map(|list| list.into_iter().map(f32::abs).collect()).collect();
        let mut kept = [numbers(3), positive];
        kept[moments..].iter_mut().for_each(|list| list.iter_mut().for_each(Vec::clear));
        let parameters = upload(&p);
        let held = parameters[..20].to_vec();
        let lists = OptimizerTensors {
            parameters: lower(parameters),
            gradients: lower(upload(&g)),
            moments: [0, 1].map(|index| if index < moments { lower(upload(&kept[index])) } else { Vec::new() }),
        };
        let (moved, found) = optimizer_step(lists, given, later);
        let before = p.clone();
        let [first, second] = &mut kept;
        for (((p, g), first), second) in p.iter_mut().zip(&g).zip(first.iter_mut()).zip(second.iter_mut()) {
            rule.apply(p, g, first, second);
        }
        close(&read(moved), &p, &what);
        for (index, found) in found.into_iter().enumerate() {
            assert_eq!(found.len(), if index < moments { sizes.len() } else { 0 }, "{what}");
            if index < moments {
                close(&read(found), &kept[index], &what);
            }
        }
        assert_eq!(read(lower(held)), before[..20], "{what}");
    }
    // Tensors in other precisions keep their precision.
    let double = || Tensor::<1>::ones([3], &Device::flex()).cast(DType::F64).into_dispatch();
    let lists = OptimizerTensors { parameters: vec![double()], gradients: vec![double()], moments: Default::default() };
    let (moved, _) =
        optimizer_step(lists, OptimizerStep::Sgd { decay: 0.0, momentum: 0.0, nesterov: false, lr: 0.25 }, None);
    let moved = Tensor::<1>::from_dispatch(moved.into_iter().next().unwrap());
    assert_eq!((moved.dtype(), moved.into_data().try_to_vec::<f64>().unwrap()), (DType::F64, vec![0.75; 3]));
    for (held, later) in [(0, false), (1, false), (0, true), (1, true)] {
        let averages = upload(&numbers(1));
        let others = averages[..held].to_vec();
        let shares = (0..sizes.len()).map(|index| [0.9, index as f64]);
        let all = Tensor::<1>::from_floats([7.0, 0.9, 3.0], &device).into_dispatch();
        let common = later.then_some(StepScalars { all, start: 1 });
        let found = read(lerp(lower(averages), lower(upload(&numbers(2))), shares, common));
        let pairs = numbers(1).into_iter().zip(numbers(2)).enumerate();
        let take = |index: usize| if later { 3.0 } else { index as f32 };
        let expected: Vec<Vec<f32>> =
            pairs.map(|(i, (a, v))| a.iter().zip(&v).map(|(a, v)| 0.9 * a + take(i) * v).collect()).collect();
        close(&found, &expected, "averages");
        assert_eq!(read(lower(others)), numbers(1)[..held]);
    }
    // GPUs overwrite even shared memory, also with infinities.
    let targets = upload(&numbers(1));
    let others = targets.clone();
    let mut values = numbers(2);
    (values[0][0], values[1][0]) = (f32::INFINITY, f32::NEG_INFINITY);
    assert_eq!(read(overwrite(lower(targets), lower(upload(&values)))), values);
    if std::env::var("BURN_DEVICE").is_ok_and(|name| name != "cpu") {
        assert_eq!(read(lower(others)), values);
    }
}

/// Returns a rule of the same kind with other numbers.
fn changed(rule: OptimizerStep) -> OptimizerStep {
    match rule {
        OptimizerStep::Sgd { momentum, nesterov, .. } => OptimizerStep::Sgd { decay: 9.0, momentum, nesterov, lr: 9.0 },
        OptimizerStep::RmsPropTf { .. } => {
            OptimizerStep::RmsPropTf { decay: 9.0, rise: 9.0, momentum: 9.0, epsilon: 9.0, lr: 9.0 }
        }
        OptimizerStep::AdamW { .. } => {
            OptimizerStep::AdamW { keep: 9.0, beta: 9.0, rises: [9.0; 2], rate: 9.0, root: 9.0, epsilon: 9.0 }
        }
    }
}
