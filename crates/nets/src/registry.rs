//! Networks by name, and what a user may change of them.

use serde::{Deserialize, Serialize};

use crate::{Architecture, ArchitectureError, EfficientNetConfig, MobileNetV2Config, Strides};

/// Names of the architectures to list: MobileNetV2 at the paper's widths, EfficientNet B0 to B7.
pub const NAMES: [&str; 13] = [
    "mobilenet_v2_0.35",
    "mobilenet_v2_0.5",
    "mobilenet_v2_0.75",
    "mobilenet_v2",
    "mobilenet_v2_1.4",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnet_b3",
    "efficientnet_b4",
    "efficientnet_b5",
    "efficientnet_b6",
    "efficientnet_b7",
];

/// An architecture by name with the usual changes: the `[model]` table of a recipe, and how a model file names its
/// network.
///
/// Names are `mobilenet_v2` (width 1), `mobilenet_v2_<width>` with any number, and `efficientnet_b0` to `_b7`.
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
}

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
        }
    }

    /// Resolves name and changes.
    ///
    /// # Errors
    /// An unknown name or an option outside its range.
    pub fn architecture(&self) -> Result<Architecture, ArchitectureError> {
        if let Some(number) = self.name.strip_prefix("efficientnet_b") {
            let number = number.parse().ok().filter(|_| number.len() == 1);
            let mut config = number
                .and_then(|number| EfficientNetConfig::published(number, self.classes))
                .ok_or_else(|| self.unknown())?;
            config.input_channels = self.input_channels;
            config.strides = self.strides.clone();
            config.dropout = self.dropout.unwrap_or(config.dropout);
            config.drop_path = self.drop_path.unwrap_or(config.drop_path);
            return config.architecture();
        }
        let width = match self.name.strip_prefix("mobilenet_v2") {
            Some("") => 1.0,
            Some(suffix) => {
                suffix.strip_prefix('_').and_then(|width| width.parse().ok()).ok_or_else(|| self.unknown())?
            }
            None => return Err(self.unknown()),
        };
        let mut config = MobileNetV2Config::new(self.classes).with_width(width);
        config.input_channels = self.input_channels;
        config.strides = self.strides.clone();
        config.dropout = self.dropout.unwrap_or(config.dropout);
        config.drop_path = self.drop_path.unwrap_or(config.drop_path);
        config.architecture()
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
            ["", "resnet50", "mobilenet_v2_", "mobilenet_v2_x", "mobilenet_v3", "efficientnet_b", "efficientnet_b8"]
        {
            let error = ArchitectureOptions::new(name, 10).architecture().unwrap_err();
            assert_eq!(error, ArchitectureError::UnknownName { name: name.into() });
        }
        for width in ["nan", "inf", "0", "-1", "1e9"] {
            assert!(ArchitectureOptions::new(format!("mobilenet_v2_{width}"), 10).architecture().is_err(), "{width}");
        }
    }
}
