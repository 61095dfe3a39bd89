//! Published weights by name: download, check and import in one call.

use std::ops::ControlFlow;

use burn::tensor::Device;
use mbconv_hub::{Hub, HubError, PRETRAINED};
use mbconv_nets::registry::{TENSORFLOW, canonical_name};
use mbconv_nets::{EfficientNetConfig, Family, MobileNetV2Config, Network};

use crate::import::{ImportError, ImportOptions, Loaded, load_weights};

/// Prefixes of the names of weights that were trained with TensorFlow.
const TRAINED_WITH_TENSORFLOW: [&str; 2] = ["lukemelas/", "hf:google/"];

/// Returns the architecture of published weights: `tf_efficientnet_b0` for
/// `lukemelas/adv-efficientnet-b0`.
pub fn architecture_of(weights: &mbconv_hub::Pretrained) -> String {
    let name = canonical_name(short_name(weights.untagged()).trim_start_matches("adv-"));
    let tensorflow = TRAINED_WITH_TENSORFLOW.iter().any(|prefix| weights.name.starts_with(prefix));
    if tensorflow { format!("{TENSORFLOW}{name}") } else { name }
}

/// Returns the default published weights of an architecture: the first with this name in their
/// library, or the first of the architecture. The name may include the weights' tag.
pub fn default_weights(architecture: &str) -> Option<&'static mbconv_hub::Pretrained> {
    let wanted = architecture.to_ascii_lowercase();
    let named = PRETRAINED.iter().find(|row| [row.name, row.untagged()].map(short_name).contains(&wanted.as_str()));
    let canonical = canonical_name(architecture);
    named.or_else(|| PRETRAINED.iter().find(|row| architecture_of(row) == canonical))
}

/// Returns the name of weights without their publisher.
fn short_name(weights: &str) -> &str {
    weights.rsplit('/').next().unwrap_or(weights)
}

/// An error of [`pretrained`].
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// The weights cannot be found or downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The weights are those of another family of networks.
    #[error("{name} is of the family {found:?}, not {expected:?}")]
    Family {
        /// Name of the weights.
        name: String,
        /// Family of the weights.
        found: Family,
        /// Family of the config.
        expected: Family,
    },
}

impl PretrainedError {
    /// Returns a fix, if the message does not already name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub(error) => error.hint(),
            Self::Import(error) => error.hint(),
            Self::Family { .. } => None,
        }
    }
}

/// Loads published weights by name: the network with its classes and preprocessing. They are
/// downloaded once, checked against the published hash, and cached.
///
/// [`mbconv_hub::PRETRAINED`] lists the names; [`mbconv_hub::Spec::parse`] describes all forms.
///
/// ```no_run
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::default();
/// let model = mbconv_interop::pretrained("torchvision/mobilenet_v2", &device)?.model;
/// let logits = model.network.forward(Tensor::<4>::zeros([1, 3, 224, 224], &device));
/// assert_eq!(logits.dims(), [1, 1000]);
/// # Ok::<(), mbconv_interop::PretrainedError>(())
/// ```
///
/// # Errors
/// The name is unknown, the download fails, or the file is damaged.
pub fn pretrained(name: &str, device: &Device) -> Result<Loaded, PretrainedError> {
    pretrained_from(&Hub::from_env()?, name, device)
}

/// Configs with published weights.
pub trait Pretrained {
    /// The family of networks that the config describes.
    const FAMILY: Family;

    /// Loads the network of published weights by name, as [`pretrained`] does.
    ///
    /// ```no_run
    /// use burn::tensor::Device;
    /// use mbconv_interop::Pretrained;
    /// use mbconv_nets::MobileNetV2Config;
    ///
    /// let network = MobileNetV2Config::pretrained("timm/mobilenetv2_100", &Device::default())?;
    /// # Ok::<(), mbconv_interop::PretrainedError>(())
    /// ```
    ///
    /// # Errors
    /// As [`pretrained`], and weights of another family.
    fn pretrained(name: &str, device: &Device) -> Result<Network, PretrainedError> {
        Self::pretrained_from(&Hub::from_env()?, name, device)
    }

    /// Loads the network of published weights with the cache and server of `hub`.
    ///
    /// # Errors
    /// As [`pretrained`](Self::pretrained).
    fn pretrained_from(hub: &Hub, name: &str, device: &Device) -> Result<Network, PretrainedError> {
        let network = pretrained_from(hub, name, device)?.model.network;
        match network.architecture().family {
            family if family == Self::FAMILY => Ok(network),
            found => Err(PretrainedError::Family { name: name.into(), found, expected: Self::FAMILY }),
        }
    }
}

impl Pretrained for MobileNetV2Config {
    const FAMILY: Family = Family::MobileNetV2;
}

impl Pretrained for EfficientNetConfig {
    const FAMILY: Family = Family::EfficientNet;
}

/// Does the same as [`pretrained`] with the cache and server of `hub`.
///
/// # Errors
/// As [`pretrained`].
pub fn pretrained_from(hub: &Hub, name: &str, device: &Device) -> Result<Loaded, PretrainedError> {
    let file = hub.resolve(name, &mut |_| ControlFlow::Continue(()))?;
    Ok(load_weights(&file.path, &ImportOptions::default(), device)?)
}

#[cfg(test)]
mod tests {
    use mbconv_nets::NetworkOptions;

    use super::*;

    #[test]
    fn every_published_network_is_known() {
        for row in &PRETRAINED {
            let name = architecture_of(row);
            assert!(NetworkOptions::new(&name, 1000).architecture().is_ok(), "{}: {name}", row.name);
        }
    }

    #[test]
    fn architectures_have_default_weights() {
        for (architecture, weights) in [
            ("mobilenet_v2", Some("torchvision/mobilenet_v2.imagenet1k_v2")),
            ("mobilenetv2_100", Some("timm/mobilenetv2_100.ra_in1k")),
            ("mobilenet_v2_0.35", Some("d-li14/mobilenetv2_0.35")),
            ("mobilenet_v2_0.1_round4", Some("d-li14/mobilenetv2_0.1")),
            ("tf_mobilenet_v2", Some("hf:google/mobilenet_v2_1.0_224")),
            ("efficientnet_b0", Some("torchvision/efficientnet_b0.imagenet1k_v1")),
            ("efficientnet_b0.ra_in1k", Some("timm/efficientnet_b0.ra_in1k")),
            ("efficientnet-b0", Some("lukemelas/efficientnet-b0")),
            ("tf_efficientnet_b8", Some("timm/tf_efficientnet_b8.ap_in1k")),
            ("efficientnet_lite0", Some("timm/efficientnet_lite0.ra_in1k")),
            ("efficientnet_b8", None),
            ("resnet50", None),
            ("", None),
        ] {
            assert_eq!(default_weights(architecture).map(|row| row.name), weights, "{architecture}");
        }
    }
}
