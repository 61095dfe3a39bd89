//! The training loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::backend::ExecutionError;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use mbconv_nets::weights::WeightsError;
use mbconv_nets::{Inference, Network};

use crate::batch::normalised;
use crate::checkpoint::{CheckpointError, Learner};
use crate::data::image_formats::{is_wide_gray, wide_gray_warning};
use crate::data::{
    DataError, DataSet, Gray16, Loader, LoaderConfig, MOST_UNREADABLE, OnBadImage, Preprocess, Sampling, Source,
    StoredImage, Transform, keep,
};
use crate::device::{is_host, is_on_gpus};
use crate::ema;
use crate::evaluate::{EvaluateError, Labelled, evaluate};
use crate::finetune::{FinetuneError, load_body};
use crate::freeze;
use crate::group::{Group, GroupError, Traffic};
use crate::memory::{self, OutOfMemory};
use crate::metrics::{Scores, Tally, results};
use crate::model_file::{ModelCard, ModelError, Results};
use crate::objective::{Objective, ObjectiveError};
use crate::optimizer::{fresh_network, global_norm, scale};
use crate::precision::{MapPrecision, NoBf16};
use crate::recipe::{OnNan, Recipe, RecipeError};
use crate::run_folder::{EpochRow, RunFolder};
use crate::run_lock::{RunLock, RunLockError};
use crate::running::{Running, Statistics, counted};
use crate::stepper::{Pace, Stepper, draw};

/// Batches between looks at the running loss on the CPU.
const BATCHES_PER_REPORT: usize = 8;
/// The same on devices that run behind, for which every look has to wait.
const BATCHES_PER_REPORT_BEHIND: usize = 32;
/// Updates in a row without a number that are left out before the run ends.
const MOST_LEFT_OUT: usize = 50;

/// Hint for a run that diverged.
const CALMER: &str = "continue with --resume and, each by --set, a lower optimizer.learning_rate, a longer \
                      schedule.warmup_epochs or optimizer.clip_norm=1";

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
    /// The processes that train together.
    pub group: &'a Group,
    /// Continue the run in the folder rather than begin one.
    pub resume: bool,
    /// What the command line sets of the recipe, which the run remembers. With `Some`, a resumed run may change the keys of
    /// [`RESUMABLE`](crate::recipe::RESUMABLE); with `None` it needs the recipe that it was begun with.
    pub settings: Option<&'a [String]>,
    /// The lock on `out`, if the caller holds it. With `None`, the run locks its folder itself.
    pub lock: Option<&'a RunLock>,
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
        /// Steps already done.
        step: u64,
        /// Number of classes.
        classes: usize,
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
        /// Learning rate of the last step.
        learning_rate: f64,
        /// Steps done since the run began.
        step: u64,
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
    /// The weights to begin with could not be used.
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    /// The loss does not fit the data, or the teacher cannot be used.
    #[error(transparent)]
    Objective(#[from] ObjectiveError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder is in use, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] RunLockError),
    /// The folder is taken.
    #[error("{path} already holds a run")]
    OutExists {
        /// The folder.
        path: String,
        /// Whether there is a checkpoint to continue from.
        resumable: bool,
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
    /// A training step takes more memory than there is.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The loss is no longer a number.
    #[error("the loss became {loss} in epoch {epoch}, in step {step}; the last good checkpoint is kept")]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the epoch, from 1.
        step: usize,
    },
    /// A recorded step that cannot be repeated.
    #[error("the device cannot repeat a training step: {0}")]
    Repeat(ExecutionError),
    /// The processes cannot train together, or another of them failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Batch-norm over several processes on a device that cannot.
    #[error("sync_batch_norm needs the CPU as its device")]
    Unsynchronised,
    /// A precision that the device does not have.
    #[error("the recipe's `precision`: {0}")]
    Precision(#[from] NoBf16),
    /// Batch-norm over several processes, where it is not computed by the CPU's kernels.
    #[error("sync_batch_norm needs precision = \"f32\"")]
    UnsynchronisedBf16,
    /// Weights are no longer numbers.
    #[error("{what} in epoch {epoch}, by step {step}; the last good checkpoint is kept")]
    WeightsDiverged {
        /// Which.
        what: String,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the epoch, from 1.
        step: usize,
    },
    /// Leaving updates out does not help any more.
    #[error(
        "{count} updates in a row had no finite loss and gradient, the last in epoch {epoch}, by step {step}; the last good checkpoint is kept"
    )]
    TooManyLeftOut {
        /// How many.
        count: usize,
        /// Epoch, from 1.
        epoch: usize,
        /// Step of the epoch, from 1.
        step: usize,
    },
}

