//! Precision of a network's feature maps.

use burn::tensor::{DType, Device, Tensor};
use mbconv_nets::{Inference, Network, cast_images};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::{describe, is_host};

/// Precision of feature maps and matrix multiplications. In training, weights, optimizer state,
/// moving average, batch-norm statistics, classifier and loss are always in f32 (Micikevicius et
/// al. 2018, <https://arxiv.org/abs/1710.03740>). So is the evaluation during a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MapPrecision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bfloat16: 16 bits with the range of f32, so that no loss scaling is needed. Halves memory
    /// and memory traffic.
    Bf16,
}

/// The device does not support bf16.
#[derive(Debug, Error)]
#[error("{device} does not support bf16")]
pub struct NoBf16 {
    /// Name of the device.
    pub device: String,
}

impl NoBf16 {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        Some("--device cuda, on an NVIDIA GPU, or f32: --set precision=f32 in training, --dtype f32 otherwise".into())
    }
}

impl MapPrecision {
    /// Checks that a device supports this precision.
    ///
    /// # Errors
    /// Returns an error if it does not.
    pub fn check(self, device: &Device) -> Result<(), NoBf16> {
        if self == Self::F32 || device.supports_dtype(DType::BF16) {
            return Ok(());
        }
        Err(NoBf16 { device: describe(device) })
    }

    /// Returns whether training in this precision has no benefit on the device: the CPU's training
    /// kernels do not use 16-bit values.
    pub fn is_slow(self, device: &Device) -> bool {
        self == Self::Bf16 && is_host(device)
    }

    /// Returns the network for inference in this precision.
    pub fn inference(self, network: &Network) -> Inference {
        match self {
            Self::F32 => Inference::new(network),
            Self::Bf16 => Inference::in_bf16(network),
        }
    }

    /// Returns whether inference in this precision is slower than in f32 on the device.
    pub fn is_slow_to_evaluate(self, device: &Device) -> bool {
        self == Self::Bf16 && !Inference::gains_by_bf16(device)
    }

    /// Casts images to the training precision.
    pub fn of(self, images: Tensor<4>) -> Tensor<4> {
        match self {
            Self::F32 => images,
            Self::Bf16 => cast_images(images, DType::BF16),
        }
    }
}
