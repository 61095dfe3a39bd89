//! Properties of published weights that are not stored in them: padding, batch-norm constants,
//! preprocessing.

use mbconv_nets::registry::TENSORFLOW;
use mbconv_nets::{Layout, NetworkOptions};

use mbconv_image::Interpolation;
use mbconv_image::{CropRounding, Preprocess, ResizeMode};
use mbconv_image::{IMAGENET_MEAN, IMAGENET_STD};

use Interpolation::{Bicubic, Bilinear, Nearest};

/// Mean and standard deviation of ImageNet pixels.
const IMAGENET: [[f32; 3]; 2] = [IMAGENET_MEAN, IMAGENET_STD];
/// Scales pixels to -1..1; for TensorFlow's EfficientNet-Lite and EfficientNet-EdgeTPU, AdvProp,
/// and transformers' MobileNetV2.
const INCEPTION: [[f32; 3]; 2] = [[0.5; 3], [0.5; 3]];

/// Names of the presets for `--preprocess`.
pub const PRESETS: [&str; 8] =
    ["torchvision", "torchvision_v1", "timm", "timm_tf", "timm_tf_ap", "lukemelas", "lukemelas_ap", "hugging_face"];

/// Resize, crop, interpolation.
type Sizes = (usize, usize, Interpolation);

/// `weights.transforms()` of torchvision's second version of weights, its default, and of its
/// first.
const TORCHVISION: [(&str, Sizes, Sizes); 9] = [
    ("mobilenet_v2", (232, 224, Bilinear), (256, 224, Bilinear)),
    ("efficientnet_b0", (256, 224, Bicubic), (256, 224, Bicubic)),
    ("efficientnet_b1", (255, 240, Bilinear), (256, 240, Bicubic)),
    ("efficientnet_b2", (288, 288, Bicubic), (288, 288, Bicubic)),
    ("efficientnet_b3", (320, 300, Bicubic), (320, 300, Bicubic)),
    ("efficientnet_b4", (384, 380, Bicubic), (384, 380, Bicubic)),
    ("efficientnet_b5", (456, 456, Bicubic), (456, 456, Bicubic)),
    ("efficientnet_b6", (528, 528, Bicubic), (528, 528, Bicubic)),
    ("efficientnet_b7", (600, 600, Bicubic), (600, 600, Bicubic)),
];

/// timm's `default_cfg` of each network's default weights: side, crop fraction, interpolation. A
/// `tf_` network without a row uses the other's.
const TIMM: [(&str, usize, f64, Interpolation); 27] = [
    ("mobilenet_v2", 224, 0.875, Bicubic),
    ("efficientnet_b0", 224, 0.875, Bicubic),
    ("efficientnet_b1", 224, 0.875, Bicubic),
    ("tf_efficientnet_b1", 240, 0.882, Bicubic),
    ("efficientnet_b2", 256, 0.875, Bicubic),
    ("tf_efficientnet_b2", 260, 0.89, Bicubic),
    ("efficientnet_b3", 288, 0.875, Bicubic),
    ("tf_efficientnet_b3", 300, 0.904, Bicubic),
    ("efficientnet_b4", 320, 0.875, Bicubic),
    ("tf_efficientnet_b4", 380, 0.922, Bicubic),
    ("efficientnet_b5", 448, 1.0, Bicubic),
    ("tf_efficientnet_b5", 456, 0.934, Bicubic),
    ("efficientnet_b6", 528, 0.942, Bicubic),
    ("efficientnet_b7", 600, 0.949, Bicubic),
    ("efficientnet_b8", 672, 0.954, Bicubic),
    ("efficientnet_l2", 800, 0.961, Bicubic),
    ("tf_efficientnet_l2", 800, 0.96, Bicubic),
    ("efficientnet_lite0", 224, 0.875, Bicubic),
    ("efficientnet_lite1", 240, 0.882, Bicubic),
    ("efficientnet_lite2", 260, 0.89, Bicubic),
    ("efficientnet_lite3", 300, 0.904, Bicubic),
    ("tf_efficientnet_lite3", 300, 0.904, Bilinear),
    ("efficientnet_lite4", 380, 0.922, Bicubic),
    ("tf_efficientnet_lite4", 380, 0.92, Bilinear),
    ("efficientnet_es", 224, 0.875, Bicubic),
    ("efficientnet_em", 240, 0.882, Bicubic),
    ("efficientnet_el", 300, 0.904, Bicubic),
];

