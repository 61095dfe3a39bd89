//! A study: its settings, its trials and their results, saved as one file.

use std::cmp::Ordering;
use std::path::Path;

use mbconv_files::write_atomically;
use mbconv_interop::model_file::Results;
use serde::{Deserialize, Serialize};

use super::error::TuneError;
use super::rungs::Rung;
use super::space::{Dimension, Space, Values, text};
use crate::config::RecipeFile;
use crate::config::checkpoint::{Metric, Score};
use crate::config::resume::changes;
use crate::run_dir::holds_run;

/// File name of the study in its folder.
pub const STUDY: &str = "study.json";

/// A study: its settings, and its trials with their results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// Settings of the command line: keys with a value, and keys with a distribution.
    pub settings: Vec<String>,
    /// The recipe without the values of the search space, as TOML.
    pub recipe: String,
    /// The settings that define the search space.
    pub space: Vec<String>,
    /// Seed of the values.
    pub seed: u64,
    /// Requested number of trials.
    pub planned: usize,
    /// Factor between the rungs of successive halving, or `None` for random search.
    pub eta: Option<usize>,
    /// The trials, in the order in which their values were drawn.
    pub trials: Vec<Trial>,
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Number, from 1.
    pub number: usize,
    /// Values of the searched keys.
    pub values: Values,
    /// Best validation results by the end of each rung that the trial completed.
    pub results: Vec<Results>,
    /// The reason, if the trial failed.
    pub failure: Option<String>,
}

/// State of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not yet trained to the end.
    Waiting,
    /// Trained for all epochs.
    Finished,
    /// Ended early by successive halving, because others were better.
    Stopped,
    /// Failed.
    Failed,
}

impl Trial {
    /// Returns the value of a key as text, strings without quotes.
    pub fn shown(&self, key: &str) -> String {
        self.values.get(key).map_or(String::new(), text)
    }

    /// Returns the best validation results so far.
    pub fn best(&self) -> Option<&Results> {
        self.results.last().filter(|_| self.failure.is_none())
    }

    /// Returns the quality of the trial after a rung, counted from 0.
    pub(super) fn score(&self, rung: usize, metric: Metric) -> Option<Score> {
        self.results.get(rung).filter(|_| self.failure.is_none()).map(|results| metric.score(results))
    }
}

impl Study {
    /// Creates a study of `recipe` with `planned` trials, of which there are fewer if the space has
    /// fewer values.
    pub fn new(
        settings: Vec<String>,
        recipe: &RecipeFile,
        space: &Space,
        seed: u64,
        planned: usize,
        eta: Option<usize>,
    ) -> Self {
        let setting = |dimension: &Dimension| dimension.to_string();
        let space_settings = space.dimensions.iter().map(setting).collect();
        let trial = |(index, values)| Trial { number: index + 1, values, results: Vec::new(), failure: None };
        let trials = space.draw(seed, planned).into_iter().enumerate().map(trial).collect();
        Self { settings, recipe: recipe.to_toml(), space: space_settings, seed, planned, eta, trials }
    }

    /// Returns the keys of the search space, in the order of their settings.
    pub fn keys(&self) -> Vec<String> {
        let space = Space::parse(&self.space).map_or(Vec::new(), |(space, _)| space.dimensions);
        space.into_iter().map(|dimension| dimension.key).collect()
    }

