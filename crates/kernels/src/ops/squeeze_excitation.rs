//! The operations of squeeze-and-excitation (<https://arxiv.org/abs/1709.01507>) on whole feature
//! maps: the means from which the gate is computed, and the multiplication by the gate.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::backend::Kernels;

/// Averages every channel over each image: [N, H, W, C] → [N, 1, 1, C].
pub fn global_average(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::average(x.into_dispatch()))
}

/// Scales every channel of an image in `x` [N, H, W, C] by `gate` [N, 1, 1, C].
///
/// # Panics
/// If the gate has another shape.
pub fn scale_channels(x: Tensor<4>, gate: Tensor<4>) -> Tensor<4> {
    let [images, .., channels] = x.dims();
    assert_eq!(gate.dims(), [images, 1, 1, channels], "a gate for each channel of each image");
    Tensor::from_dispatch(Dispatch::scale_channels(x.into_dispatch(), gate.into_dispatch()))
}
