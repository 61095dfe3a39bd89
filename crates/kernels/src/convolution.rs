//! The three convolutions of MBConv networks, on channels-last feature maps.
//!
//! A convolution is computed in the precision of its feature map. If that is 16 bits, the weights
//! stay in single precision and are trained in it.

use burn::{
    backend::Dispatch,
    tensor::{DType, Tensor},
};

use crate::{Window, composed::parameter_dtype, extension::Kernels};

/// Kind of convolution. All are linear in the feature map and in the weight, so that one pair of
/// gradients serves all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convolution {
    /// 1x1, one matrix multiplication; weight [Co, Ci, 1, 1].
    Pointwise,
    /// One kernel per channel; weight [C, 1, k, k].
    Depthwise(Window),
    /// All input channels to all output channels; weight [Co, Ci, k, k].
    Dense(Window),
}

impl Convolution {
    /// Returns the window: a single pixel for [`Convolution::Pointwise`].
    pub fn window(self) -> Window {
        match self {
            Self::Pointwise => Window { kernel: 1, stride: 1, padding: 0 },
            Self::Depthwise(window) | Self::Dense(window) => window,
        }
    }

    /// Returns the number of groups over `channels` input channels.
    pub fn groups(self, channels: usize) -> usize {
        match self {
            Self::Depthwise(_) => channels,
            Self::Pointwise | Self::Dense(_) => 1,
        }
    }

    fn apply(self, x: Tensor<4>, weight: Tensor<4>) -> Tensor<4> {
        let ([.., channels], [outputs, depth, rows, columns]) = (x.dims(), weight.dims());
        let kernel = self.window().kernel;
        let fits = (rows, columns) == (kernel, kernel)
            && match self {
                Self::Depthwise(_) => outputs == channels && depth == 1,
                Self::Pointwise | Self::Dense(_) => depth == channels,
            };
        assert!(fits, "{self:?}: weight {:?} does not fit the map {:?}", weight.dims(), x.dims());
        let weight = in_precision(weight, parameter_dtype(x.dtype()));
        Tensor::from_dispatch(Dispatch::convolve(x.into_dispatch(), weight.into_dispatch(), self))
    }
}

/// 1x1 convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, 1, 1], `bias` `[Co]` → [N, H, W, Co].
///
/// # Panics
/// If the shapes do not match.
pub fn pointwise_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let y = Convolution::Pointwise.apply(x, weight);
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
    Convolution::Depthwise(Window { kernel, stride, padding }).apply(x, weight)
}

/// Dense convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, k, k] → [N, H', W', Co], with `padding`
/// pixels of zeros on every side.
///
/// # Panics
/// If the shapes do not match, the stride is zero or the window is larger than the padded feature
/// map.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., kernel] = weight.dims();
    Convolution::Dense(Window { kernel, stride, padding }).apply(x, weight)
}
