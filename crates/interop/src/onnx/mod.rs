//! Export to [ONNX](https://onnx.ai).
//!
//! | | name | type | shape |
//! |---|---|---|---|
//! | input | `input` | f32 | `[batch, 3, H, W]`: RGB, `(pixel / 255 − mean) / std`; or `[batch, 1, H, W]`, gray |
//! | input, with preprocessing inside | `image` | u8 | `[batch, H, W, 3]`: RGB as decoded, resized and cropped; or `[batch, H, W, 1]` |
//! | output | `logits` | f32 | `[batch, classes]` |
//! | output, with softmax or sigmoid | `probabilities` | f32 | `[batch, classes]` |
//!
//! `batch` is any number; H and W are the crop size. Batch-norm is folded into the convolutions, as
//! for prediction ([`mbconv_nets::inference`]). An f16 model computes in f16 but has f32 inputs and
//! outputs, so that the same code runs either file.
//!
//! The metadata contain, as JSON, `class_names`, `preprocess` (as in the model file) and the whole
//! model card under `mbconv`; and the name `architecture`. Multi-label models also have
//! `problem_type` (`multi_label_classification`, as in transformers) and their `thresholds` as
//! JSON.

mod error;
mod graph;
pub mod proto;
mod quantized;

use mbconv_kernels::quantized::Stage;
use mbconv_nets::Network;
use mbconv_nets::inference::fold;
use mbconv_nets::weights::Precision;
use prost::Message;
use serde::Serialize;

use crate::model_file::{MULTI_LABEL, ModelCard};
pub use crate::onnx::error::OnnxError;
use crate::onnx::graph::{Graph, Map, element};
use crate::onnx::proto::{Attribute, FLOAT, UINT8};

/// Operator set version, supported by runtimes since early 2022.
pub const OPSET: i64 = 17;
/// File format version that belongs to [`OPSET`].
const IR_VERSION: i64 = 8;
/// Maximum size of a protobuf message.
const MAX_BYTES: usize = i32::MAX as usize;

/// Export options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Precision of the weights and of the computation: f32 or f16.
    pub precision: Precision,
    /// Takes pixels as bytes and normalizes them in the graph.
    pub preprocessing: bool,
    /// Returns probabilities instead of logits: the softmax, or the sigmoid for multi-label models.
    pub softmax: bool,
}

/// Returns an ONNX file that computes `network`.
///
/// # Errors
/// See [`OnnxError`].
pub fn to_onnx(network: &Network, card: &ModelCard, options: OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    let element = element(options.precision).ok_or(OnnxError::Precision)?;
    encode(card, options, element, |graph, images| graph.network(&fold(network), images))
}

/// Returns an ONNX file that computes an 8-bit network in QDQ form.
///
/// # Errors
/// See [`OnnxError`]. The precision must be f32.
pub fn quantized_to_onnx(stages: &[Stage], card: &ModelCard, options: OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    if options.precision != Precision::F32 {
        return Err(OnnxError::EightBits);
    }
    encode(card, options, FLOAT, |graph, images| graph.quantized_network(stages, images))
}

/// Returns the file of the network that `build` adds to a graph of this element type.
fn encode(
    card: &ModelCard,
    options: OnnxOptions,
    element: i32,
    build: impl FnOnce(&mut Graph, Map) -> Result<String, OnnxError>,
) -> Result<Vec<u8>, OnnxError> {
    let model = model(card, options, element, build)?;
    match model.encoded_len() {
        bytes if bytes > MAX_BYTES => Err(OnnxError::TooLarge(bytes)),
        _ => Ok(model.encode_to_vec()),
    }
}

