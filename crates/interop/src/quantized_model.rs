//! 8-bit model files.
//!
//! A safetensors file with a [`ModelCard`], as other model files have. Layers have the names of
//! [`mbconv_nets::quantization`]:
//!
//! | tensor | type | shape |
//! |---|---|---|
//! | `LAYER.weight` | I8, from -127 to 127 | PyTorch's |
//! | `LAYER.weight_scale` | F32 | `[C_out]` |
//! | `LAYER.bias` | I32, in steps of the input's scale times the weight's | `[C_out]` |
//! | `LAYER.weight`, `LAYER.bias` of layers in single precision | F32 | PyTorch's, `[C_out]` |
//! | `activations.scale` | F32 | `[K]` |
//! | `activations.zero_point` | U8 | `[K]` |
//!
//! The K feature maps are in the order of [`quantizers`]. Strides, padding and activations follow
//! from the card's architecture.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use mbconv_files::write_atomically;
pub use mbconv_kernels::quantized::Weights;
use mbconv_kernels::quantized::{Quantizer, Stage};
use mbconv_nets::Inference;
use mbconv_nets::inference::{Kind, Layer, stages};
use mbconv_nets::quantization::{CLASSIFIER, Conversion, layers_mut, quantized_layers, quantizers};
use mbconv_nets::weights::WeightsError;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::model_file::{METADATA_KEY, ModelCard, ModelError, card_of, read, resolve};

/// Key of the scales of the feature maps.
const SCALES: &str = "activations.scale";
/// Key of the zero points of the feature maps.
const ZERO_POINTS: &str = "activations.zero_point";
/// Largest absolute value of a bias: sums stay within 32 bits.
const MAX_BIAS: u32 = 1 << 30;

/// A model in 8 bits, for inference on the CPU.
#[derive(Debug)]
pub struct QuantizedModel {
    /// The metadata.
    pub card: ModelCard,
    /// The network.
    pub stages: Vec<Stage>,
    /// Path of the file.
    pub path: PathBuf,
}

impl QuantizedModel {
    /// Reads an 8-bit model file.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let path = resolve(path)?;
        Self::from_bytes(&read(&path)?, &path)
    }

    /// Reads a model from the contents of the file `path`.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, ModelError> {
        let card = card_of(bytes, path)?;
        let shown = || path.display().to_string();
        let invalid = |message| ModelError::Quantized { path: shown(), message };
        if card.quantization.is_none() {
            return Err(invalid("its metadata describe a model that has not 8 bits".into()));
        }
        let architecture = card.architecture.architecture().map_err(|error| invalid(error.to_string()))?;
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| ModelError::Weights { path: shown(), source: WeightsError::from(error) })?;
        let stages = decode(&Tensors(file), &mut stages(&architecture)).map_err(invalid)?;
        Ok(Self { card, stages, path: path.into() })
    }

    /// Writes an 8-bit network to `path`, atomically.
    ///
    /// # Errors
    /// An I/O error.
    pub fn save(stages: &[Stage], card: &ModelCard, path: &Path) -> Result<(), ModelError> {
        let bytes = Self::to_bytes(stages, card);
        write_atomically(path, &bytes).map_err(|source| ModelError::Write { path: path.display().to_string(), source })
    }

    /// Returns the contents of an 8-bit network's file.
    pub fn to_bytes(stages: &[Stage], card: &ModelCard) -> Vec<u8> {
        let json = serde_json::to_string(card).expect("a card is plain data");
        let tensors = encode(stages);
        let views = tensors.iter().map(|(key, Encoded { dtype, shape, bytes })| {
            (key, TensorView::new(*dtype, shape.clone(), bytes).expect("the length follows from the shape"))
        });
        safetensors::serialize(views, Some([(METADATA_KEY.to_string(), json)].into())).expect("the views are valid")
    }

    /// Divides the logits by the card's temperature, if it has one. The card of the result has
    /// none.
    pub fn calibrated(mut self) -> Self {
        if let (Some(temperature), Some(Stage::Layer(last))) = (self.card.temperature.take(), self.stages.last_mut()) {
            let divide = |values: &mut Vec<f32>| values.iter_mut().for_each(|value| *value /= temperature as f32);
            match &mut last.weights {
                // The bias is in steps of the scales.
                Weights::Int8 { scales, .. } => divide(scales),
                Weights::Float { weight, bias } => [weight, bias].into_iter().for_each(divide),
            }
        }
        self
    }

    /// Packs the network for inference.
    pub fn inference(&self) -> Inference {
        Inference::quantized(&self.stages)
    }
}

