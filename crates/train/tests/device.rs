//! Compares a device with the CPU: outputs, gradients, optimizer steps, evaluation and runs.
//!
//! `MBCONV_TEST_DEVICE` is the name of the device, as for `--device`. The build must support it:
//!
//!     MBCONV_TEST_DEVICE=wgpu cargo test --release --workspace --features mbconv/wgpu \
//!         --test device -- --nocapture
//!
//! Without it, or with `cpu`, the tests that compare devices print a message and pass.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Gradients, Int, Tensor, TensorData};
use mbconv_kernels::dropout::{dropout_mask, encode_seed, use_seed};
use mbconv_kernels::optimizer_step::overwrite;
use mbconv_kernels::{Activation, Statistics, batch_norm_activation, channel_statistics};
use mbconv_kernels::{conv2d, depthwise_conv2d, global_average, pointwise_conv2d, scale_channels};
use mbconv_nets::weights::{load_state_dict, state_dict};
use mbconv_nets::{Architecture, Inference, Network, NetworkOptions};
use mbconv_train::classifier::{Classifier, Tta};
use mbconv_train::config::{OptimizerConfig, OptimizerName};
use mbconv_train::data::{self, Loader, LoaderConfig, OpenOptions, Preprocess, TrainTransform, Transform};
use mbconv_train::device::{Device, describe, is_host, parse};
use mbconv_train::evaluate::{Labelled, evaluate};
use mbconv_train::loss::cross_entropy;
use mbconv_train::model_file::{LAST, LAST_EMA};
use mbconv_train::normalize::{images, targets};
use mbconv_train::optimizer::{Clipping, fresh_network, with_stable_ids};
use mbconv_train::{Event, Group, Model, Outcome, Recipe, Run, ema, train};

/// Returns the device under test.
fn device() -> Option<Device> {
    let name = std::env::var("MBCONV_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = parse(&name).unwrap_or_else(|error| panic!("{error}: {}", error.hint().unwrap_or_default()));
    if is_host(&device) {
        eprintln!("nothing is compared with the CPU: MBCONV_TEST_DEVICE names no other device");
        return None;
    }
    eprintln!("on {}", describe(&device));
    Some(device)
}

/// Returns numbers in [-1, 1) that depend only on `seed`.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(shape.iter().product(), seed), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Results by name.
type Results = BTreeMap<String, Vec<f64>>;

/// Returns a factor for the tolerance. NVIDIA's tensor cores round f32 factors to 10 bits (TF32),
/// unless TF32 is disabled.
fn slack() -> f64 {
    let device = std::env::var("MBCONV_TEST_DEVICE").unwrap_or_default();
    let forbidden = std::env::var("NVIDIA_TF32_OVERRIDE").is_ok_and(|value| value == "0");
    if device.starts_with("cuda") && !forbidden { 20.0 } else { 1.0 }
}

/// Fails unless each result agrees within `tolerance` times its largest absolute value, or times
/// `floor` if that is larger.
fn compare(what: &str, found: &Results, expected: &Results, tolerance: f64, floor: impl Fn(&str) -> f64) {
    let tolerance = tolerance * slack();
    assert!(found.keys().eq(expected.keys()), "{what}: {:?}, not {:?}", found.keys(), expected.keys());
    let mut worst = (0.0, "nothing");
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.len(), expected.len(), "{what}: {name}");
        let scale = expected.iter().fold(floor(name), |scale, value| scale.max(value.abs()));
        for (a, b) in found.iter().zip(expected) {
            let difference = (a - b).abs() / scale;
            assert!(difference <= tolerance, "{what}: {name}: {a}, not {b} (scale {scale:.3e})");
            if difference > worst.0 {
                worst = (difference, name);
            }
        }
    }
    eprintln!("{what}: differs by at most {:.1e}, in {}", worst.0, worst.1);
}

