//! The network: stem, inverted residuals, head, classifier.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::global_average;

use crate::architecture::Architecture;
use crate::fake_quantization::{FakeQuantizer, Range, quantized, quantized_weight};
use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, ConvNormActivationConfig, Convolution, Linear, dropout_mask};
use crate::types::Family;

/// The network that an [`Architecture`] describes: MobileNetV2, EfficientNet, or a custom one.
///
/// It trains on a device with autodiff, with batch statistics, dropout and stochastic depth. It
/// evaluates on any other device, and after [`valid`](Module::valid).
///
/// Feature maps have the precision of the input images, up to the pooled features. In 16 bits,
/// convolutions round their f32 weights, which are trained in f32 (mixed precision,
/// <https://arxiv.org/abs/1710.03740>); statistics, normalization, classifier and logits are in
/// f32.
#[derive(Module, Debug)]
pub struct Network {
    /// 3×3 convolution of the image.
    pub stem: ConvNormActivation,
    /// The blocks of all stages in order.
    pub blocks: Vec<InvertedResidual>,
    /// 1×1 convolution to the features.
    pub head: ConvNormActivation,
    dropout: Dropout,
    /// From features to logits.
    pub classifier: Linear,
    #[module(skip)]
    architecture: Architecture,
    /// Quantizers of the images and of the pooled features.
    #[module(skip)]
    ends: [Option<FakeQuantizer>; 2],
    /// All quantizers by the name of their activation, in forward order; none in an ordinary
    /// network.
    #[module(skip)]
    quantizers: Vec<(String, FakeQuantizer)>,
}

impl Architecture {
    /// Builds the network on `device` with random weights.
    pub fn init(&self, device: &Device) -> Network {
        Network::new(self, device)
    }
}

impl Network {
    /// Builds the network with random weights.
    pub fn new(architecture: &Architecture, device: &Device) -> Self {
        let Architecture { stem, head, num_classes, activation, layer_options, .. } = *architecture;
        let features = architecture.blocks.last().map_or(stem, |block| block.output);
        let layer = |kind, input, output| {
            ConvNormActivationConfig::new(kind, input, output).with_activation(activation).with_options(layer_options)
        };
        let stem = layer(Convolution::Dense, architecture.input_channels, stem);
        let block = |block| InvertedResidual::new(block, activation, layer_options, device);
        let classifier_weights = match architecture.family {
            Family::MobileNetV2 => Distribution::Normal(0.0, 0.01),
            Family::EfficientNet => {
                let bound = 1.0 / (num_classes as f64).sqrt();
                Distribution::Uniform(-bound, bound)
            }
        };
        Self {
            stem: stem.with_kernel(3).with_stride(architecture.stem_stride).init(device),
            blocks: architecture.blocks.iter().map(block).collect(),
            head: layer(Convolution::Pointwise, features, head).init(device),
            dropout: DropoutConfig::new(architecture.dropout).init(),
            classifier: Linear::new(head, num_classes, classifier_weights, device),
            architecture: architecture.clone(),
            ends: Default::default(),
            quantizers: Vec::new(),
        }
    }

