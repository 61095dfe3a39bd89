//! 8-bit model files, and their export to ONNX.

mod interpreter;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use interpreter::{Value, run};
use mbconv_image::Preprocess;
use mbconv_interop::model_file::{ModelError, Quantization};
use mbconv_interop::onnx::proto::{self, INT8, INT32, UINT8};
use mbconv_interop::onnx::{OnnxError, OnnxOptions, quantized_to_onnx};
use mbconv_interop::quantized_model::QuantizedModel;
use mbconv_interop::{Model, ModelCard};
use mbconv_kernels::quantized::{Quantizer, Stage, Weights, reference};
use mbconv_nets::NetworkOptions;
use mbconv_nets::inference::{Layer, fold};
use mbconv_nets::quantization::{Conversion, quantized_layers, quantizers};
use mbconv_nets::weights::Precision;
use proptest::prelude::*;
use prost::Message;

const SIDE: usize = 40;
/// Both families, squeeze-excitation, fused blocks and TensorFlow's padding.
const NETWORKS: [&str; 4] = ["mobilenet_v2_0.1", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnet_es"];

/// Returns a network with random weights in 8 bits; the layer `kept` stays in single precision.
fn model(name: &str, kept: &str) -> (Vec<Stage>, ModelCard) {
    let device = Device::default();
    device.seed(3);
    let options = NetworkOptions::new(name, 5);
    let network = options.architecture().unwrap().init(&device);
    let weights = |layer: &Layer, name: &str, input: Quantizer| {
        if name == kept {
            return Weights::Float { weight: layer.weight.clone(), bias: layer.bias.clone() };
        }
        let rows = layer.weight.chunks(layer.weight.len() / layer.outputs);
        let largest = rows.clone().map(|row| row.iter().fold(1e-6f32, |most, value| most.max(value.abs())));
        let scales: Vec<f32> = largest.map(|largest| largest / 127.0).collect();
        let weight = rows.zip(&scales).flat_map(|(row, scale)| row.iter().map(move |value| (value / scale) as i8));
        let bias = scales.iter().enumerate().map(|(index, scale)| (index as f32 * 0.01 / (scale * input.scale)) as i32);
        Weights::Int8 { weight: weight.collect(), bias: bias.collect(), scales: scales.clone() }
    };
    let stages = fold(&network);
    let convert = |quantizers| Conversion { quantizers: &quantizers, weights: &weights }.stages(&stages);
    let range = |name: &str| if name.ends_with("project") { [-2.0, 1.5] } else { [-0.3, 4.0] };
    let quantizer = |name: String| {
        let [low, high] = range(&name);
        (name, Quantizer::of_range(low, high))
    };
    let names = quantizers(&convert(HashMap::new())).into_iter().map(|(name, _)| name);
    let quantized = convert(names.map(quantizer).collect());
    let preprocess = Preprocess { resize: SIDE.into(), crop: SIDE.into(), ..Preprocess::default() };
    let classes = ["a", "b", "c", "d", "e"].map(String::from).into();
    let quantization = Quantization { range: "mse".into(), images: 7, kept: Vec::new() };
    (quantized, ModelCard::new(options, classes, preprocess).with_quantization(quantization))
}

fn open(bytes: &[u8]) -> Result<QuantizedModel, ModelError> {
    QuantizedModel::from_bytes(bytes, Path::new("model.safetensors"))
}

#[test]
fn files_preserve_every_bit_in_a_quarter_of_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for name in NETWORKS {
        let (stages, card) = model(name, "head");
        QuantizedModel::save(&stages, &card, &path).unwrap();
        let opened = QuantizedModel::open(&path).unwrap();
        assert_eq!((opened.stages, opened.card), (stages, card), "{name}");
    }
    let (stages, card) = model("efficientnet_b0", "");
    let network = card.architecture.architecture().unwrap().init(&Device::default());
    let single = Model::to_bytes(&network, &card, mbconv_nets::Layout::Torchvision, Precision::F32).unwrap().len();
    let eight = QuantizedModel::to_bytes(&stages, &card).len();
    assert!((eight as f64) < 0.27 * single as f64, "{eight} of {single} bytes");
}

#[test]
fn temperature_divides_the_logits() {
    for kept in ["", "classifier"] {
        let (stages, card) = model("mobilenet_v2_0.1", kept);
        let images: Vec<f32> = (0..SIDE * SIDE * 3).map(|i| (i % 97) as f32 / 40.0).collect();
        let logits = |stages: &[Stage]| reference::run(stages, &images, [1, SIDE, SIDE, 3]).0;
        let expected: Vec<f32> = logits(&stages).iter().map(|logit| logit / 2.5).collect();
        let card = ModelCard { temperature: Some(2.5), ..card };
        let model = open(&QuantizedModel::to_bytes(&stages, &card)).unwrap().calibrated();
        assert_eq!(model.card.temperature, None);
        let found = logits(&model.stages);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    }
}