/// Returns the output of an operation and its gradients for all operands.
fn differentiate<const N: usize, const M: usize>(
    maps: [[usize; 4]; N],
    vectors: [usize; M],
    device: &Device,
    operation: impl Fn([Tensor<4>; N], [Tensor<1>; M]) -> Tensor<4>,
) -> Results {
    let device = device.clone().autodiff();
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        seed
    };
    let maps = maps.map(|shape| tensor(shape, next(), &device).require_grad());
    let vectors = vectors.map(|length| (tensor([length], next(), &device) * 3.0).require_grad());
    let y = operation(maps.clone(), vectors.clone());
    let weights = tensor(y.dims(), 99, &device);
    let gradients = (y.clone() * weights).sum().backward();
    let mut results = Results::from([("output".to_string(), values(y))]);
    for (index, map) in maps.iter().enumerate() {
        results.insert(format!("gradient of map {index}"), values(map.grad(&gradients).unwrap()));
    }
    for (index, vector) in vectors.iter().enumerate() {
        results.insert(format!("gradient of vector {index}"), values(vector.grad(&gradients).unwrap()));
    }
    results
}

fn same<const N: usize, const M: usize>(
    what: &str,
    device: &Device,
    maps: [[usize; 4]; N],
    vectors: [usize; M],
    operation: impl Fn([Tensor<4>; N], [Tensor<1>; M]) -> Tensor<4>,
) {
    let [found, expected] = [device, &Device::flex()].map(|device| differentiate(maps, vectors, device, &operation));
    compare(what, &found, &expected, 1e-4, |_| 1e-3);
}

#[test]
fn operations_and_gradients_match_the_cpu() {
    let Some(device) = device() else { return };
    // A few pixels, and enough pixels that sums over them are split into slices.
    for [height, width] in [[5, 7], [48, 44]] {
        let maps = [[2, height, width, 12], [20, 12, 1, 1]];
        same("pointwise", &device, maps, [20], |[x, weight], [bias]| pointwise_conv2d(x, weight, Some(bias)));
    }
    // Kernel, stride, padding, height, width, channels: even and odd sides, sides smaller than the
    // kernel, and a remaining row.
    for (kernel, stride, padding, height, width, channels) in
        [(3, 1, 1, 8, 8, 16), (3, 2, 1, 9, 8, 7), (5, 1, 2, 7, 5, 24), (5, 2, 2, 11, 10, 8), (7, 3, 3, 4, 9, 5)]
    {
        let what = format!("depthwise {kernel}×{kernel}, stride {stride}");
        let maps = [[2, height, width, channels], [channels, 1, kernel, kernel]];
        same(&what, &device, maps, [], |[x, weight], []| depthwise_conv2d(x, weight, stride, padding));
    }
    for activation in [Activation::Identity, Activation::Relu, Activation::Relu6, Activation::Silu] {
        for statistics in [Statistics::Batch, Statistics::Fixed] {
            let what = format!("normalisation, {statistics:?}, {activation:?}");
            // A few pixels, and enough pixels that statistics are computed in slices.
            for map in [[3, 5, 4, 10], [3, 41, 37, 16]] {
                same(&what, &device, [map], [map[3]; 2], |[x], [gamma, beta]| {
                    let (mean, variance) = channel_statistics(x.clone());
                    batch_norm_activation(x, gamma, beta, mean, variance, 0.1, statistics, activation)
                });
            }
        }
    }
    for [height, width, channels] in [[7, 5, 12], [1, 1, 7], [40, 30, 65]] {
        let what = format!("excitation, {height}×{width}");
        let maps = [[3, height, width, channels], [3, 1, 1, channels]];
        same(&what, &device, maps, [], |[x, gate], []| scale_channels(x.clone(), global_average(x) * gate));
    }
    for (kernel, stride, padding, side, channels) in
        [(3, 2, 1, 9, 3), (3, 2, 1, 64, 3), (3, 1, 1, 6, 4), (5, 2, 2, 8, 1), (3, 1, 1, 6, 12), (3, 2, 1, 65, 16)]
    {
        let what = format!("dense {kernel}×{kernel}, stride {stride}, {channels} channels");
        same(&what, &device, [[2, side, side, channels], [8, channels, kernel, kernel]], [], |[x, weight], []| {
            conv2d(x, weight, stride, padding)
        });
    }
}

