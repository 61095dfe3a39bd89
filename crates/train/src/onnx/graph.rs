//! A network as ONNX operators: structure from the [`Architecture`], numbers from the list of tensors.

use std::collections::HashMap;

use half::f16;
use mbconv_nets::architecture::Block;
use mbconv_nets::{Activation, Architecture};

use super::OnnxError;
use super::proto::{self, Attribute, FLOAT, FLOAT16, Node};

/// Operators and constants, in the order in which data flows.
///
/// Each method adds what its name says and gives the name of the value that comes out. Names of constants are the Burn
/// module's paths (`blocks.3.expand.weight`), so a tensor is called the same everywhere.
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node>,
    pub constants: Vec<proto::Tensor>,
    architecture: &'a Architecture,
    /// The network's tensors by path.
    tensors: HashMap<String, Vec<f32>>,
    /// Element type of the convolutions: [`FLOAT`] or [`FLOAT16`].
    element: i32,
}

/// A convolution's numbers.
struct Convolution {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Convolution {
    fn pointwise(input: usize, output: usize) -> Self {
        Self { input, output, kernel: 1, stride: 1, groups: 1 }
    }

    /// Rows and columns of zeros around the map: before and after, the same both ways.
    fn padding(&self) -> [usize; 2] {
        [self.kernel / 2; 2]
    }
}

impl<'a> Graph<'a> {
    pub fn new(architecture: &'a Architecture, tensors: HashMap<String, Vec<f32>>, element: i32) -> Self {
        Self { nodes: Vec::new(), constants: Vec::new(), architecture, tensors, element }
    }

    /// The whole network: normalised images `[N, C, H, W]` → logits `[N, classes]`.
    pub fn network(&mut self, images: String) -> Result<String, OnnxError> {
        let architecture = self.architecture;
        let Architecture { stem, head, stem_stride, input_channels, activation, .. } = *architecture;
        let convolution =
            Convolution { input: input_channels, output: stem, kernel: 3, stride: stem_stride, groups: 1 };
        let mut x = self.convolution_norm("stem", images, convolution, activation)?;
        let mut channels = stem;
        for (index, block) in architecture.blocks.iter().enumerate() {
            x = self.block(&format!("blocks.{index}"), x, block)?;
            channels = block.output;
        }
        let x = self.convolution_norm("head", x, Convolution::pointwise(channels, head), activation)?;
        let x = self.node("pool", "GlobalAveragePool", &[&x], vec![]);
        let x = self.node("flatten", "Flatten", &[&x], vec![Attribute::int("axis", 1)]);
        let shape = [architecture.classes, head];
        let (weight, bias) = self.weight_and_bias("classifier", &shape)?;
        Ok(self.node("classifier", "Gemm", &[&x, &weight, &bias], vec![Attribute::int("transB", 1)]))
    }

    /// Inverted residual: expand → depthwise → squeeze-excitation → project, plus the input where shapes allow.
    fn block(&mut self, path: &str, input: String, block: &Block) -> Result<String, OnnxError> {
        let activation = self.architecture.activation;
        let Block { input: from, hidden, output: to, kernel, stride, .. } = *block;
        let part = |name: &str| format!("{path}.{name}");
        let mut x = input.clone();
        if block.expands() {
            x = self.convolution_norm(&part("expand"), x, Convolution::pointwise(from, hidden), activation)?;
        }
        let depthwise = Convolution { input: hidden, output: hidden, kernel, stride, groups: hidden };
        x = self.convolution_norm(&part("depthwise"), x, depthwise, activation)?;
        if let Some(squeezed) = block.squeeze {
            x = self.squeeze_excitation(&part("squeeze_excitation"), x, hidden, squeezed)?;
        }
        x = self.convolution_norm(&part("project"), x, Convolution::pointwise(hidden, to), Activation::Identity)?;
        if block.is_residual() {
            x = self.node(&part("add"), "Add", &[&x, &input], vec![]);
        }
        Ok(x)
    }

    fn squeeze_excitation(
        &mut self,
        path: &str,
        x: String,
        channels: usize,
        squeezed: usize,
    ) -> Result<String, OnnxError> {
        let gate = self.node(&format!("{path}.pool"), "GlobalAveragePool", &[&x], vec![]);
        let reduce = format!("{path}.reduce");
        let gate = self.convolution_bias(&reduce, gate, Convolution::pointwise(channels, squeezed))?;
        let gate = self.activation(&reduce, gate, self.architecture.activation);
        let gate =
            self.convolution_bias(&format!("{path}.expand"), gate, Convolution::pointwise(squeezed, channels))?;
        let gate = self.node(&format!("{path}.gate"), "Sigmoid", &[&gate], vec![]);
        Ok(self.node(path, "Mul", &[&x, &gate], vec![]))
    }

    /// A convolution with its batch-norm folded in, and the activation.
    fn convolution_norm(
        &mut self,
        path: &str,
        x: String,
        convolution: Convolution,
        activation: Activation,
    ) -> Result<String, OnnxError> {
        let (weight, bias) = self.fold(path)?;
        let x = self.convolution(path, x, convolution, weight, bias)?;
        Ok(self.activation(path, x, activation))
    }

