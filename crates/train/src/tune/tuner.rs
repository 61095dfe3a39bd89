//! Training of the trials of a study.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_data::DataSet;

use super::error::TuneError;
use super::results;
use super::rungs::{Rung, rungs};
use super::space::settings;
use super::study::{Status, Study, Trial};
use crate::config::{Recipe, RecipeFile};
use crate::engine::error::TrainError;
use crate::engine::event::{Event, Outcome};
use crate::trial::Trials;

/// Folder of the trials' runs.
pub const TRIALS: &str = "trials";

/// Trains the trials of a study.
pub struct Tuner<'a> {
    /// The study.
    pub study: Study,
    /// The recipe without the values of the search space.
    pub recipe: &'a RecipeFile,
    /// Data with a validation split.
    pub data: &'a DataSet,
    /// Folder of the study.
    pub out: &'a Path,
    /// Device for training.
    pub device: &'a Device,
    /// If set, the search ends after the current step.
    pub stop: &'a AtomicBool,
}

/// Progress of a search.
pub enum Progress<'a> {
    /// A trial starts or continues.
    Begin {
        /// Number of the run of this rung, from 1.
        run: usize,
        /// Number of runs of this rung.
        runs: usize,
        /// The trial.
        trial: &'a Trial,
        /// Number of the last epoch, or `None` for all of the recipe.
        epochs: Option<usize>,
    },
    /// Progress of the trial's training.
    Training(Event<'a>),
    /// The trial failed, and the search continues.
    Failed {
        /// The trial.
        trial: &'a Trial,
    },
}

impl Tuner<'_> {
    /// Trains the trials, each in a folder of its own, rung after rung, and writes the results
    /// after each. Interrupted trials continue and finished ones are not repeated. Returns whether
    /// the study is complete; if not, it was interrupted.
    ///
    /// # Errors
    /// See [`TuneError`].
    pub fn run(&mut self, observer: &mut dyn FnMut(Progress)) -> Result<bool, TuneError> {
        if self.data.val.is_none() {
            return Err(TuneError::NoValidation);
        }
        let metric = self.recipe.checkpoint.metric;
        let rungs = self.rungs()?;
        self.write()?;
        for (level, rung) in rungs.iter().enumerate() {
            let members = self.study.members(&rungs, metric).swap_remove(level);
            let runs = members.len();
            for (position, &index) in members.iter().enumerate() {
                let trial = &self.study.trials[index];
                if trial.failure.is_some() || trial.results.len() > level {
                    continue;
                }
                observer(Progress::Begin { run: position + 1, runs, trial, epochs: rung.epochs });
                if !self.train(index, *rung, observer)? {
                    return Ok(false);
                }
                self.write()?;
            }
        }
        match self.best() {
            Some(_) => Ok(true),
            None => Err(TuneError::AllFailed {
                trials: self.study.trials.len(),
                first: self.study.trials.iter().find_map(|trial| trial.failure.clone()).unwrap_or_default(),
            }),
        }
    }

    /// Returns the rungs of the study.
    ///
    /// # Errors
    /// Too few trials or epochs for successive halving.
    pub fn rungs(&self) -> Result<Vec<Rung>, TuneError> {
        rungs(self.study.trials.len(), self.recipe.epochs, self.study.eta)
    }

    /// Returns the best trial with a result.
    pub fn best(&self) -> Option<&Trial> {
        self.study.ranked(self.recipe.checkpoint.metric).into_iter().next().filter(|trial| trial.best().is_some())
    }

    /// Returns the state of each trial, in the order of the trials.
    pub fn statuses(&self) -> Vec<Status> {
        self.study.statuses(&self.rungs().unwrap_or_default(), self.recipe.checkpoint.metric)
    }

    /// Returns the recipe of a trial.
    ///
    /// # Errors
    /// Values that do not fit together.
    pub fn recipe_of(&self, trial: &Trial) -> Result<Recipe, TrainError> {
        Ok(self.recipe.with(&settings(&trial.values))?.try_into()?)
    }

    /// Trains a trial to the end of a rung and stores its result or failure. Returns whether it was
    /// not interrupted.
    fn train(&mut self, index: usize, rung: Rung, observer: &mut dyn FnMut(Progress)) -> Result<bool, TuneError> {
        let trial = &self.study.trials[index];
        let number = trial.number;
        let out = self.out.join(TRIALS).join(format!("{number:03}"));
        let trials = Trials { data: self.data, device: self.device, stop: self.stop };
        let outcome = self.recipe_of(trial).and_then(|recipe| {
            let until = rung.epochs.unwrap_or(recipe.epochs);
            trials.train(&recipe, &out, until, &mut |event| observer(Progress::Training(event)))
        });
        let metric = self.recipe.checkpoint.metric;
        let trial = &mut self.study.trials[index];
        match outcome {
            Ok(Outcome::Interrupted) => return Ok(false),
            Ok(Outcome::Finished { best: None }) => return Err(TuneError::NoValidation),
            Ok(Outcome::Finished { best: Some(best) }) if metric.score(&best).iter().all(|part| part.is_finite()) => {
                trial.results.push(best);
                return Ok(true);
            }
            Ok(Outcome::Finished { .. }) => trial.failure = Some("the validation metric is not finite".into()),
            Err(source) if source.is_due_to_settings() => trial.failure = Some(source.to_string()),
            Err(source) => return Err(TuneError::Train { number, source: source.into() }),
        }
        observer(Progress::Failed { trial: &self.study.trials[index] });
        Ok(true)
    }

    /// Writes the study and its results.
    fn write(&self) -> Result<(), TuneError> {
        std::fs::create_dir_all(self.out)
            .map_err(|source| TuneError::Write { path: self.out.display().to_string(), source })?;
        self.study.write(self.out)?;
        let best = self.best().and_then(|trial| Some((trial, self.recipe_of(trial).ok()?)));
        results::write(self.out, &self.study, self.recipe.checkpoint.metric, &self.statuses(), best)
    }
}
