//! `mbconv tune`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::auto_batch::with_batch_size;
use mbconv_train::config::{Metric, RecipeFile};
use mbconv_train::data;
use mbconv_train::run_dir::holds_run;
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::tune::{BEST, CHART, CSV, Progress as Step, STUDY, Space, Status, Study, Trial, TuneError, Tuner};
use mbconv_train::{Event, Group, Recipe};
use serde_json::{Value, json};

use super::train::{last_default_folder, lock, merged, new_default_folder, no_data, recipe_name};
use crate::args::Tune;
use crate::error::CliError;
use crate::model_ref::locate_in;
use crate::output::{print_json, print_text};
use crate::table::Table;
use crate::terminal::Progress;
use crate::units::percent;

/// Default number of trials.
const TRIALS: usize = 20;
/// Default factor of successive halving.
const ETA: usize = 3;

pub fn run(args: Tune, stop: &AtomicBool) -> Result<(), CliError> {
    if args.eta.is_some() && !args.halving && !args.resume {
        return Err(CliError::new("--eta needs --halving", "add --halving".to_string()));
    }
    let name = format!("tune-{}", recipe_name(&args.recipe));
    let resumed = args.resume.then(|| args.out.clone().unwrap_or_else(|| last_default_folder(&name, &is_taken)));
    let old = resumed.as_deref().map(Study::read).transpose()?;
    // Settings of earlier commands remain unless this command changes them.
    let settings = merged(old.as_ref().map_or(Vec::new(), |study| study.settings.clone()), args.settings());
    let (space, fixed) = Space::parse(&settings).map_err(TuneError::from)?;
    if space.dimensions.is_empty() {
        return Err(TuneError::NoSpace.into());
    }
    let mut file = RecipeFile::read(&args.recipe, &fixed)?;
    locate_in(&mut file, stop)?;
    Recipe::try_from(file.clone().or_batch(1))?;
    let eta = eta(&args, old.as_ref());
    space.check(&file.clone().or_batch(1), eta.is_some()).map_err(TuneError::from)?;
    let device = args.device.open()?;
    let data = data::open(file.data.path.as_deref().ok_or_else(no_data)?, &file.data.open_options(file.seed))?;
    let stored = old.as_ref().and_then(|study| RecipeFile::parse(&study.recipe, STUDY, &[]).ok());
    let group = Group::alone();
    let (recipe, line) = with_batch_size(file, stored.map(|recipe| recipe.batch_size), &data, &device, &group)?;
    let recipe = recipe.for_data(data.label_sets().is_some())?;

    let trials = args.trials.or(old.as_ref().map(|study| study.planned)).unwrap_or(TRIALS);
    let seed = args.seed.or(old.as_ref().map(|study| study.seed)).unwrap_or(0);
    let mut study = Study::new(settings, &recipe, &space, seed, trials, eta);
    let (out, _lock) = match resumed.or(args.out.clone()) {
        Some(out) => {
            let lock = lock(&out, &group)?;
            (out, lock)
        }
        None => new_default_folder(&name, &is_taken, &group, &mut |line| eprintln!("{line}"))?,
    };
    match old {
        Some(old) => study = old.continued_as(study, &out)?,
        None => Study::check_free(&out)?,
    }
    eprintln!("study {}", out.display());
    line.iter().for_each(|line| eprintln!("{line}"));
    if study.trials.len() < trials {
        eprintln!("note: the search space has only {} different trials", study.trials.len());
    }
    let mut tuner = Tuner { study, recipe: &recipe, data: &data, out: &out, device: &device, stop };
    search(&mut tuner, &args)?;
    if args.json.json { print_json(&document(&tuner)) } else { print_text(&table(&tuner)) }
}

/// Returns the factor of successive halving.
fn eta(args: &Tune, old: Option<&Study>) -> Option<usize> {
    let given = args.eta.map(|eta| eta as usize);
    match old {
        Some(old) if !args.halving => given.or(old.eta),
        Some(old) => given.or(old.eta).or(Some(ETA)),
        None => args.halving.then(|| given.unwrap_or(ETA)),
    }
}

/// Returns whether a folder holds a study or a run.
fn is_taken(folder: &Path) -> bool {
    folder.join(STUDY).exists() || holds_run(folder)
}

