//! Layers and feature maps of folded and 8-bit networks, by name.
//!
//! A layer and the feature map that it computes have the name of the Burn module, as in ONNX
//! exports (`blocks.3.expand`). The other feature maps are `input`, `pool`, the sum of a residual
//! block (`blocks.3.add`), and the means and the product of a squeeze-excitation
//! (`blocks.3.squeeze_excitation.mean`, `blocks.3.squeeze_excitation`).

use std::collections::HashMap;

use mbconv_kernels::quantized::{self, Quantizer, Weights};

use crate::inference::{Block, Gate, Layer, Stage};

/// Name of the normalized images.
pub const INPUT: &str = "input";
/// Name of the last layer, whose output, the logits, is never quantized.
pub const CLASSIFIER: &str = "classifier";
/// Name of the squeeze-excitation in a block.
const GATE: &str = "squeeze_excitation";

/// Kinds of stages.
enum Kind {
    Layer,
    Block,
    Pool,
}

/// Returns the names of a network's stages.
pub fn stage_names(stages: &[Stage]) -> Vec<String> {
    names(stages.iter().map(|stage| match stage {
        Stage::Layer(_) => Kind::Layer,
        Stage::Block(_) => Kind::Block,
        Stage::Pool => Kind::Pool,
    }))
}

/// Returns the names of an 8-bit network's stages.
pub fn quantized_names(stages: &[quantized::Stage]) -> Vec<String> {
    names(stages.iter().map(|stage| match stage {
        quantized::Stage::Layer(_) => Kind::Layer,
        quantized::Stage::Block(_) => Kind::Block,
        quantized::Stage::Pool(_) => Kind::Pool,
    }))
}

fn names(stages: impl Iterator<Item = Kind>) -> Vec<String> {
    let (mut blocks, mut pooled) = (0, false);
    let name = |stage| match stage {
        Kind::Block => {
            blocks += 1;
            format!("blocks.{}", blocks - 1)
        }
        Kind::Pool => {
            pooled = true;
            "pool".into()
        }
        Kind::Layer if pooled => CLASSIFIER.into(),
        Kind::Layer => if blocks == 0 { "stem" } else { "head" }.into(),
    };
    stages.map(name).collect()
}

/// Returns all layers of a folded network with their names, in the order of execution.
pub fn layers_mut(stages: &mut [Stage]) -> Vec<(String, &mut Layer)> {
    let names = stage_names(stages);
    let mut layers = Vec::new();
    for (stage, name) in stages.iter_mut().zip(names) {
        match stage {
            Stage::Layer(layer) => layers.push((name, layer)),
            Stage::Pool => {}
            Stage::Block(block) => {
                let Block { expand, depthwise, gate, project, .. } = &mut **block;
                layers.extend(expand.as_mut().map(|layer| (format!("{name}.expand"), layer)));
                layers.extend(depthwise.as_mut().map(|layer| (format!("{name}.depthwise"), layer)));
                if let Some(Gate { reduce, expand }) = gate {
                    layers.push((format!("{name}.{GATE}.reduce"), reduce));
                    layers.push((format!("{name}.{GATE}.expand"), expand));
                }
                layers.push((format!("{name}.project"), project));
            }
        }
    }
    layers
}

/// Returns all layers of an 8-bit network with their names, in the order of execution.
pub fn quantized_layers(stages: &[quantized::Stage]) -> Vec<(String, &quantized::Layer)> {
    let mut layers = Vec::new();
    for (stage, name) in stages.iter().zip(quantized_names(stages)) {
        match stage {
            quantized::Stage::Layer(layer) => layers.push((name, layer)),
            quantized::Stage::Pool(_) => {}
            quantized::Stage::Block(block) => {
                let quantized::Block { expand, depthwise, gate, project, .. } = &**block;
                layers.extend(expand.as_ref().map(|layer| (format!("{name}.expand"), layer)));
                layers.extend(depthwise.as_ref().map(|layer| (format!("{name}.depthwise"), layer)));
                if let Some(quantized::Gate { reduce, expand }) = gate {
                    layers.push((format!("{name}.{GATE}.reduce"), reduce));
                    layers.push((format!("{name}.{GATE}.expand"), expand));
                }
                layers.push((format!("{name}.project"), project));
            }
        }
    }
    layers
}

