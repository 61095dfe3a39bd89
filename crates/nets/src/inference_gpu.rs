//! The network for inference on a GPU as tensor operations in f32, with batch-norms folded into the
//! preceding convolutions. The remaining shift and activation would cost a pass over every feature
//! map, therefore:
//! - a depthwise convolution applies them on its input and output;
//! - the shift of a linear bottleneck, which has no activation, is folded into the shifts of the
//!   expansions that read it: `W (x + s) = W x + W s`.

use burn::tensor::Tensor;
use mbconv_kernels::{Activation, Conv2dGeometry, depthwise_between_activations, global_average, shift_activation};

use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, Convolution, Linear, SqueezeExcitation};
use crate::network::Network;
use crate::padding::uneven;

/// A network without batch-norms.
#[derive(Debug)]
pub(crate) struct FoldedNetwork {
    stem: Folded,
    blocks: Vec<FoldedBlock>,
    head: Folded,
    classifier: Linear,
}

/// An inverted residual without batch-norms. Its output bias is folded into the next layers'
/// biases.
#[derive(Debug)]
struct FoldedBlock {
    /// Shift to add to the input, if a padded convolution reads it.
    pending: Option<Tensor<1>>,
    expand: Option<Folded>,
    depthwise: Option<Folded>,
    squeeze_excitation: Option<SqueezeExcitation>,
    project: Folded,
    residual: bool,
}

/// A convolution with a shift and an activation.
#[derive(Debug)]
struct Folded {
    /// Has a scaled weight and an unused batch-norm.
    layer: ConvNormActivation,
    /// Shape `[C_out]`.
    shift: Tensor<1>,
}

/// A feature map, and the layer whose shift and activation are not applied yet.
struct Map<'a> {
    x: Tensor<4>,
    by: Option<&'a Folded>,
}

impl FoldedNetwork {
    /// Folds `network`.
    pub fn new(network: &Network) -> Self {
        let mut pending = None;
        let blocks = network.blocks.iter().map(|block| FoldedBlock::new(block, &mut pending)).collect();
        Self {
            stem: Folded::new(&network.stem),
            blocks,
            head: Folded::new(&network.head).with_pending(pending),
            classifier: network.classifier.clone(),
        }
    }

    /// Maps images `[N, H, W, C]` to logits `[N, num_classes]`.
    pub fn forward_channels_last(&self, images: Tensor<4>) -> Tensor<2> {
        let precision = self.classifier.weight.dtype();
        let x = self.blocks.iter().fold(self.stem.unfinished(images), |x, block| Map::finished(block.forward(x)));
        let features = global_average(self.head.unfinished(x.finish()).finish());
        self.classifier.forward(features.flatten(1, 3).cast(precision))
    }
}

impl FoldedBlock {
    /// `pending` is the shift missing from the input, and becomes the one missing from the output.
    fn new(block: &InvertedResidual, pending: &mut Option<Tensor<1>>) -> Self {
        let linear = block.expand.as_ref().is_some_and(|expand| expand.kind() == Convolution::Pointwise);
        let (before, passed_on) = if linear { (None, pending.take()) } else { (pending.take(), None) };
        let project = Folded::new(&block.project);
        *pending = Some(match &passed_on {
            Some(shift) if block.is_residual() => project.shift.clone() + shift.clone(),
            _ => project.shift.clone(),
        });
        Self {
            pending: before,
            expand: block.expand.as_ref().map(|expand| Folded::new(expand).with_pending(passed_on)),
            depthwise: block.depthwise.as_ref().map(Folded::new),
            squeeze_excitation: block.squeeze_excitation.clone(),
            project,
            residual: block.is_residual(),
        }
    }

    fn forward(&self, x: Map) -> Tensor<4> {
        let x = match &self.pending {
            Some(shift) => Map::finished(shift_activation(x.finish(), shift.clone(), Activation::Identity)),
            None => x,
        };
        let x = if self.residual { Map::finished(x.finish()) } else { x };
        let input = self.residual.then(|| x.x.clone());
        let x = match &self.expand {
            Some(expand) => expand.unfinished(x.finish()),
            None => x,
        };
        let x = match &self.depthwise {
            Some(depthwise) => depthwise.slide(x),
            None => x.finish(),
        };
        let x = match &self.squeeze_excitation {
            Some(squeeze_excitation) => squeeze_excitation.forward(x),
            None => x,
        };
        let x = self.project.layer.convolve(x);
        match input {
            Some(input) => x + input,
            None => x,
        }
    }
}

impl Folded {
    fn new(layer: &ConvNormActivation) -> Self {
        let [scale, shift] = layer.norm.scale_and_shift();
        let mut layer = layer.clone();
        let [outputs, ..] = layer.weight.dims();
        layer.weight = layer.weight.map(|weight| weight * scale.reshape([outputs, 1, 1, 1]));
        Self { layer, shift }
    }

    /// Folds a shift missing from the input of a pointwise convolution into its own shift.
    fn with_pending(self, shift: Option<Tensor<1>>) -> Self {
        let Some(shift) = shift else { return self };
        // A matrix multiplication would round to TF32 where the GPU has it.
        let [outputs, inputs, ..] = self.layer.weight.dims();
        let lost = (self.layer.weight.val().reshape([outputs, inputs]) * shift.reshape([1, inputs])).sum_dim(1);
        Self { shift: self.shift + lost.reshape([outputs]), ..self }
    }

    /// Applies the convolution only.
    fn unfinished(&self, x: Tensor<4>) -> Map<'_> {
        Map { x: self.layer.convolve(x), by: Some(self) }
    }

    /// Applies a depthwise convolution, together with the pending shift and activation of its
    /// input.
    fn slide(&self, x: Map) -> Tensor<4> {
        let Conv2dGeometry { stride, padding, .. } = self.layer.geometry();
        let [_, height, width, _] = x.x.dims();
        let pads = uneven([height, width], self.layer.geometry(), self.layer.padding()).is_some();
        match x.by {
            Some(by) if !pads && by.layer.activation() == self.layer.activation() => depthwise_between_activations(
                x.x,
                by.shift.clone(),
                self.layer.weight.val(),
                self.shift.clone(),
                stride,
                padding,
                self.layer.activation(),
            ),
            _ => self.unfinished(x.finish()).finish(),
        }
    }
}

impl Map<'_> {
    fn finished(x: Tensor<4>) -> Self {
        Self { x, by: None }
    }

    fn finish(self) -> Tensor<4> {
        match self.by {
            Some(by) => shift_activation(self.x, by.shift.clone(), by.layer.activation()),
            None => self.x,
        }
    }
}
