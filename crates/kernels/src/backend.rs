//! The operations that a backend can implement faster than with Burn's own, and the gradients that
//! autodiff needs.
//!
//! Feature maps and their gradients have one precision. Weights, values per channel (statistics,
//! gamma, beta) and the gradients of both have the same precision, except that they are in single
//! precision if the feature maps are in 16 bits.
//!
//! Every default body consists of ordinary backend operations ([`crate::fallback`]), so that an
//! empty `impl` suffices for a backend. `cpu` and `gpu` override them, and `autodiff` connects
//! forward and backward passes. Under Burn's fusion, on GPUs, each operation is opaque: only the
//! shapes of its results are known in advance.

// Burn deprecates `NdArray`; enabling the feature accepts that.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::sync::Arc;

use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

use crate::fallback;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use crate::gpu::fusion_shapes::{
    average_shape, channels_of, images_of, map_shape, mask_of, output_shape, vector_of, weight_of,
};
use crate::types::activation::Activation;
use crate::types::conv2d_geometry::Conv2dGeometry;
use crate::types::convolution::Convolution;
use crate::types::dropout::DropoutConfig;
use crate::types::image::operation::Operation;
use crate::types::image::sampling::Sampling;
use crate::types::normalization::Normalization;
use crate::types::optimizer_step::OptimizerStep;
use crate::types::quantizer::Quantizer;
use crate::types::tensors::Tensors;

