//! Layers for evaluation, when batch-norms are folded into the preceding convolutions: a shift per
//! channel, and the activation.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::backend::Kernels;
use crate::types::activation::Activation;
use crate::types::conv2d_geometry::Conv2dGeometry;

/// Returns `activation(x + shift)` for `x` [N, H, W, C] and `shift` `[C]`, which is in single
/// precision if `x` is in 16 bits.
///
/// # Panics
/// If the shift does not have one element per channel.
pub fn shift_activation(x: Tensor<4>, shift: Tensor<1>, activation: Activation) -> Tensor<4> {
    let [.., channels] = x.dims();
    assert_eq!(shift.dims(), [channels], "a shift for each channel");
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), shift.into_dispatch(), activation))
}

/// Applies [`shift_activation`] with `before`, [`depthwise_conv2d`](crate::depthwise_conv2d) with
/// `weight` [C, 1, k, k], and [`shift_activation`] with `after`. Weight and shifts are in single
/// precision if `x` is in 16 bits.
///
/// On GPUs this is one pass over the feature map if the activation only clamps; otherwise it is
/// two.
///
/// # Panics
/// If the shapes do not match, the stride is zero or the window is larger than the padded feature
/// map.
pub fn depthwise_between_activations(
    x: Tensor<4>,
    before: Tensor<1>,
    weight: Tensor<4>,
    after: Tensor<1>,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Tensor<4> {
    let ([.., channels], [outputs, depth, kernel, columns]) = (x.dims(), weight.dims());
    assert_eq!([outputs, depth, columns], [channels, 1, kernel], "a square window for each channel");
    assert_eq!([before.dims(), after.dims()], [[channels]; 2], "a shift for each channel");
    Tensor::from_dispatch(Dispatch::depthwise_activated(
        x.into_dispatch(),
        before.into_dispatch(),
        weight.into_dispatch(),
        after.into_dispatch(),
        Conv2dGeometry { kernel, stride, padding },
        activation,
    ))
}
