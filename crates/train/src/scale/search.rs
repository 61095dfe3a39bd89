//! Search over scaled networks, trained with a proxy recipe and ranked.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use serde::Serialize;

use super::config::with_network;
use super::formula::{Coefficients, Scaled};
use crate::checkpoint::CheckpointError;
use crate::engine::error::TrainError;
use crate::engine::event::{Event, Outcome};
use mbconv_data::{DataError, DataSet, Dataset, LabelSets, Sample, Source};
use mbconv_files::write_atomically;
use mbconv_interop::model_file::Results;

use crate::config::{Recipe, RecipeFile};
use crate::report::{Chart, Label, Scale, Series, Unit};
use crate::trial::Trials;

/// JSON results in the search folder.
pub const JSON: &str = "search.json";
/// CSV results in the search folder.
pub const CSV: &str = "search.csv";
/// Chart of accuracy against multiply-accumulates.
pub const CHART: &str = "search.svg";
/// Folder of the runs.
pub const RUNS: &str = "runs";
/// Name of the grid's series in the chart.
pub const GRID: &str = "grid";

/// A network to train.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the candidate and its folder.
    pub name: String,
    /// Series of the chart.
    pub series: &'static str,
    /// Scaling coefficients.
    pub coefficients: Coefficients,
    /// Scaling exponent φ.
    pub phi: f64,
    /// The scaled network.
    pub scaled: Scaled,
}

/// A trained candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Name of the candidate.
    pub name: String,
    /// Series of the chart.
    pub series: &'static str,
    /// Scaling coefficients.
    #[serde(flatten)]
    pub coefficients: Coefficients,
    /// Scaling exponent φ.
    pub phi: f64,
    /// Image size.
    pub resolution: usize,
    /// Trainable parameters with the data's classes.
    pub parameters: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Best validation result of each run, one per seed.
    pub runs: Vec<Results>,
    /// Mean top-1 accuracy.
    pub top1: f64,
    /// Standard deviation of top-1 over seeds, if there are several.
    pub top1_deviation: Option<f64>,
    /// Top-1 accuracy in percentage points per million multiply-accumulates.
    pub accuracy_per_macs: f64,
}

/// Settings of a search.
pub struct Search<'a> {
    /// Recipe template; network and image sizes are replaced.
    pub template: &'a RecipeFile,
    /// Data with a validation split.
    pub data: &'a DataSet,
    /// Number of runs per network, with consecutive seeds from the template's.
    pub seeds: u64,
    /// Folder of the search.
    pub out: &'a Path,
    /// Device for training.
    pub device: &'a Device,
    /// If set, the search ends after the current step.
    pub stop: &'a AtomicBool,
}

/// The reason why a search ended early. Completed runs stay.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A run failed.
    #[error("{name}: {source}")]
    Train {
        /// Candidate.
        name: String,
        /// Cause.
        source: Box<TrainError>,
    },
    /// There are no validation images to rank by.
    #[error("the data has no validation images to rank networks by")]
    NoValidation,
    /// Results could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Path of the file.
        path: String,
        /// System error.
        source: io::Error,
    },
}

impl SearchError {
    /// Returns how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            // A search resumes its runs, but only with the template they started with.
            Self::Train { source, .. } if source.is_divergence() => Some(
                "give the template a lower optimizer.learning_rate or optimizer.clip_norm = 1, and another --out"
                    .into(),
            ),
            Self::Train { source, .. }
                if matches!(**source, TrainError::Checkpoint(CheckpointError::Changed { .. })) =>
            {
                Some("search with the template that it was begun with, or with another --out".into())
            }
            Self::Train { source, .. } => source.hint(),
            Self::NoValidation => Some("give data with a validation split, or set data.val_fraction".into()),
            Self::Write { .. } => None,
        }
    }
}

/// Progress of a search.
pub enum Progress<'a> {
    /// A run starts or is already complete.
    Begin {
        /// Number of the run, from 1.
        run: usize,
        /// Total number of runs.
        runs: usize,
        /// Candidate.
        candidate: &'a Candidate,
        /// Seed.
        seed: u64,
    },
    /// Progress of the current run's training.
    Training(Event<'a>),
}

