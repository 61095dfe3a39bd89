//! Every operation and its gradients in ordinary backend operations, for backends without kernels
//! of their own.
//!
//! Feature maps in 16 bits are summed and normalized in single precision, and multiplied in single
//! precision for the gradient of a weight.

use burn::{
    backend::{
        Backend, TensorMetadata,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{
        DType, FloatDType, Shape, Slice, TensorData,
        ops::{ConvOptions, ConvTransposeOptions},
        read_sync,
    },
};

use crate::types::activation::{Activation, RELU6_MAX};
use crate::types::conv2d_geometry::Conv2dGeometry;
use crate::types::convolution::Convolution;
use crate::types::dropout::DropoutConfig;
use crate::types::image::operation::Operation;
use crate::types::image::pixels::RgbPixels;
use crate::types::image::sampling::Sampling;
use crate::types::normalization::{Normalization, Statistics};
use crate::types::optimizer_step::OptimizerStep;
use crate::types::precision::parameter_dtype;
use crate::types::quantizer::Quantizer;
use crate::types::tensors::Tensors;

const TO_NCHW: [usize; 4] = [0, 3, 1, 2];
const TO_NHWC: [usize; 4] = [0, 2, 3, 1];

/// Implements [`crate::backend::Kernels::unpack`] on the CPU.
pub fn unpack<B: Backend>(words: IntTensor<B>, size: [usize; 3]) -> IntTensor<B> {
    let (device, dtype) = (words.device(), words.dtype());
    let bytes: Vec<u8> = integers::<B>(words).into_iter().flat_map(i32::to_le_bytes).collect();
    let pixels = bytes.as_chunks::<3>().0.iter().take(size.iter().product());
    let pixels: Vec<i32> = pixels.map(|[red, green, blue]| i32::from_le_bytes([*red, *green, *blue, 0])).collect();
    B::int_from_data(TensorData::new(pixels, size).convert_dtype(dtype), &device)
}

/// Implements [`crate::backend::Kernels::channels`] on the CPU.
pub fn channels<B: Backend>(images: IntTensor<B>) -> FloatTensor<B> {
    let (device, [count, height, width]) = (images.device(), images.shape().dims());
    let bytes = integers::<B>(images).into_iter().flat_map(|pixel| pixel.to_le_bytes().into_iter().take(3));
    let channels: Vec<f32> = bytes.map(f32::from).collect();
    B::float_from_data(TensorData::new(channels, [count, height, width, 3]), &device)
}

/// Implements [`crate::backend::Kernels::perform`] on the CPU.
pub fn perform<B: Backend>(images: IntTensor<B>, operations: &[(Operation, Sampling)]) -> IntTensor<B> {
    let (device, dtype, shape) = (images.device(), images.dtype(), images.shape());
    let [_, height, width] = shape.dims();
    let mut pixels = integers::<B>(images);
    for (image, (operation, sampling)) in pixels.chunks_exact_mut((height * width).max(1)).zip(operations) {
        let bytes = image.iter().flat_map(|pixel| pixel.to_le_bytes().into_iter().take(3));
        let done = operation.apply(RgbPixels { width, height, data: bytes.collect() }, *sampling);
        for (pixel, [red, green, blue]) in image.iter_mut().zip(done.data.as_chunks::<3>().0) {
            *pixel = i32::from_le_bytes([*red, *green, *blue, 0]);
        }
    }
    B::int_from_data(TensorData::new(pixels, shape).convert_dtype(dtype), &device)
}

/// Implements [`crate::backend::Kernels::optimizer_step`] on the CPU, in place if the backend's
/// memory is that of the CPU.
pub fn optimizer_step<B: Backend>(
    tensors: [Tensors<B>; 4],
    scalars: Tensors<B>,
    start: usize,
    step: OptimizerStep,
) -> (Tensors<B>, Tensors<B>, Tensors<B>) {
    let step = scalars_from(scalars, start).map_or(step, |scalars| step.with_scalars(scalars));
    let [parameters, gradients, first, second] = tensors.map(|list| list.0.into_iter());
    let [mut first, mut second] = [first, second];
    let (mut moved, mut moments) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (parameter, gradient) in parameters.zip(gradients) {
        let (device, dtype) = (parameter.device(), parameter.dtype());
        let mut values = in_single_precision::<B>(parameter);
        let gradient = in_single_precision::<B>(gradient);
        let [mut first, mut second] = [first.next(), second.next()].map(|moment| moment.map(in_single_precision::<B>));
        let [a, b] = [&mut first, &mut second].map(|moment| moment.as_mut().map_or(&mut [][..], slice));
        step.apply(slice(&mut values), gradient.as_slice().unwrap_or_default(), a, b);
        moved.push(B::float_from_data(values.convert_dtype(dtype), &device));
        for (kept, moment) in moments.iter_mut().zip([first, second]) {
            kept.extend(moment.map(|moment| B::float_from_data(moment.convert_dtype(dtype), &device)));
        }
    }
    let [first, second] = moments;
    (Tensors(moved), Tensors(first), Tensors(second))
}

/// Implements [`crate::backend::Kernels::lerp`] on the CPU, in place as [`optimizer_step`].
pub fn lerp<B: Backend>(
    averages: Tensors<B>,
    values: Tensors<B>,
    scalars: Tensors<B>,
    start: usize,
    shares: &[[f32; 2]],
) -> Tensors<B> {
    let common: Option<[f32; 2]> = scalars_from(scalars, start);
    let blended = averages.0.into_iter().zip(values.0).zip(shares).map(|((average, value), shares)| {
        let [keep, take] = common.unwrap_or(*shares);
        let (device, dtype) = (average.device(), average.dtype());
        let mut average = in_single_precision::<B>(average);
        let value = in_single_precision::<B>(value);
        for (average, value) in slice(&mut average).iter_mut().zip(value.as_slice::<f32>().unwrap_or_default()) {
            *average = keep * *average + take * value;
        }
        B::float_from_data(average.convert_dtype(dtype), &device)
    });
    Tensors(blended.collect())
}

/// Implements [`crate::backend::Kernels::dropout_mask`] on the CPU.
pub fn dropout_mask<B: Backend>(scalars: FloatTensor<B>, count: usize, config: DropoutConfig) -> FloatTensor<B> {
    let device = scalars.device();
    let seed = scalars_from(Tensors::<B>(vec![scalars]), 0).unwrap_or_default();
    let factors: Vec<f32> = (0..count).map(|index| config.mask_value(seed, index as u32)).collect();
    B::float_from_data(TensorData::new(factors, [count]), &device)
}

/// Returns `N` values from `start` on, if there is a tensor that has them.
fn scalars_from<B: Backend, const N: usize>(scalars: Tensors<B>, start: usize) -> Option<[f32; N]> {
    let scalars = in_single_precision::<B>(scalars.0.into_iter().next()?);
    scalars.as_slice().ok()?.get(start..start + N)?.try_into().ok()
}

fn in_single_precision<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    read_sync(B::float_into_data(tensor)).expect("a device that can be read").convert_dtype(DType::F32)
}

