//! Hugging Face transformers' `config.json` and `preprocessor_config.json`.
//!
//! transformers computes the channels of a network from multipliers. The networks of its
//! `modeling_mobilenet_v2.py` and `modeling_efficientnet.py` are compared block by block with the
//! network to export.

use mbconv_image::{ImageSize, Interpolation, Preprocess, ResizeMode};
use mbconv_nets::architecture::Block;
use mbconv_nets::registry::stage_table;
use mbconv_nets::scaling::{round_channels_to, round_repeats};
use mbconv_nets::{Activation, Architecture, Family, Padding, Stage};
use serde_json::{Value, json};

use super::error::FolderError;
use super::library::per_channel;
use crate::model_file::{MULTI_LABEL, ModelCard};

/// Divisors of the channels, of which the first that fits is written; d-li14's ×0.1 has 4.
const DIVISORS: [usize; 2] = [8, 4];

/// Returns `config.json`.
///
/// # Errors
/// A network that transformers does not have.
pub(super) fn config(card: &ModelCard) -> Result<Value, FolderError> {
    let network = card.architecture.architecture()?;
    let config = match network.family {
        Family::MobileNetV2 => mobilenet_v2(&network),
        Family::EfficientNet => efficientnet(&network, card.preprocess.crop),
    };
    let mut config = config.map_err(|reason| FolderError::Inexpressible { library: "transformers", reason })?;
    let labels = || card.classes.iter().enumerate();
    config["num_channels"] = network.input_channels.into();
    config["image_size"] = json!(card.preprocess.crop);
    config["id2label"] = labels().map(|(index, name)| (index.to_string(), json!(name))).collect();
    config["label2id"] = labels().map(|(index, name)| (name.clone(), json!(index))).collect();
    config["problem_type"] =
        if card.multi_label.is_some() { MULTI_LABEL } else { "single_label_classification" }.into();
    Ok(config)
}

fn mobilenet_v2(network: &Architecture) -> Result<Value, String> {
    let fits = |divisor: &usize| {
        let round = |channels: usize| {
            // Rounded to a whole number first, as by Python's `round`.
            round_channels_to((channels as f64 * network.width).round_ties_even(), *divisor)
        };
        let head = if network.width < 1.0 { 1280 } else { round(1280) };
        let mut blocks = blocks(&stages("mobilenet_v2"), 1.0, round(32), round, None);
        // The first block is part of the stem and has no residual connection.
        blocks.iter_mut().take(1).for_each(|block| block.residual = false);
        (network.stem, network.head) == (round(32), head) && same(&network.blocks, &blocks)
    };
    let divisor = DIVISORS.into_iter().find(|divisor| fits(divisor));
    let divisor = divisor.filter(|_| network.activation == Activation::Relu6 && network.stem_stride == 2);
    let divisor = divisor.ok_or_else(|| format!("its MobileNetV2 ×{} has other blocks or strides", network.width))?;
    Ok(json!({
        "architectures": ["MobileNetV2ForImageClassification"],
        "model_type": "mobilenet_v2",
        "depth_multiplier": network.width,
        "depth_divisible_by": divisor,
        "min_depth": divisor,
        "expand_ratio": 6.0,
        "output_stride": 32,
        "first_layer_is_expansion": true,
        "finegrained_output": true,
        "hidden_act": "relu6",
        "tf_padding": network.layer_options.padding == Padding::Same,
        "classifier_dropout_prob": network.dropout,
        "layer_norm_eps": network.layer_options.norm_epsilon,
    }))
}

