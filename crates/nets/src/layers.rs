//! The layers of a block. Feature maps are channels-last, `[N, H, W, C]`; weights have PyTorch's
//! shapes.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::{
    Activation, Conv2dGeometry, conv2d, depthwise_conv2d, dropout, global_average, pointwise_conv2d, scale_channels,
};
use serde::{Deserialize, Serialize};

use crate::fake_quantization::{FakeQuantizer, quantized, quantized_weight};
use crate::norm::{BatchNorm, BatchNormConfig};
use crate::padding::pad;
pub use crate::types::LayerOptions;
use crate::types::{Initialization, Padding};

/// The three kinds of convolution in these networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convolution {
    /// k×k over all input channels: the stem, and fused expansions.
    Dense,
    /// k×k on each channel separately.
    Depthwise,
    /// 1×1.
    Pointwise,
}

/// Convolution without bias, batch-norm, activation.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use mbconv_nets::Activation;
/// use mbconv_nets::layers::{ConvNormActivationConfig, Convolution};
///
/// let device = Device::default();
/// let stem = ConvNormActivationConfig::new(Convolution::Dense, 3, 32)
///     .with_kernel(3)
///     .with_stride(2)
///     .with_activation(Activation::Relu6)
///     .init(&device);
/// assert_eq!(stem.forward(Tensor::zeros([1, 64, 64, 3], &device)).dims(), [1, 32, 32, 32]);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct ConvNormActivationConfig {
    /// Kind of convolution.
    pub kind: Convolution,
    /// Input channels.
    pub input: usize,
    /// Output channels; a depthwise convolution has as many as input channels.
    pub output: usize,
    /// Kernel size, odd.
    #[config(default = 1)]
    pub kernel: usize,
    /// Stride.
    #[config(default = 1)]
    pub stride: usize,
    /// Activation.
    #[config(default = "Activation::Identity")]
    pub activation: Activation,
    /// Padding, batch-norm constants and initialization.
    #[config(default = "LayerOptions::default()")]
    pub options: LayerOptions,
}

impl ConvNormActivationConfig {
    /// Builds the layer with random weights.
    pub fn init(&self, device: &Device) -> ConvNormActivation {
        let Self { kind, input, output, kernel, stride, activation, options } = *self;
        let inputs_per_group = if kind == Convolution::Depthwise { 1 } else { input };
        let shape = [output, inputs_per_group, kernel, kernel];
        ConvNormActivation {
            weight: convolution_weight(shape, input, options.initialization, device),
            norm: BatchNormConfig::new(output)
                .with_epsilon(options.norm_epsilon)
                .with_momentum(options.norm_momentum)
                .init(device),
            kind,
            stride,
            padding: options.padding,
            activation,
            quantizer: None,
        }
    }
}

/// Convolution without bias, batch-norm, activation. Built by [`ConvNormActivationConfig`].
#[derive(Module, Debug)]
pub struct ConvNormActivation {
    /// Shape `[C_out, C_in / groups, k, k]`.
    pub weight: Param<Tensor<4>>,
    /// Batch-norm of the output.
    pub norm: BatchNorm,
    #[module(skip)]
    kind: Convolution,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: Padding,
    #[module(skip)]
    activation: Activation,
    /// Quantizer of the output.
    #[module(skip)]
    pub(crate) quantizer: Option<FakeQuantizer>,
}

impl ConvNormActivation {
    /// Maps `[N, H, W, C_in]` to `[N, ⌈H / stride⌉, ⌈W / stride⌉, C_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        quantized(&self.quantizer, self.norm.forward(self.convolve(x), self.activation))
    }

    /// Applies the convolution without batch-norm and activation.
    pub(crate) fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = quantized_weight(&self.quantizer, self.weight.val());
        let (x, Conv2dGeometry { stride, padding, .. }) = pad(x, self.geometry(), self.padding);
        match self.kind {
            Convolution::Dense => conv2d(x, weight, stride, padding),
            Convolution::Depthwise => depthwise_conv2d(x, weight, stride, padding),
            Convolution::Pointwise => pointwise_conv2d(x, weight, None),
        }
    }

    pub(crate) fn kind(&self) -> Convolution {
        self.kind
    }

    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    pub(crate) fn geometry(&self) -> Conv2dGeometry {
        let [.., kernel] = self.weight.dims();
        Conv2dGeometry { kernel, stride: self.stride, padding: kernel / 2 }
    }

    pub(crate) fn padding(&self) -> Padding {
        self.padding
    }

    pub(crate) fn norm_mut(&mut self) -> &mut BatchNorm {
        &mut self.norm
    }
}

