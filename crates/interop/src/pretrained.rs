//! Published weights by name: download, check and import in one call.

use std::ops::ControlFlow;

use burn::tensor::Device;
use mbconv_hub::{Hub, HubError};
use mbconv_nets::{EfficientNetConfig, Family, MobileNetV2Config, Network};

use crate::import::{ImportError, ImportOptions, Loaded, load_weights};

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
