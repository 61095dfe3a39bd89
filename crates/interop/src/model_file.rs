//! Model files: weights in torchvision's layout and everything needed to use them, in one
//! safetensors file.
//!
//! The header's metadata holds one entry, `mbconv`, a JSON document: [`ModelCard`].

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use mbconv_nets::weights::{self, Precision, WeightsError};
use mbconv_nets::{ArchitectureError, Layout, Network, NetworkOptions};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use mbconv_files::shell::quoted_path;
use mbconv_files::{read_weights, write_atomically};
use mbconv_image::Preprocess;

use crate::import::foreign::folder_of_another_program;
use crate::import::signature::{NAMELESS, is_pytorch};

/// Key of the card in the file's metadata.
pub(crate) const METADATA_KEY: &str = "mbconv";
/// Version of the card's form.
const FORMAT: u32 = 1;
/// Largest image size in a recipe, in pixels.
pub const MAX_RECIPE_SIDE: usize = 8192;
/// A run directory's best model.
pub const BEST: &str = "best.safetensors";
/// A run directory's newest model.
pub const LAST: &str = "last.safetensors";
/// A run directory's newest moving average.
pub const LAST_EMA: &str = "last_ema.safetensors";

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Version of this form.
    pub format: u32,
    /// The program that wrote it.
    pub program: String,
    /// The network.
    pub architecture: NetworkOptions,
    /// Names of the classes, by index.
    pub classes: Vec<String>,
    /// What becomes of an image before the network sees it.
    pub preprocess: Preprocess,
    /// The recipe it was trained with, as plain data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<serde_json::Value>,
    /// What was measured of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// The weights are the moving average of those that were trained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub averaged: bool,
}

/// What makes an epoch better than another, compared from left to right; higher is better.
pub type Score = [f64; 2];

/// Accuracy on the validation split when the file was written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Epochs trained.
    pub epoch: usize,
    /// Share of images with the target ranked first.
    pub top1: f64,
    /// Share of images with the target among the first five.
    pub top5: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Validation images.
    pub images: usize,
}

impl Results {
    /// What makes results better than others: accuracy, and among equals the loss.
    pub fn score(&self) -> Score {
        [self.top1, -self.loss]
    }
}

impl ModelCard {
    /// A card of this version.
    pub fn new(architecture: NetworkOptions, classes: Vec<String>, preprocess: Preprocess) -> Self {
        let program = concat!("mbconv ", env!("CARGO_PKG_VERSION")).into();
        Self {
            format: FORMAT,
            program,
            architecture,
            classes,
            preprocess,
            recipe: None,
            results: None,
            averaged: false,
        }
    }
}

/// A model file's contents.
#[derive(Debug)]
pub struct Model {
    /// What the file says of itself.
    pub card: ModelCard,
    /// The network with its weights.
    pub network: Network,
    /// The file it came from.
    pub path: PathBuf,
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Nothing there, or not readable.
    #[error("cannot read the model {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that is not a finished run's, and not of Hugging Face's form.
    #[error(
        "{path} is a folder without {BEST} or model.safetensors: not a training run, or one that has not finished an epoch"
    )]
    NoModel {
        /// Path of the folder.
        path: String,
        /// Folders in it that hold weights.
        inside: Vec<String>,
    },
    /// A folder with another program's model.
    #[error("{path} is {what}")]
    ForeignFolder {
        /// Path of the folder.
        path: String,
        /// What it is, with an article.
        what: &'static str,
        /// What to do instead.
        remedy: String,
    },
    /// Written, but not to the end or not by this program.
    #[error("the model {path}: {source}")]
    Weights {
        /// Path of the file.
        path: String,
        /// What is wrong.
        source: WeightsError,
    },
    /// Weights of another program.
    #[error("{path} is a file of PyTorch, not a model of this program")]
    Foreign {
        /// Path of the file.
        path: String,
    },
    /// A safetensors file without this program's metadata.
    #[error("the model {path} does not say which network it is: no `{METADATA_KEY}` in its metadata")]
    NoCard {
        /// Path of the file.
        path: String,
    },
    /// Metadata that make no sense.
    #[error("the model {path} has unusable metadata: {message}")]
    Card {
        /// Path of the file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ModelError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoCard { path } | Self::Foreign { path } => {
                let path = quoted_path(path);
                Some(format!("`mbconv import {path} MODEL.safetensors` makes a model of another program's weights"))
            }
            Self::NoModel { inside, .. } => inside.first().map(|inside| format!("it holds {inside}: give that folder")),
            Self::ForeignFolder { remedy, .. } => Some(remedy.clone()),
            Self::Weights { source: WeightsError::Format(_), .. } => {
                Some("the file is damaged or was cut short: copy it again from where it came".into())
            }
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("give a model file, or the folder of a training run".into())
            }
            _ => None,
        }
    }
}