impl Search<'_> {
    /// Trains every candidate in its own folder, cheapest first, seed after seed, and writes the
    /// results after each run. Candidates that are identical after rounding share their runs.
    /// Interrupted runs resume and completed ones are not repeated. Returns `None` if it was
    /// interrupted.
    ///
    /// # Errors
    /// See [`SearchError`].
    /// See [`SearchError`].
    pub fn run(
        &self,
        mut candidates: Vec<Candidate>,
        observer: &mut dyn FnMut(Progress),
    ) -> Result<Option<Vec<Trial>>, SearchError> {
        if self.data.val.is_none() {
            return Err(SearchError::NoValidation);
        }
        candidates.sort_by_key(|candidate| candidate.scaled.summary.macs);
        let summary = |index: usize| &candidates[index].scaled.summary;
        let first_alike = |index: usize| (0..index).find(|&other| summary(other) == summary(index)).unwrap_or(index);
        let trained_as: Vec<usize> = (0..candidates.len()).map(first_alike).collect();
        let networks: Vec<usize> = (0..candidates.len()).filter(|&index| trained_as[index] == index).collect();
        let mut results: Vec<Vec<Results>> = vec![Vec::new(); candidates.len()];
        let mut trials = Vec::new();
        let mut run = 0;
        for seed in (0..self.seeds).map(|step| self.template.seed.wrapping_add(step)) {
            for &index in &networks {
                run += 1;
                let runs = networks.len() * self.seeds as usize;
                observer(Progress::Begin { run, runs, candidate: &candidates[index], seed });
                match self.train(&candidates[index], seed, observer)? {
                    None => return Ok(None),
                    Some(best) => results[index].push(best),
                }
                let begun = candidates.iter().zip(&trained_as).filter(|(_, network)| !results[**network].is_empty());
                let classes = self.data.classes.len();
                trials = begun.map(|(candidate, network)| trial(candidate, classes, &results[*network])).collect();
                rank(&mut trials);
                self.write(&trials)?;
            }
        }
        Ok(Some(trials))
    }

    /// Returns the best validation result of a candidate, or `None` if training was interrupted.
    fn train(
        &self,
        candidate: &Candidate,
        seed: u64,
        observer: &mut dyn FnMut(Progress),
    ) -> Result<Option<Results>, SearchError> {
        let fail = |source: TrainError| SearchError::Train { name: candidate.name.clone(), source: source.into() };
        let mut file = RecipeFile { seed, ..with_network(&candidate.scaled, self.template) };
        // All candidates use the template's regularization.
        file.model.dropout = self.template.model.dropout;
        file.model.drop_path = self.template.model.drop_path;
        let recipe = Recipe::try_from(file).map_err(|error| fail(error.into()))?;
        let folder = match seed == self.template.seed {
            true => candidate.name.clone(),
            false => format!("{}_seed{seed}", candidate.name),
        };
        let out = self.out.join(RUNS).join(folder);
        let trials = Trials { data: self.data, device: self.device, stop: self.stop };
        let outcome = trials.train(&recipe, &out, recipe.epochs, &mut |event| observer(Progress::Training(event)));
        match outcome.map_err(fail)? {
            Outcome::Interrupted => Ok(None),
            Outcome::Finished { best } => best.ok_or(SearchError::NoValidation).map(Some),
        }
    }

    fn write(&self, trials: &[Trial]) -> Result<(), SearchError> {
        let json = serde_json::to_string_pretty(trials).unwrap_or_default() + "\n";
        let files = [(JSON, Some(json)), (CSV, Some(csv(trials))), (CHART, chart(trials).to_svg_file())];
        for (name, text) in files {
            let path = self.out.join(name);
            let fail = |source| SearchError::Write { path: path.display().to_string(), source };
            text.map_or(Ok(()), |text| write_atomically(&path, text.as_bytes())).map_err(fail)?;
        }
        Ok(())
    }
}

