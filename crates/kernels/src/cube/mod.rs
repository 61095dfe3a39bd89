//! GPU kernels, in CubeCL: one pass over a feature map replaces several passes of Burn's
//! operations. Most matrix multiplications use CubeCL's own kernels, tuned for the device.
//!
//! Feature maps are in single precision or in 16 bits. Weights are in single precision, and all
//! arithmetic and sums are in single precision.
//!
//! In reading order:
//! - [`lanes`]: distribution of a feature map over units;
//! - [`normalisation`], [`depthwise`] and [`excitation`]: fused layers;
//! - [`products`]: convolutions as matrix multiplications; [`tune`]: selection of their kernels;
//!   [`tall`] and [`sums`]: kernels of this crate for them;
//! - [`descent`]: optimizer steps; [`chance`]: dropout masks;
//! - [`pictures`]: image augmentation, with its [`program`];
//! - [`shapes`]: shapes of results for Burn's fusion; [`settings`] and [`allocator`]: process-wide
//!   setup.

pub mod allocator;
mod chance;
mod depthwise;
mod descent;
mod excitation;
mod lanes;
mod normalisation;
mod pictures;
mod products;
mod program;
pub mod settings;
pub mod shapes;
mod sums;
mod tall;
mod tune;

use std::sync::Arc;

