//! Conversion of a network without batch-norms to ONNX operators.

use half::f16;
use mbconv_nets::Activation;
use mbconv_nets::inference::{Block, Gate, Kind, Layer, Stage};
use mbconv_nets::weights::Precision;

use crate::onnx::error::OnnxError;
use crate::onnx::proto::{self, Attribute, FLOAT, FLOAT16, Node};

/// Operators and constants in data-flow order.
///
/// Each method adds the operators of its name and returns the output value. Constants have the
/// names of the Burn module's tensors (`blocks.3.expand.weight`).
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    pub constants: Vec<proto::Tensor>,
    /// Element type of the convolutions: [`FLOAT`] or [`FLOAT16`].
    element: i32,
}

/// A feature map: the operator's output and its spatial size, which determines asymmetric padding.
#[derive(Clone)]
pub(crate) struct Map {
    pub name: String,
    pub sides: [usize; 2],
}

impl Graph {
    pub fn new(element: i32) -> Self {
        Self { nodes: Vec::new(), constants: Vec::new(), element }
    }

    /// Adds the whole network: normalized images `[N, C, H, W]` → logits `[N, classes]`.
    pub fn network(&mut self, stages: &[Stage], images: Map) -> Result<String, OnnxError> {
        let mut map = images;
        let (mut blocks, mut pooled) = (0, false);
        for stage in stages {
            map = match stage {
                Stage::Layer(layer) if pooled => self.linear("classifier", map, layer)?,
                Stage::Layer(layer) => self.layer(if blocks == 0 { "stem" } else { "head" }, map, layer)?,
                Stage::Block(block) => {
                    blocks += 1;
                    self.block(&format!("blocks.{}", blocks - 1), map, block)?
                }
                Stage::Pool => {
                    pooled = true;
                    Map { name: self.mean("pool", &map, false), sides: [1, 1] }
                }
            };
        }
        Ok(map.name)
    }

    /// Adds an inverted residual: expand → depthwise → squeeze-excitation → project, plus the input
    /// if the block is residual.
    fn block(&mut self, path: &str, input: Map, block: &Block) -> Result<Map, OnnxError> {
        let part = |name: &str| format!("{path}.{name}");
        let mut x = input.clone();
        if let Some(expand) = &block.expand {
            x = self.layer(&part("expand"), x, expand)?;
        }
        if let Some(depthwise) = &block.depthwise {
            x = self.layer(&part("depthwise"), x, depthwise)?;
        }
        if let Some(gate) = &block.gate {
            x = self.squeeze_excitation(&part("squeeze_excitation"), x, gate)?;
        }
        x = self.layer(&part("project"), x, &block.project)?;
        if block.residual {
            x.name = self.node(&part("add"), "Add", &[&x.name, &input.name], vec![]);
        }
        Ok(x)
    }

    fn squeeze_excitation(&mut self, path: &str, x: Map, gate: &Gate) -> Result<Map, OnnxError> {
        let pooled = Map { name: self.mean(&format!("{path}.pool"), &x, true), sides: [1, 1] };
        let reduced = self.layer(&format!("{path}.reduce"), pooled, &gate.reduce)?;
        // The gate always uses the sigmoid added below.
        let expand = Layer { activation: Activation::Identity, ..gate.expand.clone() };
        let expanded = self.layer(&format!("{path}.expand"), reduced, &expand)?;
        let scale = self.node(&format!("{path}.gate"), "Sigmoid", &[&expanded.name], vec![]);
        Ok(Map { name: self.node(path, "Mul", &[&x.name, &scale], vec![]), sides: x.sides })
    }

    /// Adds the mean over height and width, `[N, C, 1, 1]` or `[N, C]`.
    ///
    /// Not `GlobalAveragePool`: on its blocked layout ONNX Runtime sums the pixels sequentially in
    /// f32, which costs EfficientNet a decimal digit.
    pub fn mean(&mut self, name: &str, x: &Map, keep: bool) -> String {
        let attributes = vec![Attribute::ints("axes", &[2, 3]), Attribute::int("keepdims", keep.into())];
        self.node(name, "ReduceMean", &[&x.name], attributes)
    }

    /// Adds a convolution with bias and activation.
    pub fn layer(&mut self, path: &str, x: Map, layer: &Layer) -> Result<Map, OnnxError> {
        let (weight, bias) = self.weight_and_bias(path, layer, &weight_shape(layer))?;
        Ok(self.convolution(path, x, layer, [&weight, &bias]))
    }

