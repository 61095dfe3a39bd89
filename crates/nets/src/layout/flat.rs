//! Keys of d-li14/mobilenetv2.pytorch, as in its `models/imagenet/mobilenetv2.py`.

use super::layer::{Keys, Layer, Part};

/// Returns a layer's keys. A block is one sequence of convolution, norm and activation, so each
/// layer takes three indices. The head is outside of `features`.
pub(super) fn keys(layer: Layer) -> Keys {
    let (scope, first) = match layer {
        Layer::Stem => ("features.0".into(), 0),
        Layer::Head => ("conv".into(), 0),
        Layer::Classifier => return ["classifier".into(), String::new()],
        Layer::Block(index, block, part) => {
            let depthwise = usize::from(block.expands());
            let position = match part {
                Part::Expand => 0,
                Part::Depthwise | Part::SqueezeReduce | Part::SqueezeExpand => depthwise,
                Part::Project => depthwise + 1,
            };
            (format!("features.{}.conv", index + 1), 3 * position)
        }
    };
    [format!("{scope}.{first}"), format!("{scope}.{}", first + 1)]
}
