//! Checkpoints: files from which a run continues exactly where it stopped.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Bytes;
use mbconv_nets::weights::{self, Precision, WeightsError};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use serde::{Deserialize, Serialize};

use mbconv_data::Position;

use crate::engine::learner::Learner;
use crate::fnv::{BASIS, fnv};
use crate::history::{EpochRow, RECIPE};
use mbconv_files::shell::quoted_path;
use mbconv_files::{write_atomically, write_keeping_previous};
use mbconv_interop::model_file::{BEST, Results};

/// File name of the newest checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// File name of the previous checkpoint, which is used if the newest is damaged or lost.
pub const PREVIOUS: &str = "checkpoint-previous.safetensors";
/// Key of the ranges of the activations in the metadata of a run with `[quantization]`.
const RANGES: &str = "activation_ranges";
const METADATA_KEY: &str = "mbconv_checkpoint";
const WEIGHTS: &str = "weights";
const OPTIMIZER: &str = "optimizer";
const AVERAGE: &str = "average";
const DATA: &str = "data";

/// The state of a run without weights and optimizer state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The recipe as TOML.
    pub recipe: String,
    /// Recipe keys set on the command line, as `key=value`. A resumed run sets them again.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Fingerprint of the data. Empty if unknown.
    #[serde(skip)]
    pub data: Vec<u8>,
    /// Class names of the data.
    pub classes: Vec<String>,
    /// Number of training images.
    pub train_images: usize,
    /// Number of processes that train together.
    #[serde(default = "one")]
    pub processes: usize,
    /// Number of completed epochs.
    pub epoch: usize,
    /// Number of updates, without skipped ones.
    #[serde(default)]
    pub updates: usize,
    /// Position of the loader in the unfinished epoch.
    pub position: Position,
    /// Metrics of the unfinished epoch.
    pub partial: PartialEpoch,
    /// Best validation results.
    pub best: Option<Results>,
    /// One row per completed epoch.
    pub rows: Vec<EpochRow>,
}

fn one() -> usize {
    1
}

/// Sums of metrics over the steps of an unfinished epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialEpoch {
    /// Number of images.
    pub images: usize,
    /// Number of images whose target has the highest logit.
    pub top1: usize,
    /// Number of images whose target is among the five highest logits.
    pub top5: usize,
    /// Sum of the losses.
    pub loss: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// Errors of reading, writing or continuing from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("cannot read the checkpoint {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the checkpoint {path}: {source}")]
    Write {
        /// Path of the file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not a valid checkpoint.
    #[error("the checkpoint {path} is damaged: {message}")]
    Damaged {
        /// Path of the file.
        path: String,
        /// Description of the damage.
        message: String,
    },
    /// Neither the checkpoints nor the last model can be used, and the run has completed epochs.
    #[error("the run in {path} cannot continue: {lost}")]
    Lost {
        /// Folder of the run.
        path: String,
        /// Missing or damaged files.
        lost: String,
    },
    /// A weight is not finite. Nothing was written.
    #[error("`{key}` is not finite")]
    NotFinite {
        /// Key of the tensor.
        key: String,
    },
    /// The recipe has changed in a way that a run cannot continue with.
    #[error("the run in {path} cannot continue: {message}")]
    Changed {
        /// Folder of the run.
        path: String,
        /// The differences.
        message: String,
    },
    /// The data has changed.
    #[error("the data of the run in {path} changed since its last checkpoint: {changes}")]
    DataChanged {
        /// Folder of the run.
        path: String,
        /// The differences.
        changes: String,
    },
    /// The run has completed more epochs than the recipe requests.
    #[error("the run in {path} has completed {done} epochs, more than `epochs` = {epochs}")]
    FewerEpochs {
        /// Folder of the run.
        path: String,
        /// Number of completed epochs.
        done: usize,
        /// Number of epochs in the recipe.
        epochs: usize,
    },
}

impl CheckpointError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { path, .. } => Some(format!(
                "continue with the recipe of the run, {}, or start another run with --out",
                quoted_path(Path::new(path).join(RECIPE))
            )),
            Self::DataChanged { .. } => {
                Some("restore the data, or add --set data.may_change=true to continue with the changed data".into())
            }
            Self::Lost { path, .. } => {
                let model = quoted_path(Path::new(path).join(BEST));
                Some(format!("start another run with --out; `mbconv finetune {model} DATA` starts from the best model"))
            }
            Self::FewerEpochs { done, .. } => Some(format!("continue with --set epochs={} or more", done + 1)),
            _ => None,
        }
    }
}

/// Writes a checkpoint to a run's `folder` atomically. If the existing checkpoint is `good`, it
/// becomes [`PREVIOUS`].
pub(crate) fn save(folder: &Path, learner: &Learner, progress: &Progress, good: bool) -> Result<(), CheckpointError> {
    let path = folder.join(CHECKPOINT);
    let bytes = to_bytes(&path, learner, progress)?;
    let written = match good {
        true => write_keeping_previous(&path, &bytes, &folder.join(PREVIOUS)),
        false => write_atomically(&path, &bytes),
    };
    written.map_err(|source| CheckpointError::Write { path: path.display().to_string(), source })
}