    /// Reads the study in `folder`.
    ///
    /// # Errors
    /// Returns an error if there is none, or the file is damaged.
    pub fn read(folder: &Path) -> Result<Self, TuneError> {
        let file = folder.join(STUDY);
        let damaged = |message: String| TuneError::Damaged { path: file.display().to_string(), message };
        let text = std::fs::read_to_string(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                TuneError::NothingToResume { path: folder.display().to_string() }
            }
            _ => damaged(error.to_string()),
        })?;
        let study: Self = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        let is_numbered = study.trials.iter().enumerate().all(|(index, trial)| trial.number == index + 1);
        if is_numbered { Ok(study) } else { Err(damaged("the numbers of the trials are not in order".into())) }
    }

    /// Returns an error if a new study cannot start in `folder`.
    ///
    /// # Errors
    /// The folder holds a study or a run.
    pub fn check_free(folder: &Path) -> Result<(), TuneError> {
        let path = folder.display().to_string();
        match (folder.join(STUDY).exists(), holds_run(folder)) {
            (true, _) => Err(TuneError::Exists { path, what: "study" }),
            (_, true) => Err(TuneError::Exists { path, what: "run" }),
            _ => Ok(()),
        }
    }

    /// Continues this study, read from `folder`, as `new`. Random search may have more trials than
    /// before.
    ///
    /// # Errors
    /// Other differences.
    pub fn continued_as(self, mut new: Self, folder: &Path) -> Result<Self, TuneError> {
        let message = match changes(&self.recipe, &new.recipe).first() {
            Some(change) => {
                let [old, new] = change.values.each_ref().map(|value| value.as_deref().unwrap_or("not set"));
                Some(format!("`{}` = {old}, and has {new} now", change.key))
            }
            None if self.space != new.space => {
                Some(format!("the search space {}, and has {} now", self.space.join(" "), new.space.join(" ")))
            }
            None if self.seed != new.seed => Some(format!("--seed {}, and has {} now", self.seed, new.seed)),
            None if self.eta != new.eta => {
                let name =
                    |eta: Option<usize>| eta.map_or("no --halving".into(), |eta| format!("--halving --eta {eta}"));
                Some(format!("{}, and has {} now", name(self.eta), name(new.eta)))
            }
            None if self.planned > new.planned || (self.planned != new.planned && self.eta.is_some()) => {
                Some(format!("--trials {}, and has {} now", self.planned, new.planned))
            }
            None => None,
        };
        if let Some(message) = message {
            return Err(TuneError::Changed { path: folder.display().to_string(), message });
        }
        for (trial, old) in new.trials.iter_mut().zip(self.trials) {
            (trial.results, trial.failure) = (old.results, old.failure);
        }
        Ok(new)
    }

    /// Writes the study to its folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), TuneError> {
        let path = folder.join(STUDY);
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_atomically(&path, text.as_bytes())
            .map_err(|source| TuneError::Write { path: path.display().to_string(), source })
    }

    /// Returns the trials in the order of their quality: those of the last rung first, failed ones
    /// last.
    pub fn ranked(&self, metric: Metric) -> Vec<&Trial> {
        let mut ranked: Vec<&Trial> = self.trials.iter().collect();
        ranked.sort_by(|a, b| better(a, b, metric));
        ranked
    }

    /// Returns the metric that ranks the trials.
    pub fn metric(&self) -> Metric {
        RecipeFile::parse(&self.recipe, STUDY, &[]).map_or(Metric::default(), |recipe| recipe.checkpoint.metric)
    }

    /// Returns the trials of each rung, as indices. A rung is missing until the rung before is
    /// complete.
    pub(super) fn members(&self, rungs: &[Rung], metric: Metric) -> Vec<Vec<usize>> {
        let mut all: Vec<Vec<usize>> = vec![(0..self.trials.len()).collect()];
        for (level, rung) in rungs.iter().enumerate().skip(1) {
            let before = &all[level - 1];
            let is_done =
                |index: &usize| self.trials[*index].failure.is_some() || self.trials[*index].results.len() >= level;
            if !before.iter().all(is_done) {
                break;
            }
            let score = |index: &usize| Some((*index, self.trials[*index].score(level - 1, metric)?));
            let mut scored: Vec<(usize, Score)> = before.iter().filter_map(score).collect();
            // The sort is stable, so the lower number comes first.
            scored.sort_by(|(_, a), (_, b)| b[0].total_cmp(&a[0]).then(b[1].total_cmp(&a[1])));
            let mut members: Vec<usize> = scored.into_iter().take(rung.trials).map(|(index, _)| index).collect();
            members.sort_unstable();
            all.push(members);
        }
        all
    }

    /// Returns the state of each trial, in the order of the trials.
    pub(super) fn statuses(&self, rungs: &[Rung], metric: Metric) -> Vec<Status> {
        let members = self.members(rungs, metric);
        let current = members.last().map_or(&[][..], Vec::as_slice);
        let status = |(index, trial): (usize, &Trial)| match trial.results.len() {
            _ if trial.failure.is_some() => Status::Failed,
            done if done == rungs.len() => Status::Finished,
            _ if current.contains(&index) => Status::Waiting,
            _ => Status::Stopped,
        };
        self.trials.iter().enumerate().map(status).collect()
    }
}

