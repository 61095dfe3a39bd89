//! Model files: weights in torchvision's layout and everything needed to use them, in one
//! safetensors file.
//!
//! The entry `mbconv` of the header's metadata contains the [`ModelCard`] as JSON.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mbconv_nets::weights::{self, Precision, WeightsError};
use mbconv_nets::{ArchitectureError, Layout, Network, NetworkOptions, Range};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use mbconv_files::shell::quoted_path;
use mbconv_files::{read_weights, write_atomically};
use mbconv_image::{ImageSize, Preprocess};

use crate::import::foreign::foreign_folder;
use crate::import::signature::{NAMELESS, is_pytorch};

/// Key of the card in the file's metadata.
pub(crate) const METADATA_KEY: &str = "mbconv";
/// Version of the format of single-label models' cards.
const SINGLE_LABEL_FORMAT: u32 = 1;
/// Version of the format of multi-label models' cards.
const MULTI_LABEL_FORMAT: u32 = 2;
/// Version of the format of 8-bit models' cards, and the newest that is read.
const QUANTIZED_FORMAT: u32 = 3;
/// Largest image size in a recipe, in pixels.
pub const MAX_RECIPE_SIDE: usize = 8192;
/// A run directory's best model.
pub const BEST: &str = "best.safetensors";
/// A run directory's newest model.
pub const LAST: &str = "last.safetensors";
/// A run directory's newest moving average.
pub const LAST_EMA: &str = "last_ema.safetensors";

/// The metadata of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Version of the format.
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// The network.
    pub architecture: NetworkOptions,
    /// Names of the classes, by index.
    pub classes: Vec<String>,
    /// Preprocessing of images.
    pub preprocess: Preprocess,
    /// The training recipe, as plain data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<serde_json::Value>,
    /// Accuracy on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// Temperature by which the logits are divided for calibrated probabilities, if it was fitted.
    /// The weights in the file do not include it. Versions before it ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Present if the classes are independent of each other, each with a sigmoid probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_label: Option<MultiLabel>,
    /// Present in 8-bit models, see [`QuantizedModel`](crate::quantized_model::QuantizedModel).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// True if the weights are a moving average of the trained ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub averaged: bool,
    /// Ranges of the activations for 8-bit inference by name, if the network was trained with fake
    /// quantization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_ranges: Option<Vec<(String, Range)>>,
}

/// Name of multi-label classification in the configurations of transformers.
pub(crate) const MULTI_LABEL: &str = "multi_label_classification";

/// Multi-label classification: an image may have any number of classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MultiLabel {
    /// Probability of each class from which the class is predicted, if thresholds were chosen;
    /// otherwise 0.5. They apply to calibrated probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f32>>,
}

/// Origin of an 8-bit model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Choice of the ranges of feature maps: `mse`, `percentile`, `minmax`, or `trained`.
    pub range: String,
    /// Number of calibration images.
    pub images: usize,
    /// Names of the layers in single precision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

/// Accuracy on the validation split when the file was written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Number of epochs trained.
    pub epoch: usize,
    /// Fraction of images with the target ranked first; of a multi-label model, with one of the
    /// image's classes.
    pub top1: f64,
    /// Fraction of images with the target, or one of the image's classes, among the first five.
    pub top5: f64,
    /// Mean cross-entropy; of a multi-label model, mean binary cross-entropy.
    pub loss: f64,
    /// Number of validation images.
    pub images: usize,
    /// Mean F1 of the classes, if it selected the best model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macro_f1: Option<f64>,
    /// Mean recall of the classes, if it selected the best model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy: Option<f64>,
    /// Mean average precision of the classes of a multi-label model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<f64>,
}

impl ModelCard {
    /// Creates a card of the current version.
    pub fn new(architecture: NetworkOptions, classes: Vec<String>, preprocess: Preprocess) -> Self {
        let program = concat!("mbconv ", env!("CARGO_PKG_VERSION")).into();
        Self {
            format: SINGLE_LABEL_FORMAT,
            program,
            architecture,
            classes,
            preprocess,
            recipe: None,
            results: None,
            temperature: None,
            multi_label: None,
            quantization: None,
            averaged: false,
            activation_ranges: None,
        }
    }

