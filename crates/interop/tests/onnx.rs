//! Checks the contents of ONNX files, and runs them in a small interpreter to compare the results
//! with the network.

mod interpreter;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use interpreter::{Value, run};
use mbconv_image::Preprocess;
use mbconv_interop::model_file::MultiLabel;
use mbconv_interop::onnx::proto::{self, FLOAT, FLOAT16, Size, UINT8};
use mbconv_interop::onnx::{OPSET, OnnxError, OnnxOptions, to_onnx};
use mbconv_interop::{Model, ModelCard};
use mbconv_nets::layout::Role;
use mbconv_nets::weights::{Precision, load_state_dict, state_dict};
use mbconv_nets::{Network, NetworkOptions, Strides};
use prost::Message;

const HEIGHT: usize = 32;
const WIDTH: usize = 45;
const IMAGES: usize = 2;

/// Returns a network whose batch-norms have statistics as after training, so that errors in folding
/// them would show.
fn model(name: &str, strides: Strides) -> (Network, ModelCard) {
    let device = Device::default();
    device.seed(11);
    let mut options = NetworkOptions::new(name, 5);
    options.strides = strides;
    let network = options.architecture().unwrap().init(&device);
    let state = state_dict(&network).into_iter().map(|(info, data)| {
        let wave = |i: usize| (i as f32 * 1.7 + info.key.len() as f32).sin();
        let values: Vec<f32> = match (info.role, info.key.ends_with("running_var"), info.key.ends_with("weight")) {
            (Role::Weight, ..) => data.iter::<f32>().collect(),
            (Role::Statistic, true, _) => (0..info.elements()).map(|i| 1.0 + 0.5 * wave(i)).collect(),
            (Role::Statistic, false, _) => (0..info.elements()).map(|i| 0.3 * wave(i)).collect(),
            (Role::NormOrBias, _, true) => (0..info.elements()).map(|i| 1.0 + 0.3 * wave(i)).collect(),
            (Role::NormOrBias, ..) => (0..info.elements()).map(|i| 0.2 * wave(i)).collect(),
        };
        (info.key, TensorData::new(values, info.shape))
    });
    let network = load_state_dict(network.clone(), state.collect()).unwrap();
    let preprocess = Preprocess { resize: 40.into(), crop: [HEIGHT, WIDTH].into(), ..Preprocess::default() };
    let classes = ["cat", "dog", "\"quoted\"", "größer", "e"].map(String::from).into();
    (network, ModelCard::new(options, classes, preprocess))
}

fn decode(bytes: &[u8]) -> proto::Model {
    proto::Model::decode(bytes).unwrap()
}

/// Returns pixels, `[N, H, W, 3]`.
fn pixels() -> Vec<u8> {
    (0..IMAGES * HEIGHT * WIDTH * 3).map(|i| ((i * 37 + i / 96 * 11) % 256) as u8).collect()
}

fn normalized(card: &ModelCard) -> Tensor<4> {
    let Preprocess { mean, std, .. } = card.preprocess;
    let values: Vec<f32> =
        pixels().iter().enumerate().map(|(i, &p)| (f32::from(p) / 255.0 - mean[i % 3]) / std[i % 3]).collect();
    Tensor::<1>::from_floats(values.as_slice(), &Device::default())
        .reshape([IMAGES, HEIGHT, WIDTH, 3])
        .permute([0, 3, 1, 2])
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{found:?} {expected:?}");
    }
}

