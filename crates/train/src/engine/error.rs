//! Errors of training.

use burn::backend::ExecutionError;
use mbconv_nets::weights::WeightsError;

use mbconv_data::DataError;
use mbconv_interop::model_file::ModelError;

use crate::checkpoint::CheckpointError;
use crate::config::error::RecipeError;
use crate::criterion::CriterionError;
use crate::distributed::GroupError;
use crate::finetune::FinetuneError;
use crate::memory::OutOfMemory;
use crate::precision::NoBf16;
use crate::run_lock::RunLockError;

/// Hint for a run that diverged.
const DIVERGENCE_HINT: &str = "continue with --resume and, each by --set, a lower optimizer.learning_rate, a longer \
                               schedule.warmup_epochs or optimizer.clip_norm=1";

/// Errors of starting or continuing a run. What was saved before the error is kept.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe does not fit the data.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model could not be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The initial weights could not be used.
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    /// The loss does not fit the data, or the teacher cannot be used.
    #[error(transparent)]
    Criterion(#[from] CriterionError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder is in use, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] RunLockError),
    /// The folder contains another run.
    #[error("{path} already holds a run")]
    OutExists {
        /// The folder.
        path: String,
        /// True if there is a checkpoint to continue from.
        resumable: bool,
    },
    /// The folder contains no run.
    #[error("{path} holds no run to resume")]
    NothingToResume {
        /// The folder.
        path: String,
    },
    /// A file in the run's folder could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The training split has fewer images than a batch.
    #[error("the training split has {images} images, fewer than one batch of {batch_size}")]
    TooFewImages {
        /// Number of training images.
        images: usize,
        /// Batch size of the recipe.
        batch_size: usize,
    },
    /// A training step needs more memory than is available.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The loss is not finite.
    #[error("the loss became {loss} in epoch {epoch}, in step {step}; the last good checkpoint is kept")]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Step of the epoch, counted from 1.
        step: usize,
    },
    /// A recorded step cannot be replayed.
    #[error("the device cannot replay a training step: {0}")]
    Replay(ExecutionError),
    /// The processes cannot train together, or another process failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The device does not support synchronized batch-norm.
    #[error("sync_batch_norm needs the CPU as its device")]
    Unsynchronized,
    /// The device does not support the recipe's precision.
    #[error("the recipe's `precision`: {0}")]
    Precision(#[from] NoBf16),
    /// Synchronized batch-norm needs the CPU kernels, which use f32.
    #[error("sync_batch_norm needs precision = \"f32\"")]
    UnsynchronizedBf16,
    /// Weights are not finite.
    #[error("{what} in epoch {epoch}, by step {step}; the last good checkpoint is kept")]
    WeightsDiverged {
        /// Description of the weights.
        what: String,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Step of the epoch, counted from 1.
        step: usize,
    },
    /// Too many consecutive updates were skipped.
    #[error(
        "{count} consecutive updates were skipped because the loss or a gradient was not finite, the last in epoch {epoch}, step {step}; the last good checkpoint is kept"
    )]
    TooManySkipped {
        /// Number of skipped updates.
        count: usize,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Step of the epoch, counted from 1.
        step: usize,
    },
}

impl TrainError {
    /// Returns whether the loss or weights are not finite.
    pub(crate) fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged { .. } | Self::WeightsDiverged { .. } | Self::TooManySkipped { .. })
    }

    /// Returns whether other values of the recipe's keys can avoid the error.
    pub(crate) fn is_due_to_settings(&self) -> bool {
        self.is_divergence()
            || matches!(
                self,
                Self::Recipe(_)
                    | Self::TooFewImages { .. }
                    | Self::OutOfMemory(_)
                    | Self::Criterion(_)
                    | Self::Finetune(_)
                    | Self::Precision(_)
            )
    }

    /// Converts an error of saving weights that are not finite into [`Self::WeightsDiverged`] of
    /// `epoch`, counted from 0.
    pub(super) fn at_step(self, epoch: usize, step: usize) -> Self {
        let key = match &self {
            Self::Checkpoint(CheckpointError::NotFinite { key }) => key,
            Self::Model(ModelError::Weights { source: WeightsError::NotFinite { key, .. }, .. }) => key,
            _ => return self,
        };
        Self::WeightsDiverged { what: format!("`{key}` is not finite"), epoch: epoch + 1, step }
    }

    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Criterion(error) => error.hint(),
            Self::Recipe(RecipeError::Model(error)) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::OutExists { resumable: true, .. } => {
                Some("continue it with --resume, or choose another folder with --out".into())
            }
            Self::OutExists { .. } => Some("it has nothing to resume from: choose another folder with --out".into()),
            Self::NothingToResume { .. } => Some("start a run there without --resume".into()),
            Self::TooFewImages { images, .. } => {
                // Batch-norm learns little from batches of one image.
                Some(format!("--set batch_size={}", (images / 4).max(2).min(*images)))
            }
            Self::OutOfMemory(error) => Some(error.hint()),
            Self::Finetune(error) => error.hint(),
            Self::Group(error) => error.hint(),
            Self::Unsynchronized => Some("--device cpu, or --set sync_batch_norm=false".into()),
            Self::Precision(error) => error.hint(),
            Self::Replay(_) => Some("continue with --resume --set record_steps=false".into()),
            Self::UnsynchronizedBf16 => Some("--set precision=f32, or --set sync_batch_norm=false".into()),
            Self::Diverged { .. } | Self::WeightsDiverged { .. } => {
                Some(format!("{DIVERGENCE_HINT}; --on-nan skip skips single bad updates"))
            }
            Self::TooManySkipped { .. } => Some(DIVERGENCE_HINT.into()),
            Self::Checkpoint(error) => error.hint(),
            _ => None,
        }
    }
}