impl TrainError {
    /// Whether loss or weights stopped being numbers.
    pub(crate) fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged { .. } | Self::WeightsDiverged { .. } | Self::TooManyLeftOut { .. })
    }

    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Objective(error) => error.hint(),
            Self::Recipe(RecipeError::Model(error)) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::OutExists { resumable: true, .. } => {
                Some("continue it with --resume, or choose another folder with --out".into())
            }
            Self::OutExists { .. } => Some("it has nothing to resume from: choose another folder with --out".into()),
            Self::NothingToResume { .. } => Some("begin a run there without --resume".into()),
            Self::TooFewImages { images, .. } => {
                // Batch-norm learns little from batches of one image.
                Some(format!("--set batch_size={}", (images / 4).max(2).min(*images)))
            }
            Self::OutOfMemory(error) => Some(error.hint()),
            Self::Finetune(error) => error.hint(),
            Self::Group(error) => error.hint(),
            Self::Unsynchronised => Some("--device cpu, or --set sync_batch_norm=false".into()),
            Self::Precision(error) => error.hint(),
            Self::Repeat(_) => Some("continue with --resume --set record_steps=false".into()),
            Self::UnsynchronisedBf16 => Some("--set precision=f32, or --set sync_batch_norm=false".into()),
            Self::Diverged { .. } | Self::WeightsDiverged { .. } => {
                Some(format!("{CALMER}; --on-nan skip leaves single bad updates out"))
            }
            Self::TooManyLeftOut { .. } => Some(CALMER.into()),
            Self::Checkpoint(error) => error.hint(),
            _ => None,
        }
    }
}

/// The warning about gray of more than 8 bits, if any of 64 images spread over the set is of that kind.
fn wide_gray_among(source: &dyn Source) -> Option<String> {
    const PROBES: usize = 64;
    let probes = PROBES.min(source.len());
    let wide: Vec<usize> = (0..probes)
        .map(|probe| probe * source.len() / probes)
        .filter(|&index| match source.get(index).map(|sample| sample.image) {
            Ok(StoredImage::Encoded(bytes)) => is_wide_gray(&bytes),
            _ => false,
        })
        .collect();
    let first = *wide.first()?;
    Some(format!("warning: {}", wide_gray_warning(wide.len(), probes, &source.name(first))))
}

