//! Fast kernels for Burn's CPU backend, in single precision. Other precisions use the default
//! bodies.
//!
//! - [`simd`]: loops compiled for the instructions of the machine; [`buffer`]: memory;
//!   [`thread_pool`]: threads;
//! - [`gemm`], [`weight_gradient`]: matrix multiplications, and [`pointwise`] convolutions based on
//!   them;
//! - [`depthwise`], [`depthwise_rows`], [`dense`]: the other convolutions; [`activation`]:
//!   activations and their derivatives;
//! - [`batch_norm`]: batch-norm with activation; [`pixels`]: the passes of squeeze-and-excitation
//!   over feature maps; [`fake_quantization`].
//!
//! All split their work depending only on the shape, so that results are bit-identical for any
//! number of threads.

pub(crate) mod activation;
mod batch_norm;
pub(crate) mod buffer;
mod dense;
mod depthwise;
pub(crate) mod depthwise_rows;
mod fake_quantization;
pub(crate) mod gemm;
pub(crate) mod pixels;
mod pointwise;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
pub(crate) mod thread_pool;
mod weight_gradient;

use burn::{
    backend::{TensorMetadata, tensor::FloatTensor},
    tensor::{DType, TensorData},
};
use burn_flex::{Flex, FlexTensor};

use crate::{
    backend::Kernels,
    fallback,
    types::{Convolution, Normalization, Quantizer},
};
use batch_norm::{Place, Vectors};
use depthwise::Size;

impl Kernels for Flex {
    fn convolve(x: FlexTensor, weight: FlexTensor, convolution: Convolution) -> FlexTensor {
        let Some([x, weight]) = single_precision([&x, &weight]) else {
            return fallback::convolve::<Self>(x, weight, convolution);
        };
        let (input, [outputs, ..]) = (size(&x), size(&weight));
        let [height, width] = convolution.output_size([input[1], input[2]]);
        let output = [input[0], height, width, outputs];
        let (x, weight) = (x.storage(), weight.storage());
        let y = match convolution {
            Convolution::Pointwise if input[3] == 0 => vec![0.0; depthwise::elements(output)],
            Convolution::Pointwise => pointwise::forward(x, weight, input[3], outputs),
            Convolution::Depthwise(geometry) => depthwise::forward(x, weight, geometry, input, output),
            Convolution::Dense(geometry) => dense::forward(x, weight, geometry, input, output),
        };
        tensor(y, output)
    }

    fn convolve_input_gradient(
        weight: FlexTensor,
        gradient: FlexTensor,
        convolution: Convolution,
        [height, width]: [usize; 2],
    ) -> FlexTensor {
        // Only a network's first convolution is dense, and images need no gradient.
        let dense = matches!(convolution, Convolution::Dense(_));
        let Some([weight, gradient]) = single_precision([&weight, &gradient]).filter(|_| !dense) else {
            return fallback::convolve_input_gradient::<Self>(weight, gradient, convolution, [height, width]);
        };
        let (output, [outputs, depth, ..]) = (size(&gradient), size(&weight));
        let channels = depth * convolution.groups(outputs);
        let input = [output[0], height, width, channels];
        let (weight, gradient) = (weight.storage(), gradient.storage());
        let x = match convolution {
            Convolution::Depthwise(geometry) => depthwise::input_gradient(gradient, weight, geometry, input, output),
            _ if outputs == 0 => vec![0.0; depthwise::elements(input)],
            Convolution::Pointwise | Convolution::Dense(_) => {
                pointwise::input_gradient(gradient, weight, channels, outputs)
            }
        };
        tensor(x, input)
    }

    fn convolve_weight_gradient(x: FlexTensor, gradient: FlexTensor, convolution: Convolution) -> FlexTensor {
        let Some([x, gradient]) = single_precision([&x, &gradient]) else {
            return fallback::convolve_weight_gradient::<Self>(x, gradient, convolution);
        };
        let (input, output) = (size(&x), size(&gradient));
        let ([.., channels], [.., outputs]) = (input, output);
        let kernel = convolution.geometry().kernel;
        let (x, gradient) = (x.storage(), gradient.storage());
        let weight = match convolution {
            Convolution::Pointwise => pointwise::weight_gradient(x, gradient, channels, outputs),
            Convolution::Depthwise(geometry) => depthwise::weight_gradient(x, gradient, geometry, input, output),
            Convolution::Dense(geometry) => dense::weight_gradient(x, gradient, geometry, input, output),
        };
        let depth = if matches!(convolution, Convolution::Depthwise(_)) { 1 } else { channels };
        tensor(weight, [outputs, depth, kernel, kernel])
    }

    fn channel_statistics(x: FlexTensor) -> (FlexTensor, FlexTensor) {
        let Some([x]) = single_precision([&x]) else {
            return fallback::channel_statistics::<Self>(x);
        };
        let [.., channels] = size(&x);
        let (mean, variance) = batch_norm::statistics(x.storage(), channels);
        (tensor(mean, [channels]), tensor(variance, [channels]))
    }

