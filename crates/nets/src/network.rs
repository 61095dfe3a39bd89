//! The network: stem, inverted residuals, head, classifier.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::global_average;

use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, ConvSpec, Convolution, Linear, drawn};
use crate::{Architecture, Family};

/// MobileNetV2 or EfficientNet, whichever its [`Architecture`] describes.
///
/// On a device with autodiff it trains: batch statistics, dropout, stochastic depth. On any other, and after
/// [`valid`](Module::valid), it evaluates.
///
/// The images' precision is that of all maps up to the pooled features. In 16 bits, convolutions round their weights, which
/// remain as they are and learn so (mixed precision, <https://arxiv.org/abs/1710.03740>); statistics, normalisations, classifier and
/// logits are in the weights' precision.
#[derive(Module, Debug)]
pub struct Network {
    /// 3×3 convolution from the image.
    pub stem: ConvNormActivation,
    /// Every block of every stage in order.
    pub blocks: Vec<InvertedResidual>,
    /// 1×1 convolution to the features.
    pub head: ConvNormActivation,
    dropout: Dropout,
    /// From features to logits.
    pub classifier: Linear,
    #[module(skip)]
    architecture: Architecture,
}

impl Network {
    /// A network with freshly drawn weights.
    pub fn new(architecture: &Architecture, device: &Device) -> Self {
        let Architecture { stem, head, classes, activation, .. } = *architecture;
        let features = architecture.blocks.last().map_or(stem, |block| block.output);
        let convolution = |kind, input, output, kernel, stride| {
            ConvNormActivation::new(ConvSpec { kind, input, output, kernel, stride, activation }, architecture, device)
        };
        let linear = match architecture.family {
            Family::MobileNetV2 => Distribution::Normal(0.0, 0.01),
            Family::EfficientNet => {
                let bound = 1.0 / (classes as f64).sqrt();
                Distribution::Uniform(-bound, bound)
            }
        };
        Self {
            stem: convolution(Convolution::Dense, architecture.input_channels, stem, 3, architecture.stem_stride),
            blocks: architecture
                .blocks
                .iter()
                .map(|block| InvertedResidual::new(block, architecture, device))
                .collect(),
            head: convolution(Convolution::Pointwise, features, head, 1, 1),
            dropout: DropoutConfig::new(architecture.dropout).init(),
            classifier: Linear::new(head, classes, linear, device),
            architecture: architecture.clone(),
        }
    }

    /// The network as data.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Images `[N, C, H, W]` → logits `[N, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward_channels_last(images.permute([0, 2, 3, 1]))
    }

    /// Images `[N, H, W, C]`, as they are decoded → logits `[N, classes]`.
    pub fn forward_channels_last(&self, images: Tensor<4>) -> Tensor<2> {
        self.classifier.forward(self.drop(self.features(images)))
    }

    /// Dropout, in training.
    fn drop(&self, features: Tensor<2>) -> Tensor<2> {
        let Dropout { prob, training } = &self.dropout;
        if *prob == 0.0 || !training.is_enabled() || !features.device().is_autodiff() {
            return features;
        }
        let shape @ [n, channels] = features.dims();
        match drawn(&features, n * channels, *prob) {
            Some(mask) => features * mask.reshape(shape),
            None => self.dropout.forward(features),
        }
    }

    /// Images `[N, H, W, C]` → pooled features `[N, head]`, before dropout and classifier.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let precision = self.classifier.weight.dtype();
        let x = self.stem.forward(images);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        global_average(self.head.forward(x)).flatten(1, 3).cast(precision)
    }

    /// Holds every batch-norm's running statistics still during training, or lets them move again.
    pub fn freeze_norms(mut self, frozen: bool) -> Self {
        let blocks = self.blocks.iter_mut().flat_map(InvertedResidual::norms_mut);
        let norms = [self.stem.norm_mut(), self.head.norm_mut()].into_iter().chain(blocks);
        norms.for_each(|norm| norm.set_frozen(frozen));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EfficientNetConfig, MobileNetV2Config};

    /// Mean square of a tensor's values.
    fn mean_square<const D: usize>(tensor: Tensor<D>) -> f64 {
        tensor.powf_scalar(2.0).mean().into_scalar::<f32>().into()
    }

    #[test]
    fn weights_start_as_published() {
        let device = Device::default();
        device.seed(5);
        let mobilenet = MobileNetV2Config::new(1000).init(&device);
        let efficientnet = EfficientNetConfig::b0(1000).init(&device);
        let last =
            |network: &Network| network.blocks.last().and_then(|block| block.depthwise.as_ref()).unwrap().weight.val();
        // Normal with variance 2 / fan-out; a depthwise kernel's fan-out counts all its channels in torchvision, one in the
        // EfficientNet authors' code. The classifiers: normal(0, 0.01), uniform within 1/√1000.
        for (found, expected) in [
            (mean_square(mobilenet.head.weight.val()), 2.0 / 1280.0),
            (mean_square(last(&mobilenet)), 2.0 / (9.0 * 960.0)),
            (mean_square(last(&efficientnet)), 2.0 / 9.0),
            (mean_square(mobilenet.classifier.weight.val()), 1e-4),
            (mean_square(efficientnet.classifier.weight.val()), 1.0 / 3000.0),
        ] {
            assert!((found / expected - 1.0).abs() < 0.1, "{found} {expected}");
        }
        assert_eq!(mean_square(mobilenet.classifier.bias.val()), 0.0);
    }

    #[test]
    fn images_may_have_any_channels_and_odd_sizes() {
        let device = Device::default();
        let mut config = MobileNetV2Config::new(4).with_width(0.1);
        config.input_channels = 5;
        let logits = config.init(&device).forward(Tensor::zeros([2, 5, 37, 1], &device));
        assert_eq!(logits.dims(), [2, 4]);
    }
}