#[test]
fn pointwise_convolutions_of_empty_feature_maps_are_empty() {
    let Some(device) = device() else { return };
    for [images, height, width] in [[2, 0, 3], [2, 3, 0], [0, 3, 3]] {
        let (x, weight) = (tensor([images, height, width, 4], 1, &device), tensor([5, 4, 1, 1], 2, &device));
        let y = pointwise_conv2d(x, weight, None);
        assert_eq!(y.dims(), [images, height, width, 5]);
        assert!(values(y).is_empty());
    }
}

#[test]
fn overwriting_a_tensor_copies_infinities() {
    let Some(device) = device() else { return };
    let written = [f32::INFINITY, -1.5, f32::NEG_INFINITY];
    let [target, value] = [[0.0; 3], written].map(|values| Tensor::<1>::from_floats(values, &device).into_dispatch());
    let found = overwrite(vec![target], vec![value]).into_iter().next().unwrap();
    assert_eq!(values(Tensor::<1>::from_dispatch(found)), written.map(f64::from));
}

/// Small networks with all features of the published ones. They are small because a device tunes
/// kernels for each shape.
const NETWORKS: [(&str, &str, usize); 3] = [
    (
        "MobileNetV2",
        r#"
        name = "mobilenet"
        family = "mobilenet_v2"
        activation = "relu6"
        squeeze_divisor = 0
        stages = [
            { channels = 8 },
            { channels = 8, expansion = 6, stride = 2, repeats = 2 },
        ]
        "#,
        24,
    ),
    (
        "EfficientNet",
        r#"
        name = "efficientnet"
        stages = [
            { channels = 8 },
            { channels = 8, expansion = 6, kernel = 5, stride = 2, repeats = 2 },
        ]
        "#,
        21,
    ),
    (
        "EdgeTPU, TensorFlow's padding",
        r#"
        name = "edge"
        activation = "relu"
        padding = "same"
        stages = [
            { channels = 8, expansion = 4, fused = true, stride = 2, squeeze = false },
            { channels = 8, expansion = 2, kernel = 5, repeats = 2 },
        ]
        "#,
        22,
    ),
];

fn architecture(table: &str) -> Architecture {
    let table = format!("stem = 8\nhead = 24\ndropout = 0.0\ndrop_path = 0.0\n{table}");
    NetworkOptions::of_table(toml::from_str(&table).unwrap(), 5).architecture().unwrap()
}

/// Creates a network whose weights depend only on their names and shapes.
fn network(architecture: &Architecture, device: &Device) -> Network {
    let network = Network::new(architecture, device);
    let fill = |(index, (info, data)): (usize, (mbconv_nets::layout::TensorInfo, TensorData))| {
        let fan_in = info.shape[1..].iter().product::<usize>() as f32;
        let (offset, scale) = match (info.key.ends_with("running_var"), info.shape.len()) {
            (true, _) => (1.0, 0.5),
            (false, 1) if info.path.ends_with("norm.gamma") => (1.0, 0.3),
            (false, 1) => (0.0, 0.2),
            _ => (0.0, (6.0 / fan_in).sqrt()),
        };
        let drawn = numbers(data.num_elements(), index as u64 + 7);
        let filled: Vec<f32> = drawn.into_iter().map(|value| offset + scale * value).collect();
        (info.key, TensorData::new(filled, info.shape))
    };
    let state = state_dict(&network).into_iter().enumerate().map(fill).collect();
    with_stable_ids(load_state_dict(network, state).unwrap())
}

fn state(prefix: &str, network: &Network) -> impl Iterator<Item = (String, Vec<f64>)> + use<> {
    let named = |(info, data): (mbconv_nets::layout::TensorInfo, TensorData)| {
        (format!("{prefix} {}", info.key), data.iter::<f64>().collect())
    };
    state_dict(network).into_iter().map(named).collect::<Vec<_>>().into_iter()
}

struct Collector<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: Results,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(format!("gradient {}", self.path.join(".")), values(gradient));
        }
    }
}