fn trial(candidate: &Candidate, classes: usize, runs: &[Results]) -> Trial {
    let Candidate { name, series, coefficients, phi, scaled } = candidate.clone();
    let mut options = scaled.options;
    options.num_classes = classes;
    let architecture = options.architecture().ok();
    let parameters = architecture.as_ref().map_or(0, mbconv_nets::summary::trainable_parameters);
    let summary =
        architecture.and_then(|architecture| mbconv_nets::Summary::new(&architecture, [scaled.resolution; 2]).ok());
    let macs = summary.map_or(0, |summary| summary.macs);
    let count = runs.len() as f64;
    let top1 = runs.iter().map(|run| run.top1).sum::<f64>() / count;
    let squares: f64 = runs.iter().map(|run| (run.top1 - top1).powi(2)).sum();
    let top1_deviation = (runs.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
    let accuracy_per_macs = 100.0 * top1 / (macs.max(1) as f64 / 1e6);
    Trial {
        name,
        series,
        coefficients,
        phi,
        resolution: scaled.resolution,
        parameters,
        macs,
        runs: runs.to_vec(),
        top1,
        top1_deviation,
        accuracy_per_macs,
    }
}

/// Sorts by accuracy, then by cost.
fn rank(trials: &mut [Trial]) {
    trials.sort_by(|a, b| b.top1.total_cmp(&a.top1).then(a.macs.cmp(&b.macs)));
}

fn csv(trials: &[Trial]) -> String {
    let mut csv = "rank,name,series,alpha,beta,gamma,phi,resolution,parameters,macs,seeds,top1,top1_deviation,top5,loss,top1_per_mmacs\n".to_string();
    for (index, trial) in trials.iter().enumerate() {
        let Trial { name, series, coefficients: Coefficients { alpha, beta, gamma }, phi, resolution, .. } = trial;
        let Trial { parameters, macs, runs, top1, accuracy_per_macs, .. } = trial;
        let mean = |of: fn(&Results) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        let (top5, loss) = (mean(|run| run.top5), mean(|run| run.loss));
        let deviation = trial.top1_deviation.map_or(String::new(), |deviation| format!("{deviation:.6}"));
        let _ = writeln!(
            csv,
            "{},{name},{series},{alpha},{beta},{gamma},{phi},{resolution},{parameters},{macs},{},{top1:.6},{deviation},{top5:.6},{loss:.6},{accuracy_per_macs:.4}",
            index + 1,
            runs.len()
        );
    }
    csv
}

/// Returns the chart of accuracy against millions of multiply-accumulates: a curve per series,
/// points for a grid.
fn chart(trials: &[Trial]) -> Chart<'static> {
    let mut series: Vec<Series> = Vec::new();
    let mut by_cost: Vec<&Trial> = trials.iter().collect();
    by_cost.sort_by_key(|trial| trial.macs);
    for trial in &by_cost {
        let point = (trial.macs as f64 / 1e6, trial.top1);
        match series.iter_mut().find(|series| series.name == trial.series) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name: trial.series, points: vec![point] }),
        }
    }
    series.sort_by_key(|series| series.name);
    let scattered = series.iter().all(|series| series.name == GRID);
    let whisker = |trial: &&Trial| {
        let deviation = trial.top1_deviation?;
        Some((trial.macs as f64 / 1e6, trial.top1 - deviation, trial.top1 + deviation))
    };
    let label = |trial: &&Trial| {
        let Coefficients { alpha, beta, gamma } = trial.coefficients;
        Label { at: (trial.macs as f64 / 1e6, trial.top1), text: format!("{alpha}·{beta}·{gamma}"), below: false }
    };
    Chart {
        title: "Top-1 accuracy after the proxy recipe",
        x_label: "million multiply-accumulates",
        whole_x: false,
        x_scale: if scattered { Scale::Linear } else { Scale::Log },
        unit: Unit::Percent,
        scattered,
        whiskers: by_cost.iter().filter_map(whisker).collect(),
        labels: if scattered { by_cost.iter().map(label).collect() } else { Vec::new() },
        series,
        ..Chart::default()
    }
}

/// Keeps the first `share` of each class's training images, at least one per non-empty class. The
/// validation split stays complete, so that the ranking gets no noisier.
pub fn share_of(data: &DataSet, share: f64) -> DataSet {
    let part =
        |source: &Arc<dyn Source>| Arc::new(Part::new(source.clone(), data.classes.len(), share)) as Arc<dyn Source>;
    DataSet { train: data.train.as_ref().map(part), ..data.clone() }
}

/// A subset of a split.
struct Part {
    whole: Arc<dyn Source>,
    members: Vec<usize>,
}

impl Part {
    fn new(whole: Arc<dyn Source>, classes: usize, share: f64) -> Self {
        let classes = whole.label_sets().map_or(classes, |sets| sets.len());
        let mut counts = vec![0; classes];
        (0..whole.len()).for_each(|index| counts[whole.label(index)] += 1);
        let mut left: Vec<usize> = counts.iter().map(|&count| (count as f64 * share).ceil() as usize).collect();
        let members = (0..whole.len()).filter(|&index| {
            let left = &mut left[whole.label(index)];
            let taken = *left > 0;
            *left = left.saturating_sub(1);
            taken
        });
        let members = members.collect();
        Self { whole, members }
    }
}