/// Trains as the recipe says, telling `observer` what happens.
///
/// Everything random follows from the recipe's seed, the epoch and the sample or step, so a run that was stopped and
/// resumed takes the same path as one that was not. Of several processes, each computes its part of every batch.
///
/// # Errors
/// See [`TrainError`].
pub fn train(run: Run, observer: &mut dyn FnMut(Event)) -> Result<Outcome, TrainError> {
    let Run { recipe, data, device, group, stop, .. } = run;
    group.compare(recipe, data)?;
    data.check_trainable()?;
    let synchronised = recipe.sync_batch_norm && group.size() > 1;
    if synchronised && !is_host(device) {
        return Err(TrainError::Unsynchronised);
    }
    if synchronised && recipe.precision == MapPrecision::Bf16 {
        return Err(TrainError::UnsynchronisedBf16);
    }
    recipe.precision.check(device)?;
    let source = data.split("train")?;
    let mut lines = Vec::new();
    // For the log alone: what nobody needs to read at every start.
    let mut details = Vec::new();
    if recipe.precision.is_slow(device) {
        lines.push("precision: bf16 is slower than f32 on the processor, which converts every number".into());
    }
    if recipe.data.gray16 == Gray16::Clip {
        lines.extend(wide_gray_among(&*source));
    }
    let mut loader = |source: Arc<dyn Source>, transform, batch_size, train: bool| {
        let decoding = recipe.data.decoding(train);
        let split = if train { "training" } else { "validation" };
        let source = match keep(&source, recipe.data.cache, decoding) {
            Some((kept, bytes)) => {
                details.push(format!(
                    "data: {} {split} images stay in memory once decoded, about {} MB (data.cache)",
                    kept.len(),
                    bytes.div_ceil(1_000_000)
                ));
                kept
            }
            None => source,
        };
        let config = LoaderConfig {
            batch_size,
            workers: recipe.workers(),
            prefetch: recipe.data.prefetch,
            seed: recipe.seed,
            shuffle: train,
            sampling: if train { recipe.sampling } else { Sampling::Once },
            drop_last: train,
            on_bad_image: OnBadImage::Skip,
            part: group.part(batch_size),
        };
        let loader = Loader::new(source, transform, config).with_decoding(decoding);
        let ahead = format!("{} batches ahead on {} threads", recipe.data.prefetch, recipe.workers());
        details.push(format!("data: {split} has {ahead}, at most {} MB", loader.memory().div_ceil(1_000_000)));
        loader
    };
    let train_images = source.len();
    let autodiff = recipe.autodiff(device);
    let objective = Objective::new(recipe, &data.classes, &*source, &autodiff)?;
    let transform = recipe.train_transform_for(device);
    let deferred = transform.deferred;
    let train_loader = loader(source, Transform::Train(transform), recipe.batch_size, true);
    let preprocess = recipe.preprocess();
    let val_loader =
        data.val.clone().map(|source| loader(source, Transform::Eval(preprocess.clone()), recipe.batch_size, false));
    if deferred {
        details.push("data: training images are augmented on the device (augment.on)".into());
    }
    let steps = train_loader.batches();
    if steps == 0 {
        return Err(TrainError::TooFewImages { images: train_images, batch_size: recipe.batch_size });
    }
    let updates = steps.div_ceil(recipe.accumulate);
    let full_rate = recipe.optimizer.learning_rate_for(recipe.batch_size * recipe.accumulate);
    let finetune = recipe.finetune.clone().unwrap_or_default();
    let clipping = recipe.optimizer.clipping();
    let per_report = if is_host(device) { BATCHES_PER_REPORT } else { BATCHES_PER_REPORT_BEHIND };

    // What learns, and where the run stands.
    let options = recipe.model.with_classes(data.classes.len());
    let architecture = recipe.architecture(data.classes.len())?;
    if is_host(device) {
        let checked = memory::check_training(recipe, &architecture, group.size(), memory::available());
        group.agree(checked.map_err(TrainError::from))?;
    }
    let mut folder = group.agree(RunFolder::open(&run, train_images))?;
    // The first process alone looks into the folder.
    folder.begun = group.any(folder.begun);
    let mut network = fresh_network(&architecture, recipe.seed, &autodiff);
    if let Some(weights) = finetune.weights.as_ref().filter(|_| !folder.begun) {
        let loaded = match group.leads() {
            true => load_body(network, &options.name, &data.classes, weights, finetune.prefix.as_deref())
                .map_err(TrainError::from),
            false => Ok((network, Vec::new())),
        };
        let told;
        (network, told) = group.agree(loaded)?;
        lines.extend(told);
    }
    if recipe.sampling == Sampling::Once {
        lines.extend(left_out_of_epochs(train_images, recipe.batch_size, folder.begun));
    }
    let average = recipe.ema.as_ref().map(|_| network.valid());
    let learner = Learner { network, optimizer: recipe.optimizer.init(&architecture), average };
    let mut learner = folder.beginning(learner, group)?;
    for line in folder.introduction(&run, &options, train_images).iter().chain(&lines) {
        folder.say(line, observer)?;
    }
    details.iter().try_for_each(|line| folder.log(line))?;
    let done = folder.progress.epoch * steps + folder.progress.position.batches;
    let classes = data.classes.len();
    observer(Event::Start { epoch: folder.progress.epoch, epochs: recipe.epochs, step: done as u64, classes });
    if !folder.begun || folder.changed() {
        folder.save_checkpoint(&learner)?;
    }
    let mut stepper = Stepper::new(recipe, &objective, &preprocess, &autodiff, group);
    let mut saved = Instant::now();
    let mut left_out = 0;
    let mut first_loss_is_new = folder.progress.updates == 0;

    while folder.progress.epoch < recipe.epochs {
        let waited = folder.epochs_without_progress(finetune.head_epochs);
        if recipe.early_stopping > 0 && waited >= recipe.early_stopping {
            let line = format!("stopped early: no better validation for {waited} epochs (early_stopping)");
            folder.say(&line, observer)?;
            break;
        }
        let epoch = folder.progress.epoch;
        let mut partial = std::mem::take(&mut folder.progress.partial);
        let position = std::mem::take(&mut folder.progress.position);
        let started = Instant::now();
        let before = partial.seconds;
        let mut running = Running::default();
        let plateau = recipe.schedule.after(folder.progress.rows.iter().map(EpochRow::score));
        let learning_rate = |update: usize| {
            full_rate * recipe.schedule.factor(epoch * updates + update, updates, recipe.epochs) * plateau
        };
        learner.network = freeze::apply(learner.network, &finetune, epoch);

        group.take_traffic();
        let mut batches = train_loader.epoch_from(epoch, position);
        let mut step = position.batches;
        while step < steps {
            // One update, from the mean gradient of as many batches as it takes or as are left.
            let update = step / recipe.accumulate;
            let parts = recipe.accumulate.min(steps - step);
            let expected = parts * recipe.batch_size;
            let minutes = recipe.checkpoint.minutes;
            let due = minutes > 0.0 && group.leads() && saved.elapsed().as_secs_f64() >= 60.0 * minutes;
            let mut flags = [stop.load(Ordering::Relaxed), due];
            if let Some(stepper) = &mut stepper {
                let Some(batch) = batches.next() else { break };
                let prepared = objective.prepare(batch?, epoch, step);
                let done = folder.progress.updates;
                let pace = Pace {
                    rate: learning_rate(update),
                    decay: recipe.ema.as_ref().map_or(0.0, |config| config.decay_at(done)),
                    seed: step_seed(recipe.seed, epoch * steps + step),
                };
                let taken = stepper.step(learner, prepared, pace, &folder.progress)?;
                learner = taken.learner;
                running.add(step + 1, taken.counted);
                taken.line.map_or(Ok(()), |line| folder.say(&line, observer))?;
                step += 1;
                folder.progress.updates += 1;
            } else {
                let unspoilt =
                    (recipe.on_nan == OnNan::Skip).then(|| (Statistics::of(&learner.network), running.len()));
                let mut gradients = GradientsAccumulator::new();
                let mut images_seen = 0;
                for batch in batches.by_ref().take(parts) {
                    let (pixels, prepared) = objective.prepare(batch?, epoch, step);
                    let seed = step_seed(recipe.seed.wrapping_add(group.rank() as u64), epoch * steps + step);
                    autodiff.seed(seed);
                    let drawing = is_on_gpus(run.device).then(|| draw(seed, run.device));
                    let synchronisation = synchronised.then(|| group.synchronize());
                    let images = recipe.precision.of(normalised(pixels, &preprocess));
                    let logits = learner.network.forward_channels_last(images);
                    drop(drawing);
                    let losses = objective.losses(logits.clone(), &prepared);
                    running.add(step + 1, counted(&logits, &prepared.targets.labels, &losses));
                    let part = prepared.images as f64 / expected as f64;
                    let backward = losses.mean().mul_scalar(part).backward();
                    drop(synchronisation);
                    gradients.accumulate(&learner.network, GradientsParams::from_grads(backward, &learner.network));
                    images_seen += prepared.images;
                    step += 1;
                }
                // Where the loss is at hand, before it can spoil anything.
                let bad = (is_host(run.device) || unspoilt.is_some()) && running.first_bad().is_some();
                // What all processes have to know of each other, with the gradients.
                let [stopped, due, bad] = [flags[0], flags[1], bad].map(|flag| f64::from(u8::from(flag)));
                let mut sums = [images_seen as f64, stopped, due, bad];
                group.sum_f64(&mut sums);
                let images_seen = sums[0] as usize;
                let [stopped, due, bad] = [sums[1], sums[2], sums[3]].map(|count| count > 0.0);
                flags = [stopped, due];
                if images_seen == 0 {
                    break;
                }
                let mut gradients = gradients.grads();
                group.sum_gradients(&learner.network, &mut gradients);
                if images_seen < expected {
                    scale(&learner.network, &mut gradients, expected as f64 / images_seen as f64);
                }

                if let Some((statistics, counted)) = unspoilt
                    && (bad || !global_norm(&learner.network, &gradients).is_finite())
                {
                    running.truncate(counted);
                    learner.network = statistics.restore(learner.network);
                    folder.say(
                        &format!("epoch {} step {step}: no finite loss and gradient, left out", epoch + 1),
                        observer,
                    )?;
                    left_out += 1;
                    if left_out == MOST_LEFT_OUT {
                        return Err(TrainError::TooManyLeftOut { count: left_out, epoch: epoch + 1, step });
                    }
                } else {
                    if bad {
                        group.agree(check(&mut running, epoch))?;
                    }
                    left_out = 0;
                    clipping.apply(&learner.network, &mut gradients);
                    learner.network = learner.optimizer.step(learning_rate(update), learner.network, gradients);
                    if let (Some(config), Some(average)) = (&recipe.ema, learner.average.take()) {
                        let decay = config.decay_at(folder.progress.updates);
                        learner.average = Some(ema::update(average, &learner.network, decay));
                    }
                    folder.progress.updates += 1;
                }
            }
            let [stopped, due] = flags;

            if step / per_report > (step - parts) / per_report || step >= steps || stopped || due {
                group.agree(check(&mut running, epoch))?;
                if std::mem::take(&mut first_loss_is_new) {
                    let line = running.first_loss().and_then(|loss| objective.doubt_first_loss(loss));
                    line.map_or(Ok(()), |line| folder.say(&line, observer))?;
                }
                partial.count(&mut running, group);
                partial.seconds = before + started.elapsed().as_secs_f64();
                let (images, total) = (partial.images, steps * recipe.batch_size);
                let scores = partial.tally().scores();
                let (learning_rate, done) = (learning_rate(update), (epoch * steps + step) as u64);
                observer(Event::Train { epoch: epoch + 1, images, total, scores, learning_rate, step: done });
            }
            if stopped || due {
                learner = averaged(learner, group);
                (folder.progress.position, folder.progress.partial) = (batches.position(), partial);
                folder.save_checkpoint(&learner).map_err(|error| diverged(error, epoch, step))?;
                saved = Instant::now();
            }
            if stopped {
                folder.say(&format!("interrupted in epoch {} after step {step} of {steps}", epoch + 1), observer)?;
                return Ok(Outcome::Interrupted);
            }
        }

        let position = batches.position();
        drop(batches);
        if group.size() > 1 {
            let Traffic { bytes, time } = group.take_traffic();
            let each = 1.0 / updates as f64;
            let (time, bytes) = (1e3 * time.as_secs_f64() * each, 1e-6 * bytes as f64 * each);
            folder.log(&format!("communication: {time:.2} ms, waiting included, and {bytes:.2} MB an update"))?;
        }
        learner = averaged(learner, group);
        let mut validate = |network: &Network| match validate(network, val_loader.as_ref(), &run, &preprocess, observer)
        {
            Ok(scores) => Ok(Some(scores.map(|(scores, images)| results(epoch + 1, scores, images)))),
            Err(EvaluateError::Interrupted) => Ok(None),
            Err(EvaluateError::Data(error)) => Err(TrainError::from(error)),
            Err(EvaluateError::UnknownClass { .. }) => unreachable!("labels are mapped to themselves"),
        };
        let val = validate(&learner.network.valid())?;
        let ema = match (&learner.average, &val) {
            (Some(average), Some(_)) => validate(average)?,
            _ => Some(None),
        };
        if let Err(error) = check_readable(val_loader.as_ref(), group) {
            // The epoch is kept: once the images are mended, `--resume` continues with its
            // validation.
            (folder.progress.position, folder.progress.partial) = (position, partial);
            folder.save_checkpoint(&learner).map_err(|error| diverged(error, epoch, steps))?;
            folder.report_skipped(val_loader.as_ref(), "validation", observer)?;
            return Err(error);
        }
        let (Some(val), Some(ema)) = (val, ema) else {
            (folder.progress.position, folder.progress.partial) = (position, partial);
            folder.save_checkpoint(&learner).map_err(|error| diverged(error, epoch, steps))?;
            folder.say(&format!("interrupted while validating epoch {}", epoch + 1), observer)?;
            return Ok(Outcome::Interrupted);
        };
        let Scores { top1, top5, loss } = partial.tally().scores();
        let row = EpochRow {
            epoch: epoch + 1,
            learning_rate: learning_rate(updates - 1),
            train_loss: loss,
            train_top1: top1,
            train_top5: top5,
            val,
            ema,
            images_per_second: partial.images as f64 / partial.seconds.max(1e-9),
            seconds: partial.seconds,
        };
        let card = ModelCard {
            recipe: Some(recipe.to_json()),
            ..ModelCard::new(options.clone(), data.classes.clone(), preprocess.clone())
        };
        folder
            .complete_epoch(row.clone(), &learner, &card, &recipe.checkpoint)
            .map_err(|error| diverged(error, epoch, steps))?;
        saved = Instant::now();
        observer(Event::Epoch(&row));
        folder.log(&row.line(classes))?;
        folder.report_skipped(Some(&train_loader), "training", observer)?;
        folder.report_skipped(val_loader.as_ref(), "validation", observer)?;
    }
    Ok(Outcome::Finished { best: folder.progress.best })
}