fn slice(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice().unwrap_or_default()
}

fn integers<B: Backend>(tensor: IntTensor<B>) -> Vec<i32> {
    read_sync(B::int_into_data(tensor)).expect("a device that can be read").iter().collect()
}

/// Implements [`crate::backend::Kernels::convolve`].
pub fn convolve<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, convolution: Convolution) -> FloatTensor<B> {
    let [batch, height, width, channels] = x.shape().dims();
    let weight = cast::<B>(weight, x.dtype());
    if convolution == Convolution::Pointwise {
        let [outputs, ..] = weight.shape().dims::<4>();
        let x = B::float_reshape(x, Shape::new([batch * height * width, channels]));
        let weight = B::float_reshape(weight, Shape::new([outputs, channels]));
        let y = B::float_matmul(x, B::float_transpose(weight));
        return B::float_reshape(y, Shape::new([batch, height, width, outputs]));
    }
    let options = options(convolution, channels);
    let y = B::conv2d(B::float_permute(x, &TO_NCHW), weight, None, options);
    B::float_permute(y, &TO_NHWC)
}

/// Implements [`crate::backend::Kernels::convolve_input_gradient`].
pub fn convolve_input_gradient<B: Backend>(
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    convolution: Convolution,
    [height, width]: [usize; 2],
) -> FloatTensor<B> {
    let [outputs, depth, ..] = weight.shape().dims::<4>();
    let [batch, rows, columns, _] = gradient.shape().dims();
    let weight = cast::<B>(weight, gradient.dtype());
    if convolution == Convolution::Pointwise {
        let gradient = B::float_reshape(gradient, Shape::new([batch * rows * columns, outputs]));
        let x = B::float_matmul(gradient, B::float_reshape(weight, Shape::new([outputs, depth])));
        return B::float_reshape(x, Shape::new([batch, height, width, depth]));
    }
    let geometry = convolution.geometry();
    let options = ConvTransposeOptions::new(
        [geometry.stride; 2],
        [geometry.padding; 2],
        [geometry.remainder(height), geometry.remainder(width)],
        [1, 1],
        convolution.groups(outputs),
    );
    let x = B::conv_transpose2d(B::float_permute(gradient, &TO_NCHW), weight, None, options);
    B::float_permute(x, &TO_NHWC)
}

