//! Networks by name, and what a user may change of them.

use serde::{Deserialize, Serialize};

use crate::architecture::check;
use crate::summary::trainable_parameters;
use crate::{Architecture, ArchitectureError, EfficientNetConfig, MobileNetV2Config, Padding, StageTable, Strides};

/// Names of the architectures to list: those with published weights.
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

/// An architecture by name with the usual changes: the `[model]` table of a recipe, and how a model file names its
/// network.
///
/// Names are `mobilenet_v2` (width 1), `mobilenet_v2_<width>` with any number, the same with `_round<n>` for channels that are
/// multiples of n instead of 8 (d-li14's 0.1 is `mobilenet_v2_0.1_round4`), `mobilenet_v2_110d` and `_120d`, and `efficientnet_` with `b0` to `b8`, `l2`, `lite0` to `lite4`, `es`, `em` or `el`. A leading `tf_` means the conventions of
/// weights that were trained with TensorFlow: [`Padding::Same`], ε 1e-3 and momentum 0.01.
///
/// ```
/// use mbconv_nets::ArchitectureOptions;
///
/// let half = ArchitectureOptions::new("mobilenet_v2_0.5", 10).architecture().unwrap();
/// assert_eq!(half.stem, 16);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchitectureOptions {
    /// Name of the architecture.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Channels of the input image.
    #[serde(default = "three")]
    pub input_channels: usize,
    /// Strides: `"imagenet"`, `"cifar"` or a list.
    #[serde(default)]
    pub strides: Strides,
    /// Dropout before the classifier; the network's published value by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Stochastic depth at the last block; the network's published value by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// ε of batch-norm; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_epsilon: Option<f64>,
    /// Momentum of batch-norm, in PyTorch's sense; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_momentum: Option<f64>,
    /// Width multiplier; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// Depth multiplier; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    /// Side of the image it is made for; the name's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
    /// A stage table instead of a known name, which is then only what the network is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<StageTable>,
}

/// Most parameters of a stage table's network.
const MAX_PARAMETERS: usize = 100_000_000_000;
/// Largest side of an image that a network can be made for.
const MAX_RESOLUTION: usize = 8192;

/// What precedes the names of networks with TensorFlow's conventions.
pub const TENSORFLOW: &str = "tf_";
/// ε and momentum of TensorFlow's batch-norms.
const TENSORFLOW_NORM: [f64; 2] = [1e-3, 0.01];
/// timm's MobileNetV2s that are scaled in depth: name, width, depth. Their ends are not scaled.
const DEEPENED: [(&str, f64, f64); 2] = [("110d", 1.1, 1.2), ("120d", 1.2, 1.4)];
/// What follows the width and precedes the number that channels are multiples of.
const ROUND: &str = "_round";

fn three() -> usize {
    3
}

impl ArchitectureOptions {
    /// The named architecture as published.
    pub fn new(name: impl Into<String>, classes: usize) -> Self {
        Self {
            name: name.into(),
            classes,
            input_channels: three(),
            strides: Strides::default(),
            dropout: None,
            drop_path: None,
            norm_epsilon: None,
            norm_momentum: None,
            width: None,
            depth: None,
            resolution: None,
            table: None,
        }
    }

    /// The network of a stage table, called as the table is.
    pub fn of_table(table: StageTable, classes: usize) -> Self {
        Self { name: table.name.clone(), table: Some(table), ..Self::new("", classes) }
    }

    /// What to call the network: its name, and the multipliers where they are not the name's.
    pub fn title(&self) -> String {
        let multipliers = [("width", self.width), ("depth", self.depth)];
        let said = multipliers.iter().filter_map(|(what, by)| by.map(|by| format!(" {what} {by}")));
        std::iter::once(self.name.clone()).chain(said).collect()
    }