/// Operations on channels-last feature maps [N, H, W, C], on images of bytes, and on all parameters
/// of a network.
#[backend_extension(
    Autodiff,
    Flex,
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Fusion: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait Kernels: Backend {
    /// Convolves `x` [N, H, W, Ci] with `weight` [Co, .., k, k] → [N, H', W', Co].
    #[fusion(dtype = x, shape = output_shape(x, weight, *convolution))]
    fn convolve(x: FloatTensor<Self>, weight: FloatTensor<Self>, convolution: Convolution) -> FloatTensor<Self> {
        fallback::convolve::<Self>(x, weight, convolution)
    }

    /// Returns the gradient of the input, with height and width `size`, from the gradient of the
    /// output.
    #[fusion(dtype = gradient, shape = map_shape(weight, gradient, *convolution, *size))]
    fn convolve_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
        size: [usize; 2],
    ) -> FloatTensor<Self> {
        fallback::convolve_input_gradient::<Self>(weight, gradient, convolution, size)
    }

    /// Returns the gradient of the weight from the gradient of the output.
    #[fusion(meta = |x, gradient, convolution| weight_of(x, gradient, *convolution))]
    fn convolve_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        convolution: Convolution,
    ) -> FloatTensor<Self> {
        fallback::convolve_weight_gradient::<Self>(x, gradient, convolution)
    }

    /// Returns `activation(x + shift)`, with one value in `shift` `[C]` per channel.
    #[fusion(dtype = x, shape = x)]
    fn activate(x: FloatTensor<Self>, shift: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        fallback::activate::<Self>(x, shift, activation)
    }

    /// Returns `activate(y, after)` for the depthwise convolution `y` of `activate(x, before)`.
    #[fusion(dtype = x, shape = output_shape(x, weight, Convolution::Depthwise(*geometry)))]
    fn depthwise_activated(
        x: FloatTensor<Self>,
        before: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        after: FloatTensor<Self>,
        geometry: Conv2dGeometry,
        activation: Activation,
    ) -> FloatTensor<Self> {
        fallback::depthwise_activated::<Self>(x, before, weight, after, geometry, activation)
    }

    /// Returns the mean `[C]` and the biased variance `[C]` over all dimensions except channels.
    #[fusion(meta = |x| (vector_of(x), vector_of(x)))]
    fn channel_statistics(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fallback::channel_statistics::<Self>(x)
    }

    /// Normalizes, scales, shifts and activates `x`.
    #[fusion(dtype = x, shape = x)]
    fn normalize(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        normalization: Normalization,
    ) -> FloatTensor<Self> {
        fallback::normalize::<Self>(x, gamma, beta, mean, variance, normalization)
    }

    /// Averages every channel over each image, [N, 1, 1, C].
    #[fusion(dtype = x, shape = average_shape(x))]
    fn average(x: FloatTensor<Self>) -> FloatTensor<Self> {
        fallback::average::<Self>(x)
    }

    /// Scales every channel of an image by its `gate` [N, 1, 1, C].
    #[fusion(dtype = x, shape = x)]
    fn scale_channels(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        fallback::scale_channels::<Self>(x, gate)
    }

    /// Returns the gradients of `x` and `gate` from the gradient of the output.
    #[fusion(meta = |x, gate, _| (x.clone(), gate.clone()))]
    fn scale_channels_gradients(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        fallback::scale_channels_gradients::<Self>(x, gate, gradient)
    }

    /// Rounds `x` to the real numbers of `quantizer`.
    #[fusion(dtype = x, shape = x)]
    fn fake_quantize(x: FloatTensor<Self>, quantizer: Quantizer) -> FloatTensor<Self> {
        fallback::fake_quantize::<Self>(x, quantizer)
    }

    /// Returns the gradient of `x` from the gradient of the rounded `x`.
    #[fusion(dtype = x, shape = x)]
    fn fake_quantize_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        quantizer: Quantizer,
    ) -> FloatTensor<Self> {
        fallback::fake_quantize_gradient::<Self>(x, gradient, quantizer)
    }

    /// Returns the gradients of `x`, `gamma` and `beta` from the gradient of the output.
    #[fusion(meta = |x, gamma, beta, _, _, _, _| (x.clone(), gamma.clone(), beta.clone()))]
    fn normalize_gradients(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        normalization: Normalization,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        fallback::normalize_gradients::<Self>(x, gamma, beta, mean, variance, gradient, normalization)
    }

    /// Unpacks images [N, H, W] from the bytes in `words`, three per pixel and four per word; see
    /// [`crate::ops::image_ops`].
    #[fusion(meta = |words, size| images_of(words, *size))]
    fn unpack(words: IntTensor<Self>, size: [usize; 3]) -> IntTensor<Self> {
        fallback::unpack::<Self>(words, size)
    }

    /// Returns the bytes of images [N, H, W] in single precision, [N, H, W, 3].
    #[fusion(meta = |images| channels_of(images))]
    fn channels(images: IntTensor<Self>) -> FloatTensor<Self> {
        fallback::channels::<Self>(images)
    }

    /// Applies each image's operation to images [N, H, W].
    #[fusion(dtype = images, shape = images)]
    fn perform(images: IntTensor<Self>, operations: Arc<[(Operation, Sampling)]>) -> IntTensor<Self> {
        fallback::perform::<Self>(images, &operations)
    }

    /// Returns parameters, first and second moments after an optimizer step; see
    /// [`crate::ops::optimizer_step`]. If `scalars` has a tensor, its values from `start` on
    /// replace those of `step`.
    #[fusion(meta = |parameters, _, first, second, _, _, _| (parameters.clone(), first.clone(), second.clone()))]
    fn optimizer_step(
        #[extension_type] parameters: Tensors<Self>,
        #[extension_type] gradients: Tensors<Self>,
        #[extension_type] first: Tensors<Self>,
        #[extension_type] second: Tensors<Self>,
        #[extension_type] scalars: Tensors<Self>,
        start: usize,
        step: OptimizerStep,
    ) -> (Tensors<Self>, Tensors<Self>, Tensors<Self>) {
        fallback::optimizer_step::<Self>([parameters, gradients, first, second], scalars, start, step)
    }

    /// Returns the weighted sums of averages and values, with a pair of weights each in `shares`.
    /// If `scalars` has a tensor, its two values at `start` replace all pairs.
    #[fusion(meta = |averages, _, _, _, _| averages.clone())]
    fn lerp(
        #[extension_type] averages: Tensors<Self>,
        #[extension_type] values: Tensors<Self>,
        #[extension_type] scalars: Tensors<Self>,
        start: usize,
        shares: Arc<[[f32; 2]]>,
    ) -> Tensors<Self> {
        fallback::lerp::<Self>(averages, values, scalars, start, &shares)
    }

    /// Writes values into the memory of the targets, even if it is shared.
    #[fusion(meta = |targets, _| targets.clone())]
    fn overwrite(#[extension_type] targets: Tensors<Self>, #[extension_type] values: Tensors<Self>) -> Tensors<Self> {
        let _ = targets;
        values
    }

    /// Returns a dropout mask `[count]`: each value is `1 / (1 - probability)` or 0; see
    /// [`crate::ops::dropout`].
    #[fusion(meta = |scalars, count, _| mask_of(scalars, *count))]
    fn dropout_mask(scalars: FloatTensor<Self>, count: usize, config: DropoutConfig) -> FloatTensor<Self> {
        fallback::dropout_mask::<Self>(scalars, count, config)
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for burn::backend::NdArray {}
