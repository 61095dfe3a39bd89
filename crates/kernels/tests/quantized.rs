//! Compares 8-bit chains with the reference, for any size and number of threads.

use mbconv_kernels::{
    Activation,
    inference::{Kind, Padding},
    quantized::{Block, Chain, Gate, Layer, Quantizer, Stage, Weights, reference},
};
use proptest::{prelude::*, test_runner::RngSeed};

/// A linear congruential generator.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Returns a number between -1 and 1.
    fn real(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0
    }

    /// Returns a quantizer of values around zero, or of positive values.
    fn quantizer(&mut self, activation: Activation) -> Quantizer {
        let scale = 0.02 + 0.02 * self.real().abs();
        let positive = matches!(activation, Activation::Relu | Activation::Relu6);
        Quantizer { scale, zero_point: if positive { 0 } else { 60 + self.below(130) as u8 } }
    }
}

/// The shape of a window.
#[derive(Clone, Copy, Debug)]
struct Window {
    kernel: usize,
    stride: usize,
    padding: Padding,
}

const POINT: Window = Window { kernel: 1, stride: 1, padding: Padding::Even(0) };

fn layer(
    kind: Kind,
    [inputs, outputs]: [usize; 2],
    Window { kernel, stride, padding }: Window,
    activation: Activation,
    input: Quantizer,
    numbers: &mut Numbers,
) -> Layer {
    let fan_in = kernel * kernel * if kind == Kind::Depthwise { 1 } else { inputs };
    // The extremes are frequent: their products exceed 16 bits in pairs.
    let weight: Vec<i8> = (0..outputs * fan_in)
        .map(|_| match numbers.below(4) {
            0 => 127,
            1 => -127,
            _ => numbers.below(255) as i8,
        })
        .map(|weight| weight.max(-127))
        .collect();
    let scales = (0..outputs).map(|_| (0.3 + numbers.real().abs()) / (fan_in as f32).sqrt() / 90.0).collect();
    let bias = (0..outputs).map(|_| (numbers.real() * 3000.0) as i32).collect();
    let weights = if numbers.below(8) == 0 {
        Weights::Float {
            weight: weight.iter().map(|weight| f32::from(*weight) / (fan_in as f32).sqrt() / 90.0).collect(),
            bias: (0..outputs).map(|_| numbers.real()).collect(),
        }
    } else {
        Weights::Int8 { weight, scales, bias }
    };
    let output = numbers.quantizer(activation);
    Layer { kind, inputs, outputs, kernel, stride, padding, weights, activation, input, output }
}

fn activation(smooth: bool) -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(if smooth { Activation::Silu } else { Activation::Relu6 })
    ]
}

fn window() -> impl Strategy<Value = Window> {
    (prop_oneof![Just(1usize), Just(3), Just(5), Just(7), Just(2)], 1usize..=3, any::<bool>()).prop_map(
        |(kernel, stride, same)| Window {
            kernel,
            stride,
            padding: if same { Padding::Same } else { Padding::Even(kernel / 2) },
        },
    )
}

#[derive(Clone, Debug)]
struct Shape {
    inputs: usize,
    stem: usize,
    hidden: usize,
    outputs: usize,
    squeezed: Option<usize>,
    windows: [Window; 2],
    activation: Activation,
    expands: bool,
    fused: bool,
    residual: bool,
    pools: bool,
    seed: u64,
}

fn shape(smooth: bool) -> impl Strategy<Value = Shape> {
    let channels = (1usize..5, 1usize..40, 1usize..70, 1usize..70);
    let squeezed = prop::option::of(1usize..9).prop_map(move |squeezed| squeezed.filter(|_| smooth));
    let flags = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), any::<bool>());
    (channels, squeezed, [window(), window()], activation(smooth), flags, any::<u64>()).prop_map(
        |((inputs, stem, hidden, outputs), squeezed, windows, activation, flags, seed)| {
            let (expands, fused, residual, pools) = flags;
            Shape {
                inputs,
                stem,
                hidden,
                outputs,
                squeezed,
                windows,
                activation,
                expands,
                fused,
                residual,
                pools,
                seed,
            }
        },
    )
}

