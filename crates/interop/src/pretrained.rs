//! Published weights by name: download, check and import in one call.

use std::ops::ControlFlow;

use burn::tensor::Device;
use mbconv_hub::{Hub, HubError};

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
}

impl PretrainedError {
    /// Returns a fix, if the message does not already name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub(error) => error.hint(),
            Self::Import(error) => error.hint(),
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

/// Does the same as [`pretrained`] with the cache and server of `hub`.
///
/// # Errors
/// As [`pretrained`].
pub fn pretrained_from(hub: &Hub, name: &str, device: &Device) -> Result<Loaded, PretrainedError> {
    let file = hub.resolve(name, &mut |_| ControlFlow::Continue(()))?;
    Ok(load_weights(&file.path, &ImportOptions::default(), device)?)
}
