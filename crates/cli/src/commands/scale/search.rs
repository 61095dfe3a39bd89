//! `mbconv scale search`

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::Event;
use mbconv_train::data;
use mbconv_train::scale::search::{CHART, Candidate, GRID, Progress as Step, Search, Trial, share_of};
use mbconv_train::scale::{Coefficients, grid};
use serde_json::json;

use super::formula::show;
use super::plan::Plan;
use super::series;
use crate::args::SearchArgs;
use crate::error::CliError;
use crate::output::{create_folder, print_json, print_text};
use crate::table::{Table, wrapped};
use crate::terminal::Progress;
use crate::units::{count, percent, percent_or_dash, thousands};

pub fn run(args: SearchArgs, stop: &AtomicBool) -> Result<(), CliError> {
    let SearchArgs { network, grid, series, training, device } = args;
    let mut plan = Plan::new(network, training.run.as_deref())?;
    let candidates = |plan: &Plan| match series.phi.is_none() && series.only.is_empty() {
        true => grid_candidates(plan, grid.step, grid.tolerance),
        false => series::candidates(plan, &series),
    };
    let (Some(path), Some(_), Some(out)) = (&training.data, &training.run, plan.args.out.clone()) else {
        return show(&plan, &candidates(&plan)?);
    };
    let mut data = data::open(path, &plan.template.data.open_options(plan.template.seed))?;
    data.check_single_label("`scale search`")?;
    if training.share < 1.0 {
        data = share_of(&data, training.share);
    }
    // The costs are those of the networks that are trained.
    plan.base = plan.base.with_classes(data.classes.len());
    let candidates = candidates(&plan)?;
    let device = device.open()?;
    let search =
        Search { template: &plan.template, data: &data, seeds: training.seeds, out: &out, device: &device, stop };
    let trials = train(&search, candidates, &out)?;
    if plan.args.json.json { print_json(&json!(trials)) } else { print_text(&ranking(&trials)) }
}

/// Returns all networks of the grid at φ = 1.
fn grid_candidates(plan: &Plan, step: f64, tolerance: f64) -> Result<Vec<Candidate>, CliError> {
    let candidate = |point: Coefficients| {
        let Coefficients { alpha, beta, gamma } = point;
        series::candidate(plan, format!("a{alpha}_b{beta}_g{gamma}"), GRID, point, 1.0)
    };
    grid(step, tolerance)?.into_iter().map(candidate).collect()
}

/// Trains all networks with a progress display and returns them by rank.
fn train(search: &Search, candidates: Vec<Candidate>, out: &Path) -> Result<Vec<Trial>, CliError> {
    create_folder(out)?;
    let mut progress = Progress::new();
    let trials = search.run(candidates, &mut |step| match step {
        Step::Begin { run, runs, candidate, seed } => {
            let Candidate { name, scaled, .. } = candidate;
            progress.line(&format!("[{run}/{runs}] {name}: {} px, seed {seed}", scaled.resolution));
        }
        Step::Training(Event::Line(_)) => {}
        Step::Training(event) => progress.show(&event),
    });
    progress.finish();
    let Some(trials) = trials? else {
        eprintln!("finished runs are in {}; the same command continues", out.display());
        return Err(CliError::Interrupted);
    };
    eprintln!("{}", out.join(CHART).display());
    Ok(trials)
}

/// Formats the table of trials by rank.
fn ranking(trials: &[Trial]) -> String {
    let mut by_efficiency: Vec<&Trial> = trials.iter().collect();
    by_efficiency.sort_by(|a, b| b.accuracy_per_macs.total_cmp(&a.accuracy_per_macs));
    let headings =
        ["rank", "network", "top-1", "±", "MACs", "parameters", "image", "points per M MACs", "rank by points"];
    let mut rows = vec![headings.map(String::from)];
    for (index, trial) in trials.iter().enumerate() {
        let rank = by_efficiency.iter().position(|other| other.name == trial.name).map_or(0, |place| place + 1);
        rows.push([
            (index + 1).to_string(),
            trial.name.clone(),
            percent(trial.top1),
            percent_or_dash(trial.top1_deviation),
            thousands(trial.macs),
            count(trial.parameters),
            format!("{} px", trial.resolution),
            format!("{:.3}", trial.accuracy_per_macs),
            rank.to_string(),
        ]);
    }
    let table = Table::new(rows.into_iter().map(Vec::from).collect(), 2);
    let (mut text, hidden) = table.fitting(&[0, 1, 2, 3, 4, 7, 8, 5, 6]);
    if !hidden.is_empty() {
        let _ = writeln!(text, "\nnot shown at this width, but by --json: {}", hidden.join("; "));
    }
    let (seeds, images) = trials.first().map_or((0, 0), |trial| (trial.runs.len(), trial.runs[0].images));
    let half_width = |p: f64| 1.96 * (p * (1.0 - p) / images as f64).sqrt();
    let uncertainty = trials.first().map_or(0.0, |trial| half_width(trial.top1));
    let mean = match seeds {
        0 | 1 => String::new(),
        _ => format!(", mean of {seeds} seeds; ±: standard deviation between seeds"),
    };
    let note = format!(
        "best validation accuracy{mean}. Uncertainty from the number of validation images ({images}): ±{} (95 %)",
        percent(uncertainty)
    );
    let _ = writeln!(text, "\n{}", wrapped(&note, 0));
    text
}