/// Compares two trials: more rungs first, then the better score, then the lower number.
fn better(a: &Trial, b: &Trial, metric: Metric) -> Ordering {
    let key = |trial: &Trial| {
        let rungs = if trial.failure.is_some() { 0 } else { trial.results.len() };
        let score = trial.best().map_or([f64::NEG_INFINITY; 2], |results| metric.score(results));
        (trial.failure.is_some(), rungs, score)
    };
    let ((a_failed, a_rungs, a_score), (b_failed, b_rungs, b_score)) = (key(a), key(b));
    a_failed
        .cmp(&b_failed)
        .then(b_rungs.cmp(&a_rungs))
        .then(b_score[0].total_cmp(&a_score[0]))
        .then(b_score[1].total_cmp(&a_score[1]))
        .then(a.number.cmp(&b.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Scores, results};
    use crate::trial::rounded;

    const RECIPE: &str = "epochs = 3\nbatch_size = 4\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                          [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";

    fn study(settings: &[&str], planned: usize, eta: Option<usize>) -> (Study, Space) {
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        let (space, fixed) = Space::parse(&settings).unwrap();
        let recipe = RecipeFile::parse(RECIPE, "text", &fixed).unwrap();
        (Study::new(settings, &recipe, &space, 0, planned, eta), space)
    }

    fn result(top1: f64, loss: f64) -> Results {
        results(1, Scores { top1, top5: 1.0, loss }, 10)
    }

    #[test]
    fn trials_are_ranked_by_rung_then_metric_with_failures_last() {
        let (mut study, _) = study(&["seed=int(0,9)"], 5, None);
        let outcomes: [(&[Results], _); 5] = [
            (&[result(0.9, 0.5)], None),
            (&[result(0.5, 0.4), result(0.6, 0.4)], None),
            (&[result(0.95, 0.1)], Some("diverged")),
            (&[result(0.9, 0.2)], None),
            (&[], None),
        ];
        for (trial, (results, failure)) in study.trials.iter_mut().zip(outcomes) {
            (trial.results, trial.failure) = (results.to_vec(), failure.map(String::from));
        }
        let ranks = |metric| study.ranked(metric).iter().map(|trial| trial.number).collect::<Vec<_>>();
        assert_eq!(ranks(Metric::Top1), [2, 4, 1, 5, 3]);
        use Status::*;
        let rung = |trials, epochs| Rung { trials, epochs };
        let rungs = [rung(5, Some(1)), rung(2, None)];
        let statuses = |study: &Study| study.statuses(&rungs, Metric::Top1);
        // The second rung is not decided while a trial of the first waits.
        assert_eq!(statuses(&study), [Waiting, Finished, Failed, Waiting, Waiting]);
        study.trials[4].results.push(result(0.1, 1.0));
        assert_eq!(study.members(&rungs, Metric::Top1)[1], [0, 3]);
        assert_eq!(statuses(&study), [Waiting, Finished, Failed, Waiting, Stopped]);
        assert_eq!(study.members(&rungs, Metric::Loss)[1], [1, 3]);
    }

    #[test]
    fn results_are_read_exactly_as_written() {
        let (mut study, _) = study(&["seed=int(0,9)"], 1, None);
        for loss in [30.856547619874878, 2.4027049772359006, 1e-7 / 3.0, 1e9 / 7.0] {
            study.trials[0].results.push(rounded(result(1.0 / 3.0, loss)));
        }
        assert!((study.trials[0].results[0].loss - 30.856547619874878).abs() < 1e-9);
        let folder = tempfile::tempdir().unwrap();
        study.write(folder.path()).unwrap();
        assert_eq!(Study::read(folder.path()).unwrap(), study);
    }

    #[test]
    fn study_continues_only_with_its_settings() {
        let folder = tempfile::tempdir().unwrap();
        let (old, _) = study(&["seed=int(0,99)"], 4, None);
        old.write(folder.path()).unwrap();
        let read = || Study::read(folder.path()).unwrap();
        assert_eq!(read(), old);
        assert!(matches!(Study::check_free(folder.path()), Err(TuneError::Exists { what: "study", .. })));
        let longer = study(&["seed=int(0,99)"], 6, None).0;
        let continued = read().continued_as(longer, folder.path()).unwrap();
        assert_eq!((continued.trials.len(), &continued.trials[..4]), (6, &old.trials[..]));
        for (settings, planned, eta, words) in [
            (&["seed=int(0,99)", "epochs=4"][..], 4, None, "`epochs` = 3, and has 4 now"),
            (&["seed=int(0,98)"], 4, None, "int(0,99)"),
            (&["seed=int(0,99)"], 3, None, "--trials 4, and has 3 now"),
            (&["seed=int(0,99)"], 4, Some(3), "no --halving"),
        ] {
            let error = read().continued_as(study(settings, planned, eta).0, folder.path()).unwrap_err();
            assert!(error.to_string().contains(words) && error.hint().is_some(), "{error}");
        }
        std::fs::write(folder.path().join(STUDY), "{").unwrap();
        assert!(matches!(Study::read(folder.path()), Err(TuneError::Damaged { .. })));
        assert!(matches!(Study::read(&folder.path().join("x")), Err(TuneError::NothingToResume { .. })));
    }
}
