//! The description of an 8-bit network with packed weights.

use super::{
    depthwise,
    description::{Block as BlockSpec, Layer as LayerSpec, Quantizer, Stage as StageSpec, Weights},
    finish::{Addition, LANES, Rounding},
    product::Packed,
};
use crate::{
    cpu::buffer::Aligned,
    inference::{
        Kind, Layer as FloatSpec, Padding, Precision,
        map::{Geometry, Map},
        plan,
    },
    types::Activation,
};

/// A convolution over pixels or windows as a matrix multiplication.
#[derive(Debug)]
pub struct Product {
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    pub input: Quantizer,
    pub output: Quantizer,
    pub weights: ProductWeights,
}

#[derive(Debug)]
pub enum ProductWeights {
    Int8(Box<Integers<Packed>>),
    Float(Box<plan::Product>),
}

/// Packed weights of an 8-bit layer.
#[derive(Debug)]
pub struct Integers<W> {
    pub weight: W,
    /// Initial values of the sums: the bias, less what the zero point of the input adds.
    pub start: Aligned<i32>,
    pub rounding: Rounding,
    /// Real value of a unit of each channel's sum.
    pub units: Vec<f32>,
    pub activation: Activation,
}

/// A depthwise convolution.
#[derive(Debug)]
pub struct Depthwise {
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    pub input: Quantizer,
    pub output: Quantizer,
    pub weights: DepthwiseWeights,
}

#[derive(Debug)]
pub enum DepthwiseWeights {
    /// Packed for each possible padding to the left.
    Int8(Box<Integers<Vec<(usize, depthwise::Packed)>>>),
    Float(Box<plan::Depthwise>),
}

#[derive(Debug)]
pub struct Gate {
    pub reduce: Product,
    pub expand: Product,
}

#[derive(Debug)]
pub struct Block {
    pub expand: Option<Product>,
    pub depthwise: Option<Depthwise>,
    pub gate: Option<Gate>,
    pub project: Product,
    /// Adds the input to the projection.
    pub addition: Option<Addition>,
    pub output: Quantizer,
}

#[derive(Debug)]
pub enum Stage {
    Layer(Product),
    Block(Box<Block>),
    Pool(Quantizer),
}

impl Stage {
    pub fn new(stage: &StageSpec) -> Self {
        match stage {
            StageSpec::Layer(layer) => Self::Layer(Product::new(layer, false)),
            StageSpec::Block(block) => Self::Block(Box::new(Block::new(block))),
            StageSpec::Pool(output) => Self::Pool(*output),
        }
    }

    pub fn output(&self, map: Map) -> Map {
        match self {
            Self::Layer(layer) => layer.geometry(map).out,
            Self::Block(block) => {
                let hidden = block.hidden(map);
                assert_eq!(hidden.channels, block.project.inputs, "the channels of a map and of its projection");
                let out = Map { channels: block.project.outputs, ..hidden };
                assert!(block.addition.is_none() || out == map, "a residual {map:?} is added to {out:?}");
                out
            }
            Self::Pool(_) => Map { height: 1, width: 1, ..map },
        }
    }
}

impl Block {
    fn new(block: &BlockSpec) -> Self {
        Self {
            expand: block.expand.as_ref().map(|layer| Product::new(layer, false)),
            depthwise: block.depthwise.as_ref().map(Depthwise::new),
            gate: block.gate.as_ref().map(|gate| Gate {
                reduce: Product::new(&gate.reduce, false),
                expand: Product::new(&gate.expand, true),
            }),
            project: Product::new(&block.project, false),
            addition: block.sum.map(|sum| Addition::new(block.first().input, block.project.output, sum)),
            output: block.sum.unwrap_or(block.project.output),
        }
    }

    /// Returns the dimensions of the feature map between the expansion and the depthwise
    /// convolution.
    pub fn expanded(&self, map: Map) -> Map {
        self.expand.as_ref().map_or(map, |expand| expand.geometry(map).out)
    }

    /// Returns the dimensions of the feature map before the projection.
    pub fn hidden(&self, map: Map) -> Map {
        let expanded = self.expanded(map);
        self.depthwise.as_ref().map_or(expanded, |depthwise| depthwise.geometry(expanded).out)
    }

    /// Returns the quantizer of the feature map before the gate.
    pub fn hidden_quantizer(&self) -> Quantizer {
        let depthwise = self.depthwise.as_ref().map(|depthwise| depthwise.output);
        depthwise.or(self.expand.as_ref().map(|expand| expand.output)).unwrap_or(self.project.input)
    }
}

fn check(layer: &LayerSpec, inputs_per_group: usize) {
    let LayerSpec { inputs, outputs, kernel, stride, .. } = layer;
    assert!(
        [inputs, outputs, kernel, stride].iter().all(|size| **size > 0),
        "a layer needs channels, a window and a stride, not {inputs} to {outputs} channels, kernel {kernel}, stride {stride}"
    );
    let (weight, bias, scales) = match &layer.weights {
        Weights::Int8 { weight, scales, bias } => (weight.len(), bias.len(), scales.len()),
        Weights::Float { weight, bias } => (weight.len(), bias.len(), *outputs),
    };
    assert_eq!(weight, outputs * inputs_per_group * kernel * kernel, "the weight of a quantized layer");
    assert_eq!([bias, scales], [*outputs; 2], "the biases and scales of a quantized layer");
}

