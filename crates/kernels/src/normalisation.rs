//! Batch normalisation with the activation that follows it.

use burn::{backend::Dispatch, tensor::Tensor};

use crate::{Activation, extension::Kernels};

/// Where the mean and variance of a normalisation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// They are those of the very input, so that the gradient flows through them: training.
    Batch,
    /// They are constants: evaluation, or a frozen normalisation.
    Fixed,
}

/// What a normalisation is, apart from its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Added to the variance.
    pub epsilon: f64,
    /// Where mean and variance come from.
    pub statistics: Statistics,
    /// What follows.
    pub activation: Activation,
}

/// Per-channel mean `[C]` and biased variance `[C]` of `x` [N, H, W, C], in single precision if `x` is in 16 bits; detached
/// from the graph.
pub fn channel_statistics(x: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let (mean, variance) = Dispatch::channel_statistics(x.detach().into_dispatch());
    (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

/// `activation((x - mean) / sqrt(var + epsilon) * gamma + beta)` for `x` [N, H, W, C] and vectors `[C]`, which are in single
/// precision if `x` is in 16 bits.
///
/// Gradients reach `x`, `gamma` and `beta`, never `mean` and `var`. With [`Statistics::Batch`], `mean` and `var` must
/// be those of `x`, as [`channel_statistics`] gives them; the gradient of `x` then includes their dependence on it.
///
/// # Panics
/// If a vector has not one element for each channel.
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
        assert_eq!(vector.dims(), [channels], "a normalisation needs one number for each channel");
    }
    Tensor::from_dispatch(Dispatch::normalise(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        mean.into_dispatch(),
        var.into_dispatch(),
        Normalisation { epsilon, statistics, activation },
    ))
}
