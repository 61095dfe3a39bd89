//! Keys of timm, as in its `_efficientnet_blocks.py`, the same for both families.

use super::layer::{Keys, Layer, Part};

/// Returns a layer's keys. timm uses other classes for fused blocks and for blocks without
/// expansion; the second batch-norm of these follows the last convolution.
pub(super) fn keys(layer: Layer) -> Keys {
    let (scope, [layer, norm]) = match layer {
        Layer::Stem => (String::new(), ["conv_stem", "bn1"]),
        Layer::Head => (String::new(), ["conv_head", "bn2"]),
        Layer::Classifier => (String::new(), ["classifier", ""]),
        Layer::Block(_, block, part) => {
            let names = match (part, block.expands()) {
                (Part::Expand, _) if block.fused => ["conv_exp", "bn1"],
                (Part::Project, _) if block.fused => ["conv_pwl", "bn2"],
                (Part::Expand, _) => ["conv_pw", "bn1"],
                (Part::Depthwise, true) => ["conv_dw", "bn2"],
                (Part::Depthwise, false) => ["conv_dw", "bn1"],
                (Part::SqueezeReduce, _) => ["se.conv_reduce", ""],
                (Part::SqueezeExpand, _) => ["se.conv_expand", ""],
                (Part::Project, true) => ["conv_pwl", "bn3"],
                (Part::Project, false) => ["conv_pw", "bn2"],
            };
            (format!("blocks.{}.{}.", block.stage, block.index), names)
        }
    };
    [format!("{scope}{layer}"), format!("{scope}{norm}")]
}

#[cfg(test)]
mod tests {
    use crate::layout::Layout;
    use crate::{EfficientNetConfig, MobileNetV2Config};

    #[test]
    fn paths_map_to_timm_keys() {
        let mobilenet = MobileNetV2Config::new(10).architecture().unwrap();
        let efficientnet = EfficientNetConfig::b0(10).architecture().unwrap();
        // Path in this crate, key in timm.
        for (architecture, path, key) in [
            (&mobilenet, "stem.norm.beta", "bn1.bias"),
            (&mobilenet, "blocks.0.depthwise.norm.running_var", "blocks.0.0.bn1.running_var"),
            (&mobilenet, "blocks.0.project.weight", "blocks.0.0.conv_pw.weight"),
            (&mobilenet, "blocks.2.expand.weight", "blocks.1.1.conv_pw.weight"),
            (&mobilenet, "blocks.16.depthwise.norm.gamma", "blocks.6.0.bn2.weight"),
            (&mobilenet, "head.norm.running_mean", "bn2.running_mean"),
            (&mobilenet, "classifier.bias", "classifier.bias"),
            (&efficientnet, "blocks.0.squeeze_excitation.reduce.weight", "blocks.0.0.se.conv_reduce.weight"),
            (&efficientnet, "blocks.15.squeeze_excitation.expand.bias", "blocks.6.0.se.conv_expand.bias"),
            (&efficientnet, "blocks.15.project.norm.beta", "blocks.6.0.bn3.bias"),
        ] {
            let tensors = Layout::Timm.tensors(architecture);
            let found = tensors.iter().find(|tensor| tensor.path == path).map(|tensor| tensor.key.as_str());
            assert_eq!(found, Some(key), "{path}");
        }
    }
}