/// Returns inference, loss, gradients, running statistics, and the weights after one step of each
/// optimizer.
fn everything(architecture: &Architecture, side: usize, device: &Device) -> Results {
    let autodiff = device.clone().autodiff();
    let shape = [4, side, side, 3];
    let mut results = Results::new();
    let network_here = network(architecture, device);
    let images = tensor(shape, 3, device);
    results.insert("logits".into(), values(network_here.forward_channels_last(images.clone())));
    results.insert("folded logits".into(), values(Inference::new(&network_here).forward_channels_last(images)));

    let config = |name| OptimizerConfig {
        name,
        learning_rate: 0.1,
        weight_decay: 0.01,
        // Large, so that gradients that consist of rounding errors give small steps.
        epsilon: Some(1e-2),
        ..OptimizerConfig::default()
    };
    for name in [OptimizerName::Sgd, OptimizerName::RmspropTf, OptimizerName::AdamW] {
        let network = network(architecture, &autodiff);
        let before = network.valid();
        let labels = Tensor::<1, Int>::from_ints([0, 1, 2, 4], &autodiff);
        let logits = network.forward_channels_last(tensor(shape, 3, &autodiff));
        let losses = cross_entropy(logits.clone(), labels, 0.1);
        let gradients = losses.clone().mean().backward();
        let mut collector = Collector { path: Vec::new(), gradients: &gradients, found: Results::new() };
        network.visit(&mut collector);
        let found = collector.found;
        let mut gradients = GradientsParams::from_grads(gradients, &network);
        Clipping { norm: Some(1.0), adaptive: Some(0.5) }.apply(&network, &mut gradients);
        let network = config(name).init(architecture).step(0.1, network, gradients);
        results.insert("training logits".into(), values(logits));
        results.insert("losses".into(), values(losses));
        results.extend(found);
        results.extend(state(&format!("after {name:?}"), &network));
        if name == OptimizerName::Sgd {
            results.extend(state("average", &ema::update(before, &network, 0.75)));
        }
    }
    results
}

#[test]
fn networks_train_and_evaluate_as_on_the_cpu() {
    let Some(device) = device() else { return };
    for (what, table, side) in NETWORKS {
        let architecture = architecture(table);
        let expected = everything(&architecture, side, &Device::flex());
        let gradients = expected.iter().filter(|(name, _)| name.starts_with("gradient"));
        let largest = gradients.flat_map(|(_, values)| values).fold(0.0f64, |most, value| most.max(value.abs()));
        assert!(largest > 1e-2, "{what}: {largest}");
        let found = everything(&architecture, side, &device);
        // Gradients that consist of rounding errors are compared relative to the others.
        let floor = |name: &str| if name.starts_with("gradient") { largest / 100.0 } else { 0.1 };
        compare(what, &found, &expected, 2e-3, floor);
    }
}

/// Returns the logits and gradients of a training step with feature maps in a precision.
fn step_in(architecture: &Architecture, side: usize, device: &Device, dtype: DType) -> [Vec<f64>; 2] {
    let device = device.clone().autodiff();
    let network = network(architecture, &device);
    let labels = Tensor::<1, Int>::from_ints([0, 1, 2, 4, 3, 2, 1, 0], &device);
    let logits = network.forward_channels_last(tensor([8, side, side, 3], 3, &device).cast(dtype));
    assert_eq!(logits.dtype(), DType::F32);
    let gradients = cross_entropy(logits.clone(), labels, 0.1).mean().backward();
    let mut collector = Collector { path: Vec::new(), gradients: &gradients, found: Results::new() };
    network.visit(&mut collector);
    [values(logits), collector.found.into_values().flatten().collect()]
}

