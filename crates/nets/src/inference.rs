//! The network for inference, with batch-norms folded into the preceding convolutions.

use std::time::Duration;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
pub use mbconv_kernels::inference::{Block, Gate, Kind, Layer, Padding, Precision, Stage};
use mbconv_kernels::inference::{Chain, has_bf16};
use mbconv_kernels::quantized;
use mbconv_kernels::{Activation, Conv2dGeometry};

use crate::architecture::Architecture;
use crate::inference_gpu::FoldedNetwork;
use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, Convolution, Pointwise};
use crate::network::Network;

/// A network for evaluation only, in the fastest form for its device.
///
/// An f32 network is folded: into a [`Chain`] of kernels on the CPU, into tensor operations
/// elsewhere. An f64 network is evaluated unchanged, and one with fake quantization too. The
/// weights are copied.
#[derive(Debug)]
pub struct Inference(Form);

#[derive(Debug)]
enum Form {
    Chain(Chain),
    Quantized(quantized::Chain),
    /// With the precision of the feature maps.
    Layers(Box<FoldedNetwork>, DType),
    Network(Box<Network>),
}

impl Inference {
    /// Folds and packs the network's weights.
    pub fn new(network: &Network) -> Self {
        Self::of(network, Precision::F32)
    }

    /// Folds the network for bf16: of the factors of matrix products on the CPU
    /// ([`Precision::Bf16`]), of all feature maps elsewhere.
    pub fn in_bf16(network: &Network) -> Self {
        Self::of(network, Precision::Bf16)
    }

    fn of(network: &Network, precision: Precision) -> Self {
        let network = network.valid();
        let weight = network.stem.weight.val();
        if weight.dtype() != DType::F32 || network.is_quantized() {
            return Self(Form::Network(Box::new(network)));
        }
        if weight.device() == Device::flex() {
            return Self(Form::Chain(Chain::new(&fold(&network), precision)));
        }
        let maps = if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
        Self(Form::Layers(Box::new(FoldedNetwork::new(&network)), maps))
    }

    /// Packs the weights of an 8-bit network, which runs on the CPU.
    ///
    /// # Panics
    /// As [`quantized::Chain::new`].
    pub fn quantized(stages: &[quantized::Stage]) -> Self {
        Self(Form::Quantized(quantized::Chain::new(stages)))
    }

    /// Returns whether bf16 is faster than f32 on `device`: on GPUs, and on processors with bf16
    /// instructions.
    pub fn gains_by_bf16(device: &Device) -> bool {
        *device != Device::flex() || has_bf16()
    }

    /// Returns the total time of all threads in each part of the network for these images: stem,
    /// every block, head, pooling, classifier. `None` if the network is not a chain.
    pub fn profile(&self, images: Tensor<4>) -> Option<Vec<Duration>> {
        let size = images.dims();
        let images = || -> Vec<f32> { images.into_data().iter().collect() };
        match &self.0 {
            Form::Chain(chain) => Some(chain.profile(&images(), size)),
            Form::Quantized(chain) => Some(chain.profile(&images(), size)),
            _ => None,
        }
    }

    /// Maps images `[N, H, W, C]` on the network's device to logits `[N, num_classes]`.
    pub fn forward_channels_last(&self, images: Tensor<4>) -> Tensor<2> {
        match &self.0 {
            Form::Network(network) => network.forward_channels_last(images),
            Form::Layers(network, maps) => network.forward_channels_last(cast_images(images, *maps)),
            Form::Chain(chain) => run(images, |images, size| chain.run(images, size)),
            Form::Quantized(chain) => run(images, |images, size| chain.run(images, size)),
        }
    }
}

/// Runs a chain of kernels on images `[N, H, W, C]`.
fn run(images: Tensor<4>, chain: impl FnOnce(&[f32], [usize; 4]) -> (Vec<f32>, [usize; 4])) -> Tensor<2> {
    let (size, device) = (images.dims(), images.device());
    let images = images.into_data().convert::<f32>();
    let (logits, [count, _, _, classes]) = chain(images.as_slice().expect("just converted"), size);
    Tensor::from_data(TensorData::new(logits, [count, classes]), &device)
}

/// Casts images to a precision, as one flat row: CubeCL would pad every pixel in GPU memory.
pub fn cast_images(images: Tensor<4>, dtype: DType) -> Tensor<4> {
    if images.dtype() == dtype {
        return images;
    }
    let shape = images.shape();
    images.flatten::<1>(0, 3).cast(dtype).reshape(shape)
}

/// Returns the stages of an architecture, with empty weights and biases.
pub fn stages(architecture: &Architecture) -> Vec<Stage> {
    let Architecture { stem, head, num_classes, activation, layer_options, .. } = *architecture;
    let layer = |kind, inputs, outputs, kernel, stride, activation| Layer {
        kind,
        kernel,
        stride,
        padding: match layer_options.padding {
            crate::types::Padding::Symmetric => Padding::Even(kernel / 2),
            crate::types::Padding::Same => Padding::Same,
        },
        activation,
        ..pointwise(inputs, outputs)
    };
    let block = |block: &crate::architecture::Block| {
        let crate::architecture::Block { input, hidden, output, kernel, stride, fused, .. } = *block;
        let expand = match fused {
            true => layer(Kind::Dense, input, hidden, kernel, stride, activation),
            false => layer(Kind::Pointwise, input, hidden, 1, 1, activation),
        };
        Block {
            expand: block.expands().then_some(expand),
            depthwise: (!fused).then(|| layer(Kind::Depthwise, hidden, hidden, kernel, stride, activation)),
            gate: block.squeeze.map(|squeezed| Gate {
                reduce: Layer { activation, ..pointwise(hidden, squeezed) },
                expand: pointwise(squeezed, hidden),
            }),
            project: layer(Kind::Pointwise, hidden, output, 1, 1, Activation::Identity),
            residual: block.residual,
        }
    };
    let features = architecture.blocks.last().map_or(stem, |block| block.output);
    let stem = layer(Kind::Dense, architecture.input_channels, stem, 3, architecture.stem_stride, activation);
    let mut stages = vec![Stage::Layer(stem)];
    stages.extend(architecture.blocks.iter().map(|row| Stage::Block(Box::new(block(row)))));
    stages.push(Stage::Layer(layer(Kind::Pointwise, features, head, 1, 1, activation)));
    stages.extend([Stage::Pool, Stage::Layer(pointwise(head, num_classes))]);
    stages
}