    fn normalize(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        normalization: Normalization,
    ) -> FlexTensor {
        let all = [&x, &gamma, &beta, &mean, &variance];
        let Some([contiguous, gamma, beta, mean, variance]) = single_precision(all) else {
            return fallback::normalize::<Self>(x, gamma, beta, mean, variance, normalization);
        };
        drop(x);
        let mut x = contiguous;
        let vectors = vectors([&gamma, &beta, &mean, &variance]);
        let y = match x.try_storage_mut() {
            Some(data) => batch_norm::forward(Place::Over(data), vectors, normalization),
            None => batch_norm::forward(Place::New(x.storage()), vectors, normalization),
        };
        match y {
            Some(y) => tensor(y, size(&x)),
            None => x,
        }
    }

    fn average(x: FlexTensor) -> FlexTensor {
        let Some([x]) = single_precision([&x]) else { return fallback::average::<Self>(x) };
        let [images, _, width, channels] = size(&x);
        tensor(pixels::average(x.storage(), images, width * channels, channels), [images, 1, 1, channels])
    }

    fn scale_channels(x: FlexTensor, gate: FlexTensor) -> FlexTensor {
        let Some([contiguous, gate]) = single_precision([&x, &gate]) else {
            return fallback::scale_channels::<Self>(x, gate);
        };
        drop(x);
        let (mut x, [images, ..]) = (contiguous, size(&gate));
        match x.try_storage_mut() {
            Some(data) => pixels::scale_channels(data, gate.storage(), images),
            None => return tensor(pixels::scaled_channels(x.storage(), gate.storage(), images), size(&x)),
        }
        x
    }

    fn scale_channels_gradients(x: FlexTensor, gate: FlexTensor, gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
        let Some([x, gate, contiguous]) = single_precision([&x, &gate, &gradient]) else {
            return fallback::scale_channels_gradients::<Self>(x, gate, gradient);
        };
        drop(gradient);
        let (mut gradient, [images, _, width, channels]) = (owned(contiguous), size(&x));
        let data = gradient.try_storage_mut().expect("a tensor of its own");
        let gate = pixels::scale_channels_gradients(x.storage(), gate.storage(), data, images, width * channels);
        (gradient, tensor(gate, [images, 1, 1, channels]))
    }

    fn fake_quantize(x: FlexTensor, quantizer: Quantizer) -> FlexTensor {
        let Some([contiguous]) = single_precision([&x]) else { return fallback::fake_quantize::<Self>(x, quantizer) };
        drop(x);
        let mut x = contiguous;
        match x.try_storage_mut() {
            Some(data) => fake_quantization::round(data, quantizer),
            None => {
                let rounded = TensorData::new(fake_quantization::rounded(x.storage(), quantizer), x.shape().clone());
                return FlexTensor::from_data(rounded);
            }
        }
        x
    }

    fn fake_quantize_gradient(x: FlexTensor, gradient: FlexTensor, quantizer: Quantizer) -> FlexTensor {
        let Some([x, contiguous]) = single_precision([&x, &gradient]) else {
            return fallback::fake_quantize_gradient::<Self>(x, gradient, quantizer);
        };
        drop(gradient);
        let mut gradient = owned(contiguous);
        let data = gradient.try_storage_mut().expect("a tensor of its own");
        fake_quantization::round_gradient(x.storage(), data, quantizer);
        gradient
    }

    fn normalize_gradients(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        gradient: FlexTensor,
        normalization: Normalization,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let all = [&x, &gamma, &beta, &mean, &variance, &gradient];
        let Some([x, gamma, beta, mean, variance, contiguous]) = single_precision(all) else {
            return fallback::normalize_gradients::<Self>(x, gamma, beta, mean, variance, gradient, normalization);
        };
        drop(gradient);
        let mut gradient = contiguous;
        let vectors = vectors([&gamma, &beta, &mean, &variance]);
        let gradients = match gradient.try_storage_mut() {
            Some(data) => batch_norm::gradients(x.storage(), Place::Over(data), vectors, normalization),
            None => batch_norm::gradients(x.storage(), Place::New(gradient.storage()), vectors, normalization),
        };
        let channels = [gradients.gamma.len()];
        let x = match gradients.x {
            Some(x) => tensor(x, size(&gradient)),
            None => gradient,
        };
        (x, tensor(gradients.gamma, channels), tensor(gradients.beta, channels))
    }
}

/// Returns the tensors in contiguous memory if all are in single precision.
fn single_precision<const N: usize>(tensors: [&FlexTensor; N]) -> Option<[FlexTensor; N]> {
    let single = tensors.iter().all(|tensor| tensor.dtype() == DType::F32);
    single.then(|| tensors.map(FlexTensor::to_contiguous))
}

/// Returns the tensor, or a copy of it if its memory is shared.
fn owned(mut x: FlexTensor) -> FlexTensor {
    if x.try_storage_mut::<f32>().is_some() {
        return x;
    }
    FlexTensor::from_data(TensorData::new(x.storage::<f32>().to_vec(), x.shape().clone()))
}

fn size(tensor: &FlexTensor) -> Size {
    tensor.shape().dims()
}

fn tensor<const D: usize>(data: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape))
}

fn vectors([gamma, beta, mean, variance]: [&FlexTensor; 4]) -> Vectors<'_> {
    Vectors { gamma: gamma.storage(), beta: beta.storage(), mean: mean.storage(), variance: variance.storage() }
}
