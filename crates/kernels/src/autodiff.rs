//! Backward passes. Each operation is one node, which keeps its inputs and recomputes the rest.
//!
//! A convolution is expensive, a normalization cheap. Under gradient checkpointing the activations
//! that a convolution reads are therefore not kept, but recomputed from the input of the
//! normalization.

use std::sync::Arc;

use burn::backend::{
    Autodiff, AutodiffBackend, TensorMetadata,
    autodiff::{
        NodeId,
        checkpoint::{
            base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
        },
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};

use crate::backend::Kernels;
use crate::fallback;
use crate::types::convolution::Convolution;
use crate::types::image::operation::Operation;
use crate::types::image::sampling::Sampling;
use crate::types::normalization::Normalization;
use crate::types::quantizer::Quantizer;

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn convolve(x: FloatTensor<Self>, weight: FloatTensor<Self>, convolution: Convolution) -> FloatTensor<Self> {
        let [_, height, width, _] = x.shape().dims();
        let node = ConvolveBackward.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        match node {
            OpsKind::Tracked(mut node) => {
                let state = ConvolveState {
                    x: node.checkpoint(&x),
                    weight: node.checkpoint(&weight),
                    convolution,
                    size: [height, width],
                };
                node.finish(state, B::convolve(x.into_primitive(), weight.into_primitive(), convolution))
            }
            OpsKind::UnTracked(node) => {
                node.finish(B::convolve(x.into_primitive(), weight.into_primitive(), convolution))
            }
        }
    }

    fn unpack(words: IntTensor<Self>, size: [usize; 3]) -> IntTensor<Self> {
        B::unpack(words, size)
    }

    fn channels(images: IntTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::channels(images))
    }

    fn perform(images: IntTensor<Self>, operations: Arc<[(Operation, Sampling)]>) -> IntTensor<Self> {
        B::perform(images, operations)
    }

    fn channel_statistics(x: FloatTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (mean, variance) = B::channel_statistics(x.into_primitive());
        (Self::from_inner(mean), Self::from_inner(variance))
    }

    fn average(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, height, width, _] = x.shape().dims();
        match AverageBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish([height, width], B::average(x.into_primitive())),
            OpsKind::UnTracked(node) => node.finish(B::average(x.into_primitive())),
        }
    }

    fn scale_channels(x: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let learns = gate.is_tracked();
        match ScaleChannelsBackward.prepare::<C>([x.node(), gate.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut node) => {
                let state = (learns.then(|| node.checkpoint(&x)), node.checkpoint(&gate));
                node.finish(state, B::scale_channels(x.into_primitive(), gate.into_primitive()))
            }
            OpsKind::UnTracked(node) => node.finish(B::scale_channels(x.into_primitive(), gate.into_primitive())),
        }
    }

    fn fake_quantize(x: FloatTensor<Self>, quantizer: Quantizer) -> FloatTensor<Self> {
        match FakeQuantizeBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut node) => {
                let state = (node.checkpoint(&x), quantizer);
                node.finish(state, B::fake_quantize(x.into_primitive(), quantizer))
            }
            OpsKind::UnTracked(node) => node.finish(B::fake_quantize(x.into_primitive(), quantizer)),
        }
    }

    fn normalize(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        normalization: Normalization,
    ) -> FloatTensor<Self> {
        let again = RecomputeNormalize::<B> {
            inputs: [x.node().id(), gamma.node().id(), beta.node().id()],
            mean: mean.primitive().clone(),
            variance: variance.primitive().clone(),
            normalization,
        };
        let node = NormalizeBackward
            .prepare::<C>([x.node(), gamma.node(), beta.node()])
            .memory_bound()
            .retro_forward(again.clone())
            .parents([&x, &gamma, &beta])
            .stateful();
        let (mean, variance) = (mean.into_primitive(), variance.into_primitive());
        match node {
            OpsKind::Tracked(mut node) => {
                let inputs = [node.checkpoint(&x), node.checkpoint(&gamma), node.checkpoint(&beta)];
                let state = RecomputeNormalize { inputs, ..again };
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                node.finish(state, B::normalize(x, gamma, beta, mean, variance, normalization))
            }
            OpsKind::UnTracked(node) => {
                let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
                node.finish(B::normalize(x, gamma, beta, mean, variance, normalization))
            }
        }
    }
}

