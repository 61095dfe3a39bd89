//! The block of both networks.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::{Activation, excite};

use crate::Architecture;
use crate::architecture::Block;
use crate::layers::{ConvNormActivation, ConvSpec, Convolution, SqueezeExcitation, drawn};

/// Inverted residual (MBConv): expand → depthwise → squeeze-excitation → project, plus the input where shapes allow.
///
/// In a fused block (EfficientNet-EdgeTPU) one dense convolution expands and looks around: there is no depthwise one.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    /// Expansion, 1×1 or fused k×k; absent where the expansion factor is 1.
    pub expand: Option<ConvNormActivation>,
    /// k×k depthwise convolution, which carries the stride; absent in a fused block.
    pub depthwise: Option<ConvNormActivation>,
    /// Squeeze-and-excitation, EfficientNet's addition.
    pub squeeze_excitation: Option<SqueezeExcitation>,
    /// 1×1 projection to the linear bottleneck: no activation.
    pub project: ConvNormActivation,
    #[module(skip)]
    residual: bool,
    #[module(skip)]
    drop_path: f64,
}

impl InvertedResidual {
    pub(crate) fn new(block: &Block, architecture: &Architecture, device: &Device) -> Self {
        let activation = architecture.activation;
        let pointwise = |input, output, activation| ConvSpec {
            kind: Convolution::Pointwise,
            input,
            output,
            kernel: 1,
            stride: 1,
            activation,
        };
        let windowed = |kind, input| ConvSpec {
            kind,
            kernel: block.kernel,
            stride: block.stride,
            ..pointwise(input, block.hidden, activation)
        };
        let layer = |spec| ConvNormActivation::new(spec, architecture, device);
        let expand = if block.fused {
            windowed(Convolution::Dense, block.input)
        } else {
            pointwise(block.input, block.hidden, activation)
        };
        Self {
            expand: block.expands().then(|| layer(expand)),
            depthwise: (!block.fused).then(|| layer(windowed(Convolution::Depthwise, block.hidden))),
            squeeze_excitation: block
                .squeeze
                .map(|squeezed| SqueezeExcitation::new(block.hidden, squeezed, architecture, device)),
            project: layer(pointwise(block.hidden, block.output, Activation::Identity)),
            residual: block.residual,
            drop_path: block.drop_path,
        }
    }

    /// `[N, H, W, C_in]` → `[N, ⌈H / stride⌉, ⌈W / stride⌉, C_out]`.
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
            Some(input) => drop_path(x, self.drop_path) + input,
            None => x,
        }
    }

    pub(crate) fn is_residual(&self) -> bool {
        self.residual
    }

    pub(crate) fn norms_mut(&mut self) -> impl Iterator<Item = &mut crate::norm::BatchNorm> {
        let convolutions = self.expand.iter_mut().chain(&mut self.depthwise).chain([&mut self.project]);
        convolutions.map(ConvNormActivation::norm_mut)
    }
}

/// Stochastic depth per sample, <https://arxiv.org/abs/1603.09382>: while training, zeroes a sample's branch with
/// `probability` and scales the others so that the expectation stays.
fn drop_path(x: Tensor<4>, probability: f64) -> Tensor<4> {
    let device = x.device();
    if probability == 0.0 || !device.is_autodiff() {
        return x;
    }
    let [n, .., channels] = x.dims();
    let mask = match drawn(&x, n, probability) {
        Some(mask) => mask.reshape([n, 1, 1, 1]),
        None => {
            let keep = 1.0 - probability;
            Tensor::<4>::random([n, 1, 1, 1], Distribution::Bernoulli(keep), &device).div_scalar(keep)
        }
    };
    let mask = mask.cast(x.dtype()).expand([n, 1, 1, channels]);
    excite(x, mask)
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
