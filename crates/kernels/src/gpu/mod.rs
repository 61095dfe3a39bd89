//! GPU kernels, in CubeCL: one pass over a feature map replaces several passes of Burn's
//! operations. Most matrix multiplications use CubeCL's own kernels, tuned for the device.
//!
//! Feature maps are in single precision or in 16 bits. Weights are in single precision, and all
//! arithmetic and sums are in single precision.
//!
//! In reading order:
//! - [`launch`]: distribution of a feature map over units;
//! - [`normalization`], [`depthwise`] and [`squeeze_excitation`]: fused layers;
//! - [`matmul`]: convolutions as matrix multiplications; [`autotune`]: selection of their kernels;
//!   [`skinny_matmul`] and [`weight_gradient`]: kernels of this crate for them;
//! - [`optimizer_step`]: optimizer steps; [`dropout`]: dropout masks;
//! - [`image_ops`]: image augmentation, with its [`image_program`];
//! - [`tensors`]: properties and allocation of tensors;
//! - [`fusion_shapes`]: shapes of results for Burn's fusion; [`settings`] and [`allocator`]:
//!   process-wide setup.

pub mod allocator;
mod autotune;
mod depthwise;
mod dropout;
pub mod fusion_shapes;
mod image_ops;
mod image_program;
mod launch;
mod matmul;
mod normalization;
mod optimizer_step;
pub mod settings;
mod skinny_matmul;
mod squeeze_excitation;
mod tensors;
mod weight_gradient;

use std::sync::Arc;

use burn::{
    backend::{TensorMetadata, ops::FloatTensorOps},
    tensor::DType,
};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use crate::backend::Kernels;
use crate::fallback;
use crate::types::activation::Activation;
use crate::types::conv2d_geometry::Conv2dGeometry;
use crate::types::convolution::Convolution;
use crate::types::dropout::DropoutConfig;
use crate::types::image::operation::Operation;
use crate::types::image::sampling::Sampling;
use crate::types::normalization::Normalization;
use crate::types::optimizer_step::OptimizerStep;
use crate::types::tensors::Tensors;

use fusion_shapes::output_shape;

impl Kernels for CubeBackend {
    fn convolve(x: CubeTensor, weight: CubeTensor, convolution: Convolution) -> CubeTensor {
        if convolution == Convolution::Pointwise && x.shape().num_elements() == 0 {
            // Burn does not multiply matrices without elements on a GPU.
            let shape = output_shape(&x.shape(), &weight.shape(), convolution);
            return Self::float_zeros(shape, &x.device, x.dtype.into());
        }
        if !are_maps(&[&x]) || !are_parameters(&[&weight]) {
            return fallback::convolve::<Self>(x, weight, convolution);
        }
        match convolution {
            Convolution::Pointwise => matmul::pointwise(x, weight),
            Convolution::Depthwise(geometry) => depthwise::depthwise(x, weight, geometry),
            Convolution::Dense(geometry) if matmul::unfolds(&x) => matmul::dense(x, weight, geometry),
            Convolution::Dense(_) => fallback::convolve::<Self>(x, weight, convolution),
        }
    }

    fn convolve_input_gradient(
        weight: CubeTensor,
        gradient: CubeTensor,
        convolution: Convolution,
        size: [usize; 2],
    ) -> CubeTensor {
        if !are_maps(&[&gradient]) || !are_parameters(&[&weight]) {
            return fallback::convolve_input_gradient::<Self>(weight, gradient, convolution, size);
        }
        match convolution {
            Convolution::Pointwise => matmul::pointwise_input_gradient(weight, gradient),
            Convolution::Depthwise(geometry) => depthwise::depthwise_input_gradient(weight, gradient, geometry, size),
            Convolution::Dense(geometry) if !autotune::uses_tensor_cores(&gradient) => {
                matmul::dense_input_gradient(weight, gradient, geometry, size)
            }
            Convolution::Dense(_) => fallback::convolve_input_gradient::<Self>(weight, gradient, convolution, size),
        }
    }

    fn convolve_weight_gradient(x: CubeTensor, gradient: CubeTensor, convolution: Convolution) -> CubeTensor {
        if !are_maps(&[&x, &gradient]) {
            return fallback::convolve_weight_gradient::<Self>(x, gradient, convolution);
        }
        match convolution {
            Convolution::Pointwise => matmul::pointwise_weight_gradient(x, gradient),
            Convolution::Depthwise(geometry) if geometry.kernel <= LARGEST_KERNEL => {
                depthwise::depthwise_weight_gradient(x, gradient, geometry)
            }
            Convolution::Depthwise(_) => fallback::convolve_weight_gradient::<Self>(x, gradient, convolution),
            Convolution::Dense(geometry) => matmul::dense_weight_gradient(x, gradient, geometry),
        }
    }

