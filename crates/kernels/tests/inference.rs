//! Compares a chain with its layers computed one by one, for any size and number of threads.

use burn::tensor::{DType, Device, Tensor, TensorData, activation::sigmoid};
use mbconv_kernels::{
    Activation,
    inference::{Block, Chain, Gate, Kind, Layer, Padding, Precision, Stage},
    reference,
};
use proptest::{prelude::*, test_runner::RngSeed};

/// Returns numbers between -1 and 1, from a linear congruential generator.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn layer(
    kind: Kind,
    [inputs, outputs]: [usize; 2],
    window: (usize, usize, Padding),
    activation: Activation,
    seed: u32,
) -> Layer {
    let (kernel, stride, padding) = window;
    let fan_in = kernel * kernel * if kind == Kind::Depthwise { 1 } else { inputs };
    let scale = 2.0 / (fan_in as f32).sqrt();
    Layer {
        kind,
        inputs,
        outputs,
        kernel,
        stride,
        padding,
        weight: numbers(outputs * fan_in, seed).into_iter().map(|x| x * scale).collect(),
        bias: numbers(outputs, seed + 1),
        activation,
    }
}

fn pointwise(channels: [usize; 2], activation: Activation, seed: u32) -> Layer {
    layer(Kind::Pointwise, channels, (1, 1, Padding::Even(0)), activation, seed)
}

/// Creates a tensor in double precision.
fn tensor<const D: usize>(data: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), (&Device::flex(), DType::F64))
}

fn plain_layer(x: Tensor<4>, layer: &Layer) -> Tensor<4> {
    let Layer { kind, inputs, outputs, kernel, stride, padding, .. } = *layer;
    let depth = if kind == Kind::Depthwise { 1 } else { inputs };
    let weight = tensor(&layer.weight, [outputs, depth, kernel, kernel]);
    let [batch, height, width, channels] = x.dims();
    let (_, rows) = padding.along(height, kernel, stride);
    let (_, columns) = padding.along(width, kernel, stride);
    let padded = Tensor::zeros(
        [batch, height + rows[0] + rows[1], width + columns[0] + columns[1], channels],
        (&Device::flex(), DType::F64),
    );
    let inner = [0..batch, rows[0]..rows[0] + height, columns[0]..columns[0] + width, 0..channels];
    let x = padded.slice_assign(inner, x);
    let y = match kind {
        Kind::Pointwise | Kind::Dense => reference::conv2d(x, weight, stride, 0),
        Kind::Depthwise => reference::depthwise_conv2d(x, weight, stride, 0),
    };
    layer.activation.apply(y + tensor(&layer.bias, [outputs]).unsqueeze())
}

fn mean(x: Tensor<4>) -> Tensor<4> {
    x.mean_dim(1).mean_dim(2)
}

fn plain_block(x: Tensor<4>, block: &Block) -> Tensor<4> {
    let mut y = x.clone();
    for layer in block.expand.iter().chain(&block.depthwise) {
        y = plain_layer(y, layer);
    }
    if let Some(Gate { reduce, expand }) = &block.gate {
        let gate = plain_layer(plain_layer(mean(y.clone()), reduce), expand);
        y = y * sigmoid(gate);
    }
    let y = plain_layer(y, &block.project);
    if block.residual { y + x } else { y }
}

fn plain(stages: &[Stage], x: Tensor<4>) -> Tensor<4> {
    stages.iter().fold(x, |x, stage| match stage {
        Stage::Layer(layer) => plain_layer(x, layer),
        Stage::Block(block) => plain_block(x, block),
        Stage::Pool => mean(x),
    })
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::Identity), Just(Activation::Relu6), Just(Activation::Silu)]
}

fn window() -> impl Strategy<Value = (usize, usize, Padding)> {
    (prop_oneof![Just(1usize), Just(3), Just(5), Just(7), Just(2)], 1usize..=3).prop_flat_map(|(kernel, stride)| {
        let padding = prop_oneof![Just(Padding::Even(kernel / 2)), Just(Padding::Same)];
        (Just(kernel), Just(stride), padding)
    })
}