    /// Adds a convolution with activation; `layer` describes it, but its weight and bias are
    /// values.
    pub fn convolution(&mut self, path: &str, x: Map, layer: &Layer, [weight, bias]: [&str; 2]) -> Map {
        let Layer { kind, inputs, kernel, stride, .. } = *layer;
        let groups = if kind == Kind::Depthwise { inputs } else { 1 };
        let along = x.sides.map(|side| layer.padding.along(side, kernel, stride));
        let [(height, [top, bottom]), (width, [left, right])] = along;
        let attributes = vec![
            Attribute::ints("dilations", &[1, 1]),
            Attribute::int("group", groups as i64),
            Attribute::ints("kernel_shape", &[kernel; 2].map(|size| size as i64)),
            Attribute::ints("pads", &[top, left, bottom, right].map(|size| size as i64)),
            Attribute::ints("strides", &[stride; 2].map(|size| size as i64)),
        ];
        let name = self.node(&format!("{path}.conv"), "Conv", &[&x.name, weight, bias], attributes);
        Map { name: self.activation(path, name, layer.activation), sides: [height, width] }
    }

    /// Adds the classifier: `[N, features]` → `[N, classes]`.
    pub fn linear(&mut self, path: &str, x: Map, layer: &Layer) -> Result<Map, OnnxError> {
        let (weight, bias) = self.weight_and_bias(path, layer, &[layer.outputs, layer.inputs])?;
        Ok(self.gemm(path, x, layer, [&weight, &bias]))
    }

    /// Adds the classifier; `layer` describes it, but its weight and bias are values.
    pub fn gemm(&mut self, path: &str, x: Map, layer: &Layer, [weight, bias]: [&str; 2]) -> Map {
        let name = self.node(path, "Gemm", &[&x.name, weight, bias], vec![Attribute::int("transB", 1)]);
        Map { name: self.activation(path, name, layer.activation), ..x }
    }

    /// Adds an activation from operators that every runtime supports and fuses.
    fn activation(&mut self, path: &str, x: String, activation: Activation) -> String {
        match activation {
            Activation::Identity => x,
            Activation::Relu => self.node(&format!("{path}.relu"), "Relu", &[&x], vec![]),
            Activation::Relu6 => {
                let [min, max] = [("relu6.min", 0.0), ("relu6.max", 6.0)].map(|(name, value)| self.scalar(name, value));
                self.node(&format!("{path}.relu6"), "Clip", &[&x, &min, &max], vec![])
            }
            Activation::Silu => {
                let gate = self.node(&format!("{path}.sigmoid"), "Sigmoid", &[&x], vec![]);
                self.node(&format!("{path}.silu"), "Mul", &[&x, &gate], vec![])
            }
        }
    }

    fn weight_and_bias(&mut self, path: &str, layer: &Layer, shape: &[usize]) -> Result<(String, String), OnnxError> {
        let weight = self.constant(format!("{path}.weight"), shape, &layer.weight)?;
        Ok((weight, self.constant(format!("{path}.bias"), &shape[..1], &layer.bias)?))
    }

    /// Adds a constant of the convolutions' element type.
    fn constant(&mut self, name: String, shape: &[usize], values: &[f32]) -> Result<String, OnnxError> {
        let finite = match self.element {
            FLOAT16 => values.iter().all(|&value| f16::from_f32(value).is_finite()),
            _ => values.iter().all(|value| value.is_finite()),
        };
        if !finite {
            return Err(OnnxError::Value { path: name });
        }
        self.push_constant(&name, shape, values, self.element);
        Ok(name)
    }

    /// Adds a scalar constant, shared by all users of its name.
    fn scalar(&mut self, name: &str, value: f32) -> String {
        if !self.constants.iter().any(|constant| constant.name() == name) {
            self.push_constant(name, &[], &[value], self.element);
        }
        name.into()
    }