/// A tensor to write.
struct Encoded {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn encode(stages: &[Stage]) -> BTreeMap<String, Encoded> {
    let mut tensors = BTreeMap::new();
    let mut add = |key: String, dtype, shape: &[usize], bytes: Vec<u8>| {
        tensors.insert(key, Encoded { dtype, shape: shape.to_vec(), bytes });
    };
    for (name, layer) in quantized_layers(stages) {
        let shape = shape(&name, layer.kind, [layer.outputs, layer.inputs], layer.kernel);
        let key = |part: &str| format!("{name}.{part}");
        match &layer.weights {
            Weights::Int8 { weight, scales, bias } => {
                add(key("weight"), Dtype::I8, &shape, weight.iter().map(|value| value.cast_unsigned()).collect());
                add(key("weight_scale"), Dtype::F32, &shape[..1], floats(scales));
                let bias = bias.iter().flat_map(|value| value.to_le_bytes()).collect();
                add(key("bias"), Dtype::I32, &shape[..1], bias);
            }
            Weights::Float { weight, bias } => {
                add(key("weight"), Dtype::F32, &shape, floats(weight));
                add(key("bias"), Dtype::F32, &shape[..1], floats(bias));
            }
        }
    }
    let maps: Vec<Quantizer> = quantizers(stages).into_iter().map(|(_, quantizer)| quantizer).collect();
    let scales: Vec<f32> = maps.iter().map(|map| map.scale).collect();
    add(SCALES.into(), Dtype::F32, &[maps.len()], floats(&scales));
    add(ZERO_POINTS.into(), Dtype::U8, &[maps.len()], maps.iter().map(|map| map.zero_point).collect());
    tensors
}

/// Returns PyTorch's shape of a weight.
fn shape(name: &str, kind: Kind, [outputs, inputs]: [usize; 2], kernel: usize) -> Vec<usize> {
    match kind {
        _ if name == CLASSIFIER => vec![outputs, inputs],
        Kind::Depthwise => vec![outputs, 1, kernel, kernel],
        Kind::Pointwise | Kind::Dense => vec![outputs, inputs, kernel, kernel],
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Reads the weights and quantizers of an architecture's stages.
fn decode(tensors: &Tensors, stages: &mut [mbconv_nets::inference::Stage]) -> Result<Vec<Stage>, String> {
    let mut expected = vec![SCALES.to_string(), ZERO_POINTS.to_string()];
    let mut weights = HashMap::new();
    for (name, layer) in layers_mut(stages) {
        weights.insert(name.clone(), tensors.weights(&name, layer, &mut expected)?);
    }
    if let Some(key) = tensors.0.names().iter().find(|key| !expected.iter().any(|known| known == *key)) {
        return Err(format!("`{}` does not belong to this network", key.escape_debug()));
    }
    let convert = |quantizers: &HashMap<String, Quantizer>| {
        let weights = |_: &Layer, name: &str, _| weights[name].clone();
        Conversion { quantizers, weights: &weights }.stages(stages)
    };
    // The names, in the order of the file.
    let names = quantizers(&convert(&HashMap::new())).into_iter().map(|(name, _)| name).collect();
    Ok(convert(&tensors.quantizers(names)?))
}

/// The tensors of an 8-bit model.
struct Tensors<'a>(SafeTensors<'a>);

impl Tensors<'_> {
    /// Reads the weight and the bias of a layer, and adds their keys to `expected`.
    fn weights(&self, name: &str, layer: &Layer, expected: &mut Vec<String>) -> Result<Weights, String> {
        let shape = shape(name, layer.kind, [layer.outputs, layer.inputs], layer.kernel);
        let channels = &shape[..1];
        let [weight, scale, bias] = ["weight", "weight_scale", "bias"].map(|part| format!("{name}.{part}"));
        expected.extend([weight.clone(), bias.clone()]);
        if self.0.tensor(&weight).is_ok_and(|view| view.dtype() == Dtype::F32) {
            return Ok(Weights::Float { weight: self.floats(&weight, &shape)?, bias: self.floats(&bias, channels)? });
        }
        expected.push(scale.clone());
        let values: Vec<i8> = self.bytes(&weight, Dtype::I8, &shape)?.iter().map(|byte| byte.cast_signed()).collect();
        if values.contains(&i8::MIN) {
            return Err(format!("`{weight}` has a value outside -127 to 127"));
        }
        let biases = self.bytes(&bias, Dtype::I32, channels)?.as_chunks::<4>().0.iter();
        let biases: Vec<i32> = biases.map(|bytes| i32::from_le_bytes(*bytes)).collect();
        if biases.iter().any(|value| value.unsigned_abs() > MAX_BIAS) {
            return Err(format!("`{bias}` has a value outside -2^30 to 2^30"));
        }
        Ok(Weights::Int8 { weight: values, scales: self.scales(&scale, channels)?, bias: biases })
    }

    /// Reads the quantizers of the feature maps with these names.
    fn quantizers(&self, names: Vec<String>) -> Result<HashMap<String, Quantizer>, String> {
        let scales = self.scales(SCALES, &[names.len()])?;
        let zero_points = self.bytes(ZERO_POINTS, Dtype::U8, &[names.len()])?;
        let quantizers =
            scales.into_iter().zip(zero_points).map(|(scale, &zero_point)| Quantizer { scale, zero_point });
        Ok(names.into_iter().zip(quantizers).collect())
    }

    fn scales(&self, key: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let scales = self.floats(key, shape)?;
        match scales.iter().all(|scale| *scale > 0.0) {
            true => Ok(scales),
            false => Err(format!("`{key}` has a value that is not positive")),
        }
    }

    fn floats(&self, key: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let values = self.bytes(key, Dtype::F32, shape)?.as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(format!("`{key}` has a value that is not finite")),
        }
    }

    /// Returns the bytes of a tensor of the given type and shape.
    fn bytes(&self, key: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], String> {
        let view = self.0.tensor(key).map_err(|_| format!("`{key}` is missing"))?;
        match view.dtype() == dtype && view.shape() == shape {
            true => Ok(view.data()),
            false => {
                let (found, sides) = (view.dtype(), view.shape());
                Err(format!("`{key}` is {found:?} of shape {sides:?}, but should be {dtype:?} of shape {shape:?}"))
            }
        }
    }
}
