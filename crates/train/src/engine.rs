//! The training loop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use mbconv_nets::Network;

use crate::batch::{images, targets};
use crate::checkpoint::{self, CHECKPOINT, CheckpointError, PartialEpoch};
use crate::data::{DataError, DataSet, Loader, LoaderConfig, OnBadImage, Preprocess, Transform};
use crate::evaluate::{EvaluateError, Labelled, evaluate};
use crate::loss::cross_entropy;
use crate::metrics::{Scores, Tally, target_ranks};
use crate::model_file::{ModelCard, ModelError, Results};
use crate::optimizer::with_stable_ids;
use crate::recipe::{Recipe, RecipeError};
use crate::run_folder::{EpochRow, RunFolder};

/// Steps between looks at the running loss, each of which waits for the device.
const STEPS_PER_REPORT: usize = 8;

/// What to train, on what, where.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The data.
    pub data: &'a DataSet,
    /// The run's folder.
    pub out: &'a Path,
    /// Where to compute.
    pub device: &'a Device,
    /// Continue the run in the folder rather than begin one.
    pub resume: bool,
    /// Set it, and the run ends with a checkpoint after the current step.
    pub stop: &'a AtomicBool,
}

/// What happens in a run, for whoever wants to show it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A line worth keeping.
    Line(&'a str),
    /// Training is about to begin or to continue.
    Start {
        /// Epochs already complete.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
    },
    /// Some steps of an epoch are done.
    Train {
        /// From 1.
        epoch: usize,
        /// Images done of this epoch.
        images: usize,
        /// Images of an epoch.
        total: usize,
        /// Means over this epoch so far.
        scores: Scores,
    },
    /// Some of the validation images are done.
    Validate {
        /// Images done.
        images: usize,
        /// Images in all.
        total: usize,
    },
    /// An epoch is complete and saved.
    Epoch(&'a EpochRow),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done; here is the best validation.
    Finished {
        /// Best validation, where there is a validation split.
        best: Option<Results>,
    },
    /// The user stopped it; `--resume` continues.
    Interrupted,
}

/// Why a run could not begin or go on. What was saved before stays.
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
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder is taken.
    #[error("{path} already holds a run")]
    OutExists {
        /// The folder.
        path: String,
    },
    /// There is nothing to continue.
    #[error("{path} holds no run to resume")]
    NothingToResume {
        /// The folder.
        path: String,
    },
    /// A file of the run's folder could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Fewer images than a step takes.
    #[error("the training split has {images} images, fewer than one batch of {batch_size}")]
    TooFewImages {
        /// Training images.
        images: usize,
        /// The recipe's batch size.
        batch_size: usize,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} in epoch {epoch}, by step {step}; the last good checkpoint is kept")]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the epoch, from 1.
        step: usize,
    },
}

impl TrainError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Recipe(RecipeError::Model(error)) => error.hint(),
            Self::OutExists { .. } => Some("continue it with --resume, or choose another folder with --out".into()),
            Self::NothingToResume { .. } => Some("leave --resume away to begin a run there".into()),
            Self::TooFewImages { images, .. } => Some(format!("--set batch_size={}", (images / 4).max(1))),
            Self::Diverged { .. } => {
                Some("try a lower optimizer.learning_rate or a longer schedule.warmup_epochs".into())
            }
            Self::Checkpoint(CheckpointError::Changed { .. }) => {
                Some("continue with the recipe and data it was begun with, or begin another run with --out".into())
            }
            _ => None,
        }
    }
}