    /// Adds a constant of the given element type.
    pub fn push_constant(&mut self, name: &str, shape: &[usize], values: &[f32], element: i32) {
        let bytes = match element {
            FLOAT16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        self.push_bytes(name, shape, bytes, element);
    }

    /// Adds a constant with these bytes.
    pub fn push_bytes(&mut self, name: &str, shape: &[usize], bytes: Vec<u8>, element: i32) {
        self.constants.push(proto::Tensor {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(element),
            name: Some(name.into()),
            raw_data: Some(bytes),
        });
    }

    /// Adds an operator whose single output has the operator's name.
    pub fn node(&mut self, name: &str, operator: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.into()],
            name: Some(name.into()),
            op_type: Some(operator.into()),
            attribute,
        });
        name.into()
    }

    /// Adds a conversion between element types if they differ.
    pub fn cast(&mut self, name: &str, x: String, from: i32, to: i32) -> String {
        if from == to {
            return x;
        }
        self.node(name, "Cast", &[&x], vec![Attribute::int("to", to.into())])
    }
}

/// Returns the shape of a convolution's weight.
pub(crate) fn weight_shape(layer: &Layer) -> [usize; 4] {
    let depth = if layer.kind == Kind::Depthwise { 1 } else { layer.inputs };
    [layer.outputs, depth, layer.kernel, layer.kernel]
}

/// Returns ONNX's element type if the runtimes support computing in it.
pub(crate) fn element(precision: Precision) -> Option<i32> {
    match precision {
        Precision::F32 => Some(FLOAT),
        Precision::F16 => Some(FLOAT16),
        Precision::Bf16 => None,
    }
}

#[cfg(test)]
mod tests {
    use mbconv_nets::inference::Padding;

    use super::*;

    fn layer(kind: Kind, [inputs, outputs]: [usize; 2], kernel: usize, stride: usize) -> Layer {
        let depth = if kind == Kind::Depthwise { 1 } else { inputs };
        Layer {
            kind,
            inputs,
            outputs,
            kernel,
            stride,
            padding: if kernel == 1 { Padding::Even(0) } else { Padding::Same },
            weight: vec![0.5; outputs * depth * kernel * kernel],
            bias: vec![0.0; outputs],
            activation: Activation::Identity,
        }
    }

    #[test]
    fn asymmetric_padding_follows_the_sides_of_each_map() {
        let fused = Block {
            expand: Some(layer(Kind::Dense, [4, 8], 3, 2)),
            depthwise: None,
            gate: None,
            project: layer(Kind::Pointwise, [8, 8], 1, 1),
            residual: false,
        };
        let separable = Block {
            expand: None,
            depthwise: Some(layer(Kind::Depthwise, [8, 8], 5, 2)),
            gate: None,
            project: layer(Kind::Pointwise, [8, 8], 1, 1),
            residual: false,
        };
        let stages = [
            Stage::Layer(layer(Kind::Dense, [3, 4], 3, 2)),
            Stage::Block(Box::new(fused)),
            Stage::Block(Box::new(separable)),
            Stage::Layer(layer(Kind::Pointwise, [8, 16], 1, 1)),
            Stage::Pool,
            Stage::Layer(layer(Kind::Pointwise, [16, 2], 1, 1)),
        ];
        let mut graph = Graph::new(FLOAT);
        let logits = graph.network(&stages, Map { name: "input".into(), sides: [30, 25] }).unwrap();
        assert_eq!(logits, "classifier");
        let pads = |name: &str| {
            let node = graph.nodes.iter().find(|node| node.name() == name).unwrap();
            let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name).unwrap();
            (attribute("pads").ints.clone(), attribute("group").i())
        };
        // 30 × 25 → 15 × 13 → 8 × 7 → 4 × 4
        assert_eq!(pads("stem.conv"), (vec![0, 1, 1, 1], 1));
        assert_eq!(pads("blocks.0.expand.conv"), (vec![1, 1, 1, 1], 1));
        assert_eq!(pads("blocks.1.depthwise.conv"), (vec![1, 2, 2, 2], 8));
        assert_eq!(pads("head.conv"), (vec![0, 0, 0, 0], 1));
    }

    #[test]
    fn weights_too_large_for_half_precision_are_named() {
        let mut large = layer(Kind::Pointwise, [3, 2], 1, 1);
        large.weight[4] = 70_000.0;
        let network = |element| {
            let images = Map { name: "input".into(), sides: [8, 8] };
            Graph::new(element).network(&[Stage::Layer(large.clone())], images)
        };
        assert!(network(FLOAT).is_ok());
        assert_eq!(network(FLOAT16), Err(OnnxError::Value { path: "stem.weight".into() }));
    }
}
