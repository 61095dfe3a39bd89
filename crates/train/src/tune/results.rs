//! The files with the results of a study.

use std::path::Path;

use mbconv_files::write_atomically;
use mbconv_interop::model_file::Results;
use mbconv_report::{ParallelAxis, ParallelCoordinates, ParallelLine, ParallelScale, Unit};

use super::error::TuneError;
use super::space::{Dimension, Distribution, Space, text};
use super::study::{Status, Study, Trial};
use crate::config::Recipe;
use crate::config::checkpoint::Metric;

/// Table of the trials in the folder of a study.
pub const CSV: &str = "trials.csv";
/// Recipe of the best trial.
pub const BEST: &str = "best.toml";
/// Picture of the trials in parallel coordinates.
pub const CHART: &str = "tune.svg";

/// Writes the table, the picture, and the recipe of the `best` trial if there is one.
pub(super) fn write(
    out: &Path,
    study: &Study,
    metric: Metric,
    statuses: &[Status],
    best: Option<(&Trial, Recipe)>,
) -> Result<(), TuneError> {
    let recipe = best.map(|(trial, recipe)| best_toml(study, metric, trial, &recipe));
    let files = [(CSV, Some(csv(study, metric, statuses))), (CHART, chart(study, metric)), (BEST, recipe)];
    for (name, text) in files {
        let path = out.join(name);
        let fail = |source| TuneError::Write { path: path.display().to_string(), source };
        text.map_or(Ok(()), |text| write_atomically(&path, text.as_bytes())).map_err(fail)?;
    }
    Ok(())
}

/// Returns the keys of the search space in their order.
fn dimensions(study: &Study) -> Vec<Dimension> {
    Space::parse(&study.space).map_or(Vec::new(), |(space, _)| space.dimensions)
}

fn csv(study: &Study, metric: Metric, statuses: &[Status]) -> String {
    let keys = study.keys();
    let metrics: Vec<Metric> = std::iter::once(metric)
        .chain([Metric::Top1, Metric::Loss].into_iter().filter(|other| *other != metric))
        .collect();
    let headings = ["rank", "trial", "status", "epoch"].into_iter().chain(metrics.iter().map(|metric| metric.name()));
    let headings = headings.chain(keys.iter().map(String::as_str)).chain(["failure"]);
    let mut rows = vec![headings.map(String::from).collect::<Vec<_>>()];
    for (rank, trial) in study.ranked(metric).into_iter().enumerate() {
        let cell = |value: &dyn Fn(&Results) -> String| trial.best().map_or(String::new(), value);
        let status = serde_json::json!(statuses[trial.number - 1]);
        let mut row = vec![
            cell(&|_| (rank + 1).to_string()),
            trial.number.to_string(),
            status.as_str().unwrap_or_default().into(),
            cell(&|best| best.epoch.to_string()),
        ];
        row.extend(metrics.iter().map(|metric| cell(&|best| format!("{:.6}", metric.value(best)))));
        row.extend(keys.iter().map(|key| trial.shown(key)));
        row.push(trial.failure.clone().unwrap_or_default());
        rows.push(row);
    }
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in rows {
        // Writing to memory succeeds.
        let _ = table.write_record(row);
    }
    String::from_utf8(table.into_inner().unwrap_or_default()).unwrap_or_default()
}

fn best_toml(study: &Study, metric: Metric, trial: &Trial, recipe: &Recipe) -> String {
    let value = trial.best().map_or(String::new(), |best| format!("{:.6} in epoch {}", metric.value(best), best.epoch));
    let values: Vec<String> = trial.values.iter().map(|(key, value)| format!("#   {key} = {value}\n")).collect();
    format!(
        "# Trial {} of {} of `mbconv tune`: {} {value}, with\n{}\n{}",
        trial.number,
        study.trials.len(),
        metric.name(),
        values.concat(),
        recipe.to_toml()
    )
}

/// Returns the picture of the trials with a result: an axis for each key, then the metric.
fn chart(study: &Study, metric: Metric) -> Option<String> {
    let dimensions = dimensions(study);
    let axis = |dimension: &Dimension| {
        let scale = match &dimension.distribution {
            Distribution::Log(..) => ParallelScale::Log,
            Distribution::Uniform(..) => ParallelScale::Linear,
            Distribution::Int(..) => ParallelScale::Whole,
            Distribution::Choice(choices) => ParallelScale::Choices(choices.iter().map(text).collect()),
        };
        ParallelAxis { name: dimension.key.clone(), scale, unit: Unit::Plain }
    };
    let position = |dimension: &Dimension, value: &toml::Value| match &dimension.distribution {
        Distribution::Choice(choices) => choices.iter().position(|choice| choice == value).map(|index| index as f64),
        _ => value.as_float().or(value.as_integer().map(|number| number as f64)),
    };
    let line = |trial: &Trial| {
        let value = |dimension: &Dimension| position(dimension, trial.values.get(&dimension.key)?);
        let mut values: Vec<f64> = dimensions.iter().map(value).collect::<Option<_>>()?;
        let best = trial.best()?;
        values.push(metric.value(best));
        Some(ParallelLine { name: format!("trial {}, epoch {}", trial.number, best.epoch), values })
    };
    let unit = if metric == Metric::Loss { Unit::Plain } else { Unit::Percent };
    let last = ParallelAxis { name: metric.name().into(), scale: ParallelScale::Linear, unit };
    ParallelCoordinates {
        title: "Trials",
        axes: dimensions.iter().map(axis).chain([last]).collect(),
        lines: study.ranked(metric).into_iter().filter_map(line).collect(),
    }
    .to_svg_file()
}