#[test]
fn exported_model_reproduces_logits_in_the_interpreter() {
    for (name, strides) in [
        ("mobilenet_v2_0.1", Strides::Imagenet),
        ("mobilenet_v2_0.1", Strides::Custom(vec![1, 1, 2, 3, 1, 2, 1, 2])),
        ("efficientnet_b0", Strides::Imagenet),
        ("tf_mobilenet_v2_0.1", Strides::Imagenet),
    ] {
        let (network, card) = model(name, strides);
        let images = normalized(&card);
        let expected = numbers(network.forward(images.clone()));
        let scale = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
        assert!(scale > 0.01, "the logits are too similar for a comparison: {expected:?}");
        let input = Value::new([IMAGES, 3, HEIGHT, WIDTH], numbers(images));

        let plain = decode(&to_onnx(&network, &card, OnnxOptions::default()).unwrap());
        assert_near(&run(&plain, "input", input.clone())["logits"].data, &expected, 1e-5 * scale.max(1.0));

        let options = OnnxOptions { precision: Precision::F16, ..OnnxOptions::default() };
        let half = decode(&to_onnx(&network, &card, options).unwrap());
        assert_near(&run(&half, "input", input)["logits"].data, &expected, 0.02 * scale);

        let options = OnnxOptions { preprocessing: true, softmax: true, ..OnnxOptions::default() };
        let whole = decode(&to_onnx(&network, &card, options).unwrap());
        let bytes = Value::new([IMAGES, HEIGHT, WIDTH, 3], pixels().iter().map(|&p| f32::from(p)).collect());
        let softmax: Vec<f32> = expected
            .chunks(5)
            .flat_map(|row| {
                let sum: f32 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(move |x| x.exp() / sum)
            })
            .collect();
        assert_near(&run(&whole, "image", bytes.clone())["probabilities"].data, &softmax, 1e-5);

        let card = card.clone().with_multi_label(Some(MultiLabel::default()));
        let several = decode(&to_onnx(&network, &card, options).unwrap());
        let sigmoid: Vec<f32> = expected.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        assert_near(&run(&several, "image", bytes)["probabilities"].data, &sigmoid, 1e-5);
        let entry = |key: &str| {
            let found = several.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(key));
            found.and_then(|entry| entry.value.clone())
        };
        assert_eq!(entry("problem_type").as_deref(), Some("multi_label_classification"));
        assert_eq!(entry("thresholds").as_deref(), Some("[0.5,0.5,0.5,0.5,0.5]"));
    }
}

#[test]
fn gray_networks_have_one_input_channel() {
    let (network, card) = model("mobilenet_v2_0.1", Strides::Imagenet);
    let (Model { network, card, .. }, _) =
        Model { network, card, path: "model".into() }.with_input_channels(1).unwrap();
    let bytes: Vec<f32> = pixels()[..IMAGES * HEIGHT * WIDTH].iter().map(|&p| f32::from(p)).collect();
    let (mean, std) = (card.preprocess.mean[0], card.preprocess.std[0]);
    assert!((mean - 0.449).abs() < 1e-6 && (std - 0.226).abs() < 1e-6);
    let values: Vec<f32> = bytes.iter().map(|value| (value / 255.0 - mean) / std).collect();
    // With one channel, NHWC and NCHW are the same.
    let images = Tensor::<1>::from_floats(values.as_slice(), &Device::default()).reshape([IMAGES, 1, HEIGHT, WIDTH]);
    let expected = numbers(network.forward(images));
    let plain = decode(&to_onnx(&network, &card, OnnxOptions::default()).unwrap());
    let input = Value::new([IMAGES, 1, HEIGHT, WIDTH], values);
    assert_near(&run(&plain, "input", input)["logits"].data, &expected, 1e-5);
    let options = OnnxOptions { preprocessing: true, ..OnnxOptions::default() };
    let whole = decode(&to_onnx(&network, &card, options).unwrap());
    let input = Value::new([IMAGES, HEIGHT, WIDTH, 1], bytes);
    assert_near(&run(&whole, "image", input)["logits"].data, &expected, 1e-5);
}

#[test]
fn inputs_and_outputs_match_the_documentation() {
    let (network, card) = model("mobilenet_v2_0.1", Strides::Imagenet);
    let describe = |value: &proto::ValueInfo| {
        let tensor = value.r#type.clone().unwrap().tensor_type.unwrap();
        let sizes = tensor.shape.unwrap().dim.into_iter().map(|dimension| match dimension.value.unwrap() {
            Size::Value(number) => number.to_string(),
            Size::Named(name) => name,
        });
        (value.name().to_string(), tensor.elem_type.unwrap(), sizes.collect::<Vec<_>>().join(" "))
    };
    for (options, input, output, weights) in [
        (OnnxOptions::default(), ("input", FLOAT, "batch 3 32 45"), "logits", FLOAT),
        (
            OnnxOptions { precision: Precision::F16, ..OnnxOptions::default() },
            ("input", FLOAT, "batch 3 32 45"),
            "logits",
            FLOAT16,
        ),
        (
            OnnxOptions { preprocessing: true, softmax: true, ..OnnxOptions::default() },
            ("image", UINT8, "batch 32 45 3"),
            "probabilities",
            FLOAT,
        ),
    ] {
        let model = decode(&to_onnx(&network, &card, options).unwrap());
        assert_eq!(model.opset_import[0].version, Some(OPSET));
        let graph = model.graph.unwrap();
        assert_eq!(graph.input.iter().map(describe).collect::<Vec<_>>(), [(input.0.into(), input.1, input.2.into())]);
        assert_eq!(graph.output.iter().map(describe).collect::<Vec<_>>(), [(output.into(), FLOAT, "batch 5".into())]);

        // Each value is defined once and before it is used, and each constant is used.
        let mut known: BTreeSet<&str> = graph.initializer.iter().map(|constant| constant.name()).collect();
        assert_eq!(known.len(), graph.initializer.len(), "constants with the same name");
        let mut unused = known.clone();
        known.insert(input.0);
        for node in &graph.node {
            for name in &node.input {
                assert!(known.contains(name.as_str()), "{} reads {name} before it is defined", node.name());
                unused.remove(name.as_str());
            }
            for name in &node.output {
                assert!(known.insert(name), "{name} is defined twice");
            }
        }
        assert!(known.contains(output));
        assert_eq!(unused, BTreeSet::new());
        for constant in &graph.initializer {
            let elements: i64 = constant.dims.iter().product();
            let (size, kind) = (if weights == FLOAT16 { 2 } else { 4 }, constant.data_type.unwrap());
            if !constant.name().starts_with("preprocess") {
                assert_eq!(kind, weights, "{}", constant.name());
            }
            assert_eq!(constant.raw_data().len() as i64, elements * size, "{}", constant.name());
        }
    }
}