/// Runs the trials with a progress display.
fn search(tuner: &mut Tuner, args: &Tune) -> Result<(), CliError> {
    let mut progress = Progress::new();
    let complete = tuner.run(&mut |step| match step {
        Step::Begin { run, runs, trial, epochs } => {
            let until = epochs.map_or(String::new(), |epochs| format!(", to epoch {epochs}"));
            progress.line(&format!("[{run}/{runs}] trial {}{until}: {}", trial.number, values(trial)));
        }
        Step::Failed { trial } => {
            let failure = trial.failure.as_deref().unwrap_or_default();
            progress.line(&format!("trial {} failed: {failure}", trial.number));
        }
        Step::Training(Event::Line(_)) => {}
        Step::Training(event) => progress.show(&event),
    });
    progress.finish();
    if complete? {
        return Ok(());
    }
    let program = quoted(&std::env::args().next().unwrap_or_else(|| "mbconv".into()));
    let (recipe, out) = (quoted_path(&args.recipe), quoted_path(tuner.out));
    eprintln!("the study is saved in {}; continue with", tuner.out.display());
    eprintln!("  {program} tune {recipe} --out {out}{} --resume", args.device.repeated());
    Err(CliError::Interrupted)
}

fn values(trial: &Trial) -> String {
    let values: Vec<String> = trial.values.keys().map(|key| format!("{key} = {}", trial.shown(key))).collect();
    values.join(", ")
}

fn metric_text(metric: Metric, value: f64) -> String {
    if metric == Metric::Loss { format!("{value:.4}") } else { percent(value) }
}

/// Formats the trials by rank, the failures and the files.
fn table(tuner: &Tuner) -> String {
    let (metric, statuses) = (tuner.recipe.checkpoint.metric, tuner.statuses());
    let keys = tuner.study.keys();
    let own = ["rank", "trial", metric.name(), "epoch", "status"].map(String::from);
    let mut rows = vec![own.into_iter().chain(keys.iter().cloned()).collect::<Vec<_>>()];
    let mut failures = String::new();
    for (rank, trial) in tuner.study.ranked(metric).into_iter().enumerate() {
        let best = trial.best();
        let status = json!(statuses[trial.number - 1]);
        let mut row = vec![
            best.map_or("–".into(), |_| (rank + 1).to_string()),
            trial.number.to_string(),
            best.map_or("–".into(), |best| metric_text(metric, metric.value(best))),
            best.map_or("–".into(), |best| best.epoch.to_string()),
            status.as_str().unwrap_or_default().into(),
        ];
        row.extend(keys.iter().map(|key| trial.shown(key)));
        rows.push(row);
        if let Some(failure) = &trial.failure {
            failures += &format!("trial {} failed: {failure}\n", trial.number);
        }
    }
    if statuses.iter().all(|status| *status == Status::Finished) {
        rows.iter_mut().for_each(|row| drop(row.remove(4)));
    }
    let files = [("table", CSV), ("chart", CHART), ("recipe", BEST)];
    let files: Vec<String> =
        files.iter().map(|(name, file)| format!("{name:<8}{}\n", tuner.out.join(file).display())).collect();
    let gap = if failures.is_empty() { "" } else { "\n" };
    format!("{}{gap}{failures}\n{}", Table::new(rows, 1).in_parts(), files.concat())
}

/// Returns the results as JSON, the best trial first.
fn document(tuner: &Tuner) -> Value {
    let (metric, statuses) = (tuner.recipe.checkpoint.metric, tuner.statuses());
    let trial = |(rank, trial): (usize, &Trial)| {
        json!({
            "rank": trial.best().map(|_| rank + 1),
            "trial": trial.number,
            "status": statuses[trial.number - 1],
            metric.name(): trial.best().map(|best| metric.value(best)),
            "values": trial.values,
            "results": trial.results,
            "failure": trial.failure,
        })
    };
    json!({
        "out": tuner.out,
        "metric": metric.name(),
        "best": tuner.best().map(|trial| trial.number),
        "recipe": tuner.out.join(BEST),
        "trials": tuner.study.ranked(metric).into_iter().enumerate().map(trial).collect::<Vec<_>>(),
    })
}
