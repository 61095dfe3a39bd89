//! One epoch of training.

use std::mem;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::error::TrainError;
use super::event::{Event, Run};
use super::learner::Learner;
use super::setup::Setup;
use super::step::{Requests, StepInputs, StepOutcome, StepRequest, StepResult, TrainStep, step_seed};
use crate::checkpoint::{PartialEpoch, Progress};
use mbconv_data::Position;
use mbconv_interop::model_file::Results;

use crate::device::is_host;
use crate::distributed::Traffic;
use crate::freeze;
use crate::history::EpochRow;
use crate::metrics::Scores;
use crate::run_dir::RunDir;
use crate::running_metrics::RunningMetrics;

/// Number of batches between reports on the CPU.
const BATCHES_PER_REPORT: usize = 8;
/// Number of batches between reports on other devices, which a report synchronizes.
const BATCHES_PER_REPORT_ON_DEVICE: usize = 32;
/// Number of consecutive skipped updates that ends the run.
const MOST_SKIPPED: usize = 50;

/// Trains epochs of a run.
pub(super) struct Trainer<'a> {
    setup: &'a Setup<'a>,
    step: Box<dyn TrainStep + 'a>,
    /// Time of the last checkpoint.
    saved: Instant,
    /// Number of consecutive skipped updates.
    skipped: usize,
    /// True until the first loss of the run was checked.
    first_loss_is_new: bool,
}

/// An epoch in training.
struct RunningEpoch {
    /// Number, counted from 0.
    epoch: usize,
    /// Number of batches done.
    step: usize,
    metrics: RunningMetrics,
    partial: PartialEpoch,
    started: Instant,
    /// Seconds of training before the run was resumed.
    seconds_before: f64,
    /// Factor of the learning rate by the plateau schedule.
    plateau: f64,
}

/// An epoch after its last batch.
pub(super) struct TrainedEpoch {
    /// Number, counted from 0.
    pub(super) epoch: usize,
    position: Position,
    partial: PartialEpoch,
    learning_rate: f64,
}

impl<'a> Trainer<'a> {
    pub(super) fn new(setup: &'a Setup<'a>, progress: &Progress) -> Self {
        Self {
            setup,
            step: setup.train_step(),
            saved: Instant::now(),
            skipped: 0,
            first_loss_is_new: progress.updates == 0,
        }
    }

    /// Notes that the run was saved.
    pub(super) fn checkpoint_written(&mut self) {
        self.saved = Instant::now();
    }