/// Implements [`crate::backend::Kernels::convolve_weight_gradient`].
pub fn convolve_weight_gradient<B: Backend>(
    x: FloatTensor<B>,
    gradient: FloatTensor<B>,
    convolution: Convolution,
) -> FloatTensor<B> {
    let [batch, height, width, channels] = x.shape().dims();
    let [.., outputs] = gradient.shape().dims::<4>();
    let (x, gradient) = (widened::<B>(x), widened::<B>(gradient));
    match convolution {
        Convolution::Pointwise => {
            let pixels = batch * height * width;
            let x = B::float_reshape(x, Shape::new([pixels, channels]));
            let gradient = B::float_reshape(gradient, Shape::new([pixels, outputs]));
            let weight = B::float_matmul(B::float_transpose(gradient), x);
            B::float_reshape(weight, Shape::new([outputs, channels, 1, 1]))
        }
        Convolution::Depthwise(geometry) => depthwise_weight_gradient::<B>(x, gradient, geometry),
        Convolution::Dense(geometry) => {
            let shape = Shape::new([outputs, channels, geometry.kernel, geometry.kernel]);
            // Only its shape is used.
            let weight = B::float_zeros(shape, &x.device(), x.dtype().into());
            let (x, gradient) = (B::float_permute(x, &TO_NCHW), B::float_permute(gradient, &TO_NCHW));
            B::conv2d_weight_backward(x, weight, gradient, options(convolution, channels))
        }
    }
}

/// Computes one product and sum for each tap. Burn's grouped weight gradient convolves channel by
/// channel instead, which is hundreds of tiny launches for a wide layer.
fn depthwise_weight_gradient<B: Backend>(
    x: FloatTensor<B>,
    gradient: FloatTensor<B>,
    geometry: Conv2dGeometry,
) -> FloatTensor<B> {
    let Conv2dGeometry { kernel, stride, padding } = geometry;
    let [batch, height, width, channels] = x.shape().dims();
    let [_, rows, columns, _] = gradient.shape().dims();
    let padded = Shape::new([batch, height + 2 * padding, width + 2 * padding, channels]);
    let padded = B::float_zeros(padded, &x.device(), x.dtype().into());
    let inner = [span(0, batch, 1), span(padding, height, 1), span(padding, width, 1), span(0, channels, 1)];
    let padded = B::float_slice_assign(padded, &inner, x);
    let taps = (0..kernel * kernel)
        .map(|tap| {
            let (row, column) = (span(tap / kernel, rows, stride), span(tap % kernel, columns, stride));
            let seen = B::float_slice(padded.clone(), &[span(0, batch, 1), row, column, span(0, channels, 1)]);
            let product = B::float_mul(seen, gradient.clone());
            let product = B::float_reshape(product, Shape::new([batch * rows * columns, channels]));
            B::float_sum_dim(product, 0)
        })
        .collect();
    let taps = B::float_transpose(B::float_cat(taps, 0));
    B::float_reshape(taps, Shape::new([channels, 1, kernel, kernel]))
}

/// Returns the slice of `count` elements from `start`, `step` apart.
fn span(start: usize, count: usize, step: usize) -> Slice {
    let end = start + (count * step).saturating_sub(step - 1);
    Slice::new(start as isize, Some(end as isize), step as isize)
}

fn options(convolution: Convolution, channels: usize) -> ConvOptions<2> {
    let Conv2dGeometry { stride, padding, .. } = convolution.geometry();
    ConvOptions::new([stride; 2], [padding; 2], [1, 1], convolution.groups(channels))
}

/// Implements [`crate::backend::Kernels::channel_statistics`].
pub fn channel_statistics<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let [batch, height, width, channels] = x.shape().dims();
    let x = B::float_reshape(widened::<B>(x), Shape::new([batch * height * width, channels]));
    let mean = B::float_mean_dim(x.clone(), 0);
    let centered = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centered.clone(), centered), 0);
    (vector::<B>(mean, channels), vector::<B>(variance, channels))
}

