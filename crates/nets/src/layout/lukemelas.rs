//! Keys of lukemelas/EfficientNet-PyTorch, as in its `model.py`.

use super::layer::{Keys, Layer, Part};

/// Returns a layer's keys. Blocks are numbered across all stages, and every name begins with an
/// underscore.
pub(super) fn keys(layer: Layer) -> Keys {
    let (scope, [layer, norm]) = match layer {
        Layer::Stem => (String::new(), ["_conv_stem", "_bn0"]),
        Layer::Head => (String::new(), ["_conv_head", "_bn1"]),
        Layer::Classifier => (String::new(), ["_fc", ""]),
        Layer::Block(index, _, part) => {
            let names = match part {
                Part::Expand => ["_expand_conv", "_bn0"],
                Part::Depthwise => ["_depthwise_conv", "_bn1"],
                Part::SqueezeReduce => ["_se_reduce", ""],
                Part::SqueezeExpand => ["_se_expand", ""],
                Part::Project => ["_project_conv", "_bn2"],
            };
            (format!("_blocks.{index}."), names)
        }
    };
    [format!("{scope}{layer}"), format!("{scope}{norm}")]
}