#[derive(Debug)]
struct AverageBackward;

impl<B: Kernels> Backward<B, 1> for AverageBackward {
    /// Height and width of the feature map.
    type State = [usize; 2];

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let ([node], gradient) = (ops.parents, gradients.consume::<B>(&ops.node));
        if let Some(node) = node {
            gradients.register::<B>(node.id, fallback::average_gradient::<B>(gradient, ops.state));
        }
    }
}

#[derive(Debug)]
struct ScaleChannelsBackward;

impl<B: Kernels> Backward<B, 2> for ScaleChannelsBackward {
    /// The feature map, if the gate needs a gradient (that of stochastic depth does not), and the
    /// gate.
    type State = (Option<NodeId>, NodeId);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, gate) = ops.state;
        let gate: FloatTensor<B> = checkpointer.retrieve_node_output(gate);
        let gradient = gradients.consume::<B>(&ops.node);
        let (x, gate) = match x {
            Some(x) => {
                let (x, gate) = B::scale_channels_gradients(checkpointer.retrieve_node_output(x), gate, gradient);
                (x, Some(gate))
            }
            None => (B::scale_channels(gradient, gate), None),
        };
        for (node, gradient) in ops.parents.into_iter().zip([Some(x), gate]) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct FakeQuantizeBackward;

impl<B: Kernels> Backward<B, 1> for FakeQuantizeBackward {
    /// The tensor to round.
    type State = (NodeId, Quantizer);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let ([node], (x, quantizer)) = (ops.parents, ops.state);
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(node) = node {
            gradients.register::<B>(node.id, B::fake_quantize_gradient(x, gradient, quantizer));
        }
    }
}

#[derive(Debug)]
struct ConvolveBackward;

#[derive(Clone, Debug)]
struct ConvolveState {
    x: NodeId,
    weight: NodeId,
    convolution: Convolution,
    /// Height and width of the feature map.
    size: [usize; 2],
}

impl<B: Kernels> Backward<B, 2> for ConvolveBackward {
    type State = ConvolveState;

    fn backward(self, ops: Ops<ConvolveState, 2>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let ConvolveState { x, weight, convolution, size } = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weight: FloatTensor<B> = checkpointer.retrieve_node_output(weight);
        let gradient = gradients.consume::<B>(&ops.node);
        if let Some(node) = weight_node {
            let gradient = B::convolve_weight_gradient(x, gradient.clone(), convolution);
            gradients.register::<B>(node.id, gradient);
        }
        if let Some(node) = x_node {
            let gradient = B::convolve_input_gradient(weight, gradient, convolution, size);
            gradients.register::<B>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct NormalizeBackward;

/// State of the backward pass, and of the forward pass in case it is repeated.
#[derive(Clone, Debug)]
struct RecomputeNormalize<B: Kernels> {
    /// Feature map, gamma and beta.
    inputs: [NodeId; 3],
    mean: FloatTensor<B>,
    variance: FloatTensor<B>,
    normalization: Normalization,
}

impl<B: Kernels> RetroForward for RecomputeNormalize<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let Self { inputs, mean, variance, normalization } = self.clone();
        let [x, gamma, beta] = inputs.map(|input| states.get_state::<FloatTensor<B>>(&input));
        states.save(out, B::normalize(x, gamma, beta, mean, variance, normalization));
    }
}

impl<B: Kernels> Backward<B, 3> for NormalizeBackward {
    type State = RecomputeNormalize<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, checkpointer: &mut Checkpointer) {
        let state = ops.state;
        let [x, gamma, beta] = state.inputs.map(|input| checkpointer.retrieve_node_output(input));
        let (x, gamma, beta) = B::normalize_gradients(
            x,
            gamma,
            beta,
            state.mean,
            state.variance,
            gradients.consume::<B>(&ops.node),
            state.normalization,
        );
        for (node, gradient) in ops.parents.into_iter().zip([x, gamma, beta]) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}