/// With the running statistics that all processes have on average.
fn averaged(learner: Learner, group: &Group) -> Learner {
    let Learner { network, optimizer, average } = learner;
    let average = average.map(|average| group.average_statistics(average));
    Learner { network: group.average_statistics(network), optimizer, average }
}

/// Ends the run at the first loss that is no number.
fn check(running: &mut Running, epoch: usize) -> Result<(), TrainError> {
    match running.first_bad() {
        Some((step, loss)) => Err(TrainError::Diverged { loss, epoch: epoch + 1, step }),
        None => Ok(()),
    }
}

/// A failure to save weights that are no longer numbers is a failure of the step before.
fn diverged(error: TrainError, epoch: usize, step: usize) -> TrainError {
    let key = match &error {
        TrainError::Checkpoint(CheckpointError::NotFinite { key }) => key,
        TrainError::Model(ModelError::Weights { source: WeightsError::NotFinite { key, .. }, .. }) => key,
        _ => return error,
    };
    TrainError::WeightsDiverged { what: format!("`{key}` is no longer a number"), epoch: epoch + 1, step }
}

/// Refuses a validation that left out more than [`MOST_UNREADABLE`] of its images: it must not
/// choose the best model.
fn check_readable(loader: Option<&Loader>, group: &Group) -> Result<(), TrainError> {
    let Some(loader) = loader else { return Ok(()) };
    let skipped = loader.skipped();
    let mut unreadable = [skipped.len() as f64];
    group.sum_f64(&mut unreadable);
    let [unreadable] = unreadable;
    if unreadable <= MOST_UNREADABLE * loader.len() as f64 {
        return Ok(());
    }
    let first = skipped.first().map(|(name, why)| format!(": {name}: {why}")).unwrap_or_default();
    let (unreadable, images) = (unreadable as usize, loader.len());
    group.agree(Err(DataError::TooManyUnreadable { split: "validation", unreadable, images, first }.into()))
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
    let processes = run.group.size();
    let mut progress = |images: usize| observer(Event::Validate { images: total.min(images * processes), total });
    let evaluation =
        match evaluate(&Inference::new(network), &labelled, preprocess, classes, run.device, run.stop, &mut progress) {
            Err(EvaluateError::Interrupted) => None,
            other => Some(other?),
        };
    if run.group.any(evaluation.is_none()) {
        return Err(EvaluateError::Interrupted);
    }
    let here = evaluation.map_or(Tally::default(), |evaluation| Tally::of(evaluation.scores, evaluation.images));
    let all = run.group.sum_tally(here);
    Ok(Some((all.scores(), all.images)))
}