/// Returns the name of the network's row; all widths of a MobileNetV2 share one.
fn row_name(name: &str) -> &str {
    if name.starts_with("mobilenet_v2") { "mobilenet_v2" } else { name }
}

/// Returns the preprocessing of `preset` for the network `name`, or `None` for an unknown preset.
pub fn preprocess(preset: &str, name: &str, resolution: usize) -> Option<Preprocess> {
    let plain = name.strip_prefix(TENSORFLOW).unwrap_or(name);
    let row = row_name(plain);
    let usual = ((resolution as f64 / 0.875) as usize, resolution, Bicubic);
    let torchvision = |first: bool| {
        let found = TORCHVISION.iter().find(|(name, ..)| *name == row);
        found.map_or(usual, |&(_, v2, v1)| if first { v1 } else { v2 })
    };
    let timm = |tensorflow: bool| {
        let own = TIMM.iter().find(|(name, ..)| tensorflow && name.strip_prefix(TENSORFLOW) == Some(row));
        let found = own.or_else(|| TIMM.iter().find(|(name, ..)| *name == row));
        // Rounded as in timm's `transforms_imagenet_eval`.
        found.map_or(usual, |&(_, side, fraction, kernel)| ((side as f64 / fraction) as usize, side, kernel))
    };
    let for_phones = plain.contains("_lite") || ["_es", "_em", "_el"].iter().any(|end| plain.ends_with(end));
    let tensorflow = if for_phones { INCEPTION } else { IMAGENET };
    // `efficientnet-lite-pytorch` uses the original resolutions, timm larger ones.
    let original = match plain {
        "efficientnet_lite3" => 280,
        "efficientnet_lite4" => 300,
        _ => resolution,
    };
    let whole = (original, original, Bicubic);
    let ((resize, crop, interpolation), [mean, std]) = match preset {
        "torchvision" => (torchvision(false), IMAGENET),
        "torchvision_v1" => (torchvision(true), IMAGENET),
        "timm" => (timm(false), IMAGENET),
        "timm_tf" => (timm(true), tensorflow),
        "timm_tf_ap" => (timm(true), INCEPTION),
        "lukemelas" => (whole, tensorflow),
        "lukemelas_ap" => (whole, INCEPTION),
        "hugging_face" if row == "mobilenet_v2" => ((256, 224, Bilinear), INCEPTION),
        // The processor divides by the square root of ImageNet's standard deviation, twice.
        "hugging_face" => ((resolution, resolution, Nearest), IMAGENET),
        _ => return None,
    };
    let transformers = preset == "hugging_face";
    let resize_mode = if transformers && row != "mobilenet_v2" { ResizeMode::Squash } else { ResizeMode::Shorter };
    let crop_rounding = if transformers { CropRounding::Down } else { CropRounding::Even };
    let (resize, crop) = (resize.into(), crop.into());
    Some(Preprocess { resize_mode, resize, crop, crop_rounding, interpolation, mean, std, ..Preprocess::default() })
}

/// Properties of weights derived from a file's layout and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Conventions {
    /// The network with the source's padding and batch-norm constants.
    pub options: NetworkOptions,
    /// Name of the preprocessing preset.
    pub preset: &'static str,
}

