//! Keys of Hugging Face transformers, as in its `modeling_mobilenet_v2.py` and
//! `modeling_efficientnet.py`.

use super::layer::{Keys, Layer, Part};
use crate::architecture::Architecture;
use crate::types::Family;

/// Returns a layer's keys. Both families number the blocks across all stages.
pub(super) fn keys(architecture: &Architecture, layer: Layer) -> Keys {
    match architecture.family {
        Family::MobileNetV2 => mobilenet_v2(layer),
        Family::EfficientNet => efficientnet(layer),
    }
}

/// In transformers the first block is part of the stem.
fn mobilenet_v2(layer: Layer) -> Keys {
    let scope = match layer {
        Layer::Stem => "conv_stem.first_conv".into(),
        Layer::Head => "conv_1x1".into(),
        Layer::Classifier => return ["classifier".into(), String::new()],
        Layer::Block(index, _, part) => {
            let block = if index == 0 { "conv_stem".into() } else { format!("layer.{}", index - 1) };
            let name = match part {
                Part::Expand => "expand_1x1",
                Part::Depthwise => "conv_3x3",
                Part::SqueezeReduce => "squeeze_reduce",
                Part::SqueezeExpand => "squeeze_expand",
                Part::Project => "reduce_1x1",
            };
            format!("{block}.{name}")
        }
    };
    ["convolution", "normalization"].map(|name| format!("mobilenet_v2.{scope}.{name}"))
}

fn efficientnet(layer: Layer) -> Keys {
    let (scope, names) = match layer {
        Layer::Stem => ("embeddings".into(), ["convolution", "batchnorm"]),
        Layer::Head => ("encoder".into(), ["top_conv", "top_bn"]),
        Layer::Classifier => return ["classifier".into(), String::new()],
        Layer::Block(index, _, part) => {
            let (module, names) = match part {
                Part::Expand => ("expansion", ["expand_conv", "expand_bn"]),
                Part::Depthwise => ("depthwise_conv", ["depthwise_conv", "depthwise_norm"]),
                Part::SqueezeReduce => ("squeeze_excite", ["reduce", ""]),
                Part::SqueezeExpand => ("squeeze_excite", ["expand", ""]),
                Part::Project => ("projection", ["project_conv", "project_bn"]),
            };
            (format!("encoder.blocks.{index}.{module}"), names)
        }
    };
    names.map(|name| format!("efficientnet.{scope}.{name}"))
}
