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
/// timm's MobileNetV2s: name here and in timm. timm has no others, and its EfficientNets have the
/// same names.
const TIMM: [(&str, &str); 7] = [
    ("mobilenet_v2", "mobilenetv2_100"),
    ("mobilenet_v2_0.35", "mobilenetv2_035"),
    ("mobilenet_v2_0.5", "mobilenetv2_050"),
    ("mobilenet_v2_0.75", "mobilenetv2_075"),
    ("mobilenet_v2_1.4", "mobilenetv2_140"),
    ("mobilenet_v2_110d", "mobilenetv2_110d"),
    ("mobilenet_v2_120d", "mobilenetv2_120d"),
];
/// Minimum similarity of a suggested name.
const SIMILAR: f64 = 0.85;

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

/// Returns the name used here for an architecture named as in timm, torchvision, or another
/// library: `mobilenetv2_100.ra_in1k`, `tf_efficientnet_b0.ns_jft_in1k`, `efficientnet-b0`,
/// `mobilenet_v2_1.4_224`. Other names are returned unchanged.
pub fn canonical_name(name: &str) -> String {
    let known = |name: &str| stage_table(name).is_some();
    if known(name) {
        return name.into();
    }
    let plain = without_tag(name).to_ascii_lowercase().replace('-', "_");
    let (prefix, rest) = match plain.strip_prefix(TENSORFLOW) {
        Some(rest) => (TENSORFLOW, rest),
        None => ("", plain.as_str()),
    };
    let renamed = match TIMM.iter().find(|(_, theirs)| *theirs == rest) {
        Some((ours, _)) => ours.to_string(),
        None => renamed_mobilenet(rest).unwrap_or(rest.into()),
    };
    Some(format!("{prefix}{renamed}")).filter(|renamed| known(renamed)).unwrap_or(name.into())
}

/// Returns a name without the tag of timm's weights. A tag starts with a letter; the fraction of a
/// width does not.
pub fn without_tag(name: &str) -> &str {
    match name.split_once('.') {
        Some((plain, tag)) if tag.starts_with(|first: char| first.is_ascii_alphabetic()) => plain,
        _ => name,
    }
}

/// Returns the name of a MobileNetV2 named `mobilenetv2_<percent>`, by d-li14
/// `mobilenetv2_<width>`, or by Google `mobilenet_v2_<width>_<resolution>`.
fn renamed_mobilenet(name: &str) -> Option<String> {
    if let Some(google) = name.strip_prefix("mobilenet_v2_") {
        let (width, _) = google.split_once('_')?;
        return Some(if width == "1.0" { "mobilenet_v2".into() } else { format!("mobilenet_v2_{width}") });
    }
    match name.strip_prefix("mobilenetv2_")? {
        "1.0" => Some("mobilenet_v2".into()),
        "0.1" => Some("mobilenet_v2_0.1_round4".into()),
        width if width.contains('.') => Some(format!("mobilenet_v2_{width}")),
        percent if percent.len() == 3 => Some(format!("mobilenet_v2_{}", percent.parse::<f64>().ok()? / 100.0)),
        _ => None,
    }
}

/// Returns timm's name of the architecture called `name` here, without considering padding, or
/// `None` if timm has no such network.
pub fn timm_name(name: &str) -> Option<String> {
    let plain = name.strip_prefix(TENSORFLOW).unwrap_or(name);
    if plain.starts_with("mobilenet_v2") {
        return TIMM.iter().find(|(ours, _)| *ours == plain).map(|(_, theirs)| theirs.to_string());
    }
    Some(name.into()).filter(|name: &String| NAMES.contains(&name.as_str()))
}

/// Returns the known architecture whose name, here or in timm, is most similar to `name`, if one is
/// similar.
pub fn similar_name(name: &str) -> Option<&'static str> {
    let wanted = name.to_ascii_lowercase();
    let names = NAMES.into_iter().chain(TIMM.map(|(_, theirs)| theirs));
    let rated = names.map(|known| (strsim::jaro_winkler(&wanted, known), known));
    // The first of several equal ones.
    let (similarity, known) = rated.reduce(|best, other| if other.0 > best.0 { other } else { best })?;
    (similarity >= SIMILAR).then_some(known)
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
            assert!(matches!(&error, ArchitectureError::UnknownName { name: unknown, .. } if unknown == name));
        }
        for width in ["nan", "inf", "0", "-1", "1e9", "0.1_round", "0.1_round0", "0.1_round-4", "1_round99"] {
            assert!(NetworkOptions::new(format!("mobilenet_v2_{width}"), 10).architecture().is_err(), "{width}");
        }
    }
    #[test]
    fn names_of_other_libraries_are_converted() {
        for (theirs, ours) in [
            ("mobilenetv2_100.ra_in1k", "mobilenet_v2"),
            ("mobilenetv2_035", "mobilenet_v2_0.35"),
            ("mobilenetv2_120d", "mobilenet_v2_120d"),
            ("mobilenetv2_0.75", "mobilenet_v2_0.75"),
            ("mobilenetv2_0.1", "mobilenet_v2_0.1_round4"),
            ("mobilenet_v2_1.4_224", "mobilenet_v2_1.4"),
            ("MobileNet_V2", "mobilenet_v2"),
            ("tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_b0"),
            ("tf_efficientnet_es.in1k", "tf_efficientnet_es"),
            ("efficientnet-b7", "efficientnet_b7"),
            ("mobilenetv2_10", "mobilenetv2_10"),
            ("mobilenet_v2_0.35", "mobilenet_v2_0.35"),
            ("resnet50.a1", "resnet50.a1"),
        ] {
            assert_eq!(canonical_name(theirs), ours);
        }
        for name in NAMES {
            assert_eq!(canonical_name(name), name);
            let there = timm_name(name).filter(|_| !name.starts_with("tf_mobilenet"));
            assert!(there.is_none_or(|there| canonical_name(&there) == name), "{name}");
        }
        assert_eq!(timm_name("tf_mobilenet_v2_1.4").as_deref(), Some("mobilenetv2_140"));
        assert_eq!(timm_name("mobilenet_v2_0.6"), None);
    }

    #[test]
    fn misspelled_names_have_a_similar_one() {
        for (misspelled, expected) in [
            ("efficientnet_lite00", Some("efficientnet_lite0")),
            ("efficentnet_b3", Some("efficientnet_b3")),
            ("mobilenetv2", Some("mobilenet_v2")),
            ("mobilenetv2_10", Some("mobilenetv2_100")),
            ("tf_eficientnet_b0", Some("tf_efficientnet_b0")),
            ("resnet50", None),
            ("", None),
        ] {
            assert_eq!(similar_name(misspelled), expected, "{misspelled}");
        }
    }
}