#[test]
fn models_of_the_other_precision_are_refused() {
    let (stages, card) = model("mobilenet_v2_0.1", "");
    let bytes = QuantizedModel::to_bytes(&stages, &card);
    let error = Model::from_bytes(&bytes, Path::new("m.safetensors"), &Device::default()).unwrap_err();
    assert!(matches!(error, ModelError::EightBits { .. }) && error.hint().unwrap().contains("eval"), "{error}");
    let network = card.architecture.architecture().unwrap().init(&Device::default());
    let card = ModelCard { quantization: None, ..card };
    let single = Model::to_bytes(&network, &card, mbconv_nets::Layout::Torchvision, Precision::F32).unwrap();
    assert!(matches!(open(&single), Err(ModelError::Quantized { .. })));
}

/// Returns the header and the bytes after it.
fn split(bytes: &[u8]) -> (String, &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (String::from_utf8(bytes[8..8 + length].to_vec()).unwrap(), &bytes[8 + length..])
}

fn joined(header: &str, body: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), body].concat()
}

#[test]
fn wrong_tensors_are_named() {
    let (stages, card) = model("mobilenet_v2_0.1", "head");
    let bytes = QuantizedModel::to_bytes(&stages, &card);
    let (header, body) = split(&bytes);
    let message = |header: &str, body: &[u8]| open(&joined(header, body)).unwrap_err().to_string();
    for (from, to, words) in [
        ("stem.weight\"", "stem.weighs\"", "`stem.weight` is missing"),
        ("head.bias", "head.bios", "`head.bias` is missing"),
        ("activations.scale", "activations.scales", "`activations.scales` does not belong"),
        ("\"I8\"", "\"U8\"", "should be I8"),
        ("mobilenet_v2_0.1", "mobilenet_v2_0.2", "of shape"),
        ("mobilenet_v2_0.1", "efficientnet_b0", "of shape"),
    ] {
        let changed = header.replace(from, to);
        assert_ne!(changed, header);
        assert!(message(&changed, body).contains(words), "{from}: {}", message(&changed, body));
    }
    // All bits set are NaN as a scale.
    assert!(message(&header, &vec![0xff; body.len()]).contains("not finite"));
    assert!(message(&header, &vec![0x00; body.len()]).contains("not positive"));
    assert!(message(&header, &vec![0x80; body.len()]).contains("outside"));
}

proptest! {
    #[test]
    fn damaged_files_give_an_error_or_a_model(at in 0usize..200_000, byte: u8, cut in 0usize..400_000) {
        let (stages, card) = model("mobilenet_v2_0.1", "");
        let mut bytes = QuantizedModel::to_bytes(&stages, &card);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.max(1));
        drop(open(&bytes));
    }
}

fn decode(bytes: &[u8]) -> proto::Graph {
    proto::Model::decode(bytes).unwrap().graph.unwrap()
}

#[test]
fn exported_networks_compute_the_same_in_the_interpreter() {
    for name in NETWORKS {
        let (stages, card) = model(name, "blocks.1.project");
        let images: Vec<f32> = (0..SIDE * SIDE * 3).map(|i| ((i * 7919) % 1000) as f32 / 250.0 - 2.0).collect();
        let expected = reference::run(&stages, &images, [1, SIDE, SIDE, 3]).0;
        let channels_first: Vec<f32> =
            (0..3).flat_map(|channel| images.iter().skip(channel).step_by(3).copied()).collect();
        let file = quantized_to_onnx(&stages, &card, OnnxOptions::default()).unwrap();
        let graph = proto::Model::decode(file.as_slice()).unwrap();
        let found = &run(&graph, "input", Value::new([1, 3, SIDE, SIDE], channels_first))["logits"].data;
        let scale = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(scale > 0.01 && worst < 0.02 * scale, "{name}: {worst} of {scale}");
    }
}

#[test]
fn every_convolution_has_quantized_inputs() {
    let (stages, card) = model("efficientnet_b0", "stem");
    let graph = decode(&quantized_to_onnx(&stages, &card, OnnxOptions::default()).unwrap());
    let producer: HashMap<&str, &str> =
        graph.node.iter().map(|node| (node.output[0].as_str(), node.op_type.as_deref().unwrap())).collect();
    let constant = |name: &str| graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    let layers: Vec<_> = graph.node.iter().filter(|node| ["Conv", "Gemm"].contains(&node.op_type())).collect();
    assert_eq!(layers.len(), quantized_layers(&stages).len());
    for node in layers {
        assert_eq!(producer[node.input[0].as_str()], "DequantizeLinear", "{}", node.name());
        let is_float = node.name() == "stem.conv";
        for (input, element) in node.input[1..].iter().zip([INT8, INT32]) {
            assert_eq!(producer.contains_key(input.as_str()), !is_float, "{input}");
            if !is_float {
                let integers = constant(&format!("{input}.quantized"));
                assert_eq!(integers.data_type, Some(element));
                assert_eq!(constant(&format!("{input}.scale")).dims, integers.dims[..1]);
            }
        }
    }
    assert!(
        graph.node.iter().filter(|node| node.op_type() == "QuantizeLinear").all(|node| {
            constant(&node.input[1]).dims.is_empty() && constant(&node.input[2]).data_type == Some(UINT8)
        })
    );
    let options = OnnxOptions { precision: Precision::F16, ..OnnxOptions::default() };
    assert_eq!(quantized_to_onnx(&stages, &card, options), Err(OnnxError::EightBits));
}
