//! The folder of a run: recipe, metrics, log, models, checkpoint.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use mbconv_nets::weights::Precision;
use mbconv_nets::{NetworkOptions, summary};

use crate::checkpoint::{self, CHECKPOINT, CheckpointError, PREVIOUS, PartialEpoch, Progress};
use crate::config::RecipeFile;
use crate::config::checkpoint::{CheckpointConfig, Metric};
use crate::config::loss::ClassWeights;
use crate::config::resume::{Change, changes};
use crate::distributed::Group;
use crate::engine::error::TrainError;
use crate::engine::event::{Event, Run};
use crate::engine::learner::Learner;
use crate::fingerprint::{Differences, Fingerprint};
pub use crate::history::{EPOCHS, EpochRow, LOG, METRICS, RECIPE};
use crate::recovery::{Saved, State};
use mbconv_data::{Loader, Position, Sampling, Source, class_counts};
use mbconv_files::text::{enumerate, visible_name};
use mbconv_files::{remove_left_overs, write_atomically};
use mbconv_interop::model_file::{BEST, LAST, LAST_EMA, Model, ModelCard, ModelError, Results, read_card};

use crate::run_lock::RunLock;

/// Returns whether `folder` contains files of a run, so that no other run may start there.
pub fn holds_run(folder: &Path) -> bool {
    is_resumable(folder) || folder.join(BEST).exists()
}

/// Returns whether `folder` contains a file that a run can continue from.
fn is_resumable(folder: &Path) -> bool {
    [CHECKPOINT, PREVIOUS, LAST].iter().any(|name| folder.join(name).exists())
}

/// Returns the saved progress of the run in `folder`, if it can be read.
pub fn saved_progress(folder: &Path) -> Option<Progress> {
    Saved::find(folder).ok()?.progress
}

/// The folder of a run: recipe, metrics, log, models, checkpoint.
pub(crate) struct RunDir {
    folder: PathBuf,
    pub(crate) progress: Progress,
    /// True if there is a state to continue from.
    pub(crate) begun: bool,
    state: State,
    /// True if the newest checkpoint is intact, so that it is kept as the previous one.
    good: bool,
    /// True if the best model cannot be read, so that the next epoch's model replaces it.
    best_is_lost: bool,
    /// Differences between a resumed run and its checkpoint, as lines to print.
    changes: Vec<String>,
    /// True if the resumed run restarts its epoch, because the data changed.
    again: bool,
    /// True if this process writes files and prints.
    leads: bool,
    /// Number of processes before the run was resumed.
    before: usize,
    /// Unreadable images that have been reported.
    skipped: HashSet<String>,
    /// Lock on the folder, unless the caller holds it.
    lock: Option<RunLock>,
}

impl RunDir {
    /// Locks the folder, unless the caller did, and checks that a run can start or continue in it.
    pub(crate) fn open(run: &Run, train_images: usize) -> Result<Self, TrainError> {
        let folder = run.out.to_path_buf();
        let shown = folder.display().to_string();
        let progress = Progress {
            recipe: run.recipe.to_toml(),
            settings: run.settings.unwrap_or_default().to_vec(),
            data: Vec::new(),
            classes: run.data.classes.clone(),
            train_images,
            processes: run.group.size(),
            epoch: 0,
            updates: 0,
            position: Position::default(),
            partial: PartialEpoch::default(),
            best: None,
            rows: Vec::new(),
        };
        let mut this = Self {
            folder,
            progress,
            begun: false,
            state: State::Nothing,
            good: true,
            best_is_lost: false,
            changes: Vec::new(),
            again: false,
            leads: run.group.is_leader(),
            before: 0,
            skipped: HashSet::new(),
            lock: None,
        };
        if !this.leads {
            return Ok(this);
        }
        if run.lock.is_none() {
            this.lock = Some(RunLock::acquire(run.out)?);
        }
        remove_left_overs(&this.folder);
        remove_left_overs(&this.path(EPOCHS));
        if run.resume {
            this.resume(run)?;
        } else if holds_run(&this.folder) {
            return Err(TrainError::OutExists { path: shown, resumable: is_resumable(&this.folder) });
        }
        if !this.begun {
            this.progress.data = Fingerprint::of(run.data).to_bytes();
        }
        this.write(RECIPE, this.progress.recipe.as_bytes())?;
        Ok(this)
    }