/// The model file meant by `path`: itself, a run directory's best model, or the weights in a folder
/// that Hugging Face's `save_pretrained` wrote.
///
/// # Errors
/// A folder without one.
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
    match folder_of_another_program(path) {
        Some((what, remedy)) => Err(ModelError::ForeignFolder { path: shown(), what, remedy }),
        None => Err(ModelError::NoModel { path: shown(), inside: folders_with_weights(path) }),
    }
}

/// Folders in `path` that [`resolve`] finds weights in: runs, or checkpoints of transformers'
/// trainer; the newest first.
fn folders_with_weights(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let holds = |folder: &Path| std::iter::once(BEST).chain(NAMELESS).any(|name| folder.join(name).is_file());
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|folder| holds(folder));
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

    /// Reads a model file's contents; errors call it `path`.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn from_bytes(bytes: &[u8], path: &Path, device: &Device) -> Result<Self, ModelError> {
        let card = card_of(bytes, path)?;
        let architecture = card.architecture.architecture().map_err(|error| invalid(path, error))?;
        // Before the network is allocated: it must not be larger than the file.
        let network = weights::check_safetensors(&architecture, bytes)
            .and_then(|()| weights::from_safetensors(Network::new(&architecture, device), bytes))
            .map_err(|source| ModelError::Weights { path: path.display().to_string(), source })?;
        Ok(Self { card, network, path: path.into() })
    }

    /// Writes the model to `path` in torchvision's layout, whole or not at all.
    ///
    /// # Errors
    /// A weight that `precision` cannot hold, or whatever the system says.
    pub fn save(network: &Network, card: &ModelCard, precision: Precision, path: &Path) -> Result<(), ModelError> {
        Self::save_in(network, card, Layout::Torchvision, precision, path)
    }

    /// Writes the model to `path` in any layout; [`open`](Self::open) reads them all.
    ///
    /// # Errors
    /// A weight that `precision` cannot hold, or whatever the system says.
    pub fn save_in(
        network: &Network,
        card: &ModelCard,
        layout: Layout,
        precision: Precision,
        path: &Path,
    ) -> Result<(), ModelError> {
        let shown = || path.display().to_string();
        let json = serde_json::to_string(card).expect("a card is plain data");
        // Hugging Face's loaders want to be told whose tensors these are.
        let metadata = [(METADATA_KEY, json.as_str()), ("format", "pt")];
        let metadata = metadata.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let bytes = weights::to_safetensors_in(network, layout, precision, Some(metadata))
            .map_err(|source| ModelError::Weights { path: shown(), source })?;
        write_atomically(path, &bytes).map_err(|source| ModelError::Write { path: shown(), source })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    read_weights(path).map_err(|source| ModelError::Read { path: path.display().to_string(), source })
}

fn card_of(bytes: &[u8], path: &Path) -> Result<ModelCard, ModelError> {
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
    let architecture = card.architecture.architecture().map_err(|error| invalid(path, error))?;
    let wrong = if card.format > FORMAT {
        format!("it was written in form {} by {}, newer than this program", card.format, card.program)
    } else if card.classes.len() != architecture.num_classes {
        format!("{} class names for {} classes", card.classes.len(), architecture.num_classes)
    } else if card.preprocess.channels != architecture.input_channels {
        let (given, taken) = (card.preprocess.channels, architecture.input_channels);
        format!("preprocessing gives {given} channels to a network of {taken}")
    } else if let Some((key, side, most)) = oversized(&card) {
        format!("`preprocess.{key}` is {side} pixels, more than the {most} that it may be")
    } else if !is_possible(&card.preprocess) {
        format!("impossible preprocessing {:?}", card.preprocess)
    } else {
        return Ok(card);
    };
    Err(ModelError::Card { path: shown(), message: wrong })
}

/// The side of the preprocessing that is too long, and its limit: more only if the model's recipe
/// asks for it.
fn oversized(card: &ModelCard) -> Option<(&'static str, usize, usize)> {
    let input = card.recipe.as_ref().and_then(|recipe| recipe.get("input"));
    let sizes = ["size", "eval_size", "eval_resize"].map(|key| input?.get(key)?.as_u64());
    let largest = sizes.into_iter().flatten().max().unwrap_or(0);
    let most = Preprocess::MAX_SIDE.max(usize::try_from(largest).unwrap_or(MAX_RECIPE_SIDE).min(MAX_RECIPE_SIDE));
    let sides = [("resize", card.preprocess.resize), ("crop", card.preprocess.crop)];
    sides.into_iter().find(|(_, side)| *side > most).map(|(key, side)| (key, side, most))
}

fn is_possible(preprocess: &Preprocess) -> bool {
    let sizes = [preprocess.resize, preprocess.crop];
    let finite = preprocess.mean.iter().chain(&preprocess.std).all(|value| value.is_finite());
    !sizes.contains(&0) && finite && preprocess.std.iter().all(|&std| std > 0.0)
}

fn invalid(path: &Path, error: ArchitectureError) -> ModelError {
    ModelError::Card { path: path.display().to_string(), message: error.to_string() }
}