    /// Trains until the end of the epoch. Returns no epoch if the run was interrupted.
    pub(super) fn train_epoch(
        &mut self,
        mut learner: Learner,
        folder: &mut RunDir,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(Learner, Option<TrainedEpoch>), TrainError> {
        let setup = self.setup;
        let (Run { group, .. }, steps) = (setup.run, setup.steps());
        let position = mem::take(&mut folder.progress.position);
        let mut running = RunningEpoch::resume(setup, &mut folder.progress, position);
        let epoch = running.epoch;
        learner.network = freeze::apply(learner.network, &setup.finetune, epoch);
        if let Some(config) = &setup.run.recipe.quantization {
            learner.network = freeze::apply_quantization(learner.network, config, epoch);
        }
        group.take_traffic();
        let mut batches = setup.train_loader.epoch_from(epoch, position);
        while running.step < steps {
            let request = self.request(&running, &folder.progress);
            let (learning_rate, parts) = (request.inputs.learning_rate, request.batches);
            let result = self.step.step(learner, &mut batches, &request, &mut running.metrics)?;
            let StepResult { batches: count, outcome, requests, line, .. } = result;
            learner = result.learner;
            running.step += count;
            line.map_or(Ok(()), |line| folder.say(&line, observer))?;
            match outcome {
                StepOutcome::NoImages => break,
                StepOutcome::Skipped => self.count_skipped(&running, folder, observer)?,
                StepOutcome::Updated => {
                    self.skipped = 0;
                    folder.progress.updates += 1;
                }
            }
            let Requests { stop, checkpoint } = requests;
            if running.is_report_due(setup, parts) || stop || checkpoint {
                self.report(&mut running, learning_rate, folder, observer)?;
            }
            if stop || checkpoint {
                learner = learner.average_statistics(group);
                (folder.progress.position, folder.progress.partial) = (batches.position(), running.partial);
                folder.save_checkpoint(&learner).map_err(|error| error.at_step(epoch, running.step))?;
                self.checkpoint_written();
            }
            if stop {
                let line = format!("interrupted in epoch {} after step {} of {steps}", epoch + 1, running.step);
                folder.say(&line, observer)?;
                return Ok((learner, None));
            }
        }
        self.log_traffic(folder)?;
        let learning_rate = setup.learning_rate(epoch, setup.updates() - 1) * running.plateau;
        let trained = TrainedEpoch { epoch, position: batches.position(), partial: running.partial, learning_rate };
        Ok((learner.average_statistics(group), Some(trained)))
    }

    /// Returns the next step of an epoch.
    fn request<'p>(&self, running: &RunningEpoch, progress: &'p Progress) -> StepRequest<'p> {
        let RunningEpoch { epoch, step, .. } = *running;
        let (Run { recipe, group, stop, .. }, steps) = (self.setup.run, self.setup.steps());
        let minutes = recipe.checkpoint.minutes;
        let is_due = minutes > 0.0 && group.is_leader() && self.saved.elapsed().as_secs_f64() >= 60.0 * minutes;
        let steps_done = epoch * steps + step;
        StepRequest {
            epoch,
            step,
            steps_done,
            // The last update of an epoch uses the batches that are left.
            batches: recipe.accumulate.min(steps - step),
            inputs: StepInputs {
                learning_rate: self.setup.learning_rate(epoch, step / recipe.accumulate) * running.plateau,
                ema_decay: recipe.ema.as_ref().map_or(0.0, |config| config.decay_at(progress.updates)),
                seed: step_seed(recipe.seed, steps_done),
            },
            requests: Requests { stop: stop.load(Ordering::Relaxed), checkpoint: is_due },
            progress,
        }
    }

    /// Reports a skipped update. Too many in a row are an error.
    fn count_skipped(
        &mut self,
        running: &RunningEpoch,
        folder: &mut RunDir,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(), TrainError> {
        let RunningEpoch { epoch, step, .. } = *running;
        let line =
            format!("epoch {} step {step}: update skipped, because the loss or a gradient is not finite", epoch + 1);
        folder.say(&line, observer)?;
        self.skipped += 1;
        if self.skipped < MOST_SKIPPED {
            return Ok(());
        }
        Err(TrainError::TooManySkipped { count: self.skipped, epoch: epoch + 1, step })
    }

    /// Checks the losses since the last report and reports the means of the epoch.
    fn report(
        &mut self,
        running: &mut RunningEpoch,
        learning_rate: f64,
        folder: &mut RunDir,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(), TrainError> {
        let (Run { recipe, group, .. }, steps) = (self.setup.run, self.setup.steps());
        let RunningEpoch { epoch, step, metrics, partial, .. } = running;
        group.all_ok(metrics.check(*epoch))?;
        if mem::take(&mut self.first_loss_is_new) {
            let line = metrics.first_loss().and_then(|loss| self.setup.criterion.doubt_first_loss(loss));
            line.map_or(Ok(()), |line| folder.say(&line, observer))?;
        }
        partial.count(metrics, group);
        partial.seconds = running.seconds_before + running.started.elapsed().as_secs_f64();
        observer(Event::Train {
            epoch: *epoch + 1,
            images: partial.images,
            total: steps * recipe.batch_size,
            scores: partial.tally().scores(),
            learning_rate,
            step: (*epoch * steps + *step) as u64,
        });
        Ok(())
    }

    /// Logs the communication of the epoch.
    fn log_traffic(&self, folder: &RunDir) -> Result<(), TrainError> {
        let group = self.setup.run.group;
        if group.size() == 1 {
            return Ok(());
        }
        let Traffic { bytes, time } = group.take_traffic();
        let updates = 1.0 / self.setup.updates() as f64;
        let (time, bytes) = (1e3 * time.as_secs_f64() * updates, 1e-6 * bytes as f64 * updates);
        folder.log(&format!("communication: {time:.2} ms per update, including waiting, and {bytes:.2} MB"))
    }
}

impl RunningEpoch {
    /// Starts or resumes the epoch of `progress` at `position`.
    fn resume(setup: &Setup, progress: &mut Progress, position: Position) -> Self {
        let partial = mem::take(&mut progress.partial);
        let recipe = setup.run.recipe;
        Self {
            epoch: progress.epoch,
            step: position.batches,
            metrics: RunningMetrics::default(),
            partial,
            started: Instant::now(),
            seconds_before: partial.seconds,
            plateau: recipe.schedule.after(progress.rows.iter().map(|row| row.score(recipe.checkpoint.metric))),
        }
    }

    /// Returns whether the last `parts` batches complete the batches of a report.
    fn is_report_due(&self, setup: &Setup, parts: usize) -> bool {
        let per_report = if is_host(setup.run.device) { BATCHES_PER_REPORT } else { BATCHES_PER_REPORT_ON_DEVICE };
        self.step >= setup.steps() || self.step / per_report > self.step.saturating_sub(parts) / per_report
    }
}

impl TrainedEpoch {
    /// Returns the row of the epoch with its validation results.
    pub(super) fn row(&self, val: Option<Results>, ema: Option<Results>) -> EpochRow {
        let Scores { top1, top5, loss } = self.partial.tally().scores();
        EpochRow {
            epoch: self.epoch + 1,
            learning_rate: self.learning_rate,
            train_loss: loss,
            train_top1: top1,
            train_top5: top5,
            val,
            ema,
            images_per_second: self.partial.images as f64 / self.partial.seconds.max(1e-9),
            seconds: self.partial.seconds,
        }
    }

    /// Saves the epoch before its validation, which a resumed run repeats.
    pub(super) fn save(self, folder: &mut RunDir, learner: &Learner, steps: usize) -> Result<(), TrainError> {
        (folder.progress.position, folder.progress.partial) = (self.position, self.partial);
        folder.save_checkpoint(learner).map_err(|error| error.at_step(self.epoch, steps))
    }
}

impl Setup<'_> {
    /// Returns the learning rate of an update in an epoch, both counted from 0, without the factor
    /// of the plateau schedule.
    fn learning_rate(&self, epoch: usize, update: usize) -> f64 {
        let (recipe, updates) = (self.run.recipe, self.updates());
        let base = recipe.optimizer.learning_rate_for(recipe.batch_size * recipe.accumulate);
        base * recipe.schedule.factor(epoch * updates + update, updates, recipe.epochs)
    }
}