/// Returns the conventions of weights from the layout, the detected network and the file stem;
/// `named` if the user specified the network. Returns `None` if timm has both the network and a
/// `tf_` variant and neither name decides.
pub fn conventions(layout: Layout, mut options: NetworkOptions, stem: &str, named: bool) -> Option<Conventions> {
    let stem = stem.to_ascii_lowercase();
    let adversarial =
        ["_ap-", "_ap_", ".ap_", "adv-", "advprop"].iter().any(|mark| stem.contains(mark)) || stem.ends_with("_ap");
    let tensorflow = match layout {
        // These libraries pad and normalize as TensorFlow does, whatever the network's name.
        Layout::Lukemelas | Layout::HuggingFace => true,
        _ if named => options.name.starts_with(TENSORFLOW),
        Layout::Torchvision | Layout::Flat => false,
        Layout::Timm => {
            let plain = row_name(&options.name).trim_start_matches(TENSORFLOW);
            if plain == "mobilenet_v2" {
                false
            } else if stem.starts_with("tf_") || stem.contains("tf_efficientnet") {
                true
            } else if stem.contains("efficientnet_") {
                false
            } else if plain == "efficientnet_b8" || plain == "efficientnet_l2" {
                // timm only has `tf_` weights of these.
                true
            } else {
                return None;
            }
        }
    };
    if tensorflow && !options.name.starts_with(TENSORFLOW) {
        options.name = format!("{TENSORFLOW}{}", options.name);
    }
    if layout == Layout::Timm && !tensorflow {
        // timm's own networks use PyTorch's batch-norm defaults, even for B5 and larger.
        let published = options.architecture().ok();
        let differs = published.is_some_and(|network| {
            (network.layer_options.norm_epsilon, network.layer_options.norm_momentum) != (1e-5, 0.1)
        });
        if differs {
            (options.norm_epsilon, options.norm_momentum) = (Some(1e-5), Some(0.1));
        }
    }
    // Parts of the names of torchvision's first weights.
    let first = ["b0353104", "rwightman-", "imagenet1k_v1"].iter().any(|mark| stem.contains(mark));
    let preset = match (layout, adversarial) {
        (Layout::Torchvision, _) if first => "torchvision_v1",
        (Layout::Torchvision, _) => "torchvision",
        (Layout::Flat, _) => "torchvision_v1",
        (Layout::Timm, true) => "timm_tf_ap",
        (Layout::Timm, false) => {
            if tensorflow {
                "timm_tf"
            } else {
                "timm"
            }
        }
        (Layout::Lukemelas, true) => "lukemelas_ap",
        (Layout::Lukemelas, false) => "lukemelas",
        (Layout::HuggingFace, _) => "hugging_face",
    };
    Some(Conventions { options, preset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(layout: Layout, name: &str, stem: &str) -> Option<(String, Option<f64>, &'static str)> {
        let conventions = conventions(layout, NetworkOptions::new(name, 1000), stem, false)?;
        Some((conventions.options.name, conventions.options.norm_epsilon, conventions.preset))
    }

    #[test]
    fn conventions_follow_from_layout_and_name() {
        for (layout, name, stem, expected) in [
            (Layout::Torchvision, "mobilenet_v2", "mobilenet_v2-7ebf99e0", Some(("mobilenet_v2", None, "torchvision"))),
            (
                Layout::Torchvision,
                "mobilenet_v2",
                "mobilenet_v2-b0353104",
                Some(("mobilenet_v2", None, "torchvision_v1")),
            ),
            (Layout::Flat, "mobilenet_v2", "mobilenetv2-c5e733a8", Some(("mobilenet_v2", None, "torchvision_v1"))),
            (Layout::Timm, "mobilenet_v2", "model", Some(("mobilenet_v2", None, "timm"))),
            (Layout::Timm, "efficientnet_b0", "model", None),
            (Layout::Timm, "efficientnet_b0", "efficientnet_b0_ra-3dd342df", Some(("efficientnet_b0", None, "timm"))),
            (
                Layout::Timm,
                "efficientnet_b5",
                "efficientnet_b5.sw_in12k",
                Some(("efficientnet_b5", Some(1e-5), "timm")),
            ),
            (
                Layout::Timm,
                "efficientnet_b0",
                "tf_efficientnet_b0_ns-c0e6a31c",
                Some(("tf_efficientnet_b0", None, "timm_tf")),
            ),
            (
                Layout::Timm,
                "efficientnet_b0",
                "tf_efficientnet_b0_ap-f262efe1",
                Some(("tf_efficientnet_b0", None, "timm_tf_ap")),
            ),
            (
                Layout::Lukemelas,
                "efficientnet_b3",
                "efficientnet-b3-5fb5a3c3",
                Some(("tf_efficientnet_b3", None, "lukemelas")),
            ),
            (
                Layout::Lukemelas,
                "efficientnet_lite0",
                "efficientnet-lite0-57934424",
                Some(("tf_efficientnet_lite0", None, "lukemelas")),
            ),
            (
                Layout::Lukemelas,
                "efficientnet_b3",
                "adv-efficientnet-b3-cdd7c0f4",
                Some(("tf_efficientnet_b3", None, "lukemelas_ap")),
            ),
            (
                Layout::HuggingFace,
                "mobilenet_v2_1.4",
                "pytorch_model",
                Some(("tf_mobilenet_v2_1.4", None, "hugging_face")),
            ),
        ] {
            let expected = expected.map(|(name, epsilon, preset)| (String::from(name), epsilon, preset));
            assert_eq!(found(layout, name, stem), expected, "{stem}");
        }
    }

    #[test]
    fn given_name_does_not_override_layout_conventions() {
        for (layout, name, expected) in [
            (Layout::Lukemelas, "efficientnet_b0", "tf_efficientnet_b0"),
            (Layout::Lukemelas, "tf_efficientnet_b0", "tf_efficientnet_b0"),
            (Layout::HuggingFace, "efficientnet_b0", "tf_efficientnet_b0"),
            (Layout::HuggingFace, "mobilenet_v2_1.4", "tf_mobilenet_v2_1.4"),
            // If a library has both variants, the name decides.
            (Layout::Timm, "efficientnet_b0", "efficientnet_b0"),
            (Layout::Timm, "tf_efficientnet_b0", "tf_efficientnet_b0"),
            (Layout::Torchvision, "tf_efficientnet_b0", "tf_efficientnet_b0"),
        ] {
            let found = conventions(layout, NetworkOptions::new(name, 1000), "weights", true).unwrap();
            assert_eq!(found.options.name, expected, "{layout:?} {name}");
            assert_eq!((found.options.norm_epsilon, found.options.norm_momentum), (None, None));
        }
    }

    #[test]
    fn presets_match_published_preprocessing() {
        let sizes = |preset, name, side| {
            preprocess(preset, name, side).map(|p| (p.resize.width, p.crop.width, p.interpolation, p.mean[0]))
        };
        for (preset, name, side, expected) in [
            ("torchvision", "mobilenet_v2_0.5", 224, (232, 224, Bilinear, 0.485)),
            ("torchvision_v1", "efficientnet_b1", 240, (256, 240, Bicubic, 0.485)),
            ("timm", "efficientnet_b2", 260, (292, 256, Bicubic, 0.485)),
            ("timm_tf", "tf_efficientnet_b2", 260, (292, 260, Bicubic, 0.485)),
            ("timm_tf", "tf_efficientnet_lite4", 380, (413, 380, Bilinear, 0.5)),
            ("timm_tf_ap", "tf_efficientnet_b0", 224, (256, 224, Bicubic, 0.5)),
            ("lukemelas", "tf_efficientnet_b1", 240, (240, 240, Bicubic, 0.485)),
            ("lukemelas", "tf_efficientnet_lite0", 224, (224, 224, Bicubic, 0.5)),
            ("lukemelas", "tf_efficientnet_lite2", 260, (260, 260, Bicubic, 0.5)),
            ("lukemelas", "tf_efficientnet_lite3", 300, (280, 280, Bicubic, 0.5)),
            ("lukemelas", "tf_efficientnet_lite4", 380, (300, 300, Bicubic, 0.5)),
            ("lukemelas_ap", "tf_efficientnet_b8", 672, (672, 672, Bicubic, 0.5)),
            ("hugging_face", "tf_mobilenet_v2", 224, (256, 224, Bilinear, 0.5)),
            ("hugging_face", "tf_efficientnet_b3", 300, (300, 300, Nearest, 0.485)),
        ] {
            assert_eq!(sizes(preset, name, side), Some(expected), "{preset} {name}");
        }
        let mode = |name, side| preprocess("hugging_face", name, side).map(|preprocess| preprocess.resize_mode);
        assert_eq!(mode("tf_efficientnet_b3", 300), Some(ResizeMode::Squash));
        assert_eq!(mode("tf_mobilenet_v2", 224), Some(ResizeMode::Shorter));
        assert_eq!(preprocess("keras", "mobilenet_v2", 224), None);
        assert!(PRESETS.iter().all(|preset| preprocess(preset, "efficientnet_b0", 224).is_some()));
    }
}