    /// Resolves name or table, and changes.
    ///
    /// # Errors
    /// An unknown name, an impossible table or an option outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        let mut architecture = match &self.table {
            Some(table) => table.architecture(self)?,
            None => self.named()?,
        };
        architecture.resolution = self.resolution.unwrap_or(architecture.resolution);
        let possible = (1..=MAX_RESOLUTION).contains(&architecture.resolution);
        check(possible, "resolution", architecture.resolution, "between 1 and 8192")?;
        if self.table.is_some() {
            architecture.check_side(architecture.resolution)?;
            // Far beyond any machine's memory: better said than tried.
            let parameters = trainable_parameters(&architecture);
            check(parameters <= MAX_PARAMETERS, "parameters", parameters, "at most 100000000000")?;
        }
        Ok(architecture)
    }

    fn named(&self) -> Result<Architecture, ArchitectureError> {
        let (name, tensorflow) = match self.name.strip_prefix(TENSORFLOW) {
            Some(name) => (name, true),
            None => (self.name.as_str(), false),
        };
        let padding = if tensorflow { Padding::Same } else { Padding::Symmetric };
        let norm = |published| {
            let [epsilon, momentum] = if tensorflow { TENSORFLOW_NORM } else { published };
            [self.norm_epsilon.unwrap_or(epsilon), self.norm_momentum.unwrap_or(momentum)]
        };
        if let Some(suffix) = name.strip_prefix("efficientnet_") {
            let config = EfficientNetConfig::named(suffix, self.classes).ok_or_else(|| self.unknown())?;
            let [norm_epsilon, norm_momentum] = norm([config.norm_epsilon, config.norm_momentum]);
            return EfficientNetConfig {
                width: self.width.unwrap_or(config.width),
                depth: self.depth.unwrap_or(config.depth),
                input_channels: self.input_channels,
                strides: self.strides.clone(),
                dropout: self.dropout.unwrap_or(config.dropout),
                drop_path: self.drop_path.unwrap_or(config.drop_path),
                norm_epsilon,
                norm_momentum,
                padding,
                ..config
            }
            .architecture();
        }
        let suffix = name.strip_prefix("mobilenet_v2").ok_or_else(|| self.unknown())?;
        let deepened = DEEPENED.into_iter().find(|(name, ..)| suffix.strip_prefix('_') == Some(name));
        let config = MobileNetV2Config::new(self.classes);
        let (suffix, round_nearest) = match suffix.split_once(ROUND) {
            Some((width, number)) => (width, number.parse().map_err(|_| self.unknown())?),
            None => (suffix, config.round_nearest),
        };
        let (width, depth) = match (suffix, deepened) {
            ("", _) => (1.0, 1.0),
            (_, Some((_, width, depth))) => (width, depth),
            (suffix, None) => {
                let width = suffix.strip_prefix('_').and_then(|width| width.parse().ok());
                (width.ok_or_else(|| self.unknown())?, 1.0)
            }
        };
        let [norm_epsilon, norm_momentum] = norm([config.norm_epsilon, config.norm_momentum]);
        MobileNetV2Config {
            width: self.width.unwrap_or(width),
            round_nearest,
            depth: self.depth.unwrap_or(depth),
            fixed_ends: deepened.is_some(),
            input_channels: self.input_channels,
            strides: self.strides.clone(),
            dropout: self.dropout.unwrap_or(config.dropout),
            drop_path: self.drop_path.unwrap_or(config.drop_path),
            norm_epsilon,
            norm_momentum,
            padding,
            ..config
        }
        .architecture()
    }

    fn unknown(&self) -> ArchitectureError {
        ArchitectureError::UnknownName { name: self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_resolves() {
        for name in NAMES {
            ArchitectureOptions::new(name, 1000).architecture().unwrap();
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in
            ["", "resnet50", "mobilenet_v2_", "mobilenet_v2_x", "mobilenet_v3", "efficientnet_b", "efficientnet_b9"]
        {
            let error = ArchitectureOptions::new(name, 10).architecture().unwrap_err();
            assert_eq!(error, ArchitectureError::UnknownName { name: name.into() });
        }
        for width in ["nan", "inf", "0", "-1", "1e9", "0.1_round", "0.1_round0", "0.1_round-4", "1_round99"] {
            assert!(ArchitectureOptions::new(format!("mobilenet_v2_{width}"), 10).architecture().is_err(), "{width}");
        }
    }
}