/// Implements [`crate::backend::Kernels::normalize`].
pub fn normalize<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    normalization: Normalization,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let inverse = inverse_deviation::<B>(variance, normalization.epsilon);
    let normalized = B::float_mul(B::float_sub(widened::<B>(x), per_channel::<B>(mean)), inverse);
    let z = B::float_add(B::float_mul(normalized, per_channel::<B>(gamma)), per_channel::<B>(beta));
    cast::<B>(activated::<B>(z, normalization.activation), dtype)
}

/// Implements [`crate::backend::Kernels::activate`].
pub fn activate<B: Backend>(x: FloatTensor<B>, shift: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    let dtype = x.dtype();
    let z = B::float_add(widened::<B>(x), per_channel::<B>(shift));
    cast::<B>(activated::<B>(z, activation), dtype)
}

/// Implements [`crate::backend::Kernels::depthwise_activated`].
pub fn depthwise_activated<B: Backend>(
    x: FloatTensor<B>,
    before: FloatTensor<B>,
    weight: FloatTensor<B>,
    after: FloatTensor<B>,
    geometry: Conv2dGeometry,
    activation: Activation,
) -> FloatTensor<B> {
    let x = activate::<B>(x, before, activation);
    activate::<B>(convolve::<B>(x, weight, Convolution::Depthwise(geometry)), after, activation)
}

/// Implements [`crate::backend::Kernels::normalize_gradients`].
pub fn normalize_gradients<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    gradient: FloatTensor<B>,
    normalization: Normalization,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [batch, height, width, channels] = x.shape().dims();
    let pixels = (batch * height * width) as f64;
    let (dtype, gradient) = (x.dtype(), widened::<B>(gradient));
    let inverse = inverse_deviation::<B>(variance, normalization.epsilon);
    let normalized = B::float_mul(B::float_sub(widened::<B>(x), per_channel::<B>(mean)), inverse.clone());
    let gamma = per_channel::<B>(gamma);
    let z = B::float_add(B::float_mul(normalized.clone(), gamma.clone()), per_channel::<B>(beta));
    let gradient = match normalization.activation {
        Activation::Identity => gradient,
        activation => B::float_mul(gradient, derivative::<B>(z, activation)),
    };
    let shift = sum_per_channel::<B>(gradient.clone());
    let scale = sum_per_channel::<B>(B::float_mul(gradient.clone(), normalized.clone()));
    let centered = match normalization.statistics {
        Statistics::Fixed => gradient,
        Statistics::Batch => {
            let offset = B::float_div_scalar(shift.clone(), pixels.into());
            let tilt = B::float_div_scalar(scale.clone(), pixels.into());
            B::float_sub(B::float_sub(gradient, offset), B::float_mul(normalized, tilt))
        }
    };
    let x = B::float_mul(centered, B::float_mul(gamma, inverse));
    (cast::<B>(x, dtype), vector::<B>(scale, channels), vector::<B>(shift, channels))
}

/// Implements [`crate::backend::Kernels::average`].
pub fn average<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let ([images, height, width, channels], dtype) = (x.shape().dims(), x.dtype());
    let x = B::float_reshape(widened::<B>(x), Shape::new([images, height * width, channels]));
    let means = B::float_reshape(B::float_mean_dim(x, 1), Shape::new([images, 1, 1, channels]));
    cast::<B>(means, dtype)
}

/// Returns the gradient of a feature map of the given height and width, from the gradient of its
/// averages.
pub fn average_gradient<B: Backend>(gradient: FloatTensor<B>, [height, width]: [usize; 2]) -> FloatTensor<B> {
    let [images, .., channels] = gradient.shape().dims::<4>();
    let share = 1.0 / (height * width) as f64;
    B::float_expand(B::float_mul_scalar(gradient, share.into()), Shape::new([images, height, width, channels]))
}

/// Implements [`crate::backend::Kernels::scale_channels`].
pub fn scale_channels<B: Backend>(x: FloatTensor<B>, gate: FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul(x, gate)
}