fn efficientnet(network: &Architecture, size: ImageSize) -> Result<Value, String> {
    let round = |channels: usize| round_channels_to(channels as f64 * network.width, 8);
    let stages = stages("efficientnet_b0");
    let blocks = blocks(&stages, network.depth, round(32), round, Some(4));
    let fits = (network.stem, network.stem_stride, network.head) == (round(32), 2, round(1280));
    if !fits || !same(&network.blocks, &blocks) || network.activation != Activation::Silu {
        return Err("its EfficientNets have no Lite or EdgeTPU variants, and only the usual strides".into());
    }
    if network.layer_options.padding != Padding::Same {
        return Err("its EfficientNets pad like TensorFlow, this network pads symmetrically".into());
    }
    let [padding, across] = size.sides().map(|side| {
        let odd = || format!("the padding of its stem differs for images of an odd side, {side} pixels");
        square_padding(network, side).ok_or_else(odd)
    });
    let (padding, across) = (padding?, across?);
    if padding != across {
        return Err(format!("its blocks pad height and width equally, which differ for images of {size} pixels"));
    }
    let each = |value: fn(&Stage) -> usize| -> Vec<usize> { stages.iter().map(value).collect() };
    let outputs = each(|stage| stage.channels);
    let inputs: Vec<usize> = std::iter::once(32).chain(outputs[..outputs.len() - 1].iter().copied()).collect();
    Ok(json!({
        "architectures": ["EfficientNetForImageClassification"],
        "model_type": "efficientnet",
        "width_coefficient": network.width,
        "depth_coefficient": network.depth,
        "depth_divisor": 8,
        "kernel_sizes": each(|stage| stage.kernel),
        "in_channels": inputs,
        "out_channels": outputs,
        "depthwise_padding": padding,
        "strides": each(|stage| stage.stride),
        "num_block_repeats": each(|stage| stage.repeats),
        "expand_ratios": each(|stage| stage.expansion),
        "squeeze_expansion_ratio": 0.25,
        "hidden_act": "swish",
        "hidden_dim": network.head,
        "pooling_type": "mean",
        "batch_norm_eps": network.layer_options.norm_epsilon,
        "batch_norm_momentum": network.layer_options.norm_momentum,
        "dropout_rate": network.dropout,
        "drop_connect_rate": network.drop_path,
    }))
}

fn stages(name: &str) -> Vec<Stage> {
    stage_table(name).map(|table| table.stages).unwrap_or_default()
}

/// Returns transformers' blocks for the rows of a table. `squeeze` divides the input channels of a
/// block to give those of its squeeze-excitation bottleneck.
fn blocks(
    stages: &[Stage],
    depth: f64,
    stem: usize,
    round: impl Fn(usize) -> usize,
    squeeze: Option<usize>,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut input = stem;
    for (number, stage) in stages.iter().enumerate() {
        let output = round(stage.channels);
        for index in 0..round_repeats(stage.repeats, depth) {
            let stride = if index == 0 { stage.stride } else { 1 };
            blocks.push(Block {
                stage: number,
                index,
                input,
                hidden: input * stage.expansion,
                output,
                kernel: stage.kernel,
                stride,
                fused: false,
                squeeze: squeeze.map(|divisor| (input / divisor).max(1)),
                drop_path: 0.0,
                // EfficientNet's first blocks of a stage have none; MobileNetV2's change the width.
                residual: stride == 1 && input == output && (squeeze.is_none() || index > 0),
            });
            input = output;
        }
    }
    blocks
}

/// Returns whether two lists of blocks compute the same in inference.
fn same(ours: &[Block], theirs: &[Block]) -> bool {
    let plain = |block: &Block| Block { drop_path: 0.0, ..*block };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| plain(ours) == *theirs)
}

/// Returns the indices of strided blocks whose input has an odd side. TensorFlow's padding of these
/// is equal on all sides, which the configuration must state. Returns `None` if the image's side is
/// odd.
fn square_padding(network: &Architecture, side: usize) -> Option<Vec<usize>> {
    if !side.is_multiple_of(2) {
        return None;
    }
    let mut side = side / 2;
    let mut odd = Vec::new();
    for (index, block) in network.blocks.iter().enumerate().filter(|(_, block)| block.stride == 2) {
        if !side.is_multiple_of(2) {
            odd.push(index);
        }
        side = side.div_ceil(block.stride);
    }
    Some(odd)
}

/// Returns `preprocessor_config.json`. The processor of MobileNetV2 also resizes both sides, and
/// the one of EfficientNet cannot keep the aspect ratio. None pads or covers a rectangle: images
/// that are padded or cropped before keep their aspect ratio when they are squashed.
pub(super) fn processor(card: &ModelCard) -> Value {
    let Preprocess { resize, crop, channels, mean, std, .. } = card.preprocess;
    let size = match card.preprocess.resize_mode {
        ResizeMode::Shorter if resize.is_square() => json!({ "shortest_edge": resize }),
        _ => json!({ "height": resize.height, "width": resize.width }),
    };
    // Pillow's numbers.
    let resample = match card.preprocess.interpolation {
        Interpolation::Nearest => 0,
        Interpolation::Bilinear => 2,
        Interpolation::Bicubic => 3,
    };
    json!({
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_resize": true,
        "size": size,
        "resample": resample,
        "do_center_crop": true,
        "crop_size": { "height": crop.height, "width": crop.width },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": per_channel(mean, channels),
        "image_std": per_channel(std, channels),
    })
}