/// Squeeze-and-excitation, <https://arxiv.org/abs/1709.01507>.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use mbconv_nets::layers::SqueezeExcitationConfig;
///
/// let device = Device::default();
/// let layer = SqueezeExcitationConfig::new(96, 4).init(&device);
/// assert_eq!(layer.forward(Tensor::zeros([1, 8, 8, 96], &device)).dims(), [1, 8, 8, 96]);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct SqueezeExcitationConfig {
    /// Input and output channels.
    pub channels: usize,
    /// Channels of the bottleneck.
    pub squeezed: usize,
    /// Activation of the bottleneck.
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
    /// Initialization of the two convolutions.
    #[config(default = "Initialization::FanOut")]
    pub initialization: Initialization,
}

impl SqueezeExcitationConfig {
    /// Builds the layer with random weights.
    pub fn init(&self, device: &Device) -> SqueezeExcitation {
        let pointwise = |input, output| Pointwise::new(input, output, self.initialization, device);
        SqueezeExcitation {
            reduce: pointwise(self.channels, self.squeezed),
            expand: pointwise(self.squeezed, self.channels),
            activation: self.activation,
            quantizers: Default::default(),
        }
    }
}

/// Scales each channel by a gate computed from the means of all channels. Built by
/// [`SqueezeExcitationConfig`].
#[derive(Module, Debug)]
pub struct SqueezeExcitation {
    /// From all channels to the bottleneck.
    pub reduce: Pointwise,
    /// From the bottleneck to all channels.
    pub expand: Pointwise,
    #[module(skip)]
    activation: Activation,
    /// Quantizers of mean, bottleneck, gate and output.
    #[module(skip)]
    pub(crate) quantizers: [Option<FakeQuantizer>; 4],
}

impl SqueezeExcitation {
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// Maps `[N, H, W, C]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [mean, bottleneck, gate, output] = &self.quantizers;
        let squeezed = quantized(mean, global_average(x.clone()));
        let squeezed = quantized(bottleneck, self.activation.apply(self.reduce.forward(squeezed, bottleneck)));
        let gate = quantized(gate, sigmoid(self.expand.forward(squeezed, gate)));
        quantized(output, scale_channels(x, gate))
    }
}

/// A 1×1 convolution with bias.
#[derive(Module, Debug)]
pub struct Pointwise {
    /// Shape `[C_out, C_in, 1, 1]`.
    pub weight: Param<Tensor<4>>,
    /// Shape `[C_out]`.
    pub bias: Param<Tensor<1>>,
}

impl Pointwise {
    fn new(input: usize, output: usize, initialization: Initialization, device: &Device) -> Self {
        Self {
            weight: convolution_weight([output, input, 1, 1], input, initialization, device),
            bias: Param::from_tensor(Tensor::zeros([output], device)),
        }
    }

    /// Applies the layer before the activation with this quantizer.
    fn forward(&self, x: Tensor<4>, quantizer: &Option<FakeQuantizer>) -> Tensor<4> {
        pointwise_conv2d(x, quantized_weight(quantizer, self.weight.val()), Some(self.bias.val()))
    }
}

/// The classifier: a linear layer with PyTorch's weight shape.
#[derive(Module, Debug)]
pub struct Linear {
    /// Shape `[num_classes, features]`.
    pub weight: Param<Tensor<2>>,
    /// Shape `[num_classes]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    pub(crate) fn new(features: usize, num_classes: usize, weights: Distribution, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::random([num_classes, features], weights, device)),
            bias: Param::from_tensor(Tensor::zeros([num_classes], device)),
        }
    }

    /// Maps `[N, features]` to logits `[N, num_classes]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.forward_with(x, self.weight.val())
    }

    /// Applies the layer with another weight.
    pub(crate) fn forward_with(&self, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        let ([batch, features], [classes, _]) = (x.dims(), weight.dims());
        let weight = weight.reshape([classes, features, 1, 1]);
        pointwise_conv2d(x.reshape([batch, 1, 1, features]), weight, Some(self.bias.val())).reshape([batch, classes])
    }
}

/// Returns the dropout mask for a layer that trains on `x`: `count` values, each `1 / (1 -
/// probability)` or 0. `None` if Burn's own random numbers are to be used.
pub(crate) fn dropout_mask<const D: usize>(x: &Tensor<D>, count: usize, probability: f64) -> Option<Tensor<1>> {
    let mask = Tensor::from_inner(dropout::dropout_mask(count, probability)?);
    Some(match x.gradient_checkpointing_strategy() {
        Some(strategy) => mask.with_gradient_checkpointing_strategy(strategy),
        None => mask,
    })
}

/// Returns a random convolution weight of PyTorch's `shape`; `input` counts the channels of all
/// groups.
fn convolution_weight(
    shape: [usize; 4],
    input: usize,
    initialization: Initialization,
    device: &Device,
) -> Param<Tensor<4>> {
    let [output, inputs_per_group, k, _] = shape;
    let groups = match initialization {
        Initialization::FanOut => 1,
        Initialization::FanOutPerGroup => input / inputs_per_group,
    };
    let fan_out = (k * k * output / groups) as f64;
    Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, (2.0 / fan_out).sqrt()), device))
}