use burn::{
    backend::TensorMetadata,
    tensor::{DType, Shape},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::ir::{AddressType, ElemType, FloatKind},
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

use crate::{
    Activation, Convolution, Normalisation, Window,
    chance::Dropping,
    composed,
    descent::{Descent, Tensors},
    extension::Kernels,
    pictures::{Operation, Sampling},
};

impl Kernels for CubeBackend {
    fn convolve(x: CubeTensor, weight: CubeTensor, convolution: Convolution) -> CubeTensor {
        if !are_maps(&[&x]) || !are_parameters(&[&weight]) {
            return composed::convolve::<Self>(x, weight, convolution);
        }
        match convolution {
            Convolution::Pointwise => products::pointwise(x, weight),
            Convolution::Depthwise(window) => depthwise::depthwise(x, weight, window),
            Convolution::Dense(window) if products::unfolds(&x) => products::dense(x, weight, window),
            Convolution::Dense(_) => composed::convolve::<Self>(x, weight, convolution),
        }
    }

    fn convolve_input_gradient(
        weight: CubeTensor,
        gradient: CubeTensor,
        convolution: Convolution,
        size: [usize; 2],
    ) -> CubeTensor {
        if !are_maps(&[&gradient]) || !are_parameters(&[&weight]) {
            return composed::convolve_input_gradient::<Self>(weight, gradient, convolution, size);
        }
        match convolution {
            Convolution::Pointwise => products::pointwise_input_gradient(weight, gradient),
            Convolution::Depthwise(window) => depthwise::depthwise_input_gradient(weight, gradient, window, size),
            Convolution::Dense(window) if !tune::uses_tensor_cores(&gradient) => {
                products::dense_input_gradient(weight, gradient, window, size)
            }
            Convolution::Dense(_) => composed::convolve_input_gradient::<Self>(weight, gradient, convolution, size),
        }
    }

    fn convolve_weight_gradient(x: CubeTensor, gradient: CubeTensor, convolution: Convolution) -> CubeTensor {
        if !are_maps(&[&x, &gradient]) {
            return composed::convolve_weight_gradient::<Self>(x, gradient, convolution);
        }
        match convolution {
            Convolution::Pointwise => products::pointwise_weight_gradient(x, gradient),
            Convolution::Depthwise(window) if window.kernel <= LARGEST_KERNEL => {
                depthwise::depthwise_weight_gradient(x, gradient, window)
            }
            Convolution::Depthwise(_) => composed::convolve_weight_gradient::<Self>(x, gradient, convolution),
            Convolution::Dense(window) => products::dense_weight_gradient(x, gradient, window),
        }
    }

    fn activate(x: CubeTensor, shift: CubeTensor, activation: Activation) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&shift]) {
            normalisation::activate(x, shift, activation)
        } else {
            composed::activate::<Self>(x, shift, activation)
        }
    }

    fn depthwise_activated(
        x: CubeTensor,
        before: CubeTensor,
        weight: CubeTensor,
        after: CubeTensor,
        window: Window,
        activation: Activation,
    ) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&before, &weight, &after]) {
            depthwise::depthwise_activated(x, weight, [before, after], window, activation)
        } else {
            composed::depthwise_activated::<Self>(x, before, weight, after, window, activation)
        }
    }

    fn channel_statistics(x: CubeTensor) -> (CubeTensor, CubeTensor) {
        if are_maps(&[&x]) { normalisation::channel_statistics(x) } else { composed::channel_statistics::<Self>(x) }
    }

    fn normalise(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        mean: CubeTensor,
        variance: CubeTensor,
        normalisation: Normalisation,
    ) -> CubeTensor {
        if are_maps(&[&x]) && are_parameters(&[&gamma, &beta, &mean, &variance]) {
            normalisation::normalise(x, [gamma, beta, mean, variance], normalisation)
        } else {
            composed::normalise::<Self>(x, gamma, beta, mean, variance, normalisation)
        }
    }

    fn average(x: CubeTensor) -> CubeTensor {
        if are_maps(&[&x]) { excitation::average(x) } else { composed::average::<Self>(x) }
    }

    fn excite(x: CubeTensor, gate: CubeTensor) -> CubeTensor {
        if are_maps(&[&x, &gate]) { excitation::excite(x, gate) } else { composed::excite::<Self>(x, gate) }
    }

    fn excite_gradients(x: CubeTensor, gate: CubeTensor, gradient: CubeTensor) -> (CubeTensor, CubeTensor) {
        if are_maps(&[&x, &gate, &gradient]) {
            let [x, gate] = excitation::excite_gradients(x, gate, gradient);
            (x, gate)
        } else {
            composed::excite_gradients::<Self>(x, gate, gradient)
        }
    }

    fn normalise_gradients(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        mean: CubeTensor,
        variance: CubeTensor,
        gradient: CubeTensor,
        normalisation: Normalisation,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if are_maps(&[&x, &gradient]) && are_parameters(&[&gamma, &beta, &mean, &variance]) {
            let vectors = [gamma, beta, mean, variance];
            let [x, gamma, beta] = normalisation::normalise_gradients(x, vectors, gradient, normalisation);
            (x, gamma, beta)
        } else {
            composed::normalise_gradients::<Self>(x, gamma, beta, mean, variance, gradient, normalisation)
        }
    }

    fn unpack(words: CubeTensor, size: [usize; 3]) -> CubeTensor {
        if pictures::are_words(&words) { pictures::unpack(words, size) } else { composed::unpack::<Self>(words, size) }
    }

    fn channels(pictures: CubeTensor) -> CubeTensor {
        if pictures::are_words(&pictures) { pictures::channels(pictures) } else { composed::channels::<Self>(pictures) }
    }

    fn perform(pictures: CubeTensor, operations: Arc<[(Operation, Sampling)]>) -> CubeTensor {
        if pictures::takes(&pictures) {
            pictures::perform(pictures, &operations)
        } else {
            composed::perform::<Self>(pictures, &operations)
        }
    }

    fn descend(
        parameters: Tensors<Self>,
        gradients: Tensors<Self>,
        first: Tensors<Self>,
        second: Tensors<Self>,
        numbers: Tensors<Self>,
        start: usize,
        descent: Descent,
    ) -> (Tensors<Self>, Tensors<Self>, Tensors<Self>) {
        if descent::takes(&parameters.0, [&gradients.0, &first.0, &second.0]) {
            let [parameters, first, second] =
                descent::descend([parameters.0, gradients.0, first.0, second.0], numbers.0, start, descent)
                    .map(Tensors);
            (parameters, first, second)
        } else {
            composed::descend::<Self>([parameters, gradients, first, second], numbers, start, descent)
        }
    }

    fn blend(
        averages: Tensors<Self>,
        values: Tensors<Self>,
        numbers: Tensors<Self>,
        start: usize,
        shares: Arc<[[f32; 2]]>,
    ) -> Tensors<Self> {
        if descent::takes(&averages.0, [&values.0, &[], &[]]) && shares.len() == averages.0.len() {
            Tensors(descent::blend(averages.0, values.0, numbers.0, start, &shares))
        } else {
            composed::blend::<Self>(averages, values, numbers, start, &shares)
        }
    }

    fn overwrite(targets: Tensors<Self>, values: Tensors<Self>) -> Tensors<Self> {
        Tensors(descent::overwrite(targets.0, values.0))
    }

    fn kept(numbers: CubeTensor, count: usize, dropping: Dropping) -> CubeTensor {
        chance::kept(numbers, count, dropping)
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

/// Returns the element type of a feature map in a kernel.
fn element(map: &CubeTensor) -> ElemType {
    ElemType::Float(match map.dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// Allocates contiguous memory on the device of `tensor`.
fn empty_of(tensor: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), shape, dtype)
}

/// Allocates contiguous memory on the device of `tensor`, in its precision.
fn empty(tensor: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_of(tensor, shape, tensor.dtype)
}

/// Allocates contiguous memory on the device of `tensor`, in single precision.
fn empty_single(tensor: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_of(tensor, shape, DType::F32)
}

/// Returns an address type that can index every element of every tensor.
fn address(tensors: &[&CubeTensor]) -> AddressType {
    tensors.iter().map(|tensor| tensor.required_address_type()).max().unwrap_or_default()
}

/// Returns the feature map's dimensions as a matrix: pixels of all images, and channels.
fn pixels_and_channels(x: &CubeTensor) -> [usize; 2] {
    let [batch, height, width, channels] = x.shape().dims();
    [batch * height * width, channels]
}