/// Implements [`crate::backend::Kernels::scale_channels_gradients`].
pub fn scale_channels_gradients<B: Backend>(
    x: FloatTensor<B>,
    gate: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let ([images, height, width, channels], dtype) = (x.shape().dims(), x.dtype());
    let product = B::float_mul(widened::<B>(x), widened::<B>(gradient.clone()));
    let product = B::float_reshape(product, Shape::new([images, height * width, channels]));
    let sums = B::float_reshape(B::float_sum_dim(product, 1), Shape::new([images, 1, 1, channels]));
    (B::float_mul(gradient, gate), cast::<B>(sums, dtype))
}

/// Implements [`crate::backend::Kernels::fake_quantize`].
pub fn fake_quantize<B: Backend>(x: FloatTensor<B>, quantizer: Quantizer) -> FloatTensor<B> {
    let [_, saturated] = steps::<B>(x, quantizer);
    B::float_mul_scalar(saturated, quantizer.scale.into())
}

/// Implements [`crate::backend::Kernels::fake_quantize_gradient`].
pub fn fake_quantize_gradient<B: Backend>(
    x: FloatTensor<B>,
    gradient: FloatTensor<B>,
    quantizer: Quantizer,
) -> FloatTensor<B> {
    let [steps, saturated] = steps::<B>(x, quantizer);
    // At least 1 where rounding saturates, otherwise 0.
    let excess = B::float_abs(B::float_sub(steps, saturated));
    let inside = B::float_add_scalar(B::float_neg(B::float_clamp_max(excess, 1.0.into())), 1.0.into());
    B::float_mul(gradient, inside)
}

/// Returns the whole steps of a quantizer from zero to `x`, without and with saturation.
fn steps<B: Backend>(x: FloatTensor<B>, Quantizer { scale, zero_point }: Quantizer) -> [FloatTensor<B>; 2] {
    let zero = f32::from(zero_point);
    let steps = B::float_round(B::float_div_scalar(x, scale.into()));
    let saturated = B::float_clamp(steps.clone(), (-zero).into(), (255.0 - zero).into());
    [steps, saturated]
}

fn activated<B: Backend>(z: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::Identity => z,
        Activation::Relu => B::float_clamp_min(z, 0.0.into()),
        Activation::Relu6 => B::float_clamp(z, 0.0.into(), RELU6_MAX.into()),
        Activation::Silu => B::float_mul(z.clone(), B::sigmoid(z)),
    }
}

/// Returns the derivative of the activation at `z`.
fn derivative<B: Backend>(z: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::Identity => B::float_add_scalar(B::float_mul_scalar(z, 0.0.into()), 1.0.into()),
        Activation::Relu => B::float_sign(B::float_clamp_min(z, 0.0.into())),
        // 1 strictly inside (0, 6), and 0 at the kinks and beyond.
        Activation::Relu6 => {
            let inside = B::float_clamp(z, 0.0.into(), RELU6_MAX.into());
            let below = B::float_add_scalar(B::float_neg(inside.clone()), RELU6_MAX.into());
            B::float_mul(B::float_sign(inside), B::float_sign(below))
        }
        // s (1 + z (1 - s))
        Activation::Silu => {
            let s = B::sigmoid(z.clone());
            let rest = B::float_add_scalar(B::float_neg(s.clone()), 1.0.into());
            B::float_mul(s, B::float_add_scalar(B::float_mul(z, rest), 1.0.into()))
        }
    }
}

/// Converts 16 bits to single precision; other precisions stay unchanged.
fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = parameter_dtype(x.dtype());
    cast::<B>(x, dtype)
}

fn cast<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, FloatDType::from(dtype)) }
}

fn inverse_deviation<B: Backend>(variance: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    B::float_recip(B::float_sqrt(B::float_add_scalar(per_channel::<B>(variance), epsilon.into())))
}

/// Reshapes `[C]` → [1, 1, 1, C].
fn per_channel<B: Backend>(vector: FloatTensor<B>) -> FloatTensor<B> {
    let [channels] = vector.shape().dims();
    B::float_reshape(vector, Shape::new([1, 1, 1, channels]))
}

/// Sums [N, H, W, C] → [1, 1, 1, C].
fn sum_per_channel<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, height, width, channels] = x.shape().dims();
    let x = B::float_reshape(x, Shape::new([batch * height * width, channels]));
    B::float_reshape(B::float_sum_dim(x, 0), Shape::new([1, 1, 1, channels]))
}

fn vector<B: Backend>(x: FloatTensor<B>, channels: usize) -> FloatTensor<B> {
    B::float_reshape(x, Shape::new([channels]))
}
