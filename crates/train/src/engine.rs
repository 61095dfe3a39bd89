//! The training loop.

use std::collections::HashSet;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use mbconv_nets::weights::Precision;
use mbconv_nets::{ArchitectureOptions, Network};
use serde::{Deserialize, Serialize};

use crate::batch::{images, targets};
use crate::checkpoint::{self, CHECKPOINT, CheckpointError, PartialEpoch, Progress};
use crate::data::{DataError, DataSet, Loader, LoaderConfig, OnBadImage, Position, Transform};
use crate::evaluate::{EvaluateError, Labelled, evaluate};
use crate::files::write_atomically;
use crate::loss::cross_entropy;
use crate::metrics::{Scores, Tally, target_ranks};
use crate::model_file::{BEST, LAST, Model, ModelCard, ModelError, Results};
use crate::optimizer::with_stable_ids;
use crate::recipe::{Recipe, RecipeError};

/// The resolved recipe in a run's folder.
pub const RECIPE: &str = "recipe.toml";
/// One row an epoch.
pub const METRICS: &str = "metrics.csv";
/// What was said, in lines.
pub const LOG: &str = "log.txt";
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

/// Results of one epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// From 1.
    pub epoch: usize,
    /// Learning rate at the epoch's last step.
    pub learning_rate: f64,
    /// Mean training loss, label smoothing included.
    pub train_loss: f64,
    /// Top-1 on the augmented training images, as the network changed.
    pub train_top1: f64,
    /// Top-5 on the same.
    pub train_top5: f64,
    /// Validation after the epoch; nothing where the data has no such split.
    pub val: Option<Results>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Seconds of training, validation excluded.
    pub seconds: f64,
}

