//! Conversion of an 8-bit network to ONNX operators in QDQ form: every 8-bit tensor is followed by
//! `DequantizeLinear`, and runtimes fuse the operators between into 8-bit ones.

use mbconv_kernels::quantized::{Block, Gate, Layer, Quantizer, Stage, Weights};
use mbconv_nets::Activation;
use mbconv_nets::{inference, quantization};

use crate::onnx::error::OnnxError;
use crate::onnx::graph::{Graph, Map, weight_shape};
use crate::onnx::proto::{Attribute, FLOAT, INT8, INT32, UINT8};

impl Graph {
    /// Adds a whole 8-bit network: normalized images `[N, C, H, W]` → logits `[N, classes]`.
    pub fn quantized_network(&mut self, stages: &[Stage], images: Map) -> Result<String, OnnxError> {
        let input = stages.first().map(Stage::input);
        let mut map = match input {
            Some(input) => self.rounded(quantization::INPUT, images, input),
            None => images,
        };
        for (stage, name) in stages.iter().zip(quantization::quantized_names(stages)) {
            map = match stage {
                Stage::Layer(layer) if name == quantization::CLASSIFIER => {
                    self.quantized_classifier(&name, map, layer)?
                }
                Stage::Layer(layer) => self.quantized_layer(&name, map, layer)?,
                Stage::Block(block) => self.quantized_block(&name, map, block)?,
                Stage::Pool(output) => {
                    let mean = Map { name: self.mean(&name, &map, false), sides: [1, 1] };
                    self.rounded(&name, mean, *output)
                }
            };
        }
        Ok(map.name)
    }

    fn quantized_block(&mut self, path: &str, input: Map, block: &Block) -> Result<Map, OnnxError> {
        let part = |name: &str| format!("{path}.{name}");
        let mut x = input.clone();
        for (layer, name) in [(&block.expand, "expand"), (&block.depthwise, "depthwise")] {
            if let Some(layer) = layer {
                x = self.quantized_layer(&part(name), x, layer)?;
            }
        }
        if let Some(gate) = &block.gate {
            x = self.quantized_gate(&part("squeeze_excitation"), x, gate, block.project.input)?;
        }
        x = self.quantized_layer(&part("project"), x, &block.project)?;
        if let Some(sum) = block.sum {
            x.name = self.node(&part("add"), "Add", &[&x.name, &input.name], vec![]);
            x = self.rounded(&part("add"), x, sum);
        }
        Ok(x)
    }

    fn quantized_gate(&mut self, path: &str, x: Map, gate: &Gate, product: Quantizer) -> Result<Map, OnnxError> {
        let mean = Map { name: self.mean(&format!("{path}.mean"), &x, true), sides: [1, 1] };
        let mean = self.rounded(&format!("{path}.mean"), mean, gate.reduce.input);
        let reduced = self.quantized_layer(&format!("{path}.reduce"), mean, &gate.reduce)?;
        let (expand, name) = (&gate.expand, format!("{path}.expand"));
        let expanded = self.quantized_convolution(&name, reduced, &geometry(expand, Activation::Identity), expand)?;
        let factors = self.node(&format!("{path}.gate"), "Sigmoid", &[&expanded.name], vec![]);
        let factors = self.rounded(&name, Map { name: factors, sides: [1, 1] }, expand.output);
        let scaled = self.node(path, "Mul", &[&x.name, &factors.name], vec![]);
        Ok(self.rounded(path, Map { name: scaled, ..x }, product))
    }

    fn quantized_layer(&mut self, path: &str, x: Map, layer: &Layer) -> Result<Map, OnnxError> {
        let x = self.quantized_convolution(path, x, &geometry(layer, layer.activation), layer)?;
        Ok(self.rounded(path, x, layer.output))
    }

    /// Adds a convolution with activation, whose result is real.
    fn quantized_convolution(
        &mut self,
        path: &str,
        x: Map,
        geometry: &inference::Layer,
        layer: &Layer,
    ) -> Result<Map, OnnxError> {
        match self.quantized_weights(path, layer, &weight_shape(geometry)) {
            Some([weight, bias]) => Ok(self.convolution(path, x, geometry, [&weight, &bias])),
            None => self.layer(path, x, geometry),
        }
    }

    fn quantized_classifier(&mut self, path: &str, x: Map, layer: &Layer) -> Result<Map, OnnxError> {
        let geometry = geometry(layer, layer.activation);
        match self.quantized_weights(path, layer, &[layer.outputs, layer.inputs]) {
            Some([weight, bias]) => Ok(self.gemm(path, x, &geometry, [&weight, &bias])),
            None => self.linear(path, x, &geometry),
        }
    }

    /// Adds the weight and bias of a layer in 8 bits, and returns their real values.
    fn quantized_weights(&mut self, path: &str, layer: &Layer, shape: &[usize]) -> Option<[String; 2]> {
        let Weights::Int8 { weight, scales, bias } = &layer.weights else { return None };
        let units: Vec<f32> = scales.iter().map(|scale| layer.input.scale * scale).collect();
        let weight = weight.iter().map(|value| value.cast_unsigned()).collect();
        let bias = bias.iter().flat_map(|value| value.to_le_bytes()).collect();
        Some([
            self.dequantized(&format!("{path}.weight"), shape, (INT8, weight), scales),
            self.dequantized(&format!("{path}.bias"), &shape[..1], (INT32, bias), &units),
        ])
    }

    /// Adds a constant of integers with a scale per output channel, and returns its real values.
    fn dequantized(&mut self, path: &str, shape: &[usize], integers: (i32, Vec<u8>), scales: &[f32]) -> String {
        let [quantized, scale, zero] = ["quantized", "scale", "zero_point"].map(|part| format!("{path}.{part}"));
        let (element, bytes) = integers;
        // ONNX Runtime requires explicit zero points in some of its conversions.
        let zeros = vec![0; shape[0] * bytes.len() / shape.iter().product::<usize>().max(1)];
        self.push_bytes(&quantized, shape, bytes, element);
        self.push_constant(&scale, &shape[..1], scales, FLOAT);
        self.push_bytes(&zero, &shape[..1], zeros, element);
        self.node(path, "DequantizeLinear", &[&quantized, &scale, &zero], vec![Attribute::int("axis", 0)])
    }

    /// Rounds a map to the values of a quantizer.
    fn rounded(&mut self, path: &str, x: Map, quantizer: Quantizer) -> Map {
        let [scale, zero_point] = ["scale", "zero_point"].map(|part| format!("{path}.output.{part}"));
        self.push_constant(&scale, &[], &[quantizer.scale], FLOAT);
        self.push_bytes(&zero_point, &[], vec![quantizer.zero_point], UINT8);
        let constants = [scale.as_str(), zero_point.as_str()];
        let quantized = format!("{path}.quantized");
        let quantized = self.node(&quantized, "QuantizeLinear", &[&x.name, constants[0], constants[1]], vec![]);
        let inputs = [&quantized, constants[0], constants[1]];
        Map { name: self.node(&format!("{path}.output"), "DequantizeLinear", &inputs, vec![]), ..x }
    }
}

/// Returns the layer in single precision: its weights only if they have that precision.
fn geometry(layer: &Layer, activation: Activation) -> inference::Layer {
    let Layer { kind, inputs, outputs, kernel, stride, padding, .. } = *layer;
    let (weight, bias) = match &layer.weights {
        Weights::Int8 { .. } => (Vec::new(), Vec::new()),
        Weights::Float { weight, bias } => (weight.clone(), bias.clone()),
    };
    inference::Layer { kind, inputs, outputs, kernel, stride, padding, weight, bias, activation }
}