    fn activate(x: CubeTensor, shift: CubeTensor, activation: Activation) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&shift]) {
            normalization::activate(x, shift, activation)
        } else {
            fallback::activate::<Self>(x, shift, activation)
        }
    }

    fn depthwise_activated(
        x: CubeTensor,
        before: CubeTensor,
        weight: CubeTensor,
        after: CubeTensor,
        geometry: Conv2dGeometry,
        activation: Activation,
    ) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&before, &weight, &after]) {
            depthwise::depthwise_activated(x, weight, [before, after], geometry, activation)
        } else {
            fallback::depthwise_activated::<Self>(x, before, weight, after, geometry, activation)
        }
    }

    fn channel_statistics(x: CubeTensor) -> (CubeTensor, CubeTensor) {
        if are_maps(&[&x]) { normalization::channel_statistics(x) } else { fallback::channel_statistics::<Self>(x) }
    }

    fn normalize(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        mean: CubeTensor,
        variance: CubeTensor,
        normalization: Normalization,
    ) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&gamma, &beta, &mean, &variance]) {
            normalization::normalize(x, [gamma, beta, mean, variance], normalization)
        } else {
            fallback::normalize::<Self>(x, gamma, beta, mean, variance, normalization)
        }
    }

    fn average(x: CubeTensor) -> CubeTensor {
        if are_maps(&[&x]) { squeeze_excitation::average(x) } else { fallback::average::<Self>(x) }
    }

    fn scale_channels(x: CubeTensor, gate: CubeTensor) -> CubeTensor {
        if are_maps(&[&x, &gate]) {
            squeeze_excitation::scale_channels(x, gate)
        } else {
            fallback::scale_channels::<Self>(x, gate)
        }
    }

    fn scale_channels_gradients(x: CubeTensor, gate: CubeTensor, gradient: CubeTensor) -> (CubeTensor, CubeTensor) {
        if are_maps(&[&x, &gate, &gradient]) {
            let [x, gate] = squeeze_excitation::scale_channels_gradients(x, gate, gradient);
            (x, gate)
        } else {
            fallback::scale_channels_gradients::<Self>(x, gate, gradient)
        }
    }

    fn normalize_gradients(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        mean: CubeTensor,
        variance: CubeTensor,
        gradient: CubeTensor,
        normalization: Normalization,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if are_maps(&[&x, &gradient]) && are_parameters(&[&gamma, &beta, &mean, &variance]) {
            let vectors = [gamma, beta, mean, variance];
            let [x, gamma, beta] = normalization::normalize_gradients(x, vectors, gradient, normalization);
            (x, gamma, beta)
        } else {
            fallback::normalize_gradients::<Self>(x, gamma, beta, mean, variance, gradient, normalization)
        }
    }

    fn unpack(words: CubeTensor, size: [usize; 3]) -> CubeTensor {
        if image_ops::are_words(&words) {
            image_ops::unpack(words, size)
        } else {
            fallback::unpack::<Self>(words, size)
        }
    }

    fn channels(images: CubeTensor) -> CubeTensor {
        if image_ops::are_words(&images) { image_ops::channels(images) } else { fallback::channels::<Self>(images) }
    }

    fn perform(images: CubeTensor, operations: Arc<[(Operation, Sampling)]>) -> CubeTensor {
        if image_ops::takes(&images) {
            image_ops::perform(images, &operations)
        } else {
            fallback::perform::<Self>(images, &operations)
        }
    }

    fn optimizer_step(
        parameters: Tensors<Self>,
        gradients: Tensors<Self>,
        first: Tensors<Self>,
        second: Tensors<Self>,
        scalars: Tensors<Self>,
        start: usize,
        step: OptimizerStep,
    ) -> (Tensors<Self>, Tensors<Self>, Tensors<Self>) {
        if optimizer_step::takes(&parameters.0, [&gradients.0, &first.0, &second.0]) {
            let [parameters, first, second] =
                optimizer_step::optimizer_step([parameters.0, gradients.0, first.0, second.0], scalars.0, start, step)
                    .map(Tensors);
            (parameters, first, second)
        } else {
            fallback::optimizer_step::<Self>([parameters, gradients, first, second], scalars, start, step)
        }
    }

    fn lerp(
        averages: Tensors<Self>,
        values: Tensors<Self>,
        scalars: Tensors<Self>,
        start: usize,
        shares: Arc<[[f32; 2]]>,
    ) -> Tensors<Self> {
        if optimizer_step::takes(&averages.0, [&values.0, &[], &[]]) && shares.len() == averages.0.len() {
            Tensors(optimizer_step::lerp(averages.0, values.0, scalars.0, start, &shares))
        } else {
            fallback::lerp::<Self>(averages, values, scalars, start, &shares)
        }
    }

    fn overwrite(targets: Tensors<Self>, values: Tensors<Self>) -> Tensors<Self> {
        Tensors(optimizer_step::overwrite(targets.0, values.0))
    }

    fn dropout_mask(scalars: CubeTensor, count: usize, config: DropoutConfig) -> CubeTensor {
        dropout::dropout_mask(scalars, count, config)
    }
}

/// Largest kernel size whose sums fit into the registers of one unit.
const LARGEST_KERNEL: usize = 8;

/// Returns whether the tensors are feature maps that the kernels support: nonempty and all in the
/// same supported precision.
fn are_maps(tensors: &[&CubeTensor]) -> bool {
    tensors.iter().all(|tensor| {
        let element = matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16);
        element && tensor.dtype == tensors[0].dtype && tensor.shape().num_elements() > 0
    })
}

/// Returns whether the tensors are nonempty and in single precision.
fn are_parameters(tensors: &[&CubeTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype == DType::F32 && tensor.shape().num_elements() > 0)
}