/// Returns the description of a layer that stays in single precision.
fn float(layer: &LayerSpec, weight: &[f32], bias: &[f32]) -> FloatSpec {
    let LayerSpec { kind, inputs, outputs, kernel, stride, padding, activation, .. } = *layer;
    FloatSpec { kind, inputs, outputs, kernel, stride, padding, weight: weight.into(), bias: bias.into(), activation }
}

impl<W> Integers<W> {
    /// Completes a packed weight; `rows` are the weights of each output channel.
    fn new(layer: &LayerSpec, weight: W, rows: &[i8], sigmoid: bool) -> Self {
        let Weights::Int8 { scales, bias, .. } = &layer.weights else { panic!("a layer in single precision") };
        let zero = i32::from(layer.input.zero_point);
        let mut start = Aligned::zeros(layer.outputs.next_multiple_of(2 * LANES));
        let rows = rows.chunks_exact(rows.len() / layer.outputs);
        for ((to, bias), row) in start.iter_mut().zip(bias).zip(rows) {
            *to = bias.wrapping_sub(zero.wrapping_mul(row.iter().map(|weight| i32::from(*weight)).sum()));
        }
        Self {
            weight,
            start,
            rounding: Rounding::new(layer, sigmoid),
            units: scales.iter().map(|scale| layer.input.scale * scale).collect(),
            activation: layer.activation,
        }
    }
}

impl Product {
    fn new(layer: &LayerSpec, sigmoid: bool) -> Self {
        let LayerSpec { inputs, outputs, kernel, stride, padding, input, output, .. } = *layer;
        assert_ne!(layer.kind, Kind::Depthwise, "a depthwise layer in the place of a product");
        check(layer, inputs);
        let weights = match &layer.weights {
            Weights::Int8 { weight, .. } => {
                // Taps are the outer and channels the inner dimension, as in memory.
                let taps = kernel * kernel;
                let columns: Vec<i8> = (0..outputs * taps * inputs)
                    .map(|i| weight[(i / (taps * inputs) * inputs + i % inputs) * taps + i / inputs % taps])
                    .collect();
                let packed = Packed::new(&columns, [outputs, kernel, kernel * inputs]);
                ProductWeights::Int8(Box::new(Integers::new(layer, packed, &columns, sigmoid)))
            }
            Weights::Float { weight, bias } => {
                ProductWeights::Float(Box::new(plan::Product::new(&float(layer, weight, bias), Precision::F32)))
            }
        };
        Self { inputs, outputs, kernel, stride, padding, input, output, weights }
    }

    /// Returns whether every output pixel depends on exactly the input pixel at the same position.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1
    }

    /// # Panics
    /// If the feature map and the layer differ in their channels, or a window does not fit.
    pub fn geometry(&self, map: Map) -> Geometry {
        assert_eq!(map.channels, self.inputs, "the channels of a map and of the layer that it enters");
        Geometry::new(map, self.kernel, self.stride, self.padding, self.outputs)
    }
}

impl Depthwise {
    fn new(layer: &LayerSpec) -> Self {
        let LayerSpec { outputs: channels, kernel, stride, padding, input, output, .. } = *layer;
        assert_eq!((layer.kind, layer.inputs), (Kind::Depthwise, channels), "a layer in the place of a depthwise one");
        check(layer, 1);
        let weights = match &layer.weights {
            Weights::Int8 { weight, .. } => {
                let lefts = match padding {
                    Padding::Even(left) => left..=left,
                    Padding::Same => 0..=kernel / 2,
                };
                let packed =
                    lefts.map(|left| (left, depthwise::Packed::new(weight, channels, kernel, stride, left))).collect();
                DepthwiseWeights::Int8(Box::new(Integers::new(layer, packed, weight, false)))
            }
            Weights::Float { weight, bias } => {
                DepthwiseWeights::Float(Box::new(plan::Depthwise::new(&float(layer, weight, bias))))
            }
        };
        Self { channels, kernel, stride, padding, input, output, weights }
    }

    /// # Panics
    /// As for [`Product::geometry`].
    pub fn geometry(&self, map: Map) -> Geometry {
        assert_eq!(map.channels, self.channels, "the channels of a map and of the layer that it enters");
        Geometry::new(map, self.kernel, self.stride, self.padding, self.channels)
    }
}

impl Integers<Vec<(usize, depthwise::Packed)>> {
    /// Returns the weight for a padding to the left.
    pub fn for_padding(&self, left: usize) -> &depthwise::Packed {
        let (_, packed) = self.weight.iter().find(|(other, _)| *other == left).expect("a padding within the window");
        packed
    }
}
