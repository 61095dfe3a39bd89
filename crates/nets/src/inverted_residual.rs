//! The block of both networks.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::{Activation, scale_channels};

use crate::architecture::Block;
use crate::fake_quantization::{FakeQuantizer, quantized};
use crate::layers::{
    ConvNormActivation, ConvNormActivationConfig, Convolution, SqueezeExcitation, SqueezeExcitationConfig, dropout_mask,
};
use crate::norm::BatchNorm;
use crate::types::LayerOptions;

/// Options of an [`InvertedResidual`]. The defaults are MobileNetV2's.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use mbconv_nets::InvertedResidualConfig;
///
/// let device = Device::default();
/// let block = InvertedResidualConfig::new(16, 24).with_stride(2).with_squeeze(Some(4)).init(&device);
/// assert_eq!(block.forward(Tensor::zeros([1, 32, 32, 16], &device)).dims(), [1, 16, 16, 24]);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct InvertedResidualConfig {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Expansion factor: the expanded width is this times the input channels.
    #[config(default = 6)]
    pub expansion: usize,
    /// Kernel size of the depthwise convolution, odd.
    #[config(default = 3)]
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    #[config(default = 1)]
    pub stride: usize,
    /// Whether one dense k×k convolution replaces expansion and depthwise convolution.
    #[config(default = false)]
    pub fused: bool,
    /// Channels of the squeeze-excitation bottleneck; `None` leaves squeeze-excitation out.
    pub squeeze: Option<usize>,
    /// Whether the input is added to the output if their shapes are equal.
    #[config(default = true)]
    pub residual: bool,
    /// Stochastic depth: probability that training drops a sample's branch.
    #[config(default = 0.0)]
    pub drop_path: f64,
    /// Activation of every layer except the linear bottleneck.
    #[config(default = "Activation::Relu6")]
    pub activation: Activation,
    /// Padding, batch-norm constants and initialization.
    #[config(default = "LayerOptions::default()")]
    pub options: LayerOptions,
}

impl InvertedResidualConfig {
    /// Builds the block with random weights.
    pub fn init(&self, device: &Device) -> InvertedResidual {
        let block = Block {
            stage: 0,
            index: 0,
            input: self.input,
            hidden: self.input * self.expansion,
            output: self.output,
            kernel: self.kernel,
            stride: self.stride,
            fused: self.fused,
            squeeze: self.squeeze,
            drop_path: self.drop_path,
            residual: self.residual && self.stride == 1 && self.input == self.output,
        };
        InvertedResidual::new(&block, self.activation, self.options, device)
    }
}

/// Inverted residual (MBConv): expand → depthwise → squeeze-excitation → project, plus the input if
/// shapes allow. Built by [`InvertedResidualConfig`].
///
/// In a fused block (EfficientNet-EdgeTPU), one dense convolution replaces the first two.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    /// Expansion, 1×1 or fused k×k; absent if the expansion factor is 1.
    pub expand: Option<ConvNormActivation>,
    /// k×k depthwise convolution, which has the stride; absent in a fused block.
    pub depthwise: Option<ConvNormActivation>,
    /// Squeeze-and-excitation, EfficientNet's addition.
    pub squeeze_excitation: Option<SqueezeExcitation>,
    /// 1×1 projection to the linear bottleneck, without activation.
    pub project: ConvNormActivation,
    #[module(skip)]
    residual: bool,
    #[module(skip)]
    drop_path: f64,
    /// Quantizer of the sum with the input.
    #[module(skip)]
    sum: Option<FakeQuantizer>,
}