    /// Returns the card of a multi-label model with these settings, or of a single-label one.
    /// Programs that do not know multi-label models refuse the format of their cards.
    pub fn with_multi_label(self, multi_label: Option<MultiLabel>) -> Self {
        let format = if multi_label.is_some() { MULTI_LABEL_FORMAT } else { SINGLE_LABEL_FORMAT };
        Self { format, multi_label, ..self }
    }

    /// Returns the card of an 8-bit model, which programs that do not know them refuse.
    pub fn with_quantization(self, quantization: Quantization) -> Self {
        Self { format: QUANTIZED_FORMAT, quantization: Some(quantization), ..self }
    }

    /// Returns the threshold of each class of a multi-label model.
    pub fn thresholds(&self) -> Option<Vec<f32>> {
        let MultiLabel { thresholds } = self.multi_label.as_ref()?;
        Some(thresholds.clone().unwrap_or_else(|| vec![0.5; self.classes.len()]))
    }
}

/// A model file's contents.
#[derive(Debug)]
pub struct Model {
    /// The metadata.
    pub card: ModelCard,
    /// The network with its weights.
    pub network: Network,
    /// Path of the file.
    pub path: PathBuf,
}

/// The reason why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file does not exist or cannot be read.
    #[error("cannot read the model {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A folder without a model of a run or of Hugging Face.
    #[error(
        "{path} is a folder without {BEST} or model.safetensors: not a training run, or one without a completed epoch"
    )]
    NoModel {
        /// Path of the folder.
        path: String,
        /// Folders in it that contain weights.
        inside: Vec<String>,
    },
    /// A folder with another program's model.
    #[error("{path} is {kind}")]
    ForeignFolder {
        /// Path of the folder.
        path: String,
        /// Kind of the model, with an article.
        kind: &'static str,
        /// Advice for the user.
        advice: String,
    },
    /// Weights that are damaged or do not match the network.
    #[error("the model {path}: {source}")]
    Weights {
        /// Path of the file.
        path: String,
        /// The error.
        source: WeightsError,
    },
    /// A PyTorch file.
    #[error("{path} is a PyTorch file, not a model of mbconv")]
    Foreign {
        /// Path of the file.
        path: String,
    },
    /// A safetensors file without mbconv's metadata.
    #[error("{path} is not a model of mbconv: its metadata has no `{METADATA_KEY}` entry")]
    NoCard {
        /// Path of the file.
        path: String,
    },
    /// Invalid metadata.
    #[error("the model {path} has invalid metadata: {message}")]
    Card {
        /// Path of the file.
        path: String,
        /// The reason.
        message: String,
    },
    /// An 8-bit model where one in single precision is needed.
    #[error("{path} is an 8-bit model, which can only be used for inference")]
    EightBits {
        /// Path of the file.
        path: String,
    },
    /// Invalid tensors of an 8-bit model.
    #[error("the 8-bit model {path}: {message}")]
    Quantized {
        /// Path of the file.
        path: String,
        /// The reason.
        message: String,
    },
    /// The file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Path of the file.
        path: String,
        /// The I/O error.
        source: std::io::Error,
    },
}

impl ModelError {
    /// Returns advice on how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoCard { path } | Self::Foreign { path } => {
                let path = quoted_path(path);
                Some(format!("`mbconv import {path} MODEL.safetensors` converts weights of other libraries"))
            }
            Self::NoModel { inside, .. } => inside.first().map(|inside| format!("use the folder {inside} in it")),
            Self::EightBits { .. } => Some(
                "use the model from which it was made; `eval`, `predict`, `bench`, `info` and `export --format onnx` \
                 accept it"
                    .into(),
            ),
            Self::ForeignFolder { advice, .. } => Some(advice.clone()),
            Self::Weights { source: WeightsError::Format(_), .. } => {
                Some("the file is damaged or incomplete: copy it again from its source".into())
            }
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("use a model file or a run folder".into())
            }
            _ => None,
        }
    }
}

