//! Fake quantization: rounding to the real numbers of 8-bit values, for training.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::backend::Kernels;
use crate::types::quantizer::Quantizer;

/// Returns `quantizer.real(quantizer.quantize(x))`. The gradient is that of the identity for values
/// in the quantizer's range, up to half a step beyond, and 0 for others, as in PyTorch's
/// `fake_quantize_per_tensor_affine`.
pub fn fake_quantize<const D: usize>(x: Tensor<D>, quantizer: Quantizer) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fake_quantize(x.into_dispatch(), quantizer))
}
