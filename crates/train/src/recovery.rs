//! The state that a run continues from: its newest valid checkpoint, or otherwise its last model.

use std::io;
use std::path::Path;

use mbconv_nets::weights::{self, WeightsError};
use mbconv_nets::{Network, Range};

use crate::checkpoint::{self, CHECKPOINT, CheckpointError, PREVIOUS, PartialEpoch, Progress};
use mbconv_data::Position;
use mbconv_files::read_weights;

use crate::config::RecipeFile;
use crate::engine::learner::Learner;
use crate::history::{EpochRow, METRICS};
use crate::report::History;
use mbconv_interop::model_file::{BEST, LAST, LAST_EMA, ModelError, Results, read_card};

/// The saved state of a run.
pub(crate) struct Saved {
    pub(crate) state: State,
    /// `None` if nothing was saved.
    pub(crate) progress: Option<Progress>,
    /// Files newer than the state that are missing or damaged.
    pub(crate) lost: Vec<String>,
}

/// Contents of the files that a run continues from.
pub(crate) enum State {
    Nothing,
    /// A checkpoint.
    Checkpoint(Vec<u8>),
    /// The last model, its moving average, if there is one, and the ranges of its activations.
    LastModel(Vec<u8>, Option<Vec<u8>>, Vec<(String, Range)>),
}

impl Saved {
    /// Finds the saved state in a run's `folder`.
    pub(crate) fn find(folder: &Path) -> Result<Self, CheckpointError> {
        let mut lost = Vec::new();
        for name in [CHECKPOINT, PREVIOUS] {
            match checkpoint::read(&folder.join(name)) {
                Ok((bytes, progress)) => {
                    return Ok(Self { state: State::Checkpoint(bytes), progress: Some(progress), lost });
                }
                Err(CheckpointError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    lost.push(format!("{name} is missing"));
                }
                Err(CheckpointError::Damaged { message, .. }) => lost.push(format!("{name} is damaged ({message})")),
                Err(error) => return Err(error),
            }
        }
        match last_model(folder) {
            Ok((state, progress)) => return Ok(Self { state, progress: Some(progress), lost }),
            Err(ModelError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                lost.push(format!("{LAST} is missing"));
            }
            Err(error) => lost.push(format!("{LAST} cannot be used ({error})")),
        }
        Ok(Self { state: State::Nothing, progress: None, lost })
    }
}

impl State {
    /// Loads the weights of the last model into `learner`. The optimizer state does not change.
    pub(crate) fn last_model_into(&self, learner: Learner) -> Result<Learner, WeightsError> {
        let Self::LastModel(network, average, ranges) = self else { return Ok(learner) };
        let average = match (learner.average, average) {
            (Some(old), bytes) => Some(weights::from_safetensors(old, bytes.as_ref().unwrap_or(network))?),
            (None, _) => None,
        };
        let network: Network = weights::from_safetensors(learner.network, network)?;
        network.set_activation_ranges(ranges);
        Ok(Learner { network, optimizer: learner.optimizer, average })
    }
}

/// Reads the last model, and the progress of the run from the model card and `metrics.csv`.
fn last_model(folder: &Path) -> Result<(State, Progress), ModelError> {
    let path = folder.join(LAST);
    let card = read_card(&path)?;
    let shown = || path.display().to_string();
    let bytes = read_weights(&path).map_err(|source| ModelError::Read { path: shown(), source })?;
    let missing = |what: &str| ModelError::Card { path: shown(), message: format!("it has no {what}") };
    let recipe = RecipeFile::of_model(&card).ok_or_else(|| missing("recipe"))?.to_toml();
    let rows = rows(&folder.join(METRICS), card.results);
    let epoch = card.results.map_or(rows.len(), |results| results.epoch);
    if epoch == 0 {
        return Err(missing(&format!("results, and there is no {METRICS}")));
    }
    let best = read_card(&folder.join(BEST)).ok().and_then(|card| card.results);
    let progress = Progress {
        recipe,
        settings: Vec::new(),
        data: Vec::new(),
        classes: card.classes,
        train_images: 0,
        processes: 1,
        epoch,
        updates: 0,
        position: Position::default(),
        partial: PartialEpoch::default(),
        best,
        rows,
    };
    let average = read_weights(&folder.join(LAST_EMA)).ok();
    Ok((State::LastModel(bytes, average, card.activation_ranges.unwrap_or_default()), progress))
}

/// Returns the rows of `metrics.csv`, up to the epoch of the last model's `results`; none if it
/// cannot be read.
fn rows(path: &Path, results: Option<Results>) -> Vec<EpochRow> {
    let history = History::read(path).unwrap_or_default();
    let images = results.map_or(0, |results| results.images);
    let row = |epoch: f64| -> Option<EpochRow> {
        let cell = |name: &str| history.column(name).into_iter().find(|point| point.0 == epoch).map(|point| point.1);
        let results = |kind: &str| -> Option<Results> {
            let cell = |name: &str| cell(&format!("{kind}_{name}"));
            let (top1, top5, loss) = (cell("top1")?, cell("top5")?, cell("loss")?);
            let [macro_f1, balanced_accuracy, map] = ["macro_f1", "balanced_accuracy", "map"].map(cell);
            Some(Results { epoch: epoch as usize, top1, top5, loss, images, macro_f1, balanced_accuracy, map })
        };
        Some(EpochRow {
            epoch: epoch as usize,
            learning_rate: cell("learning_rate")?,
            train_loss: cell("train_loss")?,
            train_top1: cell("train_top1")?,
            train_top5: cell("train_top5")?,
            val: results("val"),
            ema: results("ema"),
            images_per_second: cell("images_per_second")?,
            seconds: cell("seconds")?,
        })
    };
    let epochs = history.column("train_loss").into_iter().map(|point| point.0);
    let last = results.map_or(f64::INFINITY, |results| results.epoch as f64);
    epochs.filter(|epoch| (1.0..=last).contains(epoch)).filter_map(row).collect()
}
