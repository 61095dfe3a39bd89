//! The three convolutions of MBConv networks, on channels-last feature maps.
//!
//! A convolution is computed in the precision of its feature map. If that is 16 bits, the weights
//! stay in single precision and are trained in it.

use burn::{
    backend::Dispatch,
    tensor::{DType, Tensor},
};

use crate::backend::Kernels;
use crate::types::conv2d_geometry::Conv2dGeometry;
use crate::types::convolution::Convolution;
use crate::types::precision::parameter_dtype;

fn convolve(convolution: Convolution, x: Tensor<4>, weight: Tensor<4>) -> Tensor<4> {
    let ([.., channels], [outputs, depth, rows, columns]) = (x.dims(), weight.dims());
    let kernel = convolution.geometry().kernel;
    let fits = (rows, columns) == (kernel, kernel)
        && match convolution {
            Convolution::Depthwise(_) => outputs == channels && depth == 1,
            Convolution::Pointwise | Convolution::Dense(_) => depth == channels,
        };
    assert!(fits, "{convolution:?}: weight {:?} does not fit the map {:?}", weight.dims(), x.dims());
    let weight = in_precision(weight, parameter_dtype(x.dtype()));
    Tensor::from_dispatch(Dispatch::convolve(x.into_dispatch(), weight.into_dispatch(), convolution))
}

/// 1x1 convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, 1, 1], `bias` `[Co]` → [N, H, W, Co].
///
/// # Panics
/// If the shapes do not match.
pub fn pointwise_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let y = convolve(Convolution::Pointwise, x, weight);
    match bias {
        Some(bias) => {
            let bias = in_precision(bias, y.dtype());
            y + bias.unsqueeze()
        }
        None => y,
    }
}

/// Casts a parameter to the precision of an operation; autodiff returns its gradient in the
/// parameter's own precision.
fn in_precision<const D: usize>(parameter: Tensor<D>, dtype: DType) -> Tensor<D> {
    if parameter.dtype() == dtype { parameter } else { parameter.cast(dtype) }
}

/// Depthwise convolution: `x` [N, H, W, C], `weight` [C, 1, k, k] → [N, H', W', C], with `padding`
/// pixels of zeros on every side.
///
/// # Panics
/// If the shapes do not match, the stride is zero or the window is larger than the padded feature
/// map.
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., kernel] = weight.dims();
    convolve(Convolution::Depthwise(Conv2dGeometry { kernel, stride, padding }), x, weight)
}

/// Dense convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, k, k] → [N, H', W', Co], with `padding`
/// pixels of zeros on every side.
///
/// # Panics
/// If the shapes do not match, the stride is zero or the window is larger than the padded feature
/// map.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., kernel] = weight.dims();
    convolve(Convolution::Dense(Conv2dGeometry { kernel, stride, padding }), x, weight)
}
