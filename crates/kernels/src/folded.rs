//! What is left of batch-norms that are folded into the convolutions before them: a shift of every channel, and the activation.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::{Activation, Window, extension::Kernels};

/// `activation(x + shift)` for `x` [N, H, W, C] and `shift` `[C]`, which is in single precision if `x` is in 16 bits.
///
/// # Panics
/// If the shift has not one element for each channel.
pub fn shift_activation(x: Tensor<4>, shift: Tensor<1>, activation: Activation) -> Tensor<4> {
    let [.., channels] = x.dims();
    assert_eq!(shift.dims(), [channels], "a shift for each channel");
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), shift.into_dispatch(), activation))
}

/// [`shift_activation`] by `before`, [`depthwise_conv2d`](crate::depthwise_conv2d) with `weight` [C, 1, k, k], and
/// [`shift_activation`] by `after`. Weight and shifts are in single precision if `x` is in 16 bits.
///
/// On GPUs, if the activation is no more than bounds, this is one pass over the map; otherwise it is two.
///
/// # Panics
/// If the shapes do not fit each other, the stride is zero or the window is larger than the padded map.
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
        Window { kernel, stride, padding },
        activation,
    ))
}