/// Generates a block with `inputs` input channels.
fn block(inputs: usize) -> impl Strategy<Value = Block> {
    let shape = (1usize..70, 1usize..50, prop::option::of(1usize..9), window(), activation());
    (shape, any::<bool>(), any::<bool>(), any::<bool>(), 0u32..1000).prop_map(
        move |((hidden, outputs, squeeze, window, activation), expands, fused, residual, seed)| {
            let hidden = if expands || fused { hidden } else { inputs };
            let stays = residual && window.1 == 1 && (fused || window.0 % 2 == 1);
            let outputs = if stays { inputs } else { outputs };
            let expand = match (fused, expands) {
                (true, _) => Some(layer(Kind::Dense, [inputs, hidden], window, activation, seed)),
                (false, true) => Some(pointwise([inputs, hidden], activation, seed)),
                (false, false) => None,
            };
            // Without stride, an even window with even padding changes the size of the feature map.
            let residual = stays && (window.0 % 2 == 1 || window.2 == Padding::Same);
            Block {
                expand,
                depthwise: (!fused).then(|| layer(Kind::Depthwise, [hidden; 2], window, activation, seed + 2)),
                gate: squeeze.map(|squeezed| Gate {
                    reduce: pointwise([hidden, squeezed], activation, seed + 4),
                    expand: pointwise([squeezed, hidden], Activation::Identity, seed + 6),
                }),
                project: pointwise([hidden, outputs], Activation::Identity, seed + 8),
                residual,
            }
        },
    )
}

fn chain() -> impl Strategy<Value = Vec<Stage>> {
    let stem = (1usize..5, 1usize..40, window(), activation(), 0u32..1000);
    (stem, any::<bool>()).prop_flat_map(|((inputs, outputs, window, activation, seed), pools)| {
        let stem = Stage::Layer(layer(Kind::Dense, [inputs, outputs], window, activation, seed));
        block(outputs).prop_map(move |block| {
            let last = block.project.outputs;
            let mut stages = vec![stem.clone(), Stage::Block(Box::new(block))];
            if pools {
                stages.push(Stage::Layer(pointwise([last, 33], activation, seed + 3)));
                stages.push(Stage::Pool);
                stages.push(Stage::Layer(pointwise([33, 10], Activation::Identity, seed + 5)));
            }
            stages
        })
    })
}

fn threads(count: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("threads")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn chains_match_their_layers(stages in chain(), batch in 1usize..5, [height, width] in [4usize..24, 4usize..24], seed in 0u32..1000) {
        let Stage::Layer(stem) = &stages[0] else { unreachable!() };
        let size = [batch, height, width, stem.inputs];
        let images = numbers(size.iter().product(), seed);
        let chain = Chain::new(&stages, Precision::F32);
        let (found, shape) = threads(1).install(|| chain.run(&images, size));
        let expected = plain(&stages, tensor(&images, size));
        prop_assert_eq!(shape, expected.dims());
        let expected: Vec<f64> = expected.into_data().try_to_vec().unwrap();
        let scale = expected.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((f64::from(*found) - expected).abs() < 1e-5 * scale, "{} {}", found, expected);
        }
        for count in [2, 5] {
            let (again, _) = threads(count).install(|| chain.run(&images, size));
            prop_assert!(again.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()), "{} threads", count);
        }
        let chain = Chain::new(&stages, Precision::Bf16);
        let (found, _) = threads(1).install(|| chain.run(&images, size));
        for (found, expected) in found.iter().zip(&expected) {
            // A few successive roundings to 8 bits.
            prop_assert!((f64::from(*found) - expected).abs() < 4e-2 * scale, "bf16: {} {}", found, expected);
        }
        let (again, _) = threads(3).install(|| chain.run(&images, size));
        prop_assert!(again.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()), "bf16, 3 threads");
    }
}

#[test]
fn an_empty_batch_has_an_empty_result() {
    let stages = [Stage::Layer(pointwise([3, 5], Activation::Relu6, 1)), Stage::Pool];
    assert_eq!(Chain::new(&stages, Precision::F32).run(&[], [0, 4, 4, 3]), (vec![], [0, 1, 1, 5]));
}

#[test]
fn feature_maps_of_many_bands_are_complete() {
    // A line of the expanded feature map fills a band, so that every line is computed separately.
    let block = Block {
        expand: Some(pointwise([8, 96], Activation::Relu6, 1)),
        depthwise: Some(layer(Kind::Depthwise, [96; 2], (3, 1, Padding::Even(1)), Activation::Relu6, 2)),
        gate: None,
        project: pointwise([96, 8], Activation::Identity, 3),
        residual: true,
    };
    let stages = [Stage::Block(Box::new(block))];
    let size = [1, 9, 1030, 8];
    let images = numbers(size.iter().product(), 5);
    let (found, _) = threads(2).install(|| Chain::new(&stages, Precision::F32).run(&images, size));
    let expected: Vec<f64> = plain(&stages, tensor(&images, size)).into_data().try_to_vec().unwrap();
    let scale = expected.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
    assert!(found.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-5 * scale));
}
