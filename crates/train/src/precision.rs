//! In which precision a network's maps are computed.

use burn::tensor::{DType, Device, Tensor};
use mbconv_nets::{Inference, Network, images_in};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::{describe, is_host};

/// Of maps and products. In training, weights, optimizer, moving average, batch-norm's statistics, classifier and loss stay in
/// single precision (Micikevicius et al. 2018, <https://arxiv.org/abs/1710.03740>), and so do the run's evaluations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapPrecision {
    /// Single precision.
    #[default]
    F32,
    /// 16 bits with the range of single precision, so that losses need no scaling: half the memory and half the traffic.
    Bf16,
}

/// A device that does not compute so.
#[derive(Debug, Error)]
#[error("{device} does not compute in bf16")]
pub struct NoBf16 {
    /// Which.
    pub device: String,
}

impl NoBf16 {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        Some("--device cuda, on an NVIDIA GPU, or f32: --set precision=f32 in training, --dtype f32 otherwise".into())
    }
}

impl MapPrecision {
    /// Whether a device computes so.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(self, device: &Device) -> Result<(), NoBf16> {
        if self == Self::F32 || device.supports_dtype(DType::BF16) {
            return Ok(());
        }
        Err(NoBf16 { device: describe(device) })
    }

    /// Whether the device can train so but gains nothing by it: the processor's kernels for training take no 16 bits.
    pub fn is_slow(self, device: &Device) -> bool {
        self == Self::Bf16 && is_host(device)
    }

    /// A network that only evaluates, and computes so.
    pub fn inference(self, network: &Network) -> Inference {
        match self {
            Self::F32 => Inference::new(network),
            Self::Bf16 => Inference::in_bf16(network),
        }
    }

    /// Whether evaluating so is slower than in single precision on this device.
    pub fn is_slow_to_evaluate(self, device: &Device) -> bool {
        self == Self::Bf16 && !Inference::gains_by_bf16(device)
    }

    /// Images, as they are made, for a network that shall train so.
    pub fn of(self, images: Tensor<4>) -> Tensor<4> {
        match self {
            Self::F32 => images,
            Self::Bf16 => images_in(images, DType::BF16),
        }
    }
}
