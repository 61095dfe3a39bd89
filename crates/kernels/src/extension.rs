//! The operations that a backend may do better than Burn's own, with the gradients that autodiff needs.
//!
//! Maps and their gradients are of one precision; weights, what belongs to channels (statistics, gamma, beta) and the gradients of
//! both are of the same, but in single precision where that is of 16 bits.
//!
//! Every default body is made of ordinary backend operations ([`crate::composed`]), so that a backend takes part with an
//! empty `impl`; `flex` and `cube` override them, and `autodiff` joins forward and gradient. Under Burn's fusion of operations,
//! on GPUs, each is one operation of which only the shape is known beforehand.

// Burn marks `NdArray` as deprecated; whoever turns the feature on knows.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::sync::Arc;

use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::cube::shapes::{
    average_shape, channels_of, kept_of, map_shape, output_shape, pictures_of, vector_of, weight_of,
};
use crate::{
    Activation, Convolution, Normalisation, Window,
    chance::Dropping,
    composed,
    descent::{Descent, Tensors},
    pictures::{Operation, Sampling},
};

/// Operations on channels-last maps [N, H, W, C], on pictures, and on all of a network's parameters.
#[backend_extension(
    Autodiff,
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Fusion: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait Kernels: Backend {
    /// The convolution of `x` [N, H, W, Ci] with `weight` [Co, .., k, k] → [N, H', W', Co].
    #[fusion(dtype = x, shape = output_shape(x, weight, *convolution))]
    fn convolve(x: FloatTensor<Self>, weight: FloatTensor<Self>, convolution: Convolution) -> FloatTensor<Self> {
        composed::convolve::<Self>(x, weight, convolution)
    }

    /// The gradient of the map, whose height and width are `size`, given that of the output.
    #[fusion(dtype = gradient, shape = map_shape(weight, gradient, *convolution, *size))]
    fn convolve_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
        size: [usize; 2],
    ) -> FloatTensor<Self> {
        composed::convolve_input_gradient::<Self>(weight, gradient, convolution, size)
    }

    /// The gradient of the weight, given that of the output.
    #[fusion(meta = |x, gradient, convolution| weight_of(x, gradient, *convolution))]
    fn convolve_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        composed::convolve_weight_gradient::<Self>(x, gradient, convolution)
    }

    /// `activation(x + shift)`, of which `shift` `[C]` has a number for each channel.
    #[fusion(dtype = x, shape = x)]
    fn activate(x: FloatTensor<Self>, shift: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        composed::activate::<Self>(x, shift, activation)
    }

    /// The depthwise convolution of `activate(x, before)`, activated in turn with `after`.
    #[fusion(dtype = x, shape = output_shape(x, weight, Convolution::Depthwise(*window)))]
    fn depthwise_activated(
        x: FloatTensor<Self>,
        before: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        after: FloatTensor<Self>,
        window: Window,
        activation: Activation,
    ) -> FloatTensor<Self> {
        composed::depthwise_activated::<Self>(x, before, weight, after, window, activation)
    }

    /// Mean `[C]` and biased variance `[C]` over all but the channels.
    #[fusion(meta = |x| (vector_of(x), vector_of(x)))]
    fn channel_statistics(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::channel_statistics::<Self>(x)
    }

    /// Normalisation, scale and shift, and activation.
    #[fusion(dtype = x, shape = x)]
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

    /// The mean of every channel over each image, [N, 1, 1, C].
    #[fusion(dtype = x, shape = average_shape(x))]
    fn average(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::average::<Self>(x)
    }

    /// Every channel of an image scaled by its `gate` [N, 1, 1, C].
    #[fusion(dtype = x, shape = x)]
    fn excite(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::excite::<Self>(x, gate)
    }

    /// The gradients of `x` and `gate`, given that of the output.
    #[fusion(meta = |x, gate, _| (x.clone(), gate.clone()))]
    fn excite_gradients(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::excite_gradients::<Self>(x, gate, gradient)
    }

    /// The gradients of `x`, `gamma` and `beta`, given that of the output.
    #[fusion(meta = |x, gamma, beta, _, _, _, _| (x.clone(), gamma.clone(), beta.clone()))]
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

    /// Pictures [N, H, W] whose bytes `words` has, three a pixel and four a word; see [`crate::pictures`].
    #[fusion(meta = |words, size| pictures_of(words, *size))]
    fn unpack(words: IntTensor<Self>, size: [usize; 3]) -> IntTensor<Self> {
        composed::unpack::<Self>(words, size)
    }

    /// The bytes of pictures [N, H, W] as numbers in single precision [N, H, W, 3].
    #[fusion(meta = |pictures| channels_of(pictures))]
    fn channels(pictures: IntTensor<Self>) -> FloatTensor<Self> {
        composed::channels::<Self>(pictures)
    }

    /// Pictures [N, H, W], each after its operation.
    #[fusion(dtype = pictures, shape = pictures)]
    fn perform(pictures: IntTensor<Self>, operations: Arc<[(Operation, Sampling)]>) -> IntTensor<Self> {
        composed::perform::<Self>(pictures, &operations)
    }

    /// Parameters, and their first and second moments, after a step along the gradients; see [`crate::descent`]. A tensor of
    /// `numbers` has those of the step, from `start`.
    #[fusion(meta = |parameters, _, first, second, _, _, _| (parameters.clone(), first.clone(), second.clone()))]
    fn descend(
        #[extension_type] parameters: Tensors<Self>,
        #[extension_type] gradients: Tensors<Self>,
        #[extension_type] first: Tensors<Self>,
        #[extension_type] second: Tensors<Self>,
        #[extension_type] numbers: Tensors<Self>,
        start: usize,
        descent: Descent,
    ) -> (Tensors<Self>, Tensors<Self>, Tensors<Self>) {
        composed::descend::<Self>([parameters, gradients, first, second], numbers, start, descent)
    }

    /// The sums of averages and values, each times its share: one pair for each, or the two that a tensor of `numbers` has from `start`.
    #[fusion(meta = |averages, _, _, _, _| averages.clone())]
    fn blend(
        #[extension_type] averages: Tensors<Self>,
        #[extension_type] values: Tensors<Self>,
        #[extension_type] numbers: Tensors<Self>,
        start: usize,
        shares: Arc<[[f32; 2]]>,
    ) -> Tensors<Self> {
        composed::blend::<Self>(averages, values, numbers, start, &shares)
    }

    /// Writes values into the memory of the targets, whoever else holds it.
    #[fusion(meta = |targets, _| targets.clone())]
    fn overwrite(#[extension_type] targets: Tensors<Self>, #[extension_type] values: Tensors<Self>) -> Tensors<Self> {
        let _ = targets;
        values
    }

    /// What a layer that drops numbers at random multiplies them by, `[count]`: `1 / keep`, or 0; see [`crate::chance`].
    #[fusion(meta = |numbers, count, _| kept_of(numbers, *count))]
    fn kept(numbers: FloatTensor<Self>, count: usize, dropping: Dropping) -> FloatTensor<Self> {
        composed::kept::<Self>(numbers, count, dropping)
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for burn::backend::NdArray {}
