//! The network: stem, inverted residuals, head, classifier.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor};

use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, ConvSpec, Convolution, Linear, global_average};
use crate::{Architecture, Family};

/// MobileNetV2 or EfficientNet, whichever its [`Architecture`] describes.
///
/// On a device with autodiff it trains: batch statistics, dropout, stochastic depth. On any other, and after
/// [`valid`](Module::valid), it evaluates.
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
        self.classifier.forward(self.dropout.forward(self.features(images)))
    }

    /// Images `[N, H, W, C]` → pooled features `[N, head]`, before dropout and classifier.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(images);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        global_average(self.head.forward(x)).flatten(1, 3)
    }

    /// Holds every batch-norm's running statistics still during training, or lets them move again.
    pub fn freeze_norms(mut self, frozen: bool) -> Self {
        let blocks = self.blocks.iter_mut().flat_map(InvertedResidual::norms_mut);
        let norms = [self.stem.norm_mut(), self.head.norm_mut()].into_iter().chain(blocks);
        norms.for_each(|norm| norm.set_frozen(frozen));
        self
    }
}
