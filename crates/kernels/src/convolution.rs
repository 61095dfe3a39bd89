//! The three convolutions of MBConv networks, over channels-last maps.
//!
//! A map says in which precision it is computed: weights are in single precision where it is in 16 bits, and learn so.

use burn::{
    backend::Dispatch,
    tensor::{DType, Tensor},
};

use crate::{Window, composed::parameter_dtype, extension::Kernels};

/// Which convolution: all are linear in the map and in the weight, so that one pair of gradients serves all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convolution {
    /// 1x1, one matrix product; weight [Co, Ci, 1, 1].
    Pointwise,
    /// Each channel by itself; weight [C, 1, k, k].
    Depthwise(Window),
    /// All channels to all channels; weight [Co, Ci, k, k].
    Dense(Window),
}

impl Convolution {
    /// The window: a single pixel for [`Convolution::Pointwise`].
    pub fn window(self) -> Window {
        match self {
            Self::Pointwise => Window { kernel: 1, stride: 1, padding: 0 },
            Self::Depthwise(window) | Self::Dense(window) => window,
        }
    }

    /// The number of groups over `channels` input channels.
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
/// If the shapes do not fit each other.
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

/// A parameter as an operation takes it; its gradient comes back in the parameter's own precision.
fn in_precision<const D: usize>(parameter: Tensor<D>, dtype: DType) -> Tensor<D> {
    if parameter.dtype() == dtype { parameter } else { parameter.cast(dtype) }
}

/// Depthwise convolution: `x` [N, H, W, C], `weight` [C, 1, k, k] → [N, H', W', C], with `padding` pixels of zeros on
/// every side.
///
/// # Panics
/// If the shapes do not fit each other, the stride is zero or the window is larger than the padded map.
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., kernel] = weight.dims();
    Convolution::Depthwise(Window { kernel, stride, padding }).apply(x, weight)
}

/// Dense convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, k, k] → [N, H', W', Co], with `padding` pixels of zeros on
/// every side.
///
/// # Panics
/// If the shapes do not fit each other, the stride is zero or the window is larger than the padded map.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., kernel] = weight.dims();
    Convolution::Dense(Window { kernel, stride, padding }).apply(x, weight)
}
