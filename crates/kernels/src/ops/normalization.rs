//! Batch-norm with the activation that follows it.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::backend::Kernels;
use crate::types::activation::Activation;
use crate::types::normalization::{Normalization, Statistics};

/// Returns the mean `[C]` and the biased variance `[C]` per channel of `x` [N, H, W, C], detached
/// from the graph and in single precision if `x` is in 16 bits.
pub fn channel_statistics(x: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let (mean, variance) = Dispatch::channel_statistics(x.detach().into_dispatch());
    (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

/// Returns `activation((x - mean) / sqrt(var + epsilon) * gamma + beta)` for `x` [N, H, W, C] and
/// vectors `[C]`, which are in single precision if `x` is in 16 bits.
///
/// Gradients flow to `x`, `gamma` and `beta`, never to `mean` and `var`. With
/// [`Statistics::Batch`], `mean` and `var` must be those of `x`, as returned by
/// [`channel_statistics`]; the gradient of `x` then includes their dependence on it.
///
/// # Panics
/// If a vector does not have one element per channel.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_activation(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    mean: Tensor<1>,
    var: Tensor<1>,
    epsilon: f64,
    statistics: Statistics,
    activation: Activation,
) -> Tensor<4> {
    let [.., channels] = x.dims();
    for vector in [&gamma, &beta, &mean, &var] {
        assert_eq!(vector.dims(), [channels], "a normalization needs one number for each channel");
    }
    Tensor::from_dispatch(Dispatch::normalize(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        mean.into_dispatch(),
        var.into_dispatch(),
        Normalization { epsilon, statistics, activation },
    ))
}