    /// Finds the state to continue from. A run that was killed before its first checkpoint starts
    /// again.
    fn resume(&mut self, run: &Run) -> Result<(), TrainError> {
        let shown = self.folder.display().to_string();
        let Saved { state, progress, lost } = Saved::find(&self.folder)?;
        let lost = lost.join(", ");
        let Some(mut old) = progress else {
            return match [BEST, LAST, METRICS].iter().any(|name| self.path(name).exists()) {
                true => Err(CheckpointError::Lost { path: shown, lost }.into()),
                false if is_resumable(&self.folder) => {
                    self.changes.push(format!("warning: {lost}"));
                    self.good = false;
                    Ok(())
                }
                false if self.path(RECIPE).is_file() => Ok(()),
                false => Err(TrainError::NothingToResume { path: shown }),
            };
        };
        self.good = lost.is_empty();
        match &state {
            State::Checkpoint(_) if lost.is_empty() => {}
            State::LastModel(..) => {
                let steps = self.progress.train_images / run.recipe.batch_size;
                old.updates = old.epoch * steps.div_ceil(run.recipe.accumulate);
                (old.train_images, old.processes) = (self.progress.train_images, run.group.size());
                self.changes.push(format!(
                    "warning: {lost}: the run continues from {LAST} without the optimizer's state, after epoch {}",
                    old.epoch
                ));
            }
            _ => self.changes.push(format!(
                "warning: {lost}: the run continues from {PREVIOUS}, and trains again what came after it"
            )),
        }
        self.compare(&old, run)?;
        self.restore_best(&old);
        (self.begun, self.state, self.before) = (true, state, old.processes);
        if let State::LastModel(..) = self.state {
            let Progress { recipe, settings, data, .. } = std::mem::replace(&mut self.progress, old);
            (self.progress.recipe, self.progress.settings, self.progress.data) = (recipe, settings, data);
        }
        Ok(())
    }

    /// Restores an unreadable best model from another file of the run.
    fn restore_best(&mut self, old: &Progress) {
        let path = self.path(BEST);
        let Err(error) = read_card(&path) else { return };
        if old.rows.is_empty() {
            return;
        }
        let same =
            |a: Results, b: Results| a.epoch == b.epoch && (a.top1 - b.top1).abs() + (a.loss - b.loss).abs() < 1e-6;
        if let Some(best) = old.best {
            let copy = self.path(EPOCHS).join(epoch_file(best.epoch));
            for from in [self.path(LAST), self.path(LAST_EMA), copy] {
                let found = read_card(&from).is_ok_and(|card| card.results.is_some_and(|results| same(results, best)));
                if found && std::fs::read(&from).and_then(|bytes| write_atomically(&path, &bytes)).is_ok() {
                    self.changes.push(format!("warning: {error}; it is restored from {}", from.display()));
                    return;
                }
            }
        }
        self.best_is_lost = true;
        self.changes.push(format!("warning: {error}; the best of the epochs to come takes its place"));
    }

    /// Compares the run with the state in its checkpoint.
    fn compare(&mut self, old: &Progress, run: &Run) -> Result<(), CheckpointError> {
        let path = self.folder.display().to_string();
        let new = &mut self.progress;
        let message = refused(old, new, run.settings.is_some());
        if let Some(message) = message {
            return Err(CheckpointError::Changed { path, message });
        }
        if run.recipe.epochs < old.epoch {
            return Err(CheckpointError::FewerEpochs { path, done: old.epoch, epochs: run.recipe.epochs });
        }
        let fingerprint = Fingerprint::of(run.data);
        new.data = fingerprint.to_bytes();
        // Checkpoints of earlier versions have no fingerprint, only the number of images.
        let Differences { listing: mut changed, contents } = match Fingerprint::from_bytes(&old.data) {
            Some(before) => fingerprint.since(&before),
            None => Differences::default(),
        };
        if changed.is_empty() && old.train_images != new.train_images {
            changed.push(format!("{} training images then, {} now", old.train_images, new.train_images));
        }
        let may_change = run.recipe.data.may_change;
        if !changed.is_empty() && !may_change {
            return Err(CheckpointError::DataChanged { path, changes: changed.join("; ") });
        }
        self.again = !changed.is_empty();
        let recipe = changes(&old.recipe, &new.recipe);
        self.changes.extend(recipe.iter().map(|change| format!("changed since it was begun: {change}")));
        let data = changed.into_iter().map(|what| format!("note: the data changed since the checkpoint: {what}"));
        self.changes.extend(data);
        let contents = contents.into_iter().map(|what| format!("warning: files of the data changed since: {what}"));
        self.changes.extend(contents);
        Ok(())
    }

