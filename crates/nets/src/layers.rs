//! The parts of a block. Maps are channels-last, `[N, H, W, C]`; weights have PyTorch's shapes.

use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::{Activation, Window, chance, conv2d, depthwise_conv2d, excite, global_average, pointwise_conv2d};

use crate::norm::BatchNorm;
use crate::padding::pad;
use crate::{Architecture, Initialisation, Padding};

/// The three kinds of convolution these networks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convolution {
    /// Every input channel to every output channel, k×k: the stem, fused expansions.
    Dense,
    /// Each channel by itself, k×k.
    Depthwise,
    /// 1×1.
    Pointwise,
}

/// Convolution without bias, batch-norm, activation.
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
}

/// What a [`ConvNormActivation`] is to be.
pub(crate) struct ConvSpec {
    pub kind: Convolution,
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub activation: Activation,
}

impl ConvNormActivation {
    pub(crate) fn new(spec: ConvSpec, architecture: &Architecture, device: &Device) -> Self {
        let ConvSpec { kind, input, output, kernel, stride, activation } = spec;
        let inputs_per_group = if kind == Convolution::Depthwise { 1 } else { input };
        let weight = convolution_weight([output, inputs_per_group, kernel, kernel], input, architecture, device);
        let norm = BatchNorm::new(output, architecture.norm_epsilon, architecture.norm_momentum, device);
        Self { weight, norm, kind, stride, padding: architecture.padding, activation }
    }

    /// `[N, H, W, C_in]` → `[N, ⌈H / stride⌉, ⌈W / stride⌉, C_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.convolve(x), self.activation)
    }

    /// The convolution alone.
    pub(crate) fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let (x, Window { stride, padding, .. }) = pad(x, self.window(), self.padding);
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

    pub(crate) fn window(&self) -> Window {
        let [.., kernel] = self.weight.dims();
        Window { kernel, stride: self.stride, padding: kernel / 2 }
    }

    pub(crate) fn padding(&self) -> Padding {
        self.padding
    }

    pub(crate) fn norm_mut(&mut self) -> &mut BatchNorm {
        &mut self.norm
    }
}

/// Squeeze-and-excitation, <https://arxiv.org/abs/1709.01507>: scales each channel by a gate computed from all
/// channels' means.
#[derive(Module, Debug)]
pub struct SqueezeExcitation {
    /// To the bottleneck.
    pub reduce: Pointwise,
    /// Back to every channel.
    pub expand: Pointwise,
    #[module(skip)]
    activation: Activation,
}

impl SqueezeExcitation {
    pub(crate) fn new(channels: usize, squeezed: usize, architecture: &Architecture, device: &Device) -> Self {
        Self {
            reduce: Pointwise::new(channels, squeezed, architecture, device),
            expand: Pointwise::new(squeezed, channels, architecture, device),
            activation: architecture.activation,
        }
    }

    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// `[N, H, W, C]` → the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let squeezed = global_average(x.clone());
        let gate = self.expand.forward(self.activation.apply(self.reduce.forward(squeezed)));
        excite(x, sigmoid(gate))
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
    fn new(input: usize, output: usize, architecture: &Architecture, device: &Device) -> Self {
        Self {
            weight: convolution_weight([output, input, 1, 1], input, architecture, device),
            bias: Param::from_tensor(Tensor::zeros([output], device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        pointwise_conv2d(x, self.weight.val(), Some(self.bias.val()))
    }
}

/// The classifier: a linear layer with PyTorch's weight shape.
#[derive(Module, Debug)]
pub struct Linear {
    /// Shape `[classes, features]`.
    pub weight: Param<Tensor<2>>,
    /// Shape `[classes]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    pub(crate) fn new(features: usize, classes: usize, weights: Distribution, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::random([classes, features], weights, device)),
            bias: Param::from_tensor(Tensor::zeros([classes], device)),
        }
    }

    /// `[N, features]` → `[N, classes]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let ([batch, features], [classes, _]) = (x.dims(), self.weight.dims());
        let weight = self.weight.val().reshape([classes, features, 1, 1]);
        pointwise_conv2d(x.reshape([batch, 1, 1, features]), weight, Some(self.bias.val())).reshape([batch, classes])
    }
}

/// What dropping with this `probability` multiplies `count` numbers by, for a layer that trains on `x`; `None` where Burn is to draw it.
pub(crate) fn drawn<const D: usize>(x: &Tensor<D>, count: usize, probability: f64) -> Option<Tensor<1>> {
    let mask = Tensor::from_inner(chance::kept(count, probability)?);
    Some(match x.gradient_checkpointing_strategy() {
        Some(strategy) => mask.with_gradient_checkpointing_strategy(strategy),
        None => mask,
    })
}

/// A fresh convolution weight of PyTorch's `shape`, for `input` channels in all groups together.
fn convolution_weight(
    shape: [usize; 4],
    input: usize,
    architecture: &Architecture,
    device: &Device,
) -> Param<Tensor<4>> {
    let [output, inputs_per_group, k, _] = shape;
    let groups = match architecture.initialisation {
        Initialisation::FanOut => 1,
        Initialisation::FanOutPerGroup => input / inputs_per_group,
    };
    let fan_out = (k * k * output / groups) as f64;
    Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, (2.0 / fan_out).sqrt()), device))
}