/// Tests bf16, or f16 if bf16 is not supported; also on the CPU.
#[test]
fn networks_in_16_bits_are_close_to_f32() {
    let device = device().unwrap_or(Device::flex());
    let Some(dtype) = [DType::BF16, DType::F16].into_iter().find(|dtype| device.supports_dtype(*dtype)) else {
        return eprintln!("{} has no floats of 16 bits", describe(&device));
    };
    for (what, table, side) in NETWORKS {
        let architecture = architecture(table);
        let expected = step_in(&architecture, side, &Device::flex(), DType::F32);
        let found = step_in(&architecture, side, &device, dtype);
        let mut pairs: Vec<_> = ["logits", "gradients"].into_iter().zip(found.into_iter().zip(expected)).collect();
        if dtype == DType::BF16 {
            let evaluate = |inference: Inference, device| {
                values(inference.forward_channels_last(tensor([8, side, side, 3], 3, device)))
            };
            let found = evaluate(Inference::in_bf16(&network(&architecture, &device)), &device);
            let expected = evaluate(Inference::new(&network(&architecture, &Device::flex())), &Device::flex());
            pairs.push(("folded logits", (found, expected)));
        }
        for (which, (found, expected)) in &pairs {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
            eprintln!("{what} in {dtype:?}: {which} of cosine {cosine:.5}");
            assert!(cosine > 0.97, "{what}: {which} of cosine {cosine}");
        }
    }
}

#[test]
fn gradient_checkpointing_does_not_change_gradients() {
    let Some(device) = device() else { return };
    let (_, table, side) = NETWORKS[0];
    let architecture = architecture(table);
    let run = |device: Device| {
        let network = network(&architecture, &device);
        let loss = network.forward_channels_last(tensor([4, side, side, 3], 3, &device)).square().mean();
        let gradients = loss.backward();
        let mut collector = Collector { path: Vec::new(), gradients: &gradients, found: Results::new() };
        network.visit(&mut collector);
        collector.found
    };
    let autodiff = device.autodiff();
    let expected = run(autodiff.clone());
    compare("checkpointing", &run(autodiff.gradient_checkpointing()), &expected, 1e-4, |_| 1e-3);
}

#[test]
fn evaluation_matches_the_cpu() {
    let Some(device) = device() else { return };
    let data = data::open("digits", &OpenOptions::default()).unwrap();
    let architecture = architecture(NETWORKS[0].1);
    let recipe = Recipe::parse(RECIPE, &["model.name=mobilenet_v2_0.25".into()]).unwrap();
    let preprocess = recipe.preprocess();
    let names: Vec<String> = (0..5).map(|class| class.to_string()).collect();
    let evaluation = |device: &Device| {
        let source = data.val.clone().unwrap();
        // The last batch is smaller than the others.
        let config = LoaderConfig { batch_size: 256, ..LoaderConfig::default() };
        let loader = Loader::new(source, Transform::Eval(preprocess.clone()), config);
        // Maps ten digits to five classes.
        let labelled = Labelled { loader: &loader, labels: (0..10).map(|label| label / 2).collect() };
        let network = Inference::new(&network(&architecture, device));
        let classifier =
            Classifier { network: &network, preprocess: &preprocess, device, tta: Tta::Flip, multi_label: false };
        evaluate(&classifier, &labelled, &names, &AtomicBool::new(false), &mut |_| ()).unwrap()
    };
    let (found, expected) = (evaluation(&device), evaluation(&Device::flex()));
    assert_eq!((found.images, found.predictions.len()), (expected.images, expected.predictions.len()));
    assert!(found.images % 256 != 0);
    let chosen = found.predictions.iter().zip(&expected.predictions).filter(|(a, b)| a.chosen == b.chosen).count();
    assert!(chosen + 1 >= found.images, "{chosen} of {} agree", found.images);
    for (a, b) in found.predictions.iter().zip(&expected.predictions) {
        assert_eq!((a.index, a.label), (b.index, b.label));
        assert!((a.loss - b.loss).abs() < 1e-3 * b.loss.max(1.0), "{a:?}, not {b:?}");
        assert!((a.probability - b.probability).abs() < 1e-3, "{a:?}, not {b:?}");
    }
}