    /// Returns the network as data.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Maps images `[N, C, H, W]` to logits `[N, num_classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward_channels_last(images.permute([0, 2, 3, 1]))
    }

    /// Maps images `[N, H, W, C]`, the decoder's layout, to logits `[N, num_classes]`.
    pub fn forward_channels_last(&self, images: Tensor<4>) -> Tensor<2> {
        let weight = quantized_weight(&self.ends[1], self.classifier.weight.val());
        self.classifier.forward_with(self.drop(self.pooled_features(images)), weight)
    }

    /// Maps images `[N, C, H, W]` to pooled features `[N, F]`, the input of dropout and classifier.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use mbconv_nets::EfficientNetConfig;
    ///
    /// let device = Device::default();
    /// let network = EfficientNetConfig::b0(10).init(&device);
    /// assert_eq!(network.features(Tensor::zeros([2, 3, 64, 64], &device)).dims(), [2, 1280]);
    /// ```
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.pooled_features(images.permute([0, 2, 3, 1]))
    }

    /// Maps images `[N, H, W, C]` to pooled features `[N, F]` in the classifier's precision.
    fn pooled_features(&self, images: Tensor<4>) -> Tensor<2> {
        let [input, pool] = &self.ends;
        let x = self.stem.forward(quantized(input, images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let pooled = global_average(self.head.forward(x)).flatten(1, 3).cast(self.classifier.weight.dtype());
        quantized(pool, pooled)
    }

    /// Returns the output of every stage, `[N, C, H, W]`, for use of the network as a backbone. The
    /// strides of the stages are those of [`Architecture::strides`].
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use mbconv_nets::MobileNetV2Config;
    ///
    /// let device = Device::default();
    /// let network = MobileNetV2Config::new(10).init(&device);
    /// let maps = network.stage_features(Tensor::zeros([1, 3, 64, 64], &device));
    /// assert_eq!(maps.len(), 7);
    /// assert_eq!(maps[6].dims(), [1, 320, 2, 2]);
    /// ```
    pub fn stage_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.stem.forward(images.permute([0, 2, 3, 1]));
        let mut maps = Vec::new();
        let rows = &self.architecture.blocks;
        for (index, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if rows.get(index + 1).is_none_or(|next| next.stage != rows[index].stage) {
                maps.push(x.clone().permute([0, 3, 1, 2]));
            }
        }
        maps
    }

    /// Applies dropout, in training.
    fn drop(&self, features: Tensor<2>) -> Tensor<2> {
        let Dropout { prob, training } = &self.dropout;
        if *prob == 0.0 || !training.is_enabled() || !features.device().is_autodiff() {
            return features;
        }
        let shape @ [n, channels] = features.dims();
        match dropout_mask(&features, n * channels, *prob) {
            Some(mask) => features * mask.reshape(shape),
            None => self.dropout.forward(features),
        }
    }

    /// Returns the network with fake quantization in every place where the 8-bit network rounds an
    /// activation.
    pub fn with_fake_quantization(mut self) -> Self {
        let [input, pool] = &mut self.ends;
        let mut places = vec![("input".into(), input), ("stem".into(), &mut self.stem.quantizer)];
        for (index, block) in self.blocks.iter_mut().enumerate() {
            places.extend(
                block.quantizers_mut().into_iter().map(|(name, place)| (format!("blocks.{index}.{name}"), place)),
            );
        }
        places.extend([("head".into(), &mut self.head.quantizer), ("pool".into(), pool)]);
        self.quantizers =
            places.into_iter().map(|(name, place)| (name, place.insert(FakeQuantizer::default()).clone())).collect();
        self
    }

    /// Returns whether weights and activations are rounded.
    pub fn is_quantized(&self) -> bool {
        !self.quantizers.is_empty()
    }

    /// Sets whether training keeps the observed ranges of the activations, also in all copies of
    /// the network.
    pub fn freeze_ranges(&self, frozen: bool) {
        self.quantizers.iter().for_each(|(_, quantizer)| quantizer.set_frozen(frozen));
    }

    /// Returns the observed ranges of the activations by name, in forward order.
    pub fn activation_ranges(&self) -> Vec<(String, Range)> {
        self.quantizers.iter().map(|(name, quantizer)| (name.clone(), quantizer.range())).collect()
    }

    /// Replaces the observed ranges with those of the same name, also in all copies of the network.
    pub fn set_activation_ranges(&self, ranges: &[(String, Range)]) {
        for (name, quantizer) in &self.quantizers {
            if let Some((_, range)) = ranges.iter().find(|(key, _)| key == name) {
                quantizer.set_range(*range);
            }
        }
    }

    /// Sets whether training keeps the running statistics of every batch-norm as they are.
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
        // Normal with variance 2 / fan-out; a depthwise kernel's fan-out counts all its channels in
        // torchvision, one in the EfficientNet authors' code. The classifiers: normal(0, 0.01),
        // uniform within 1/√1000.
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

    #[test]
    fn copies_share_the_ranges_of_fake_quantization() {
        let device = Device::default().autodiff();
        device.seed(4);
        let ordinary = EfficientNetConfig::b0(3).with_width(0.2).init(&device);
        let network = ordinary.clone().with_fake_quantization();
        let names: Vec<String> = network.activation_ranges().into_iter().map(|(name, _)| name).collect();
        let gate = ["mean", "reduce", "expand"].map(|name| format!("squeeze_excitation.{name}"));
        let [before, after] =
            [["expand", "depthwise"], ["squeeze_excitation", "project"]].map(|pair| pair.map(String::from));
        let block = before.into_iter().chain(gate).chain(after).chain(["add".into()]);
        let block: Vec<String> = block.map(|name: String| format!("blocks.2.{name}")).collect();
        assert_eq!((names[0].as_str(), names[1].as_str()), ("input", "stem"));
        assert!(names.windows(block.len()).any(|window| window == block), "{names:?}");
        assert_eq!(names[names.len() - 2..], ["head", "pool"]);

        let images = Tensor::<4>::random([2, 32, 32, 3], Distribution::Default, &device);
        let evaluate = |network: &Network| network.valid().forward_channels_last(images.clone().inner()).into_data();
        let copy = network.valid();
        network.forward_channels_last(images.clone());
        assert!(copy.activation_ranges().iter().all(|(_, [low, high])| low < high));

        // A clone also shares the running statistics.
        let [rounded, exact] = [&network, &ordinary].map(evaluate);
        assert_ne!(rounded, exact);
        let other = ordinary.with_fake_quantization();
        other.set_activation_ranges(&network.activation_ranges());
        assert_eq!(evaluate(&other), rounded);
    }
}