/// Trains as the recipe says, telling `observer` what happens.
///
/// Everything random follows from the recipe's seed, the epoch and the sample or step, so a run that was stopped and
/// resumed takes the same path as one that was not.
///
/// # Errors
/// See [`TrainError`].
pub fn train(run: Run, observer: &mut dyn FnMut(Event)) -> Result<Outcome, TrainError> {
    let Run { recipe, data, device, stop, .. } = run;
    let source = data.split("train")?;
    let loader = |source, transform, batch_size, train: bool| {
        let config = LoaderConfig {
            batch_size,
            workers: recipe.workers(),
            prefetch: recipe.data.prefetch,
            seed: recipe.seed,
            shuffle: train,
            drop_last: train,
            on_bad_image: OnBadImage::Skip,
        };
        Loader::new(source, transform, config)
    };
    let train_images = source.len();
    let train_loader = loader(source, Transform::Train(recipe.train_transform()), recipe.batch_size, true);
    let preprocess = recipe.preprocess();
    let val_loader =
        data.val.clone().map(|source| loader(source, Transform::Eval(preprocess.clone()), recipe.batch_size, false));
    let steps = train_loader.batches();
    let learning_rate = |step| recipe.optimizer.learning_rate * recipe.schedule.factor(step, steps, recipe.epochs);
    if steps == 0 {
        return Err(TrainError::TooFewImages { images: train_images, batch_size: recipe.batch_size });
    }

    // The network and where the run stands.
    let options = recipe.model.options(data.classes.len());
    let architecture = recipe.architecture(data.classes.len())?;
    let device = device.clone().autodiff();
    device.seed(recipe.seed);
    let mut network = with_stable_ids(Network::new(&architecture, &device));
    let mut optimizer = recipe.optimizer.init(&network);
    let mut folder = RunFolder::open(&run, train_images)?;
    if run.resume {
        (network, optimizer, folder.progress) = checkpoint::load(&folder.path(CHECKPOINT), network, optimizer)?;
    }
    for line in folder.introduction(&run, &options, train_images) {
        folder.say(&line, observer)?;
    }
    observer(Event::Start { epoch: folder.progress.epoch, epochs: recipe.epochs });

    while folder.progress.epoch < recipe.epochs {
        let epoch = folder.progress.epoch;
        let mut partial = std::mem::take(&mut folder.progress.partial);
        let position = std::mem::take(&mut folder.progress.position);
        let started = Instant::now();
        let before = partial.seconds;
        let mut running = DeviceTally::default();

        let mut batches = train_loader.epoch_from(epoch, position);
        for step in position.batches..steps {
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            let global_step = epoch * steps + step;
            device.seed(step_seed(recipe.seed, global_step));

            let logits = network.forward_channels_last(images(&batch, &preprocess, &device));
            let targets = targets(&batch, &device);
            let losses = cross_entropy(logits.clone(), targets.clone(), recipe.label_smoothing);
            running.add(&logits, &targets, &losses);
            let gradients = GradientsParams::from_grads(losses.mean().backward(), &network);

            network = optimizer.step(learning_rate(global_step), network, gradients);

            let stopped = stop.load(Ordering::Relaxed);
            if (step + 1) % STEPS_PER_REPORT == 0 || step + 1 == steps || stopped {
                partial = running.take(partial);
                partial.seconds = before + started.elapsed().as_secs_f64();
                if !partial.loss.is_finite() {
                    return Err(TrainError::Diverged { loss: partial.loss, epoch: epoch + 1, step: step + 1 });
                }
                let (images, total) = (partial.images, steps * recipe.batch_size);
                observer(Event::Train { epoch: epoch + 1, images, total, scores: partial.tally().scores() });
            }
            if stopped {
                (folder.progress.position, folder.progress.partial) = (batches.position(), partial);
                folder.save_checkpoint(&network, &optimizer)?;
                folder
                    .say(&format!("interrupted in epoch {} after step {} of {steps}", epoch + 1, step + 1), observer)?;
                return Ok(Outcome::Interrupted);
            }
        }

        let position = batches.position();
        drop(batches);
        let val = match validate(&network, val_loader.as_ref(), &run, &preprocess, observer) {
            Ok(scores) => scores.map(|(scores, images)| Results::new(epoch + 1, scores, images)),
            Err(EvaluateError::Interrupted) => {
                (folder.progress.position, folder.progress.partial) = (position, partial);
                folder.save_checkpoint(&network, &optimizer)?;
                folder.say(&format!("interrupted while validating epoch {}", epoch + 1), observer)?;
                return Ok(Outcome::Interrupted);
            }
            Err(EvaluateError::Data(error)) => return Err(error.into()),
            Err(EvaluateError::UnknownClass { .. }) => unreachable!("labels are mapped to themselves"),
        };
        let Scores { top1, top5, loss } = partial.tally().scores();
        let row = EpochRow {
            epoch: epoch + 1,
            learning_rate: learning_rate((epoch + 1) * steps - 1),
            train_loss: loss,
            train_top1: top1,
            train_top5: top5,
            val,
            images_per_second: partial.images as f64 / partial.seconds.max(1e-9),
            seconds: partial.seconds,
        };
        let card = ModelCard {
            recipe: Some((**recipe).clone()),
            results: val,
            ..ModelCard::new(options.clone(), data.classes.clone(), preprocess.clone())
        };
        folder.complete_epoch(row.clone(), &network, &optimizer, &card)?;
        observer(Event::Epoch(&row));
        folder.log(&row.to_string())?;
        for loader in std::iter::once(&train_loader).chain(&val_loader) {
            folder.report_skipped(loader, observer)?;
        }
    }
    Ok(Outcome::Finished { best: folder.progress.best })
}

/// Scores on the validation split, and the number of its images; nothing where the data has no such split.
fn validate(
    network: &Network,
    loader: Option<&Loader>,
    run: &Run,
    preprocess: &Preprocess,
    observer: &mut dyn FnMut(Event),
) -> Result<Option<(Scores, usize)>, EvaluateError> {
    let Some(loader) = loader else { return Ok(None) };
    let total = loader.len();
    let classes = &run.data.classes;
    let labelled = Labelled { loader, labels: (0..classes.len()).collect() };
    let mut progress = |images| observer(Event::Validate { images, total });
    let evaluation = evaluate(&network.valid(), &labelled, preprocess, classes, run.device, run.stop, &mut progress)?;
    Ok(Some((evaluation.scores, evaluation.images)))
}

/// Seed of what a step draws on the device: dropout and stochastic depth.
fn step_seed(seed: u64, step: usize) -> u64 {
    // One round of SplitMix64, so that neighbouring steps and seeds share nothing.
    let mut z = seed.wrapping_add((step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ranks and losses that stay on the device until asked for, so that the loop does not wait for it every step.
#[derive(Default)]
struct DeviceTally {
    steps: Vec<(Tensor<1, Int>, Tensor<1>)>,
}

impl DeviceTally {
    fn add(&mut self, logits: &Tensor<2>, targets: &Tensor<1, Int>, losses: &Tensor<1>) {
        let device = logits.device().inner();
        let ranks = target_ranks(logits.clone().detach().inner(), targets.clone().to_device(&device));
        self.steps.push((ranks, losses.clone().detach().inner()));
    }

    /// Adds what was counted to `partial` and starts afresh.
    fn take(&mut self, mut partial: PartialEpoch) -> PartialEpoch {
        for (ranks, losses) in self.steps.drain(..) {
            let ranks: Vec<usize> = ranks.into_data().iter::<i64>().map(|rank| rank as usize).collect();
            let mut tally = partial.tally();
            tally.add(&ranks, losses.into_data().iter::<f64>().sum());
            let Tally { images, top1, top5, loss } = tally;
            partial = PartialEpoch { images, top1, top5, loss, ..partial };
        }
        partial
    }
}

impl PartialEpoch {
    fn tally(&self) -> Tally {
        Tally { images: self.images, top1: self.top1, top5: self.top5, loss: self.loss }
    }
}