/// Returns the layers of the network with batch-norms folded in.
pub fn fold(network: &Network) -> Vec<Stage> {
    let mut stages = vec![Stage::Layer(layer(&network.stem))];
    stages.extend(network.blocks.iter().map(|block| Stage::Block(Box::new(fold_block(block)))));
    let classifier = &network.classifier;
    let [outputs, inputs] = classifier.weight.dims();
    let classifier = Layer {
        weight: values(classifier.weight.val()),
        bias: values(classifier.bias.val()),
        ..pointwise(inputs, outputs)
    };
    stages.extend([Stage::Layer(layer(&network.head)), Stage::Pool, Stage::Layer(classifier)]);
    stages
}

fn fold_block(block: &InvertedResidual) -> Block {
    Block {
        expand: block.expand.as_ref().map(layer),
        depthwise: block.depthwise.as_ref().map(layer),
        gate: block.squeeze_excitation.as_ref().map(|gate| Gate {
            reduce: Layer { activation: gate.activation(), ..biased(&gate.reduce) },
            expand: biased(&gate.expand),
        }),
        project: layer(&block.project),
        residual: block.is_residual(),
    }
}

/// Folds batch-norm into the convolution: the weight is multiplied by `γ / √(σ² + ε)`, in f64.
fn layer(layer: &ConvNormActivation) -> Layer {
    let (scale, shift) = layer.norm.exact_scale_and_shift();
    let [outputs, depth, kernel, _] = layer.weight.dims();
    let (kind, inputs) = match layer.kind() {
        Convolution::Pointwise => (Kind::Pointwise, depth),
        Convolution::Depthwise => (Kind::Depthwise, outputs),
        Convolution::Dense => (Kind::Dense, depth),
    };
    let weight = values(layer.weight.val());
    let fan_in = weight.len() / outputs;
    let Conv2dGeometry { stride, padding, .. } = layer.geometry();
    Layer {
        kind,
        inputs,
        outputs,
        kernel,
        stride,
        padding: match layer.padding() {
            crate::types::Padding::Symmetric => Padding::Even(padding),
            crate::types::Padding::Same => Padding::Same,
        },
        weight: weight.iter().enumerate().map(|(i, w)| (f64::from(*w) * scale[i / fan_in]) as f32).collect(),
        bias: shift.into_iter().map(|shift| shift as f32).collect(),
        activation: layer.activation(),
    }
}

fn biased(layer: &Pointwise) -> Layer {
    let [outputs, inputs, ..] = layer.weight.dims();
    Layer { weight: values(layer.weight.val()), bias: values(layer.bias.val()), ..pointwise(inputs, outputs) }
}

fn pointwise(inputs: usize, outputs: usize) -> Layer {
    Layer {
        kind: Kind::Pointwise,
        inputs,
        outputs,
        kernel: 1,
        stride: 1,
        padding: Padding::Even(0),
        weight: Vec::new(),
        bias: Vec::new(),
        activation: Activation::Identity,
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::NetworkOptions;

    #[test]
    fn stages_of_an_architecture_are_those_of_its_network() {
        for name in ["mobilenet_v2_0.35", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnet_es"] {
            let architecture = NetworkOptions::new(name, 7).architecture().unwrap();
            let mut folded = fold(&architecture.init(&Device::default()));
            for (_, layer) in crate::quantization::layers_mut(&mut folded) {
                (layer.weight, layer.bias) = (Vec::new(), Vec::new());
            }
            assert_eq!(format!("{:?}", stages(&architecture)), format!("{folded:?}"), "{name}");
        }
    }

    #[test]
    fn folding_preserves_logits() {
        let device = Device::default();
        device.seed(11);
        let named = |name| NetworkOptions::new(name, 7).architecture().unwrap().init(&device);
        for network in
            ["mobilenet_v2_0.35", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnet_es"].map(named)
        {
            // Training moves the running statistics away from 0 and 1.
            let training = device.clone().autodiff();
            let moving = crate::Network::new(network.architecture(), &training);
            for _ in 0..3 {
                moving.forward_channels_last(Tensor::random([4, 48, 40, 3], Distribution::Default, &training));
            }
            let network = moving.valid();
            let images = Tensor::random([3, 48, 40, 3], Distribution::Default, &device);
            let expected = values(network.forward_channels_last(images.clone()));
            let scale = expected.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
            let layers = |maps| Inference(Form::Layers(Box::new(FoldedNetwork::new(&network)), maps));
            for (inference, bounds) in [
                (Inference::new(&network), 0.0..2e-5),
                (Inference::in_bf16(&network), 1e-4..5e-2),
                (layers(DType::F32), 0.0..2e-5),
                (layers(DType::BF16), 1e-4..1e-1),
            ] {
                let found = values(inference.forward_channels_last(images.clone()));
                let differences = found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs() / scale);
                let worst = differences.fold(0.0f32, f32::max);
                assert!(bounds.contains(&worst), "{worst} of {scale}, not within {bounds:?}");
            }
        }
    }
}
