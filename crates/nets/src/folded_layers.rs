//! The network for inference on a GPU, in operations on tensors: batch-norms folded into the convolutions before them, in single
//! precision. What is left of them, a shift and an activation, would take a pass over every map. But
//! - a depthwise convolution does it in passing, before and after;
//! - a linear bottleneck's shift, which no activation follows, goes on into the shifts of the expansions that read it: `W (x + s)` is
//!   `W x + W s`.

use burn::tensor::Tensor;
use mbconv_kernels::{Activation, Window, depthwise_between_activations, global_average, shift_activation};

use crate::Network;
use crate::inverted_residual::InvertedResidual;
use crate::layers::{ConvNormActivation, Convolution, Linear, SqueezeExcitation};
use crate::padding::uneven;

/// A network without batch-norms.
#[derive(Debug)]
pub(crate) struct FoldedNetwork {
    stem: Folded,
    blocks: Vec<FoldedBlock>,
    head: Folded,
    classifier: Linear,
}

/// An inverted residual without batch-norms. Its output lacks a shift, for whose sake those of later layers are larger.
#[derive(Debug)]
struct FoldedBlock {
    /// What the input lacks, if a convolution with zeros around it reads it.
    lacking: Option<Tensor<1>>,
    expand: Option<Folded>,
    depthwise: Option<Folded>,
    squeeze_excitation: Option<SqueezeExcitation>,
    project: Folded,
    residual: bool,
}

/// A convolution with a shift and an activation.
#[derive(Debug)]
struct Folded {
    /// Its weight is scaled; its norm is not used.
    layer: ConvNormActivation,
    /// Shape `[C_out]`.
    shift: Tensor<1>,
}

/// A map to which, unless it is finished, the shift and the activation of the layer that made it are still to be applied.
struct Map<'a> {
    x: Tensor<4>,
    by: Option<&'a Folded>,
}

impl FoldedNetwork {
    /// Of a network that evaluates.
    pub fn new(network: &Network) -> Self {
        let mut lacking = None;
        let blocks = network.blocks.iter().map(|block| FoldedBlock::new(block, &mut lacking)).collect();
        Self {
            stem: Folded::new(&network.stem),
            blocks,
            head: Folded::new(&network.head).of_lacking(lacking),
            classifier: network.classifier.clone(),
        }
    }

    /// Images [N, H, W, C] → logits [N, classes].
    pub fn forward_channels_last(&self, images: Tensor<4>) -> Tensor<2> {
        let precision = self.classifier.weight.dtype();
        let x = self.blocks.iter().fold(self.stem.unfinished(images), |x, block| Map::finished(block.forward(x)));
        let features = global_average(self.head.unfinished(x.finish()).finish());
        self.classifier.forward(features.flatten(1, 3).cast(precision))
    }
}

impl FoldedBlock {
    /// `lacking` is what the input lacks, and becomes what the output lacks.
    fn new(block: &InvertedResidual, lacking: &mut Option<Tensor<1>>) -> Self {
        let linear = block.expand.as_ref().is_some_and(|expand| expand.kind() == Convolution::Pointwise);
        let (before, passed_on) = if linear { (None, lacking.take()) } else { (lacking.take(), None) };
        let project = Folded::new(&block.project);
        *lacking = Some(match &passed_on {
            Some(shift) if block.is_residual() => project.shift.clone() + shift.clone(),
            _ => project.shift.clone(),
        });
        Self {
            lacking: before,
            expand: block.expand.as_ref().map(|expand| Folded::new(expand).of_lacking(passed_on)),
            depthwise: block.depthwise.as_ref().map(Folded::new),
            squeeze_excitation: block.squeeze_excitation.clone(),
            project,
            residual: block.is_residual(),
        }
    }

    fn forward(&self, x: Map) -> Tensor<4> {
        let x = match &self.lacking {
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

    /// A pointwise convolution whose input lacks a shift.
    fn of_lacking(self, shift: Option<Tensor<1>>) -> Self {
        let Some(shift) = shift else { return self };
        // Not a product of matrices, which would round to TF32 where there is.
        let [outputs, inputs, ..] = self.layer.weight.dims();
        let lost = (self.layer.weight.val().reshape([outputs, inputs]) * shift.reshape([1, inputs])).sum_dim(1);
        Self { shift: self.shift + lost.reshape([outputs]), ..self }
    }

    /// The convolution alone.
    fn unfinished(&self, x: Tensor<4>) -> Map<'_> {
        Map { x: self.layer.convolve(x), by: Some(self) }
    }

    /// A depthwise convolution of a map that need not be finished.
    fn slide(&self, x: Map) -> Tensor<4> {
        let Window { stride, padding, .. } = self.layer.window();
        let [_, height, width, _] = x.x.dims();
        let pads = uneven([height, width], self.layer.window(), self.layer.padding()).is_some();
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