const RECIPE: &str = r#"
epochs = 2
batch_size = 256
[model]
dropout = 0.2
drop_path = 0.1
[data]
path = "digits"
[input]
size = 8
crop = "pad"
padding = 1
[optimizer]
name = "sgd"
learning_rate = 0.05
clip_norm = 1.0
[schedule]
name = "cosine"
[ema]
decay = 0.9
"#;

#[test]
fn seed_initializes_the_same_weights_on_every_device() {
    let Some(device) = device() else { return };
    let architecture = architecture(NETWORKS[1].1);
    let [here, there] =
        [Device::flex(), device].map(|device| state("fresh", &fresh_network(&architecture, 7, &device.autodiff())));
    assert!(here.eq(there));
}

#[test]
fn seed_gives_the_same_dropout_mask_on_every_device() {
    let Some(device) = device() else { return };
    let drawn = |device: &Device, seed: u64| {
        let numbers = Tensor::<1>::from_floats(encode_seed(seed), device);
        let _drawing = use_seed(numbers.into_dispatch());
        [(1, 0.5), (77, 0.2), (10_007, 0.1)]
            .map(|(count, probability)| values(dropout_mask(count, probability).unwrap()))
            .concat()
    };
    for seed in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
        let [found, expected] = [&device, &Device::flex()].map(|device| drawn(device, seed));
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-6, "{seed}: {a}, not {b}");
        }
    }
}

/// Compares images augmented on the device with those of the loader's threads. Later operations may
/// amplify a rounding difference of 1 of 255, so a few values may differ, but not the mean.
#[test]
fn augmentation_on_the_device_matches_the_loader() {
    let device = device().unwrap_or(Device::flex());
    let data = data::open("digits", &OpenOptions::default()).unwrap();
    let preprocess = Preprocess { mean: [0.0; 3], std: [1.0 / 255.0; 3], ..Preprocess::default() };
    let batch = |settings: &[&str], on: &str| {
        let on = format!("augment.on={on}");
        let settings: Vec<String> = settings.iter().chain([&&*on]).map(|setting| setting.to_string()).collect();
        let recipe = Recipe::parse(RECIPE, &settings).unwrap();
        let transform = recipe.train_transform_for(&device);
        // Tests the CPU as a device for deferred augmentation.
        let deferred = transform.deferred || on == "augment.on=device";
        let config = LoaderConfig { batch_size: 96, shuffle: true, ..LoaderConfig::default() };
        let transform = Transform::Train(TrainTransform { deferred, ..transform });
        let loader = Loader::new(data.split("train").unwrap(), transform, config);
        let batch = loader.epoch(1).next().unwrap().unwrap();
        assert_eq!(batch.plans.iter().any(|plan| !plan.is_empty()), deferred);
        batch
    };
    for settings in [
        &["augment.on=auto"][..],
        &["augment.vertical_flip=0.5", "augment.erasing={probability=0.7,mode='pixel',count=[1,3]}"],
        &["augment.color_jitter=[0.4,0.4,0.4,0.1]", "input.padding=0", "augment.erasing.probability=0.5"],
        &["augment.policy=rand-m9-mstd0.5-inc1", "augment.erasing={probability=0.7,mode='rand'}"],
        &["augment.policy=rand-m6-t3a-inc1", "input.progressive={start=16,stages=2}"],
        &["augment.policy=3a", "augment.interpolation=bicubic"],
        &["augment.policy=ta_wide", "input.crop=centre", "model.input_channels=1"],
        &["augment.policy=augmix-m5-w4-d2", "augment.color_jitter=0.3"],
        &["augment.policy=augmix-m3-b1"],
        &["input.size=[16, 40]", "augment.policy=ta_wide", "augment.erasing.probability=0.5"],
        &["input.size=[40, 24]", "input.crop=random_resized", "augment.policy=rand-m9-mstd0.5-inc1"],
    ] {
        let settings: Vec<&str> =
            ["input.size=24", "model.name=mobilenet_v2"].into_iter().chain(settings.iter().copied()).collect();
        let [mut workers, mut deferred] = ["workers", "device"].map(|on| batch(&settings, on));
        assert_eq!(workers.indices, deferred.indices);
        assert_eq!([workers.height, workers.width], [deferred.height, deferred.width]);
        assert_ne!(workers.images, deferred.images);
        let preprocess =
            preprocess.clone().with_channels(if settings.contains(&"model.input_channels=1") { 1 } else { 3 });
        let expected = values(images(&mut workers, &preprocess, &Device::flex()));
        let found = values(images(&mut deferred, &preprocess, &device));
        assert_eq!(found.len(), expected.len());
        let differences: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
        let apart = differences.iter().filter(|difference| **difference > 0.5).count() as f64 / found.len() as f64;
        let mean = differences.iter().sum::<f64>() / found.len() as f64;
        eprintln!("{settings:?}: {:.3} % of values differ, on average by {mean:.4}", 100.0 * apart);
        let (most_apart, most) = if is_host(&device) { (1e-3, 1e-3) } else { (0.02, 0.05) };
        assert!(apart <= most_apart && mean <= most, "{settings:?}: {apart} {mean}");
    }
}

