//! The folder of a run: recipe, metrics, log, models, checkpoint.

use std::collections::HashSet;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use burn::optim::ModuleOptimizer;
use mbconv_nets::weights::Precision;
use mbconv_nets::{ArchitectureOptions, Network, summary};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, CHECKPOINT, CheckpointError, PartialEpoch, Progress};
use crate::data::{Loader, Position};
use crate::engine::{Event, Run, TrainError};
use crate::files::write_atomically;
use crate::model_file::{BEST, LAST, Model, ModelCard, Results};

/// The resolved recipe in a run's folder.
pub const RECIPE: &str = "recipe.toml";
/// One row an epoch.
pub const METRICS: &str = "metrics.csv";
/// What was said, in lines.
pub const LOG: &str = "log.txt";

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

/// The folder of a run: recipe, metrics, log, models, checkpoint.
pub(crate) struct RunFolder {
    folder: PathBuf,
    pub(crate) progress: Progress,
    /// Unreadable images that were named already.
    skipped: HashSet<String>,
}

impl RunFolder {
    /// Makes the folder, or checks that the run in it can go on.
    pub(crate) fn open(run: &Run, train_images: usize) -> Result<Self, TrainError> {
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
        let path = self.path(name);
        write_atomically(&path, bytes).map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    /// Adds a line to the log.
    pub(crate) fn log(&self, line: &str) -> Result<(), TrainError> {
        let path = self.path(LOG);
        let append = || writeln!(OpenOptions::new().create(true).append(true).open(&path)?, "{line}");
        append().map_err(|source| TrainError::Write { path: path.display().to_string(), source })
    }

    pub(crate) fn say(&self, line: &str, observer: &mut dyn FnMut(Event)) -> Result<(), TrainError> {
        observer(Event::Line(line));
        self.log(line)
    }

    /// The first lines of the log: what is trained on what.
    pub(crate) fn introduction(&self, run: &Run, options: &ArchitectureOptions, train_images: usize) -> Vec<String> {
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
        lines.extend(data.notes.iter().map(|note| format!("note: {note}")));
        if run.resume {
            let Progress { epoch, position, .. } = self.progress;
            lines.push(format!("resumed after {epoch} epochs and {} steps", position.batches));
        }
        lines
    }

    pub(crate) fn save_checkpoint(&self, network: &Network, optimizer: &ModuleOptimizer) -> Result<(), TrainError> {
        Ok(checkpoint::save(&self.path(CHECKPOINT), network, optimizer, &self.progress)?)
    }

    /// Saves the epoch's model, the best one if it is, the metrics and the checkpoint.
    pub(crate) fn complete_epoch(
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
    pub(crate) fn report_skipped(
        &mut self,
        loader: &Loader,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(), TrainError> {
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
    let mut keys = old.keys().chain(new.keys());
    let differing = keys.find(|key| old.get(*key) != new.get(*key))?;
    Some(format!("it was begun with another `{differing}`"))
}
