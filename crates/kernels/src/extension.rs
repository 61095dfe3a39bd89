//! The operations that a backend may do better than Burn's own, with the gradients that autodiff needs.
//!
//! Every default body is made of ordinary backend operations ([`crate::composed`]), so that a backend takes part with an
//! empty `impl`; `flex` overrides them all, and `autodiff` joins forward and gradient.

// Burn marks `NdArray` as deprecated; whoever turns the feature on knows.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};

use crate::{Convolution, Normalisation, composed};

/// Operations on channels-last maps [N, H, W, C].
#[backend_extension(
    Autodiff,
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait Kernels: Backend {
    /// The convolution of `x` [N, H, W, Ci] with `weight` [Co, .., k, k] → [N, H', W', Co].
    fn convolve(x: FloatTensor<Self>, weight: FloatTensor<Self>, convolution: Convolution) -> FloatTensor<Self> {
        composed::convolve::<Self>(x, weight, convolution)
    }

    /// The gradient of the map, whose height and width are `size`, given that of the output.
    fn convolve_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
        size: [usize; 2],
    ) -> FloatTensor<Self> {
        composed::convolve_input_gradient::<Self>(weight, gradient, convolution, size)
    }

    /// The gradient of the weight, given that of the output.
    fn convolve_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        composed::convolve_weight_gradient::<Self>(x, gradient, convolution)
    }

    /// Mean `[C]` and biased variance `[C]` over all but the channels.
    fn channel_statistics(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::channel_statistics::<Self>(x)
    }

    /// Normalisation, scale and shift, and activation.
    fn normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        normalisation: Normalisation,
    ) -> FloatTensor<Self> {
        composed::normalise::<Self>(x, gamma, beta, mean, variance, normalisation)
    }

    /// The gradients of `x`, `gamma` and `beta`, given that of the output.
    fn normalise_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        normalisation: Normalisation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::normalise_gradients::<Self>(x, gamma, beta, mean, variance, gradient, normalisation)
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl Kernels for burn::backend::Cube {}
