//! The description of a network with its weights packed.

use super::{Block as BlockSpec, Kind, Layer as LayerSpec, Padding, Stage as StageSpec};
use crate::{
    Activation,
    flex::{buffer::Aligned, gemm::Packed},
};

/// A convolution that is a matrix product over pixels or over what the window sees of them.
#[derive(Debug)]
pub struct Product {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    /// [k * k * Ci, Co]
    pub weight: Packed,
    /// Filled up to whole panels.
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
    /// [k * k, C]
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
    pub fn new(stage: &StageSpec) -> Self {
        match stage {
            StageSpec::Layer(layer) => Self::Layer(Product::new(layer)),
            StageSpec::Block(block) => Self::Block(Box::new(Block::new(block))),
            StageSpec::Pool => Self::Pool,
        }
    }
}

impl Block {
    fn new(block: &BlockSpec) -> Self {
        Self {
            expand: block.expand.as_ref().map(Product::new),
            depthwise: block.depthwise.as_ref().map(Depthwise::new),
            gate: block.gate.as_ref().map(|gate| [Product::new(&gate.reduce), Product::new(&gate.expand)]),
            project: Product::new(&block.project),
            residual: block.residual,
        }
    }
}

fn check(layer: &LayerSpec, inputs_per_group: usize) {
    let LayerSpec { outputs, kernel, weight, bias, .. } = layer;
    assert_eq!(weight.len(), outputs * inputs_per_group * kernel * kernel, "the weight of a folded layer");
    assert_eq!(bias.len(), *outputs, "the bias of a folded layer");
}

impl Product {
    fn new(layer: &LayerSpec) -> Self {
        let LayerSpec { inputs, outputs, kernel, stride, padding, activation, .. } = *layer;
        assert_ne!(layer.kind, Kind::Depthwise, "a depthwise layer in the place of a product");
        check(layer, inputs);
        // Taps outside, channels inside, as pixels lie in memory.
        let taps = kernel * kernel;
        let columns: Vec<f32> = (0..outputs * taps * inputs)
            .map(|i| layer.weight[(i / (taps * inputs) * inputs + i % inputs) * taps + i / inputs % taps])
            .collect();
        let weight = Packed::from_columns(&columns, taps * inputs, outputs);
        let mut bias = Aligned::zeros(weight.padded());
        bias[..outputs].copy_from_slice(&layer.bias);
        Self { inputs, outputs, kernel, stride, padding, weight, bias, activation }
    }

    /// Whether every pixel stands for itself.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1
    }
}

impl Depthwise {
    fn new(layer: &LayerSpec) -> Self {
        let LayerSpec { outputs: channels, kernel, stride, padding, activation, .. } = *layer;
        assert_eq!((layer.kind, layer.inputs), (Kind::Depthwise, channels), "a layer in the place of a depthwise one");
        check(layer, 1);
        let taps = kernel * kernel;
        let mut weight = Aligned::zeros(taps * channels);
        weight.iter_mut().enumerate().for_each(|(i, to)| *to = layer.weight[i % channels * taps + i / channels]);
        Self { channels, kernel, stride, padding, weight, bias: layer.bias[..].into(), activation }
    }
}