/// Returns the model file for `path`: the file itself, a run directory's best model, or the weights
/// in a folder written by Hugging Face's `save_pretrained`.
///
/// # Errors
/// A folder without a model.
pub fn resolve(path: &Path) -> Result<PathBuf, ModelError> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    let shown = || path.display().to_string();
    for name in std::iter::once(BEST).chain(NAMELESS) {
        let file = path.join(name);
        match std::fs::metadata(&file) {
            Ok(_) => return Ok(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ModelError::Read { path: file.display().to_string(), source }),
        }
    }
    match foreign_folder(path) {
        Some((kind, advice)) => Err(ModelError::ForeignFolder { path: shown(), kind, advice }),
        None => Err(ModelError::NoModel { path: shown(), inside: folders_with_weights(path) }),
    }
}

/// Returns the folders in `path` that contain weights, such as runs or checkpoints of transformers'
/// trainer; the newest first.
fn folders_with_weights(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let has_weights = |folder: &Path| std::iter::once(BEST).chain(NAMELESS).any(|name| folder.join(name).is_file());
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|folder| has_weights(folder));
    let mut found: Vec<_> = folders.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path.display().to_string()).collect()
}

/// Reads only the card of a model file.
///
/// # Errors
/// See [`ModelError`].
pub fn read_card(path: &Path) -> Result<ModelCard, ModelError> {
    let path = resolve(path)?;
    card_of(&read(&path)?, &path)
}

impl Model {
    /// Reads a model file, or a run directory's best model, onto `device`.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        let path = resolve(path)?;
        Self::from_bytes(&read(&path)?, &path, device)
    }

    /// Reads a model from the contents of the file `path`.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn from_bytes(bytes: &[u8], path: &Path, device: &Device) -> Result<Self, ModelError> {
        let card = card_of(bytes, path)?;
        if card.quantization.is_some() {
            return Err(ModelError::EightBits { path: path.display().to_string() });
        }
        let architecture = card.architecture.architecture().map_err(|error| invalid_architecture(path, error))?;
        // Checks the file before allocating the network, which must not be larger than the file.
        let network = weights::check_safetensors(&architecture, bytes)
            .and_then(|()| weights::from_safetensors(Network::new(&architecture, device), bytes))
            .map_err(|source| ModelError::Weights { path: path.display().to_string(), source })?;
        Ok(Self { card, network, path: path.into() })
    }

    /// Writes the model to `path` in torchvision's layout, atomically.
    ///
    /// # Errors
    /// A weight that `precision` cannot represent, or an I/O error.
    pub fn save(network: &Network, card: &ModelCard, precision: Precision, path: &Path) -> Result<(), ModelError> {
        Self::save_in(network, card, Layout::Torchvision, precision, path)
    }

    /// Writes the model to `path` in any layout; [`open`](Self::open) reads all of them.
    ///
    /// # Errors
    /// A weight that `precision` cannot represent, or an I/O error.
    pub fn save_in(
        network: &Network,
        card: &ModelCard,
        layout: Layout,
        precision: Precision,
        path: &Path,
    ) -> Result<(), ModelError> {
        let shown = || path.display().to_string();
        let bytes = Self::to_bytes(network, card, layout, precision)
            .map_err(|source| ModelError::Weights { path: shown(), source })?;
        write_atomically(path, &bytes).map_err(|source| ModelError::Write { path: shown(), source })
    }

    /// Returns the contents of the model's file in any layout.
    ///
    /// # Errors
    /// A weight that `precision` cannot represent.
    pub fn to_bytes(
        network: &Network,
        card: &ModelCard,
        layout: Layout,
        precision: Precision,
    ) -> Result<Vec<u8>, WeightsError> {
        let json = serde_json::to_string(card).expect("a card is plain data");
        // Hugging Face's loaders require the framework in the metadata.
        let metadata = [(METADATA_KEY, json.as_str()), ("format", "pt")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
        weights::to_safetensors_in(network, layout, precision, Some(metadata))
    }
}

