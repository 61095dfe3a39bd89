//! The description of a network with packed weights.

use super::description::{Block as BlockSpec, Kind, Layer as LayerSpec, Padding, Precision, Stage as StageSpec};
use crate::{
    cpu::{buffer::Aligned, gemm::Packed},
    types::Activation,
};

/// Minimum number of values in a line of a window for which rounding to bf16 pays off.
const NARROW: usize = 16;

/// A convolution computed as a matrix multiplication over pixels or over windows.
#[derive(Debug)]
pub struct Product {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    /// Matrix [k * k * Ci, Co].
    pub weight: Packed,
    /// Padded to whole panels.
    pub bias: Aligned,
    pub activation: Activation,
}

/// A depthwise convolution.
#[derive(Debug)]
pub struct Depthwise {
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    /// Matrix [k * k, C].
    pub weight: Aligned,
    pub bias: Aligned,
    pub activation: Activation,
}

#[derive(Debug)]
pub struct Block {
    pub expand: Option<Product>,
    pub depthwise: Option<Depthwise>,
    pub gate: Option<[Product; 2]>,
    pub project: Product,
    pub residual: bool,
}

#[derive(Debug)]
pub enum Stage {
    Layer(Product),
    Block(Box<Block>),
    Pool,
}

impl Stage {
    pub fn new(stage: &StageSpec, precision: Precision) -> Self {
        match stage {
            StageSpec::Layer(layer) => Self::Layer(Product::new(layer, precision)),
            StageSpec::Block(block) => Self::Block(Box::new(Block::new(block, precision))),
            StageSpec::Pool => Self::Pool,
        }
    }
}

impl Block {
    fn new(block: &BlockSpec, precision: Precision) -> Self {
        // A gate has only one pixel, so bf16 would not make it faster.
        let gate = |layer| Product::new(layer, Precision::F32);
        Self {
            expand: block.expand.as_ref().map(|layer| Product::new(layer, precision)),
            depthwise: block.depthwise.as_ref().map(Depthwise::new),
            gate: block.gate.as_ref().map(|layers| [gate(&layers.reduce), gate(&layers.expand)]),
            project: Product::new(&block.project, precision),
            residual: block.residual,
        }
    }
}

fn check(layer: &LayerSpec, inputs_per_group: usize) {
    let LayerSpec { inputs, outputs, kernel, stride, weight, bias, .. } = layer;
    assert!(
        [inputs, outputs, kernel, stride].iter().all(|size| **size > 0),
        "a layer needs channels, a window and a stride, not {inputs} to {outputs} channels, kernel {kernel}, stride {stride}"
    );
    assert_eq!(weight.len(), outputs * inputs_per_group * kernel * kernel, "the weight of a folded layer");
    assert_eq!(bias.len(), *outputs, "the bias of a folded layer");
}

impl Product {
    pub fn new(layer: &LayerSpec, precision: Precision) -> Self {
        let LayerSpec { inputs, outputs, kernel, stride, padding, activation, .. } = *layer;
        assert_ne!(layer.kind, Kind::Depthwise, "a depthwise layer in the place of a product");
        check(layer, inputs);
        // Taps are the outer and channels the inner dimension, as in memory.
        let taps = kernel * kernel;
        let columns: Vec<f32> = (0..outputs * taps * inputs)
            .map(|i| layer.weight[(i / (taps * inputs) * inputs + i % inputs) * taps + i / inputs % taps])
            .collect();
        let weight = Packed::from_columns(&columns, taps * inputs, outputs);
        // For narrow windows, such as those over the colors of an image, rounding the pixels costs
        // more than it saves.
        let gains = precision == Precision::Bf16 && kernel * inputs >= NARROW;
        let weight = if gains { weight.in_bf16() } else { weight };
        let mut bias = Aligned::zeros(weight.padded());
        bias[..outputs].copy_from_slice(&layer.bias);
        Self { inputs, outputs, kernel, stride, padding, weight, bias, activation }
    }

    /// Returns whether every output pixel depends on exactly the input pixel at the same position.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1
    }
}

impl Depthwise {
    pub fn new(layer: &LayerSpec) -> Self {
        let LayerSpec { outputs: channels, kernel, stride, padding, activation, .. } = *layer;
        assert_eq!((layer.kind, layer.inputs), (Kind::Depthwise, channels), "a layer in the place of a depthwise one");
        check(layer, 1);
        let taps = kernel * kernel;
        let mut weight = Aligned::zeros(taps * channels);
        weight.iter_mut().enumerate().for_each(|(i, to)| *to = layer.weight[i % channels * taps + i / channels]);
        Self { channels, kernel, stride, padding, weight, bias: layer.bias[..].into(), activation }
    }
}
