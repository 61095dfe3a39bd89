//! Conventions that keys and shapes do not show: the target library's network of a name may use
//! other padding, epsilon or strides than the network whose weights are exported.

use super::Layout;
use crate::error::ArchitectureError;
use crate::options::NetworkOptions;
use crate::registry::{TENSORFLOW, timm_name};
use crate::types::{Family, Padding};

/// Epsilon of batch-norm in PyTorch, and in the original networks.
const PYTORCH_EPSILON: f64 = 1e-5;
const ORIGINAL_EPSILON: f64 = 1e-3;

/// A library's network with the shapes of another network.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Name in the library.
    pub name: String,
    /// Padding.
    pub padding: Padding,
    /// Epsilon of batch-norm.
    pub epsilon: f64,
    /// Strides of the stem and the stages.
    pub strides: Vec<usize>,
}

impl Layout {
    /// Lists the differences between the target library's network and that of `options`, and what
    /// to set there. Empty if loading the weights makes both equal.
    ///
    /// # Errors
    /// Invalid options.
    pub fn differences(self, options: &NetworkOptions) -> Result<Vec<String>, ArchitectureError> {
        let network = options.architecture()?;
        let project = match self {
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            // There is no export to these.
            Self::Lukemelas | Self::HuggingFace | Self::Flat => return Ok(Vec::new()),
        };
        let Some(target) = self.target(options)? else {
            let name = &options.name;
            return Ok(vec![format!("{project} has no network like {name}: only the keys follow {project}")]);
        };
        let Target { name, padding, epsilon, strides } = target;
        let theirs = format!("{project}'s {name}");
        let mut notes = Vec::new();
        if network.layer_options.padding != padding {
            // Names without `tf_` pad symmetrically everywhere.
            let remedy = match self {
                Self::Timm => format!("timm.create_model(\"{name}\", pad_type=\"same\")"),
                _ => "torchvision has no such padding, timm has: --layout timm".into(),
            };
            notes.push(format!("{theirs} pads symmetrically, this network like TensorFlow (SAME): {remedy}"));
        }
        if network.layer_options.norm_epsilon != epsilon {
            let ours = network.layer_options.norm_epsilon;
            let remedy = match self {
                Self::Timm => format!("timm.create_model(\"{name}\", bn_eps={ours})"),
                _ => format!("set `eps = {ours}` on every nn.BatchNorm2d of it"),
            };
            notes.push(format!("batch-norm's epsilon is {epsilon} in {theirs}, {ours} in this network: {remedy}"));
        }
        let ours = network.strides();
        if ours != strides {
            notes.push(format!(
                "the strides of stem and stages are {strides:?} in {theirs}, {ours:?} in this network: \
                 give its stem and the depthwise convolution of each stage's first block these strides"
            ));
        }
        Ok(notes)
    }

    /// Returns the network of torchvision or timm with the shapes of `options`, if it has one.
    ///
    /// # Errors
    /// Invalid options.
    pub fn target(self, options: &NetworkOptions) -> Result<Option<Target>, ArchitectureError> {
        let network = options.architecture()?;
        let any_width = (self, network.family) == (Self::Torchvision, Family::MobileNetV2);
        if options.table.is_some() || options.depth.is_some() || options.width.is_some() && !any_width {
            return Ok(None);
        }
        let (plain, tensorflow) = match options.name.strip_prefix(TENSORFLOW) {
            Some(plain) => (plain, true),
            None => (options.name.as_str(), false),
        };
        let pytorch = (Padding::Symmetric, PYTORCH_EPSILON);
        let found = match (self, network.family) {
            // With `width_mult` and `round_nearest`.
            (Self::Torchvision, Family::MobileNetV2) if !plain.ends_with("0d") => {
                Some(("mobilenet_v2".into(), pytorch))
            }
            (Self::Torchvision, Family::EfficientNet) => {
                torchvision_epsilon(plain).map(|epsilon| (plain.into(), (Padding::Symmetric, epsilon)))
            }
            (Self::Timm, Family::EfficientNet) if tensorflow => {
                timm_name(&options.name).map(|name| (name, (Padding::Same, ORIGINAL_EPSILON)))
            }
            (Self::Timm, _) => timm_name(&options.name).map(|name| (name, pytorch)),
            _ => None,
        };
        let strides = NetworkOptions::new(options.name.as_str(), options.num_classes).architecture()?.strides();
        Ok(found.map(|(name, (padding, epsilon))| Target { name, padding, epsilon, strides }))
    }
}

/// Returns batch-norm's epsilon in torchvision's EfficientNet called `name`, if it has one.
fn torchvision_epsilon(name: &str) -> Option<f64> {
    let number: u32 = name.strip_prefix("efficientnet_b")?.parse().ok()?;
    (number < 8).then_some(if number < 5 { PYTORCH_EPSILON } else { ORIGINAL_EPSILON })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Strides;

    #[test]
    fn differences_to_the_target_library_are_listed() {
        let notes = |layout: Layout, options: NetworkOptions| layout.differences(&options).unwrap().join("\n");
        let named = |name: &str| NetworkOptions::new(name, 10);
        for name in ["mobilenet_v2", "mobilenet_v2_0.35", "efficientnet_b0", "efficientnet_b4"] {
            assert_eq!(notes(Layout::Torchvision, named(name)), "", "{name}");
            assert_eq!(notes(Layout::Timm, named(name)), "", "{name}");
        }
        assert_eq!(notes(Layout::Torchvision, named("efficientnet_b7")), "");
        assert_eq!(notes(Layout::Timm, named("tf_efficientnet_b7")), "");
        assert_eq!(notes(Layout::Timm, named("tf_efficientnet_lite2")), "");
        for (layout, options, words) in [
            (Layout::Torchvision, named("tf_efficientnet_b0"), &["SAME", "--layout timm", "eps = 0.001"][..]),
            (Layout::Torchvision, named("tf_efficientnet_b5"), &["SAME"]),
            (Layout::Torchvision, named("efficientnet_lite0"), &["torchvision has no network like efficientnet_lite0"]),
            (Layout::Torchvision, named("mobilenet_v2_110d"), &["torchvision has no network"]),
            (Layout::Timm, named("efficientnet_b5"), &["timm.create_model(\"efficientnet_b5\", bn_eps=0.001)"]),
            (Layout::Timm, named("tf_mobilenet_v2_1.4"), &["mobilenetv2_140", "pad_type=\"same\"", "bn_eps=0.001"]),
            (Layout::Timm, named("mobilenet_v2_0.6"), &["timm has no network like mobilenet_v2_0.6"]),
            (
                Layout::Torchvision,
                NetworkOptions { strides: Strides::Cifar, ..named("mobilenet_v2_0.5") },
                &["[2, 1, 2, 2, 2, 1, 2, 1]", "[1, 1, 1, 2, 2, 1, 2, 1]"],
            ),
            (
                Layout::Timm,
                NetworkOptions { norm_epsilon: Some(0.01), ..named("efficientnet_b0") },
                &["0.00001 in timm's efficientnet_b0, 0.01 in this network"],
            ),
            (
                Layout::Timm,
                NetworkOptions { depth: Some(1.1), ..named("efficientnet_b0") },
                &["timm has no network like efficientnet_b0"],
            ),
        ] {
            let told = notes(layout, options);
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }
}
