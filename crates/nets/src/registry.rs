//! Networks by name.

use crate::efficientnet::EfficientNetConfig;
use crate::mobilenet_v2::MobileNetV2Config;
use crate::stage_table::StageTable;
use crate::types::Padding;

/// Names of the architectures with published weights.
pub const NAMES: [&str; 53] = [
    "mobilenet_v2_0.1",
    "mobilenet_v2_0.1_round4",
    "mobilenet_v2_0.25",
    "mobilenet_v2_0.35",
    "mobilenet_v2_0.5",
    "mobilenet_v2_0.75",
    "mobilenet_v2",
    "mobilenet_v2_1.3",
    "mobilenet_v2_1.4",
    "mobilenet_v2_110d",
    "mobilenet_v2_120d",
    "tf_mobilenet_v2_0.35",
    "tf_mobilenet_v2_0.5",
    "tf_mobilenet_v2_0.75",
    "tf_mobilenet_v2",
    "tf_mobilenet_v2_1.3",
    "tf_mobilenet_v2_1.4",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
    "efficientnet_b8",
    "efficientnet_l2",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "efficientnet_lite3",
    "efficientnet_lite4",
    "tf_efficientnet_b0",
    "tf_efficientnet_b1",
    "tf_efficientnet_b2",
    "tf_efficientnet_b3",
    "tf_efficientnet_b4",
    "tf_efficientnet_b5",
    "tf_efficientnet_b6",
    "tf_efficientnet_b7",
    "tf_efficientnet_b8",
    "tf_efficientnet_l2",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "tf_efficientnet_lite3",
    "tf_efficientnet_lite4",
    "efficientnet_es",
    "efficientnet_em",
    "efficientnet_el",
    "tf_efficientnet_es",
    "tf_efficientnet_em",
    "tf_efficientnet_el",
];

/// Prefix of the names of networks with TensorFlow's conventions.
pub const TENSORFLOW: &str = "tf_";
/// Epsilon and momentum of TensorFlow's batch-norm.
const TENSORFLOW_NORM: [f64; 2] = [1e-3, 0.01];
/// timm's depth-scaled MobileNetV2s: name, width, depth. Their ends are not scaled.
const DEEPENED: [(&str, f64, f64); 2] = [("110d", 1.1, 1.2), ("120d", 1.2, 1.4)];
/// Separates the width from the divisor in a name.
const ROUND: &str = "_round";

/// Returns the stage table of the architecture called `name`.
///
/// Names are
/// - `mobilenet_v2`, and `mobilenet_v2_<width>` with any width multiplier;
/// - both with `_round<n>`, where channels are multiples of n instead of 8 (d-li14's 0.1 is
///   `mobilenet_v2_0.1_round4`);
/// - timm's `mobilenet_v2_110d` and `mobilenet_v2_120d`;
/// - `efficientnet_` with `b0` to `b8`, `l2`, `lite0` to `lite4`, `es`, `em` or `el`.
///
/// The prefix `tf_` stands for the conventions of weights trained with TensorFlow:
/// [`Padding::Same`], epsilon 1e-3 and momentum 0.01.
pub fn stage_table(name: &str) -> Option<StageTable> {
    let (plain, tensorflow) = match name.strip_prefix(TENSORFLOW) {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let mut table = match plain.strip_prefix("efficientnet_") {
        Some(suffix) => EfficientNetConfig::named(suffix, 1)?.stage_table(),
        None => mobilenet(plain.strip_prefix("mobilenet_v2")?)?.stage_table(),
    };
    if tensorflow {
        [table.norm_epsilon, table.norm_momentum] = TENSORFLOW_NORM;
        table.padding = Padding::Same;
    }
    Some(table)
}

/// Returns the MobileNetV2 whose name ends with `suffix`.
fn mobilenet(suffix: &str) -> Option<MobileNetV2Config> {
    let config = MobileNetV2Config::new(1);
    if let Some((_, width, depth)) = DEEPENED.into_iter().find(|(name, ..)| suffix.strip_prefix('_') == Some(name)) {
        return Some(MobileNetV2Config { width, depth, fixed_ends: true, ..config });
    }
    let (suffix, round_nearest) = match suffix.split_once(ROUND) {
        Some((width, number)) => (width, number.parse().ok()?),
        None => (suffix, config.round_nearest),
    };
    let width = if suffix.is_empty() { 1.0 } else { suffix.strip_prefix('_')?.parse().ok()? };
    Some(MobileNetV2Config { width, round_nearest, ..config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArchitectureError, NetworkOptions};

    #[test]
    fn every_listed_name_resolves() {
        for name in NAMES {
            NetworkOptions::new(name, 1000).architecture().unwrap();
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in
            ["", "resnet50", "mobilenet_v2_", "mobilenet_v2_x", "mobilenet_v3", "efficientnet_b", "efficientnet_b9"]
        {
            let error = NetworkOptions::new(name, 10).architecture().unwrap_err();
            assert_eq!(error, ArchitectureError::UnknownName { name: name.into() });
        }
        for width in ["nan", "inf", "0", "-1", "1e9", "0.1_round", "0.1_round0", "0.1_round-4", "1_round99"] {
            assert!(NetworkOptions::new(format!("mobilenet_v2_{width}"), 10).architecture().is_err(), "{width}");
        }
    }
}