/// Returns the bytes of a checkpoint. `path` is used in error messages only.
pub(crate) fn to_bytes(path: &Path, learner: &Learner, progress: &Progress) -> Result<Vec<u8>, CheckpointError> {
    let damaged = |message: String| CheckpointError::Damaged { path: path.display().to_string(), message };
    let weights = |network| match weights::to_safetensors(network, Precision::F32, None) {
        Err(WeightsError::NotFinite { key, .. }) => Err(CheckpointError::NotFinite { key }),
        other => other.map_err(|error| damaged(error.to_string())),
    };
    let state = learner.optimizer.into_bytes().map_err(|error| damaged(error.to_string()))?;
    let mut parts = vec![(WEIGHTS, weights(&learner.network)?), (OPTIMIZER, state.to_vec())];
    if let Some(average) = &learner.average {
        parts.push((AVERAGE, weights(average)?));
    }
    let mut json = serde_json::to_value(progress).map_err(|error| damaged(error.to_string()))?;
    json["checksum"] = checksum(parts.iter().map(|(_, bytes)| bytes.as_slice())).into();
    if learner.network.is_quantized() {
        json[RANGES] =
            serde_json::to_value(learner.network.activation_ranges()).map_err(|error| damaged(error.to_string()))?;
    }
    if !progress.data.is_empty() {
        parts.push((DATA, progress.data.clone()));
    }
    let views = parts.iter().map(|(name, bytes)| Ok((*name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes)?)));
    views
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .and_then(|views| {
            let metadata = HashMap::from([(METADATA_KEY.to_string(), json.to_string())]);
            safetensors::serialize(views, Some(metadata))
        })
        .map_err(|error| damaged(error.to_string()))
}

/// Loads the bytes of a checkpoint into `learner`. `path` is used in error messages only.
pub(crate) fn from_bytes(path: &Path, bytes: &[u8], learner: Learner) -> Result<(Learner, Progress), CheckpointError> {
    let damaged = |message: String| CheckpointError::Damaged { path: path.display().to_string(), message };
    let progress = progress_of(bytes, path)?;
    let parse = || -> Result<Learner, Box<dyn std::error::Error>> {
        let file = SafeTensors::deserialize(bytes)?;
        let parts = parts(&file, learner.average.is_some())?;
        check(bytes, &parts)?;
        if learner.network.is_quantized() {
            let ranges: Vec<_> = serde_json::from_value(metadata(bytes)?[RANGES].take())?;
            learner.network.set_activation_ranges(&ranges);
        }
        Ok(Learner {
            network: weights::from_safetensors(learner.network, parts[0])?,
            optimizer: learner.optimizer.from_bytes(Bytes::from_bytes_vec(parts[1].to_vec()))?,
            average: match learner.average {
                Some(average) => Some(weights::from_safetensors(average, parts[2])?),
                None => None,
            },
        })
    };
    let learner = parse().map_err(|error| damaged(error.to_string()))?;
    Ok((learner, progress))
}

/// Reads a checkpoint and verifies its checksum.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, Progress), CheckpointError> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::Read { path: shown(), source })?;
    let progress = progress_of(&bytes, path)?;
    let whole = || -> Result<(), Box<dyn std::error::Error>> {
        let file = SafeTensors::deserialize(&bytes)?;
        let averaged = file.names().contains(&AVERAGE);
        check(&bytes, &parts(&file, averaged)?)
    };
    whole().map_err(|error| CheckpointError::Damaged { path: shown(), message: error.to_string() })?;
    Ok((bytes, progress))
}

/// Returns weights, optimizer state and, if `averaged`, the moving average.
fn parts<'a>(file: &SafeTensors<'a>, averaged: bool) -> Result<Vec<&'a [u8]>, SafeTensorError> {
    let names = [Some(WEIGHTS), Some(OPTIMIZER), averaged.then_some(AVERAGE)];
    names.into_iter().flatten().map(|name| file.tensor(name).map(|view| view.data())).collect()
}

/// Verifies the checksum of a checkpoint's parts. Burn does not check the optimizer states that it
/// reads, so damaged states must be rejected before.
fn check(bytes: &[u8], parts: &[&[u8]]) -> Result<(), Box<dyn std::error::Error>> {
    match metadata(bytes)?["checksum"].as_str() == Some(checksum(parts.iter().copied()).as_str()) {
        true => Ok(()),
        false => Err("its checksum does not match its contents".into()),
    }
}

fn progress_of(bytes: &[u8], path: &Path) -> Result<Progress, CheckpointError> {
    let parse = || -> Result<Progress, Box<dyn std::error::Error>> {
        let progress: Progress = serde_json::from_value(metadata(bytes)?)?;
        let data = SafeTensors::deserialize(bytes)?.tensor(DATA).map_or(Vec::new(), |view| view.data().to_vec());
        Ok(Progress { data, ..progress })
    };
    parse().map_err(|error| CheckpointError::Damaged { path: path.display().to_string(), message: error.to_string() })
}

fn metadata(bytes: &[u8]) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let json = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    Ok(serde_json::from_str(json.ok_or("it contains no training state")?)?)
}

/// Returns the FNV-1a hash of all parts, in hexadecimal.
fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    format!("{:016x}", parts.fold(BASIS, fnv))
}