/// Returns a line about the images that do not fill a last batch, if there are any; with a better batch size if they are
/// many and the run has not `begun`, after which its batch size stays.
fn left_out_of_epochs(images: usize, batch_size: usize, begun: bool) -> Option<String> {
    /// One image in this many deserves a note.
    const MANY: usize = 10;
    let left_out = images % batch_size;
    if left_out == 0 {
        return None;
    }
    let line = format!(
        "{left_out} of {images} images are left out of each epoch, other ones each time (incomplete last batch of \
         {batch_size})"
    );
    let better = (batch_size / 2 + 1..batch_size).rev().min_by_key(|size| images % size);
    match better.filter(|size| images % size < left_out) {
        _ if left_out * MANY < images => Some(line),
        Some(size) if !begun => Some(format!("note: {line}; --set batch_size={size} leaves out {}", images % size)),
        _ => Some(format!("note: {line}")),
    }
}

/// Seed of what a step draws on the device: dropout and stochastic depth.
fn step_seed(seed: u64, step: usize) -> u64 {
    // One round of SplitMix64, so that neighbouring steps and seeds share nothing.
    let mut z = seed.wrapping_add((step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_fill_no_batch_are_reported() {
        assert_eq!(left_out_of_epochs(16, 8, false), None);
        let line = left_out_of_epochs(15, 8, false).unwrap();
        assert_eq!(
            line,
            "note: 7 of 15 images are left out of each epoch, other ones each time (incomplete last batch of 8); \
             --set batch_size=5 leaves out 0"
        );
        // A batch size cannot change once a run has begun.
        assert!(!left_out_of_epochs(15, 8, true).unwrap().contains("--set"));
        let few = left_out_of_epochs(1001, 10, false).unwrap();
        assert!(few.starts_with("1 of 1001 images") && !few.contains("--set"), "{few}");
    }
}
