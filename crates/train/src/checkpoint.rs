//! Checkpoints: one file from which a run continues as if it had never stopped.

use std::collections::HashMap;
use std::path::Path;

use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use mbconv_nets::Network;
use mbconv_nets::weights::{self, Precision};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::data::Position;
use crate::files::write_atomically;
use crate::model_file::Results;
use crate::run_folder::EpochRow;

/// Name of the file in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
const METADATA_KEY: &str = "mbconv_checkpoint";

/// Where a run stands, besides its weights and its optimizer's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The recipe as TOML.
    pub recipe: String,
    /// Class names of the data.
    pub classes: Vec<String>,
    /// Number of training images.
    pub train_images: usize,
    /// Epochs completed.
    pub epoch: usize,
    /// How far the loader came in the epoch after those.
    pub position: Position,
    /// Tally of those steps.
    pub partial: PartialEpoch,
    /// The best validation so far.
    pub best: Option<Results>,
    /// One row an epoch.
    pub rows: Vec<EpochRow>,
}

/// Sums over the steps of an unfinished epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialEpoch {
    /// Images seen.
    pub images: usize,
    /// Of them, ranked first.
    pub top1: usize,
    /// Of them, among the first five.
    pub top5: usize,
    /// Sum of losses.
    pub loss: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// Why a run cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read.
    #[error("cannot read the checkpoint {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the checkpoint {path}: {source}")]
    Write {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The contents are not a checkpoint's.
    #[error("the checkpoint {path} is damaged: {message}")]
    Damaged {
        /// Path of the file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// The recipe or the data changed since.
    #[error("the run in {path} cannot continue: {message}")]
    Changed {
        /// Folder of the run.
        path: String,
        /// What differs.
        message: String,
    },
}

/// Writes everything to `path`, whole or not at all.
pub(crate) fn save(
    path: &Path,
    network: &Network,
    optimizer: &ModuleOptimizer,
    progress: &Progress,
) -> Result<(), CheckpointError> {
    let damaged = |message: String| CheckpointError::Damaged { path: path.display().to_string(), message };
    let weights = weights::to_safetensors(network, Precision::F32, None).map_err(|error| damaged(error.to_string()))?;
    let state = optimizer.into_bytes().map_err(|error| damaged(error.to_string()))?;
    let mut json = serde_json::to_value(progress).map_err(|error| damaged(error.to_string()))?;
    json["checksum"] = checksum(&[&weights, &state]).into();
    let view = |bytes| TensorView::new(Dtype::U8, vec![<[u8]>::len(bytes)], bytes);
    let bytes = view(&weights)
        .and_then(|weights| Ok([("optimizer", view(&state)?), ("weights", weights)]))
        .and_then(|views| {
            let metadata = HashMap::from([(METADATA_KEY.to_string(), json.to_string())]);
            safetensors::serialize(views, Some(metadata))
        })
        .map_err(|error| damaged(error.to_string()))?;
    write_atomically(path, &bytes).map_err(|source| CheckpointError::Write { path: path.display().to_string(), source })
}

/// Reads a checkpoint into `network` and `optimizer`.
pub(crate) fn load(
    path: &Path,
    network: Network,
    optimizer: ModuleOptimizer,
) -> Result<(Network, ModuleOptimizer, Progress), CheckpointError> {
    let bytes = read(path)?;
    let damaged = |message: String| CheckpointError::Damaged { path: path.display().to_string(), message };
    let progress = progress_of(&bytes, path)?;
    let parse = || -> Result<_, Box<dyn std::error::Error>> {
        let file = SafeTensors::deserialize(&bytes)?;
        let [weights, state] = [file.tensor("weights")?, file.tensor("optimizer")?].map(|view| view.data().to_vec());
        let json: serde_json::Value = metadata(&bytes)?;
        // Burn trusts what it reads of an optimizer, so nothing damaged may reach it.
        if json["checksum"].as_str() != Some(checksum(&[&weights, &state]).as_str()) {
            return Err("its checksum does not fit its contents".into());
        }
        let network = weights::from_safetensors(network, &weights)?;
        let optimizer = optimizer.from_bytes(Bytes::from_bytes_vec(state))?;
        Ok((network, optimizer))
    };
    let (network, optimizer) = parse().map_err(|error| damaged(error.to_string()))?;
    Ok((network, optimizer, progress))
}

/// Reads only where the run stands.
pub(crate) fn read_progress(path: &Path) -> Result<Progress, CheckpointError> {
    progress_of(&read(path)?, path)
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    std::fs::read(path).map_err(|source| CheckpointError::Read { path: path.display().to_string(), source })
}

fn progress_of(bytes: &[u8], path: &Path) -> Result<Progress, CheckpointError> {
    let parse = || -> Result<Progress, Box<dyn std::error::Error>> { Ok(serde_json::from_value(metadata(bytes)?)?) };
    parse().map_err(|error| CheckpointError::Damaged { path: path.display().to_string(), message: error.to_string() })
}

fn metadata(bytes: &[u8]) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let json = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    Ok(serde_json::from_str(json.ok_or("it holds no training state")?)?)
}

/// FNV-1a over all parts, in hexadecimal.
fn checksum(parts: &[&[u8]]) -> String {
    let hash = parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