#[test]
fn batch_norms_are_folded_and_operators_are_basic() {
    for (name, expected) in [
        ("mobilenet_v2", &[("Add", 10), ("Clip", 35), ("Conv", 52), ("Gemm", 1), ("ReduceMean", 1)][..]),
        ("efficientnet_b0", &[("Add", 9), ("Conv", 81), ("Gemm", 1), ("Mul", 65), ("ReduceMean", 17), ("Sigmoid", 65)]),
    ] {
        let (network, card) = model(name, Strides::Imagenet);
        let model = decode(&to_onnx(&network, &card, OnnxOptions::default()).unwrap());
        let mut counts = BTreeMap::new();
        for node in &model.graph.unwrap().node {
            *counts.entry(node.op_type().to_string()).or_insert(0) += 1;
        }
        let expected: BTreeMap<String, i32> = expected.iter().map(|&(name, count)| (name.into(), count)).collect();
        assert_eq!(counts, expected);
    }
}

#[test]
fn metadata_contain_classes_and_preprocessing() {
    let (network, card) = model("mobilenet_v2_0.1", Strides::Imagenet);
    let model = decode(&to_onnx(&network, &card, OnnxOptions::default()).unwrap());
    let metadata: BTreeMap<_, _> = model.metadata_props.iter().map(|entry| (entry.key(), entry.value())).collect();
    assert_eq!(metadata["architecture"], "mobilenet_v2_0.1");
    assert_eq!(serde_json::from_str::<Vec<String>>(metadata["class_names"]).unwrap(), card.classes);
    assert_eq!(serde_json::from_str::<Preprocess>(metadata["preprocess"]).unwrap(), card.preprocess);
    assert!(metadata["preprocess"].contains("[0.485,0.456,0.406]"), "{}", metadata["preprocess"]);
    assert_eq!(serde_json::from_str::<ModelCard>(metadata["mbconv"]).unwrap(), card);
}

#[test]
fn unsupported_options_and_values_are_rejected() {
    let (network, card) = model("mobilenet_v2_0.1", Strides::Imagenet);
    let error = |network: &Network, precision, preprocessing| {
        to_onnx(network, &card, OnnxOptions { precision, preprocessing, softmax: false }).unwrap_err()
    };
    assert_eq!(error(&network, Precision::Bf16, false), OnnxError::Precision);

    // A running variance of zero gives folded weights that are too large for f16, but not for f32.
    let mut state: std::collections::HashMap<_, _> =
        state_dict(&network).into_iter().map(|(info, data)| (info.key, data)).collect();
    let key = "features.0.1.weight".to_string();
    let shape = state[&key].shape().to_vec();
    state.insert(key, TensorData::new(vec![1e6f32; shape[0]], shape));
    let steep = load_state_dict(network, state).unwrap();
    assert_eq!(error(&steep, Precision::F16, false), OnnxError::Value { path: "stem.weight".into() });
    assert!(to_onnx(&steep, &card, OnnxOptions::default()).is_ok());

    let mut options = NetworkOptions::new("mobilenet_v2_0.1", 5);
    options.input_channels = 4;
    let depth = options.architecture().unwrap().init(&Device::default());
    let card = ModelCard { architecture: options, ..card.clone() };
    let with_preprocessing = OnnxOptions { preprocessing: true, ..OnnxOptions::default() };
    assert_eq!(to_onnx(&depth, &card, with_preprocessing), Err(OnnxError::Channels(4)));
    assert!(to_onnx(&depth, &card, OnnxOptions::default()).is_ok());
}