impl fmt::Display for EpochRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, learning_rate, train_loss, train_top1, images_per_second, seconds, .. } = self;
        write!(f, "epoch {epoch:>3}  train loss {train_loss:.4} top-1 {:6.2} %", 100.0 * train_top1)?;
        if let Some(Results { top1, top5, loss, .. }) = self.val {
            write!(f, "  val loss {loss:.4} top-1 {:6.2} % top-5 {:6.2} %", 100.0 * top1, 100.0 * top5)?;
        }
        write!(f, "  lr {learning_rate:.2e}  {images_per_second:.0} img/s  {seconds:.1} s")
    }
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
        let mut learning_rate = 0.0;

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

            learning_rate = recipe.optimizer.learning_rate * recipe.schedule.factor(global_step, steps, recipe.epochs);
            network = optimizer.step(learning_rate, network, gradients);

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
        let val = match &val_loader {
            None => None,
            Some(loader) => {
                let total = loader.len();
                let valid = network.valid();
                let mut progress = |images| observer(Event::Validate { images, total });
                let labelled = Labelled { loader, labels: (0..data.classes.len()).collect() };
                match evaluate(&valid, &labelled, &preprocess, &data.classes, run.device, stop, &mut progress) {
                    Ok(evaluation) => Some(Results {
                        epoch: epoch + 1,
                        top1: evaluation.scores.top1,
                        top5: evaluation.scores.top5,
                        loss: evaluation.scores.loss,
                        images: evaluation.images,
                    }),
                    Err(EvaluateError::Interrupted) => {
                        (folder.progress.position, folder.progress.partial) = (position, partial);
                        folder.save_checkpoint(&network, &optimizer)?;
                        folder.say(&format!("interrupted while validating epoch {}", epoch + 1), observer)?;
                        return Ok(Outcome::Interrupted);
                    }
                    Err(EvaluateError::Data(error)) => return Err(error.into()),
                    Err(EvaluateError::UnknownClass { .. }) => unreachable!("labels are mapped to themselves"),
                }
            }
        };
        let Scores { top1, top5, loss } = partial.tally().scores();
        let row = EpochRow {
            epoch: epoch + 1,
            learning_rate,
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

/// The folder of a run: recipe, metrics, log, models, checkpoint.
struct RunFolder {
    folder: PathBuf,
    progress: Progress,
    /// Unreadable images that were named already.
    skipped: HashSet<String>,
}

impl RunFolder {
    /// Makes the folder, or checks that the run in it can go on.
    fn open(run: &Run, train_images: usize) -> Result<Self, TrainError> {
        let folder = run.out.to_path_buf();
        let shown = folder.display().to_string();
        let checkpoint = folder.join(CHECKPOINT);
        let progress = Progress {
            recipe: run.recipe.to_toml(),
            classes: run.data.classes.clone(),
            train_images,
            epoch: 0,
            position: Position::default(),
            partial: PartialEpoch::default(),
            best: None,
            rows: Vec::new(),
        };
        if run.resume {
            if !checkpoint.is_file() {
                return Err(TrainError::NothingToResume { path: shown });
            }
            let old = checkpoint::read_progress(&checkpoint)?;
            if let Some(message) = difference(&old, &progress) {
                return Err(CheckpointError::Changed { path: shown, message }.into());
            }
        } else {
            if checkpoint.exists() || folder.join(LAST).exists() {
                return Err(TrainError::OutExists { path: shown });
            }
            std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write { path: shown, source })?;
        }
        let this = Self { folder, progress, skipped: HashSet::new() };
        this.write(RECIPE, this.progress.recipe.as_bytes())?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        let path = self.path(name);
        write_atomically(&path, bytes).map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    /// Adds a line to the log.
    fn log(&self, line: &str) -> Result<(), TrainError> {
        let path = self.path(LOG);
        let append = || writeln!(OpenOptions::new().create(true).append(true).open(&path)?, "{line}");
        append().map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    fn say(&self, line: &str, observer: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        observer(Event::Line(line));
        self.log(line)
    }

    /// The first lines of the log: what is trained on what.
    fn introduction(&self, run: &Run, options: &ArchitectureOptions, train_images: usize) -> Vec<String> {
        let Run { recipe, data, .. } = run;
        let parameters = options.architecture().map(|a| mbconv_nets::summary::trainable_parameters(&a)).unwrap_or(0);
        let val_images = data.val.as_ref().map_or(0, |source| source.len());
        let mut lines = vec![
            format!(
                "{}: {} classes, {train_images} training and {val_images} validation images",
                data.form,
                data.classes.len()
            ),
            format!("{}: {parameters} parameters, input {} px", options.name, recipe.input.size),
        ];
        lines.extend(data.notes.iter().map(|note| format!("note: {note}")));
        if run.resume {
            let Progress { epoch, position, .. } = self.progress;
            lines.push(format!("resumed after {epoch} epochs and {} steps", position.batches));
        }
        lines
    }

    fn save_checkpoint(&self, network: &Network, optimizer: &ModuleOptimizer) -> Result<(), TrainError> {
        Ok(checkpoint::save(&self.path(CHECKPOINT), network, optimizer, &self.progress)?)
    }

    /// Saves the epoch's model, the best one if it is, the metrics and the checkpoint.
    fn complete_epoch(
        &mut self,
        row: EpochRow,
        network: &Network,
        optimizer: &ModuleOptimizer,
        card: &ModelCard,
    ) -> Result<(), TrainError> {
        let better = match (row.val, self.progress.best) {
            (Some(new), Some(old)) => (new.top1, -new.loss) > (old.top1, -old.loss),
            _ => true,
        };
        if better {
            self.progress.best = row.val;
            Model::save(network, card, Precision::F32, &self.path(BEST))?;
        }
        Model::save(network, card, Precision::F32, &self.path(LAST))?;
        self.progress.epoch = row.epoch;
        self.progress.rows.push(row);
        self.write(METRICS, self.metrics().as_bytes())?;
        self.save_checkpoint(network, optimizer)
    }

    fn metrics(&self) -> String {
        let mut csv = String::from(
            "epoch,learning_rate,train_loss,train_top1,train_top5,val_loss,val_top1,val_top5,images_per_second,seconds\n",
        );
        for row in &self.progress.rows {
            let EpochRow { epoch, learning_rate, train_loss, train_top1, train_top5, .. } = row;
            let val = row.val.map_or(",,".into(), |val| format!("{:.6},{:.6},{:.6}", val.loss, val.top1, val.top5));
            let (speed, seconds) = (row.images_per_second, row.seconds);
            csv += &format!(
                "{epoch},{learning_rate:.8},{train_loss:.6},{train_top1:.6},{train_top5:.6},{val},{speed:.1},{seconds:.2}\n"
            );
        }
        csv
    }

    /// Names each unreadable image once.
    fn report_skipped(&mut self, loader: &Loader, observer: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        const NAMED: usize = 20;
        let before = self.skipped.len();
        for (name, why) in loader.skipped() {
            if self.skipped.contains(&name) {
                continue;
            }
            let line = format!("skipped {name}: {why}");
            self.skipped.insert(name);
            if self.skipped.len() <= NAMED { self.say(&line, observer)? } else { self.log(&line)? }
        }
        if self.skipped.len() > before {
            let (count, log) = (self.skipped.len(), self.path(LOG));
            observer(Event::Line(&format!("{count} unreadable images so far, all named in {}", log.display())));
        }
        Ok(())
    }
}

/// What of `new` does not continue `old`.
fn difference(old: &Progress, new: &Progress) -> Option<String> {
    if old.classes != new.classes {
        return Some(format!(
            "it was begun with other classes ({} then, {} now)",
            old.classes.len(),
            new.classes.len()
        ));
    }
    if old.train_images != new.train_images {
        return Some(format!(
            "it was begun with {} training images, now there are {}",
            old.train_images, new.train_images
        ));
    }
    // How many threads feed a run, and from where, does not change it.
    let comparable = |recipe: &str| {
        let mut table: toml::Table = recipe.parse().unwrap_or_default();
        table.remove("data");
        table
    };
    let (old, new) = (comparable(&old.recipe), comparable(&new.recipe));
    let keys = old.keys().chain(new.keys());
    let differing = keys.filter(|key| old.get(*key) != new.get(*key)).next()?;
    Some(format!("it was begun with another `{differing}`"))
}