fn stages(shape: &Shape) -> Vec<Stage> {
    let Shape { inputs, stem, outputs, activation, .. } = *shape;
    let numbers = &mut Numbers(shape.seed);
    let input = numbers.quantizer(Activation::Identity);
    let first = layer(Kind::Dense, [inputs, stem], shape.windows[0], activation, input, numbers);
    let window = shape.windows[1];
    let hidden = if shape.expands || shape.fused { shape.hidden } else { stem };
    // Without stride, an even window with even padding changes the size of the feature map.
    let keeps_size = window.stride == 1 && (window.kernel % 2 == 1 || window.padding == Padding::Same);
    let residual = shape.residual && keeps_size;
    let outputs = if residual { stem } else { outputs };
    let mut quantizer = first.output;
    let mut next = |layer: Layer| {
        quantizer = layer.output;
        layer
    };
    let expand = match (shape.fused, shape.expands) {
        (true, _) => Some(next(layer(Kind::Dense, [stem, hidden], window, activation, first.output, numbers))),
        (false, true) => Some(next(layer(Kind::Pointwise, [stem, hidden], POINT, activation, first.output, numbers))),
        (false, false) => None,
    };
    let before = expand.as_ref().map_or(first.output, |expand| expand.output);
    let depthwise =
        (!shape.fused).then(|| next(layer(Kind::Depthwise, [hidden; 2], window, activation, before, numbers)));
    let mut into_project = quantizer;
    let gate = shape.squeezed.map(|squeezed| {
        let mean = numbers.quantizer(activation);
        let reduce = layer(Kind::Pointwise, [hidden, squeezed], POINT, activation, mean, numbers);
        let mut expand =
            layer(Kind::Pointwise, [squeezed, hidden], POINT, Activation::Identity, reduce.output, numbers);
        expand.output = Quantizer { scale: 1.0 / 255.0, zero_point: 0 };
        into_project = numbers.quantizer(activation);
        Gate { reduce, expand }
    });
    let project = layer(Kind::Pointwise, [hidden, outputs], POINT, Activation::Identity, into_project, numbers);
    let sum = residual.then(|| numbers.quantizer(Activation::Identity));
    let block = Stage::Block(Box::new(Block { expand, depthwise, gate, project, sum }));
    let mut last = block.output();
    let mut stages = vec![Stage::Layer(first), block];
    if shape.pools {
        let head = layer(Kind::Pointwise, [outputs, 33], POINT, activation, last, numbers);
        last = numbers.quantizer(activation);
        stages.extend([Stage::Layer(head), Stage::Pool(last)]);
        stages.push(Stage::Layer(layer(Kind::Pointwise, [33, 10], POINT, Activation::Identity, last, numbers)));
    }
    stages
}

fn threads(count: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("threads")
}

fn images(size: [usize; 4], seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    (0..size.iter().product()).map(|_| 3.0 * numbers.real()).collect()
}

/// Returns whether a network has a layer in single precision, whose sums depend on their order.
fn has_floats(stages: &[Stage]) -> bool {
    let float = |layer: &Layer| matches!(layer.weights, Weights::Float { .. });
    stages.iter().any(|stage| match stage {
        Stage::Layer(layer) => float(layer),
        Stage::Block(block) => {
            let gate = block.gate.iter().flat_map(|gate| [&gate.reduce, &gate.expand]);
            block.expand.iter().chain(&block.depthwise).chain(gate).chain([&block.project]).any(float)
        }
        Stage::Pool(_) => false,
    })
}

/// Compares a chain with the reference; returns the largest difference in units of `unit`.
fn compare(shape: &Shape, size: [usize; 4]) -> Result<(), TestCaseError> {
    let stages = stages(shape);
    let images = images(size, shape.seed);
    let chain = Chain::new(&stages);
    let (found, found_size) = threads(1).install(|| chain.run(&images, size));
    let (expected, expected_size) = reference::run(&stages, &images, size);
    prop_assert_eq!(found_size, expected_size);
    prop_assert_eq!(found.len(), expected.len());
    let exact = shape.activation != Activation::Silu && shape.squeezed.is_none() && !has_floats(&stages);
    let scale = expected.iter().fold(0.5f32, |scale, value| scale.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        match exact {
            true => prop_assert_eq!(found, expected),
            // A few values may be rounded to the neighboring step.
            false => prop_assert!((found - expected).abs() < 0.06 * scale, "{} {} of {}", found, expected, scale),
        }
    }
    for count in [2, 5] {
        let (again, _) = threads(count).install(|| chain.run(&images, size));
        prop_assert!(again.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()), "{} threads", count);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn piecewise_linear_chains_equal_the_reference(shape in shape(false), batch in 1usize..5, [height, width] in [4usize..24, 4usize..24]) {
        compare(&shape, [batch, height, width, shape.inputs])?;
    }

    #[test]
    fn smooth_chains_match_the_reference(shape in shape(true), batch in 1usize..4, [height, width] in [4usize..20, 4usize..20]) {
        compare(&shape, [batch, height, width, shape.inputs])?;
    }
}

#[test]
fn an_empty_batch_has_an_empty_result() {
    let numbers = &mut Numbers(3);
    let input = numbers.quantizer(Activation::Identity);
    let first = layer(Kind::Pointwise, [3, 5], POINT, Activation::Relu6, input, numbers);
    let stages = [Stage::Layer(first.clone()), Stage::Pool(first.output)];
    assert_eq!(Chain::new(&stages).run(&[], [0, 4, 4, 3]), (vec![], [0, 1, 1, 5]));
}