/// Returns the quantizers of an 8-bit network's feature maps with their names, in the order of
/// execution.
pub fn quantizers(stages: &[quantized::Stage]) -> Vec<(String, Quantizer)> {
    let mut quantizers: Vec<_> = stages.first().map(|stage| (INPUT.into(), stage.input())).into_iter().collect();
    for (stage, name) in stages.iter().zip(quantized_names(stages)) {
        match stage {
            quantized::Stage::Layer(_) if name == CLASSIFIER => {}
            quantized::Stage::Layer(_) | quantized::Stage::Pool(_) => quantizers.push((name, stage.output())),
            quantized::Stage::Block(block) => {
                let quantized::Block { expand, depthwise, gate, project, sum } = &**block;
                quantizers.extend(expand.as_ref().map(|layer| (format!("{name}.expand"), layer.output)));
                quantizers.extend(depthwise.as_ref().map(|layer| (format!("{name}.depthwise"), layer.output)));
                if let Some(quantized::Gate { reduce, expand }) = gate {
                    quantizers.push((format!("{name}.{GATE}.mean"), reduce.input));
                    quantizers.push((format!("{name}.{GATE}.reduce"), reduce.output));
                    quantizers.push((format!("{name}.{GATE}.expand"), expand.output));
                    quantizers.push((format!("{name}.{GATE}"), project.input));
                }
                quantizers.push((format!("{name}.project"), project.output));
                quantizers.extend(sum.map(|sum| (format!("{name}.add"), sum)));
            }
        }
    }
    quantizers
}

/// Conversion of a folded network to 8 bits.
pub struct Conversion<'a> {
    /// The quantizers of the feature maps, by name. A missing one has scale 1.
    pub quantizers: &'a HashMap<String, Quantizer>,
    /// Returns the weights of a layer from its name and its input's quantizer.
    pub weights: &'a dyn Fn(&Layer, &str, Quantizer) -> Weights,
}

impl Conversion<'_> {
    /// Converts all stages.
    pub fn stages(&self, stages: &[Stage]) -> Vec<quantized::Stage> {
        let mut input = self.quantizer(INPUT);
        let names = stage_names(stages);
        let converted = stages.iter().zip(&names).map(|(stage, name)| {
            let stage = match stage {
                Stage::Layer(layer) => quantized::Stage::Layer(self.layer(layer, name, input)),
                Stage::Block(block) => quantized::Stage::Block(Box::new(self.block(block, name, input))),
                Stage::Pool => quantized::Stage::Pool(self.quantizer(name)),
            };
            input = stage.output();
            stage
        });
        converted.collect()
    }

    fn quantizer(&self, name: &str) -> Quantizer {
        self.quantizers.get(name).copied().unwrap_or(Quantizer { scale: 1.0, zero_point: 0 })
    }

    fn block(&self, block: &Block, name: &str, mut input: Quantizer) -> quantized::Block {
        let mut hidden = |layer: &Option<Layer>, part: &str| {
            let layer = self.layer(layer.as_ref()?, &format!("{name}.{part}"), input);
            input = layer.output;
            Some(layer)
        };
        let (expand, depthwise) = (hidden(&block.expand, "expand"), hidden(&block.depthwise, "depthwise"));
        let gate = block.gate.as_ref().map(|gate| self.gate(gate, &format!("{name}.{GATE}")));
        if gate.is_some() {
            input = self.quantizer(&format!("{name}.{GATE}"));
        }
        let project = self.layer(&block.project, &format!("{name}.project"), input);
        let sum = block.residual.then(|| self.quantizer(&format!("{name}.add")));
        quantized::Block { expand, depthwise, gate, project, sum }
    }

    fn gate(&self, gate: &Gate, name: &str) -> quantized::Gate {
        let reduce = self.layer(&gate.reduce, &format!("{name}.reduce"), self.quantizer(&format!("{name}.mean")));
        let expand = self.layer(&gate.expand, &format!("{name}.expand"), reduce.output);
        quantized::Gate { reduce, expand }
    }

    fn layer(&self, layer: &Layer, name: &str, input: Quantizer) -> quantized::Layer {
        let Layer { kind, inputs, outputs, kernel, stride, padding, activation, .. } = *layer;
        let (weights, output) = ((self.weights)(layer, name, input), self.quantizer(name));
        quantized::Layer { kind, inputs, outputs, kernel, stride, padding, weights, activation, input, output }
    }
}