impl Dataset<Sample, DataError> for Part {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.whole.get(self.members[index])
    }

    fn len(&self) -> usize {
        self.members.len()
    }
}

impl Source for Part {
    fn name(&self, index: usize) -> String {
        self.whole.name(self.members[index])
    }

    fn label(&self, index: usize) -> usize {
        self.whole.label(self.members[index])
    }

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.whole.label_sets()
    }
}

#[cfg(test)]
mod tests {
    use mbconv_nets::NetworkOptions;

    use super::*;
    use crate::scale::{Base, grid};
    use mbconv_data::{OpenOptions, open};

    const PROXY: &str = r#"
        epochs = 1
        batch_size = 64
        [model]
        name = "mobilenet_v2_0.1"
        strides = [1, 1, 2, 2, 1, 1, 1, 1]
        [input]
        size = 8
        crop = "pad"
        [optimizer]
        name = "sgd"
        learning_rate = 0.05
    "#;

    fn candidates(count: usize) -> Vec<Candidate> {
        let recipe = Recipe::parse(PROXY, &[]).unwrap();
        let base = Base::new(NetworkOptions { ..recipe.model.with_classes(10) }, Some(8), 2).unwrap();
        let points = grid(0.5, 0.3).unwrap();
        let named = |(index, &coefficients): (usize, &Coefficients)| Candidate {
            name: format!("c{index}"),
            series: GRID,
            coefficients,
            phi: 1.0,
            scaled: base.scaled(coefficients.at(1.0)).unwrap(),
        };
        points.iter().enumerate().take(count).map(named).collect()
    }

    #[test]
    fn searches_rank_and_resume() {
        let folder = tempfile::tempdir().unwrap();
        let template = RecipeFile::parse(PROXY, "proxy", &[]).unwrap();
        let data = share_of(&open("digits", &OpenOptions::default()).unwrap(), 0.1);
        let lengths = [&data.train, &data.val].map(|split| split.as_ref().unwrap().len());
        assert!(lengths[0] > 140 && lengths[0] < 160 && lengths[1] > 350, "{lengths:?}");
        let device = Device::flex();
        let search = |stop: &AtomicBool, candidates: Vec<Candidate>, seeds: u64| {
            let search = Search { template: &template, data: &data, seeds, out: folder.path(), device: &device, stop };
            let mut epochs = 0;
            let trials = search.run(candidates, &mut |progress| {
                epochs += usize::from(matches!(progress, Progress::Training(Event::Epoch(_))));
            });
            (trials.unwrap(), epochs)
        };
        let going = AtomicBool::new(false);
        assert!(search(&AtomicBool::new(true), candidates(2), 1).0.is_none(), "interrupted");
        let (first, epochs) = search(&going, candidates(2), 1);
        let first = first.unwrap();
        assert_eq!((first.len(), epochs), (2, 2));
        assert!(first[0].top1 >= first[1].top1 && first[0].top1_deviation.is_none());
        // Completed runs are not repeated and give the same results.
        let (again, epochs) = search(&going, candidates(2), 1);
        assert_eq!((again.unwrap(), epochs), (first.clone(), 0));
        // An identical network under another name is not trained again; further seeds are new runs.
        let twin = Candidate { name: "twin".into(), ..candidates(1).remove(0) };
        let (more, epochs) = search(&going, [candidates(2), vec![twin]].concat(), 2);
        let more = more.unwrap();
        assert_eq!((more.len(), epochs), (3, 2));
        let named = |name: &str| more.iter().find(|trial| trial.name == name).unwrap();
        let [one, twin] = ["c0", "twin"].map(named);
        assert_eq!((one.runs.len(), &one.runs), (2, &twin.runs));
        assert_eq!(one.runs[0], first.iter().find(|trial| trial.name == "c0").unwrap().runs[0]);
        assert_ne!(one.runs[0], one.runs[1], "another seed");
        let half = (one.runs[0].top1 - one.runs[1].top1).abs() / 2.0;
        assert!((one.top1_deviation.unwrap() - half * 2f64.sqrt()).abs() < 1e-12);
        for (name, words) in [(JSON, "accuracy_per_macs"), (CSV, "1,c"), (CHART, "<svg")] {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.contains(words) && !text.contains("NaN"), "{name}: {text}");
        }
    }
}