    fn convolution_bias(&mut self, path: &str, x: String, convolution: Convolution) -> Result<String, OnnxError> {
        let weight = widen(self.tensor(path, "weight")?);
        let bias = widen(self.tensor(path, "bias")?);
        self.convolution(path, x, convolution, weight, bias)
    }

    fn convolution(
        &mut self,
        path: &str,
        x: String,
        convolution: Convolution,
        weight: Vec<f64>,
        bias: Vec<f64>,
    ) -> Result<String, OnnxError> {
        let Convolution { input, output, kernel, stride, groups } = convolution;
        let weight = self.constant(format!("{path}.weight"), &[output, input / groups, kernel, kernel], &weight)?;
        let bias = self.constant(format!("{path}.bias"), &[output], &bias)?;
        let [before, after] = convolution.padding().map(|size| size as i64);
        let attributes = vec![
            Attribute::ints("dilations", &[1, 1]),
            Attribute::int("group", groups as i64),
            Attribute::ints("kernel_shape", &[kernel as i64; 2]),
            Attribute::ints("pads", &[before, before, after, after]),
            Attribute::ints("strides", &[stride as i64; 2]),
        ];
        Ok(self.node(&format!("{path}.conv"), "Conv", &[&x, &weight, &bias], attributes))
    }

    /// The activation in operators that every runtime has and fuses.
    fn activation(&mut self, path: &str, x: String, activation: Activation) -> String {
        match activation {
            Activation::Identity => x,
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

    /// Weight and bias of the convolution of `path` as if its batch-norm were part of it, computed in f64:
    /// `w · γ / √(σ² + ε)` and `β − μ · γ / √(σ² + ε)`.
    fn fold(&self, path: &str) -> Result<(Vec<f64>, Vec<f64>), OnnxError> {
        let norm = |name: &str| self.tensor(path, &format!("norm.{name}"));
        let [gamma, beta] = [norm("weight")?, norm("bias")?];
        let [mean, variance] = [norm("running_mean")?, norm("running_var")?];
        let epsilon = self.architecture.norm_epsilon;
        let scale: Vec<f64> =
            gamma.iter().zip(variance).map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt()).collect();
        let weight = self.tensor(path, "weight")?;
        let per_channel = weight.len() / scale.len().max(1);
        let weight = weight.iter().enumerate().map(|(i, &w)| f64::from(w) * scale[i / per_channel]).collect();
        let bias =
            beta.iter().zip(mean).zip(&scale).map(|((&b, &m), scale)| f64::from(b) - f64::from(m) * scale).collect();
        Ok((weight, bias))
    }

    fn weight_and_bias(&mut self, path: &str, shape: &[usize]) -> Result<(String, String), OnnxError> {
        let weight = widen(self.tensor(path, "weight")?);
        let bias = widen(self.tensor(path, "bias")?);
        let weight = self.constant(format!("{path}.weight"), shape, &weight)?;
        Ok((weight, self.constant(format!("{path}.bias"), &shape[..1], &bias)?))
    }

    fn tensor(&self, path: &str, name: &str) -> Result<&[f32], OnnxError> {
        let path = format!("{path}.{name}");
        match self.tensors.get(&path) {
            Some(values) => Ok(values),
            None => Err(OnnxError::Missing { path }),
        }
    }

    /// A constant of the convolutions' element type.
    fn constant(&mut self, name: String, shape: &[usize], values: &[f64]) -> Result<String, OnnxError> {
        let finite = match self.element {
            FLOAT16 => values.iter().all(|&value| f16::from_f64(value).is_finite()),
            _ => values.iter().all(|&value| (value as f32).is_finite()),
        };
        if !finite || values.len() != shape.iter().product::<usize>() {
            return Err(OnnxError::Value { path: name });
        }
        self.push_constant(&name, shape, values, self.element);
        Ok(name)
    }

    /// A number, which all who ask for it share.
    fn scalar(&mut self, name: &str, value: f64) -> String {
        if !self.constants.iter().any(|constant| constant.name() == name) {
            self.push_constant(name, &[], &[value], self.element);
        }
        name.into()
    }

    /// A constant of the given element type, whatever the convolutions'.
    pub fn push_constant(&mut self, name: &str, shape: &[usize], values: &[f64], element: i32) {
        let bytes = match element {
            FLOAT16 => values.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
        };
        self.constants.push(proto::Tensor {
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: Some(element),
            name: Some(name.into()),
            raw_data: Some(bytes),
        });
    }

    /// An operator whose one output is called as it is.
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

    /// Converts to the convolutions' element type, or from it to f32, where they differ.
    pub fn cast(&mut self, name: &str, x: String, from: i32, to: i32) -> String {
        if from == to {
            return x;
        }
        self.node(name, "Cast", &[&x], vec![Attribute::int("to", to.into())])
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Element type of [`mbconv_nets::weights::Precision`], if ONNX's runtimes compute in it.
pub(super) fn element(precision: mbconv_nets::weights::Precision) -> Option<i32> {
    match precision {
        mbconv_nets::weights::Precision::F32 => Some(FLOAT),
        mbconv_nets::weights::Precision::F16 => Some(FLOAT16),
        mbconv_nets::weights::Precision::Bf16 => None,
    }
}
