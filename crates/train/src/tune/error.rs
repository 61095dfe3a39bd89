//! Errors of hyperparameter searches.

use std::io;

use super::space::SpaceError;
use crate::checkpoint::CheckpointError;
use crate::config::RecipeError;
use crate::engine::error::TrainError;
use crate::run_lock::RunLockError;

/// The reason why a study could not start, continue or end. Finished trials are kept.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A setting of the search space is invalid.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// There is nothing to search.
    #[error("no --set has a range to search")]
    NoSpace,
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// There are no validation images to rank by.
    #[error("the data has no validation images to rank trials by")]
    NoValidation,
    /// There are too few trials or epochs for successive halving.
    #[error(
        "successive halving by {eta} needs at least {eta} trials and {eta} epochs, but there are {trials} and {epochs}"
    )]
    Halving {
        /// Factor between rungs.
        eta: usize,
        /// Number of trials.
        trials: usize,
        /// Epochs of the recipe.
        epochs: usize,
    },
    /// The folder contains a study or a run.
    #[error("{path} already holds a {what}")]
    Exists {
        /// The folder.
        path: String,
        /// `study` or `run`.
        what: &'static str,
    },
    /// The folder contains no study.
    #[error("{path} holds no study to resume")]
    NothingToResume {
        /// The folder.
        path: String,
    },
    /// The file of the study cannot be read.
    #[error("cannot read the study {path}: {message}")]
    Damaged {
        /// The file.
        path: String,
        /// Description of the error.
        message: String,
    },
    /// The study was begun with other settings.
    #[error("the study {path} cannot continue: it was begun with {message}")]
    Changed {
        /// The folder.
        path: String,
        /// The settings then and now.
        message: String,
    },
    /// A trial failed for a reason other than its hyperparameters.
    #[error("trial {number}: {source}")]
    Train {
        /// Number of the trial.
        number: usize,
        /// Cause.
        source: Box<TrainError>,
    },
    /// No trial has a result.
    #[error("all {trials} trials failed, the first because: {first}")]
    AllFailed {
        /// Number of trials.
        trials: usize,
        /// Failure of the first.
        first: String,
    },
    /// The folder is in use, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] RunLockError),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl TuneError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Space(error) => Some(error.fix.clone()),
            Self::NoSpace => Some(
                "add for example --set 'optimizer.learning_rate=log(1e-3,1)'; the distributions are log(a,b), \
                 uniform(a,b), int(a,b) and choice(x,y,z)"
                    .into(),
            ),
            Self::Recipe(error) => error.hint(),
            Self::NoValidation => Some("give data with a validation split, or set data.val_fraction".into()),
            Self::Halving { .. } => Some("set more --trials or --epochs, a smaller --eta, or omit --halving".into()),
            Self::Exists { what: "study", .. } => {
                Some("continue it with --resume, or choose another folder with --out".into())
            }
            Self::Exists { .. } => Some("choose another folder with --out".into()),
            Self::NothingToResume { .. } => Some("start a study there without --resume".into()),
            Self::Changed { .. } => Some("resume with the same settings, or choose another folder with --out".into()),
            Self::Train { source, .. }
                if matches!(**source, TrainError::Checkpoint(CheckpointError::Changed { .. })) =>
            {
                Some("delete the trial's folder to train it again".into())
            }
            Self::Train { source, .. } => source.hint(),
            Self::AllFailed { .. } => Some("search smaller ranges; trials.csv lists the failures".into()),
            Self::Lock(error) => error.hint(),
            Self::Damaged { .. } | Self::Write { .. } => None,
        }
    }
}
