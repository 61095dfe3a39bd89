//! Keys of torchvision, as in its `models/mobilenetv2.py` and `models/efficientnet.py`.

use super::layer::{Keys, Layer, Part};
use crate::architecture::Architecture;
use crate::types::Family;

/// Returns a layer's keys. Torchvision numbers everything:
/// `features.{stem, blocks or stages, head}`, and the layers within a block.
pub(super) fn keys(architecture: &Architecture, layer: Layer) -> Keys {
    let (index, block, part) = match layer {
        Layer::Stem => return pair("features.0"),
        Layer::Head => {
            let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
            let before = if architecture.family == Family::MobileNetV2 { architecture.blocks.len() } else { stages };
            return pair(&format!("features.{}", before + 1));
        }
        Layer::Classifier => return ["classifier.1".into(), String::new()],
        Layer::Block(index, block, part) => (index, block, part),
    };
    let scope = match architecture.family {
        Family::MobileNetV2 => format!("features.{}.conv", index + 1),
        Family::EfficientNet => format!("features.{}.{}.block", block.stage + 1, block.index),
    };
    // A fused block has the keys of torchvision's `FusedMBConv`.
    let depthwise = usize::from(block.expands() && !block.fused);
    let project = depthwise + 1 + usize::from(block.squeeze.is_some());
    match part {
        Part::Expand => pair(&format!("{scope}.0")),
        Part::Depthwise => pair(&format!("{scope}.{depthwise}")),
        Part::SqueezeReduce => [format!("{scope}.{}.fc1", depthwise + 1), String::new()],
        Part::SqueezeExpand => [format!("{scope}.{}.fc2", depthwise + 1), String::new()],
        // In a block of MobileNetV2 the last convolution and norm are not nested in a sequence of
        // their own.
        Part::Project if architecture.family == Family::MobileNetV2 => {
            [format!("{scope}.{project}"), format!("{scope}.{}", project + 1)]
        }
        Part::Project => pair(&format!("{scope}.{project}")),
    }
}

/// Returns the keys of a convolution and a batch-norm in a sequence.
fn pair(scope: &str) -> Keys {
    [format!("{scope}.0"), format!("{scope}.1")]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::layout::Layout;
    use crate::{Architecture, EfficientNetConfig, MobileNetV2Config};

    #[test]
    fn keys_include_those_of_torchvision() {
        let keys = |architecture: Architecture| -> BTreeSet<String> {
            Layout::Torchvision.tensors(&architecture).into_iter().map(|tensor| tensor.key).collect()
        };
        let mobilenet = keys(MobileNetV2Config::new(10).architecture().unwrap());
        for key in [
            "features.0.0.weight",
            "features.1.conv.0.0.weight",
            "features.1.conv.1.weight",
            "features.1.conv.2.running_var",
            "features.2.conv.1.1.bias",
            "features.17.conv.3.running_mean",
            "features.18.1.weight",
            "classifier.1.bias",
        ] {
            assert!(mobilenet.contains(key), "{key}");
        }
        let efficientnet = keys(EfficientNetConfig::b0(10).architecture().unwrap());
        for key in [
            "features.1.0.block.0.0.weight",
            "features.1.0.block.1.fc1.bias",
            "features.1.0.block.2.1.running_var",
            "features.7.0.block.2.fc2.weight",
            "features.7.0.block.3.0.weight",
            "features.8.0.weight",
        ] {
            assert!(efficientnet.contains(key), "{key}");
        }
    }
}