fn model(
    card: &ModelCard,
    options: OnnxOptions,
    element: i32,
    build: impl FnOnce(&mut Graph, Map) -> Result<String, OnnxError>,
) -> Result<proto::Model, OnnxError> {
    let channels = card.architecture.input_channels;
    let size = card.preprocess.crop;
    let [height, width] = size.sides();
    let mut graph = Graph::new(element);

    let input = if options.preprocessing {
        let color = match channels {
            3 => "RGB",
            1 => "gray",
            _ => return Err(OnnxError::Channels(channels)),
        };
        let document = format!("{color} images of {size:#} pixels, as decoded, resized and cropped");
        value("image", UINT8, &[height, width, channels], &document)
    } else {
        let document =
            "channels-first images, (pixel / 255 - mean) / std with the mean and std of `preprocess` in the metadata";
        value("input", FLOAT, &[channels, height, width], document)
    };
    let x = if options.preprocessing { normalize(&mut graph, card, channels) } else { "input".into() };
    let x = graph.cast("input.cast", x, FLOAT, element);
    let x = build(&mut graph, Map { name: x, sides: [height, width] })?;
    let mut x = graph.cast("classifier.cast", x, element, FLOAT);
    let (name, document) = match (options.softmax, card.multi_label.is_some()) {
        (true, false) => {
            x = graph.node("softmax", "Softmax", &[&x], vec![Attribute::int("axis", 1)]);
            ("probabilities", "one probability per class, with sum 1")
        }
        (true, true) => {
            x = graph.node("sigmoid", "Sigmoid", &[&x], vec![]);
            ("probabilities", "one independent probability per class")
        }
        (false, false) => ("logits", "one number per class, before softmax"),
        (false, true) => ("logits", "one number per class, before the sigmoid"),
    };
    let output = value(name, FLOAT, &[card.classes.len()], document);
    // Renames the last operator's output to the documented name.
    for value in graph.nodes.iter_mut().flat_map(|node| &mut node.output).filter(|value| **value == x) {
        *value = name.into();
    }

    Ok(proto::Model {
        ir_version: Some(IR_VERSION),
        producer_name: Some("mbconv".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        doc_string: None,
        graph: Some(proto::Graph {
            node: graph.nodes,
            name: Some(card.architecture.name.clone()),
            initializer: graph.constants,
            input: vec![input],
            output: vec![output],
        }),
        opset_import: vec![proto::OperatorSet { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: metadata(card),
    })
}

fn metadata(card: &ModelCard) -> Vec<proto::StringEntry> {
    let mut entries = vec![
        entry("architecture", card.architecture.name.clone()),
        entry("class_names", json(&card.classes)),
        entry("preprocess", json(&card.preprocess)),
        entry("mbconv", json(card)),
    ];
    if let Some(thresholds) = card.thresholds() {
        entries.push(entry("problem_type", MULTI_LABEL.into()));
        entries.push(entry("thresholds", json(&thresholds)));
    }
    entries
}

fn entry(key: &str, value: String) -> proto::StringEntry {
    proto::StringEntry { key: Some(key.into()), value: Some(value) }
}

/// Serializes directly to text: via a JSON value, an f32 would become an f64 with many digits.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// Adds the normalization of bytes `[N, H, W, C]`: `(byte − 255·mean) / (255·std)`, `[N, C, H, W]`;
/// C is 3 or 1.
fn normalize(graph: &mut Graph, card: &ModelCard, channels: usize) -> String {
    let x = graph.cast("image.cast", "image".into(), UINT8, FLOAT);
    let x = graph.node("image.transpose", "Transpose", &[&x], vec![Attribute::ints("perm", &[0, 3, 1, 2])]);
    let mut constant = |name: &str, values: [f32; 3]| {
        graph.push_constant(name, &[1, channels, 1, 1], &values.map(|value| value * 255.0)[..channels], FLOAT);
    };
    constant("preprocess.mean", card.preprocess.mean);
    constant("preprocess.std", card.preprocess.std);
    let x = graph.node("image.centered", "Sub", &[&x, "preprocess.mean"], vec![]);
    graph.node("image.normalized", "Div", &[&x, "preprocess.std"], vec![])
}

/// Returns a graph input or output of any batch size.
fn value(name: &str, element: i32, shape: &[usize], document: &str) -> proto::ValueInfo {
    let sizes = shape.iter().map(|&size| proto::Size::Value(size as i64));
    let sizes = std::iter::once(proto::Size::Named("batch".into())).chain(sizes);
    let shape = proto::Shape { dim: sizes.map(|size| proto::Dimension { value: Some(size) }).collect() };
    proto::ValueInfo {
        name: Some(name.into()),
        r#type: Some(proto::Type {
            tensor_type: Some(proto::TensorType { elem_type: Some(element), shape: Some(shape) }),
        }),
        doc_string: Some(document.into()),
    }
}