/// Images are augmented and mixed on the device. The model is evaluated on the CPU.
#[test]
fn resumed_run_ends_as_an_uninterrupted_one() {
    let Some(device) = device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table.toml");
    std::fs::write(&table, format!("stem = 8\nhead = 24\n{}", NETWORKS[0].1)).unwrap();
    let table = format!("model.table=\"{}\"", table.display());
    let settings = ["mix.mixup=0.4", "mix.cutmix=1", "augment.on=device", "augment.policy=ta_wide"].map(String::from);
    let recipe = Recipe::parse(RECIPE, &[&[table], &settings[..]].concat()).unwrap();
    let data = data::open("digits", &OpenOptions::default()).unwrap();
    let go = |out: &str, resume: bool, stop_at: Option<u64>| {
        let stop = AtomicBool::new(false);
        let out = folder.path().join(out);
        let group = Group::alone();
        let run = Run {
            recipe: &recipe,
            data: &data,
            out: &out,
            device: &device,
            group: &group,
            resume,
            settings: None,
            lock: None,
            stop: &stop,
        };
        let mut observer = |event: Event| match event {
            Event::Train { step, .. } if stop_at == Some(step) => stop.store(true, Ordering::Relaxed),
            _ => {}
        };
        train(run, &mut observer).unwrap()
    };
    let whole = go("whole", false, None);
    // Stops at the last step of the first epoch; resuming takes a step of the second epoch first.
    assert_eq!(go("parts", false, Some(5)), Outcome::Interrupted);
    let parts = go("parts", true, None);
    let [(whole_best, whole), (parts_best, parts)] = [(whole, "whole"), (parts, "parts")].map(|(outcome, out)| {
        let Outcome::Finished { best: Some(best) } = outcome else { panic!("{outcome:?}") };
        let model = Model::open(&folder.path().join(out).join(LAST), &Device::flex()).unwrap();
        (best, state("model", &model.network).collect::<Results>())
    });
    compare("resumed", &parts, &whole, 1e-4, |_| 1e-2);
    assert!((whole_best.loss - parts_best.loss).abs() < 1e-3, "{whole_best:?} {parts_best:?}");
}