impl InvertedResidual {
    pub(crate) fn new(block: &Block, activation: Activation, options: LayerOptions, device: &Device) -> Self {
        let Block { input, hidden, output, kernel, stride, .. } = *block;
        let layer = |kind, input, output, activation| {
            ConvNormActivationConfig::new(kind, input, output).with_activation(activation).with_options(options)
        };
        let spatial = |kind, input| layer(kind, input, hidden, activation).with_kernel(kernel).with_stride(stride);
        let expand = match block.fused {
            true => spatial(Convolution::Dense, input),
            false => layer(Convolution::Pointwise, input, hidden, activation),
        };
        let squeeze_excitation = |squeezed| {
            SqueezeExcitationConfig::new(hidden, squeezed)
                .with_activation(activation)
                .with_initialization(options.initialization)
                .init(device)
        };
        Self {
            expand: block.expands().then(|| expand.init(device)),
            depthwise: (!block.fused).then(|| spatial(Convolution::Depthwise, hidden).init(device)),
            squeeze_excitation: block.squeeze.map(squeeze_excitation),
            project: layer(Convolution::Pointwise, hidden, output, Activation::Identity).init(device),
            residual: block.residual,
            drop_path: block.drop_path,
            sum: None,
        }
    }

    /// Maps `[N, H, W, C_in]` to `[N, ⌈H / stride⌉, ⌈W / stride⌉, C_out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let input = self.residual.then(|| x.clone());
        let x = match &self.expand {
            Some(expand) => expand.forward(x),
            None => x,
        };
        let x = match &self.depthwise {
            Some(depthwise) => depthwise.forward(x),
            None => x,
        };
        let x = match &self.squeeze_excitation {
            Some(squeeze_excitation) => squeeze_excitation.forward(x),
            None => x,
        };
        let x = self.project.forward(x);
        match input {
            Some(input) => quantized(&self.sum, drop_path(x, self.drop_path) + input),
            None => x,
        }
    }

    pub(crate) fn is_residual(&self) -> bool {
        self.residual
    }

    /// Returns the places of quantizers by name, in forward order.
    pub(crate) fn quantizers_mut(&mut self) -> Vec<(String, &mut Option<FakeQuantizer>)> {
        let mut places = Vec::new();
        places.extend(self.expand.as_mut().map(|layer| ("expand".into(), &mut layer.quantizer)));
        places.extend(self.depthwise.as_mut().map(|layer| ("depthwise".into(), &mut layer.quantizer)));
        if let Some(layer) = &mut self.squeeze_excitation {
            let names = [".mean", ".reduce", ".expand", ""].map(|name| format!("squeeze_excitation{name}"));
            places.extend(names.into_iter().zip(&mut layer.quantizers));
        }
        places.push(("project".into(), &mut self.project.quantizer));
        places.extend(self.residual.then_some(("add".into(), &mut self.sum)));
        places
    }

    pub(crate) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        let convolutions = self.expand.iter_mut().chain(&mut self.depthwise).chain([&mut self.project]);
        convolutions.map(ConvNormActivation::norm_mut)
    }
}

/// Stochastic depth per sample, <https://arxiv.org/abs/1603.09382>: in training, zeroes a sample's
/// branch with `probability` and scales the others so that the expectation stays the same.
fn drop_path(x: Tensor<4>, probability: f64) -> Tensor<4> {
    let device = x.device();
    if probability == 0.0 || !device.is_autodiff() {
        return x;
    }
    let [n, .., channels] = x.dims();
    let mask = match dropout_mask(&x, n, probability) {
        Some(mask) => mask.reshape([n, 1, 1, 1]),
        None => {
            let keep = 1.0 - probability;
            Tensor::<4>::random([n, 1, 1, 1], Distribution::Bernoulli(keep), &device).div_scalar(keep)
        }
    };
    let mask = mask.cast(x.dtype()).expand([n, 1, 1, channels]);
    scale_channels(x, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_path_drops_whole_samples_and_keeps_the_mean() {
        let device = Device::default().autodiff();
        device.seed(3);
        let x = Tensor::<4>::ones([2000, 2, 1, 1], &device);
        let y: Vec<f32> = drop_path(x, 0.25).into_data().convert::<f32>().try_to_vec().unwrap();
        assert!(y.chunks(2).all(|sample| sample[0] == sample[1]));
        assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.75).abs() < 1e-6));
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn nothing_is_dropped_without_autodiff() {
        let device = Device::default();
        let y = drop_path(Tensor::<4>::ones([8, 1, 1, 1], &device), 0.9);
        assert_eq!(y.sum().into_scalar::<f32>(), 8.0);
    }
}