/// Writes a copy of the model file `from` to `to` with another card, atomically. The weights are
/// copied as they are. Both may be the same file.
///
/// # Errors
/// A file that is not a model file, or I/O errors.
pub fn copy_with_card(from: &Path, card: &ModelCard, to: &Path) -> Result<(), ModelError> {
    let bytes = read(from)?;
    let invalid = |source| ModelError::Weights { path: from.display().to_string(), source };
    card_of(&bytes, from)?;
    let (length, _) = SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.into()))?;
    let start = 8 + length;
    let mut json: serde_json::Value = serde_json::from_slice(&bytes[8..start]).expect("the header was parsed");
    json["__metadata__"][METADATA_KEY] = serde_json::to_string(card).expect("a card is plain data").into();
    let mut header = json.to_string().into_bytes();
    // safetensors aligns the weights to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let copy = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[start..]].concat();
    write_atomically(to, &copy).map_err(|source| ModelError::Write { path: to.display().to_string(), source })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    read_weights(path).map_err(|source| ModelError::Read { path: path.display().to_string(), source })
}

pub(crate) fn card_of(bytes: &[u8], path: &Path) -> Result<ModelCard, ModelError> {
    let shown = || path.display().to_string();
    if is_pytorch(bytes) {
        return Err(ModelError::Foreign { path: shown() });
    }
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| ModelError::Weights { path: shown(), source: error.into() })?;
    let json = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let json = json.ok_or_else(|| ModelError::NoCard { path: shown() })?;
    let card: ModelCard =
        serde_json::from_str(json).map_err(|error| ModelError::Card { path: shown(), message: error.to_string() })?;
    let architecture = card.architecture.architecture().map_err(|error| invalid_architecture(path, error))?;
    let message = if card.format > QUANTIZED_FORMAT {
        format!("format {}, written by {}, is newer than this program", card.format, card.program)
    } else if card.classes.len() != architecture.num_classes {
        format!("{} class names for {} classes", card.classes.len(), architecture.num_classes)
    } else if card.preprocess.channels != architecture.input_channels {
        let (given, taken) = (card.preprocess.channels, architecture.input_channels);
        format!("preprocessing for {given} channels, but a network with {taken}")
    } else if let Some((key, side, most)) = oversized(&card) {
        format!("`preprocess.{key}` is {side} pixels, but at most {most} are supported")
    } else if let Some(temperature) = card.temperature.filter(|value| !(value.is_finite() && *value > 0.0)) {
        format!("the temperature {temperature} is not a positive number")
    } else if !thresholds_fit(&card) {
        format!("it needs one threshold from 0 to 1 for each of the {} classes", card.classes.len())
    } else if !is_valid(&card.preprocess) {
        format!("invalid preprocessing {:?}", card.preprocess)
    } else {
        return Ok(card);
    };
    Err(ModelError::Card { path: shown(), message })
}

/// Returns whether the thresholds are missing or valid.
fn thresholds_fit(card: &ModelCard) -> bool {
    let thresholds = card.multi_label.as_ref().and_then(|multi_label| multi_label.thresholds.as_ref());
    thresholds.is_none_or(|values| {
        values.len() == card.classes.len() && values.iter().all(|value| (0.0..=1.0).contains(value))
    })
}

/// Returns an image size of the preprocessing that exceeds the limit, with its key and the limit.
/// The limit is larger if the model's recipe has larger images.
fn oversized(card: &ModelCard) -> Option<(&'static str, usize, usize)> {
    let input = card.recipe.as_ref().and_then(|recipe| recipe.get("input"));
    let size = |key| ImageSize::deserialize(input?.get(key)?).ok();
    let largest = ["size", "eval_size", "eval_resize"].into_iter().filter_map(size).map(ImageSize::longer).max();
    let most = Preprocess::MAX_SIDE.max(largest.unwrap_or(0).min(MAX_RECIPE_SIDE));
    let sides = [("resize", card.preprocess.resize.longer()), ("crop", card.preprocess.crop.longer())];
    sides.into_iter().find(|(_, side)| *side > most).map(|(key, side)| (key, side, most))
}

fn is_valid(preprocess: &Preprocess) -> bool {
    let sizes = [preprocess.resize, preprocess.crop].map(ImageSize::shorter);
    let finite = preprocess.mean.iter().chain(&preprocess.std).all(|value| value.is_finite());
    !sizes.contains(&0) && finite && preprocess.std.iter().all(|&std| std > 0.0)
}

fn invalid_architecture(path: &Path, error: ArchitectureError) -> ModelError {
    ModelError::Card { path: path.display().to_string(), message: error.to_string() }
}