/// Also checks that memory does not grow from epoch to epoch.
#[test]
fn replayed_steps_match_queued_steps() {
    let Some(device) = device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = data::open("digits", &OpenOptions::default()).unwrap();
    // Covers all rules, epochs that train only the classifier, progressive sizes, gradient
    // checkpointing, and a teacher, which is the model of the first run.
    let teacher = format!("distillation.teacher='{}'", folder.path().join("0 true").join(LAST).display());
    for (number, (network, settings)) in [
        (0, &["epochs=4", "augment.on=device", "optimizer.adaptive_clip=0.05"][..]),
        (1, &["epochs=3", "optimizer.name=adamw", "optimizer.learning_rate=0.002", "mix.mixup=0.4", &teacher]),
        (1, &["epochs=4", "finetune.head_epochs=2", "loss.name=focal", "gradient_checkpointing=true"]),
        (
            2,
            &[
                "epochs=4",
                "input.progressive={start=6,stages=2}",
                "optimizer.name=rmsprop_tf",
                "optimizer.layer_decay=0.9",
                "loss.name=bce",
                "loss.class_weights=balanced",
            ],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{number}.toml"));
        std::fs::write(&path, format!("stem = 8\nhead = 24\n{}", NETWORKS[network].1)).unwrap();
        let go = |record: bool| {
            let own = [format!("model.table=\"{}\"", path.display()), format!("record_steps={record}")];
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).chain(own).collect();
            let recipe = Recipe::parse(RECIPE, &settings).unwrap();
            let (out, group, stop) =
                (folder.path().join(format!("{number} {record}")), Group::alone(), AtomicBool::new(false));
            let run = Run {
                recipe: &recipe,
                data: &data,
                out: &out,
                device: &device,
                group: &group,
                resume: false,
                settings: None,
                lock: None,
                stop: &stop,
            };
            let (mut used, mut lines) = (Vec::new(), String::new());
            let mut observer = |event: Event| match event {
                Event::Epoch(_) => used.extend(device.memory_pool_usage().map(|usage| usage.bytes_reserved)),
                Event::Line(line) => lines += line,
                _ => {}
            };
            train(run, &mut observer).unwrap();
            assert_eq!(lines.contains("replayed"), record, "{lines}");
            let models = [LAST, LAST_EMA].map(|name| {
                let model = Model::open(&out.join(name), &Device::flex()).unwrap();
                state(name, &model.network).collect::<Results>()
            });
            let [last, average] = models;
            let csv = std::fs::read_to_string(out.join("metrics.csv")).unwrap();
            let losses = csv.lines().skip(1).map(|row| row.split(',').nth(2).unwrap().parse().unwrap());
            let losses = ("losses".to_string(), losses.collect());
            (last.into_iter().chain(average).chain([losses]).collect::<Results>(), used)
        };
        let ((found, used), (expected, _)) = (go(true), go(false));
        compare(&format!("recorded, {settings:?}"), &found, &expected, 1e-6, |_| 1e-2);
        if number == 0 {
            eprintln!("bytes reserved after each epoch: {used:?}");
            assert!(used.last() <= used.get(2), "{used:?}");
        }
    }
}

/// Trains with images augmented on the device.
#[test]
fn device_memory_does_not_grow_across_epochs() {
    let Some(device) = device() else { return };
    let (_, table, side) = NETWORKS[0];
    let architecture = architecture(table);
    let autodiff = device.clone().autodiff();
    let settings = ["model.name=mobilenet_v2", "augment.on=device", "augment.policy=ta_wide"].map(String::from);
    let recipe = Recipe::parse(RECIPE, &[&settings[..], &[format!("input.size={side}")]].concat()).unwrap();
    let transform = Transform::Train(recipe.train_transform_for(&device));
    let data = data::open("digits", &OpenOptions::default()).unwrap();
    let config = LoaderConfig { batch_size: 179, shuffle: true, drop_last: true, ..LoaderConfig::default() };
    let loader = Loader::new(data.split("train").unwrap(), transform, config);
    let mut trained = network(&architecture, &autodiff);
    let mut optimizer = OptimizerConfig::default().init(&architecture);
    let mut used = Vec::new();
    for epoch in 0..3 {
        for batch in loader.epoch(epoch) {
            let mut batch = batch.unwrap();
            batch.labels.iter_mut().for_each(|label| *label %= 5);
            let logits = trained.forward_channels_last(images(&mut batch, &recipe.preprocess(), &autodiff));
            let loss = cross_entropy(logits, targets(&batch, &autodiff), 0.0).mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &trained);
            trained = optimizer.step(0.01, trained, gradients);
        }
        device.sync().unwrap();
        let Some(usage) = device.memory_pool_usage() else { return };
        used.push((usage.bytes_in_use, usage.bytes_reserved));
    }
    eprintln!("bytes in use and reserved after each of three epochs: {used:?}");
    assert!(used[2].0 <= used[1].0 && used[2].1 <= used[1].1, "{used:?}");
}