    /// Returns whether the run differs from its checkpoint.
    pub(crate) fn changed(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        if !self.leads {
            return Ok(());
        }
        let path = self.path(name);
        write_atomically(&path, bytes).map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    /// Adds a line to the log.
    pub(crate) fn log(&self, line: &str) -> Result<(), TrainError> {
        if !self.leads {
            return Ok(());
        }
        let path = self.path(LOG);
        let line = visible_name(line);
        let append = || writeln!(OpenOptions::new().create(true).append(true).open(&path)?, "{line}");
        append().map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    /// Sends a line to the observer and adds it to the log.
    pub(crate) fn say(&self, line: &str, observer: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        let line = visible_name(line);
        observer(Event::Line(&line));
        self.log(&line)
    }

    /// Returns the first lines of the log: data, network, and differences from the checkpoint.
    pub(crate) fn introduction(&self, run: &Run, options: &NetworkOptions, train_images: usize) -> Vec<String> {
        let Run { recipe, data, .. } = run;
        let parameters = options.architecture().map(|a| summary::trainable_parameters(&a)).unwrap_or(0);
        let val_images = data.val.as_ref().map_or(0, |source| source.len());
        let mut lines = vec![
            format!(
                "{}: {} classes, {train_images} training and {val_images} validation images",
                data.form,
                data.classes.len()
            ),
            format!("{}: {parameters} parameters, input {} px", options.name, recipe.input.size),
        ];
        lines.extend(data.train.as_ref().map(|source| balance(&**source, &data.classes, recipe)));
        lines.extend(run.lock.or(self.lock.as_ref()).and_then(RunLock::warning).map(String::from));
        lines.extend(data.notes.iter().map(|note| format!("note: {note}")));
        if run.resume {
            let Progress { epoch, position, .. } = self.progress;
            lines.push(match self.begun {
                true => format!("resumed after {epoch} epochs and {} steps", position.batches),
                false => "there is no checkpoint to resume from: begun anew".into(),
            });
            lines.extend(self.changes.iter().cloned());
            if self.again {
                lines.push(format!("epoch {} begins again, with the data as they are now", epoch + 1));
            }
        }
        let (now, batch_size) = (run.group.size(), recipe.batch_size);
        if now > 1 {
            let norms = if recipe.sync_batch_norm { "all images of a batch" } else { "each process's images" };
            let each = batch_size.div_ceil(now);
            lines.push(format!("{now} processes, {each} of {batch_size} images each; batch-norm over {norms}"));
        }
        if self.begun && self.before != now {
            let norms = if recipe.sync_batch_norm { "" } else { ", which changes batch-norm's statistics" };
            lines.push(format!("note: the run had {} processes before and has {now} now{norms}", self.before));
        }
        lines
    }

    /// Returns the state with which all processes start: that of the checkpoint if the run
    /// continues, otherwise `learner`.
    pub(crate) fn beginning(&mut self, learner: Learner, group: &Group) -> Result<Learner, TrainError> {
        let path = self.path(CHECKPOINT);
        let state = std::mem::replace(&mut self.state, State::Nothing);
        let last = self.path(LAST).display().to_string();
        let learner =
            state.last_model_into(learner).map_err(|source| ModelError::Weights { path: last, source }.into());
        let learner = group.all_ok::<_, TrainError>(learner)?;
        let bytes = match state {
            State::Checkpoint(bytes) => Ok(bytes),
            _ if self.leads && (self.begun || group.size() > 1) => {
                checkpoint::to_bytes(&path, &learner, &self.progress)
            }
            _ => Ok(Vec::new()),
        };
        let bytes = group.broadcast(group.all_ok(bytes.map_err(TrainError::from))?);
        if bytes.is_empty() {
            return Ok(learner);
        }
        let (learner, progress) = checkpoint::from_bytes(&path, &bytes, learner)?;
        self.before = progress.processes;
        let Progress { recipe, settings, data, classes, train_images, processes, .. } = self.progress.clone();
        self.progress = Progress { recipe, settings, data, classes, train_images, processes, ..progress };
        // Only the first process has compared the data.
        if group.any(self.again) {
            (self.progress.position, self.progress.partial) = Default::default();
        }
        if !self.progress.rows.is_empty() {
            // The file may be damaged, or contain rows of epochs that are trained again.
            self.write(METRICS, self.metrics().as_bytes())?;
        }
        Ok(learner)
    }

    /// Writes the checkpoint.
    pub(crate) fn save_checkpoint(&mut self, learner: &Learner) -> Result<(), TrainError> {
        if self.leads {
            checkpoint::save(&self.folder, learner, &self.progress, self.good)?;
            self.good = true;
        }
        Ok(())
    }

    /// Saves the models of the epoch, the metrics and finally the checkpoint. A run killed before
    /// the checkpoint is written repeats the epoch and writes the same files.
    pub(crate) fn complete_epoch(
        &mut self,
        row: EpochRow,
        learner: &Learner,
        card: &ModelCard,
        keep: &CheckpointConfig,
    ) -> Result<(), TrainError> {
        let Learner { network, average, .. } = learner;
        let leads = self.leads;
        let save = |averaged: bool, path: PathBuf| -> Result<(), TrainError> {
            if !leads {
                return Ok(());
            }
            let results = if averaged { row.ema } else { row.val };
            let network = average.as_ref().filter(|_| averaged).unwrap_or(network);
            Ok(Model::save(network, &ModelCard { results, averaged, ..card.clone() }, Precision::F32, &path)?)
        };
        let metric = keep.metric;
        let (results, averaged) = row.better(metric);
        // Rows of a run that continues from its last model may be missing.
        let better = self.progress.best.is_none_or(|best| row.score(metric) > metric.score(&best));
        let first = || self.progress.rows.iter().all(|old| row.score(metric) > old.score(metric));
        if self.best_is_lost || (better && first()) {
            self.progress.best = results;
            self.best_is_lost = false;
            save(averaged, self.path(BEST))?;
        }
        save(false, self.path(LAST))?;
        if average.is_some() {
            save(true, self.path(LAST_EMA))?;
        }
        let epoch = row.epoch;
        self.progress.rows.push(row.clone());
        let kept = kept_epochs(&self.progress.rows, keep);
        if kept.contains(&epoch) && leads {
            let folder = self.path(EPOCHS);
            let shown = folder.display().to_string();
            std::fs::create_dir_all(&folder).map_err(|source| TrainError::Write { path: shown, source })?;
            save(averaged, folder.join(epoch_file(epoch)))?;
        }
        // A checkpoint within the epoch may have set these.
        (self.progress.position, self.progress.partial) = Default::default();
        self.progress.epoch = epoch;
        self.write(METRICS, self.metrics().as_bytes())?;
        self.save_checkpoint(learner)?;
        for old in (1..epoch).filter(|old| leads && !kept.contains(old)) {
            // The file may not exist.
            let _ = std::fs::remove_file(self.path(EPOCHS).join(epoch_file(old)));
        }
        Ok(())
    }

    /// Returns the number of epochs since the best one, not counting the first `head_epochs`, in
    /// which only the classifier is trained.
    pub(crate) fn epochs_without_progress(&self, head_epochs: usize, metric: Metric) -> usize {
        without_progress(&self.progress.rows, head_epochs, metric)
    }

    fn metrics(&self) -> String {
        metrics_csv(&self.progress.rows)
    }

    /// Reports each unreadable image of a split once, and their number.
    pub(crate) fn report_skipped(
        &mut self,
        loader: Option<&Loader>,
        split: &str,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(), TrainError> {
        const NAMED: usize = 20;
        let Some(loader) = loader else { return Ok(()) };
        let before = self.skipped.len();
        let skipped = loader.skipped();
        let count = skipped.len();
        for (name, why) in skipped {
            if self.skipped.contains(&name) {
                continue;
            }
            let line = format!("skipped {name}: {why}");
            self.skipped.insert(name);
            if self.skipped.len() <= NAMED { self.say(&line, observer)? } else { self.log(&line)? }
        }
        if self.skipped.len() > before {
            let (total, log) = (loader.len(), self.path(LOG));
            let line = format!("warning: {count} of {total} {split} images so far cannot be read and are left out");
            self.log(&line)?;
            observer(Event::Line(&format!("{line}; all are named in {}", log.display())));
        }
        Ok(())
    }
}

/// Name of a metric of the classes, and its value in the results.
type ClassMetric = (&'static str, fn(&Results) -> Option<f64>);

/// Metrics of the classes, whose columns are present if an epoch has them.
const CLASS_METRICS: [ClassMetric; 3] = [
    ("macro_f1", |results| results.macro_f1),
    ("balanced_accuracy", |results| results.balanced_accuracy),
    ("map", |results| results.map),
];

/// Returns the contents of `metrics.csv`.
fn metrics_csv(rows: &[EpochRow]) -> String {
    let measured = |value: &fn(&Results) -> Option<f64>| {
        rows.iter().any(|row| [row.val, row.ema].iter().flatten().any(|results| value(results).is_some()))
    };
    let further: Vec<_> = CLASS_METRICS.into_iter().filter(|(_, value)| measured(value)).collect();
    let mut csv = String::from(
        "epoch,learning_rate,train_loss,train_top1,train_top5,val_loss,val_top1,val_top5,images_per_second,seconds,\
         ema_loss,ema_top1,ema_top5",
    );
    csv.extend(further.iter().map(|(name, _)| format!(",val_{name},ema_{name}")));
    csv.push('\n');
    for row in rows {
        let EpochRow { epoch, learning_rate, train_loss, train_top1, train_top5, .. } = row;
        let [val, ema] = [row.val, row.ema].map(|results| {
            results.map_or(",,".into(), |Results { loss, top1, top5, .. }| format!("{loss:.6},{top1:.6},{top5:.6}"))
        });
        let (speed, seconds) = (row.images_per_second, row.seconds);
        csv += &format!(
            "{epoch},{learning_rate:.8},{train_loss:.6},{train_top1:.6},{train_top5:.6},{val},{speed:.1},{seconds:.2},{ema}"
        );
        for (_, value) in &further {
            let cells = [row.val, row.ema].map(|results| results.as_ref().and_then(value));
            csv.extend(cells.map(|cell| cell.map_or(",".into(), |value| format!(",{value:.6}"))));
        }
        csv.push('\n');
    }
    csv
}

fn without_progress(rows: &[EpochRow], head_epochs: usize, metric: Metric) -> usize {
    let mut best: Option<&EpochRow> = None;
    for row in rows {
        if best.is_none_or(|best| row.score(metric) > best.score(metric)) {
            best = Some(row);
        }
    }
    best.map_or(0, |best| rows.len().saturating_sub(best.epoch.max(head_epochs)))
}

/// Returns the file name of an epoch's model. Names sort in the order of epochs.
fn epoch_file(epoch: usize) -> String {
    format!("epoch-{epoch:04}.safetensors")
}

/// Returns the epochs whose models are kept: the last and the best.
fn kept_epochs(rows: &[EpochRow], keep: &CheckpointConfig) -> HashSet<usize> {
    let mut by_score: Vec<&EpochRow> = rows.iter().collect();
    by_score.sort_by(|a, b| b.score(keep.metric).partial_cmp(&a.score(keep.metric)).unwrap_or(Ordering::Equal));
    let best = by_score.into_iter().take(keep.keep_best);
    rows.iter().rev().take(keep.keep_last).chain(best).map(|row| row.epoch).collect()
}

/// Describes the distribution of a split's images over the classes.
fn balance(source: &dyn Source, classes: &[String], recipe: &RecipeFile) -> String {
    /// Ratio of the largest to the smallest class from which a note is printed.
    const UNEVEN: usize = 3;
    let counts = class_counts(source, classes.len());
    let by_count = |class: &usize| counts[*class];
    let extremes = (0..classes.len()).min_by_key(by_count).zip((0..classes.len()).max_by_key(by_count));
    let Some((few, many)) = extremes else { return "no classes".into() };
    let named = |class: usize| format!("{} ({})", counts[class], classes[class]);
    match (counts[few], counts[many]) {
        (few, many) if few == many => format!("{many} training images a class"),
        (least, most) if most < UNEVEN * least => {
            format!("{} to {} training images a class", named(few), named(many))
        }
        (least, most) => format!(
            "note: the classes are uneven: {} to {} training images a class{}{}",
            named(few),
            named(many),
            most.checked_div(least).map_or_else(String::new, |times| format!(", {times} times as many")),
            match source.label_sets() {
                Some(_) => "",
                None if recipe.sampling == Sampling::Balanced => "",
                None if recipe.loss.class_weights != ClassWeights::default() => "",
                None => "; --set sampling=balanced or --set loss.class_weights=balanced makes rare classes count more",
            }
        ),
    }
}

/// Returns the reason why a run cannot continue as `new`. Some keys of the recipe may change if
/// `may_differ`.
fn refused(old: &Progress, new: &Progress, may_differ: bool) -> Option<String> {
    if old.classes != new.classes {
        let only = |one: &[String], other: &[String]| {
            let names: Vec<&str> = one.iter().filter(|name| !other.contains(name)).map(String::as_str).collect();
            if names.is_empty() { String::new() } else { format!(": {}", enumerate(&names)) }
        };
        return Some(format!(
            "it was begun with other classes ({} then{}, {} now{})",
            old.classes.len(),
            only(&old.classes, &new.classes),
            new.classes.len(),
            only(&new.classes, &old.classes)
        ));
    }
    // Keys that do not affect the results.
    const FREE: [&str; 6] = ["data.path", "data.workers", "data.prefetch", "data.cache", "on_nan", "record_steps"];
    let free = |change: &Change| FREE.contains(&&*change.key) || change.key.starts_with("checkpoint.");
    let allowed = |change: &Change| free(change) || (may_differ && change.is_allowed());
    let change = changes(&old.recipe, &new.recipe).into_iter().find(|change| !allowed(change))?;
    let [old, new] = change.values.map(|value| value.unwrap_or("not set".into()));
    Some(format!("it was begun with `{}` = {old}, and the recipe has {new}", change.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{self, Scores};

    fn row(epoch: usize, top1: f64) -> EpochRow {
        let results = |top1| metrics::results(epoch, Scores { top1, top5: 1.0, loss: 1.0 }, 10);
        EpochRow {
            epoch,
            learning_rate: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            train_top5: 0.5,
            val: Some(results(top1)),
            ema: Some(results(0.35)),
            images_per_second: 1.0,
            seconds: 1.0,
        }
    }

    #[test]
    fn early_stopping_ignores_epochs_that_train_only_the_classifier() {
        let rows = |scores: &[f64]| -> Vec<EpochRow> {
            scores.iter().enumerate().map(|(index, top1)| row(index + 1, *top1)).collect()
        };
        assert_eq!(without_progress(&rows(&[0.9, 0.5]), 0, Metric::Top1), 1);
        assert_eq!(without_progress(&rows(&[0.9, 0.5]), 2, Metric::Top1), 0);
        assert_eq!(without_progress(&rows(&[0.9, 0.5, 0.6, 0.7]), 2, Metric::Top1), 2);
        assert_eq!(without_progress(&rows(&[0.5, 0.5, 0.6, 0.5]), 2, Metric::Top1), 1);
        assert_eq!(without_progress(&[], 2, Metric::Top1), 0);
    }

    #[test]
    fn last_and_best_epochs_are_kept() {
        let rows: Vec<EpochRow> =
            [0.1, 0.6, 0.5, 0.4, 0.2].into_iter().enumerate().map(|(index, top1)| row(index + 1, top1)).collect();
        let kept = |keep_last, keep_best| {
            let mut kept: Vec<_> = kept_epochs(&rows, &CheckpointConfig { keep_last, keep_best, ..Default::default() })
                .into_iter()
                .collect();
            kept.sort_unstable();
            kept
        };
        assert!(kept(0, 0).is_empty());
        assert_eq!(kept(2, 0), [4, 5]);
        assert_eq!(kept(1, 2), [2, 3, 5]);
        assert_eq!(kept(99, 99), [1, 2, 3, 4, 5]);
        // The average counts if it is better than the network.
        assert!(rows[4].better(Metric::Top1).1 && !rows[1].better(Metric::Top1).1);
    }

    #[test]
    fn columns_of_class_metrics_are_appended_if_measured() {
        let mut rows = vec![row(1, 0.5), row(2, 0.4)];
        let plain = metrics_csv(&rows);
        assert!(plain.starts_with("epoch,learning_rate,") && plain.lines().next().unwrap().ends_with(",ema_top5"));
        rows[1].val.as_mut().unwrap().macro_f1 = Some(0.25);
        let csv = metrics_csv(&rows);
        let lines: Vec<&str> = csv.lines().collect();
        for ((line, before), end) in
            lines.iter().zip(plain.lines()).zip([",val_macro_f1,ema_macro_f1", ",,", ",0.250000,"])
        {
            assert_eq!(**line, format!("{before}{end}"));
        }
        // Epochs without the metric are worse than all others.
        assert_eq!(without_progress(&rows, 0, Metric::MacroF1), 0);
        assert_eq!(without_progress(&rows, 0, Metric::Top1), 1);
    }
}
