//! `mbconv train`

#[cfg(feature = "tui")]
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::data::{self, DataSet, Form, Source};
use mbconv_train::engine::TrainError;
use mbconv_train::model_file::BEST;
use mbconv_train::observe::Observers;
use mbconv_train::recipe::RecipeFile;
use mbconv_train::report::{self, ReportWriter};
use mbconv_train::run_folder::{holds_run, saved_progress};
use mbconv_train::run_lock::{RunLock, RunLockError};
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::tensorboard::TensorBoard;
use mbconv_train::{Group, Outcome, Recipe, Run};

use super::accuracy;
use super::fetch::resolve_in;
use crate::args::Train;
#[cfg(feature = "tui")]
use crate::dashboard::Dashboard;
use crate::failure::Failure;
use crate::terminal::Progress;

pub fn run(args: Train, stop: &AtomicBool) -> Result<(), Failure> {
    let group = Group::join()?;
    train(args, stop, &group).map_err(|failure| failure.among(&group))
}

fn train(args: Train, stop: &AtomicBool, group: &Group) -> Result<(), Failure> {
    let resumed = args.resume.then(|| args.out.clone().unwrap_or_else(|| last_default_folder(&args.recipe)));
    // What earlier commands set holds unless this one sets it otherwise.
    let remembered = resumed.as_ref().map_or(Vec::new(), |out| remembered_settings(out, group));
    let settings = merged(remembered, args.settings());
    let watch = group.all_ok(Watch::new(args.tui, group))?;
    let device = group.all_ok(args.device.open_in(group).map_err(Failure::from))?;
    let prepare = || -> Result<_, Failure> {
        let mut file = RecipeFile::read(&args.recipe, &settings)?;
        resolve_in(&mut file, stop)?;
        let recipe = Recipe::try_from(file)?;
        let path = recipe.data.path.clone().ok_or_else(no_data)?;
        let data = data::open(&path, &recipe.data.open_options(recipe.seed))?;
        Ok((recipe, path, data))
    };
    let (recipe, path, data) = group.all_ok(prepare())?;

    let mut progress = Progress::new();
    let (out, lock) = match resumed.or(args.out) {
        Some(out) => {
            let lock = lock(&out, group)?;
            (out, lock)
        }
        None => new_default_folder(&args.recipe, group, &mut |line| watch.line(&progress, line))?,
    };
    watch.line(&progress, &format!("run folder {}", out.display()));
    let (resume, settings, lock) = (args.resume, Some(&settings[..]), lock.as_ref());
    let run = Run { recipe: &recipe, data: &data, out: &out, device: &device, group, resume, settings, lock, stop };
    let outcome = watch.train(run, &mut progress);
    let device = args.device.repeated();
    // The run remembers all that was set.
    let repeat = format!("train {} --out {}{device} --resume", quoted_path(&args.recipe), quoted_path(&out));
    finish(outcome?, group, &data, &path, &out, &repeat)
}

/// A recipe without a data set.
pub fn no_data() -> Failure {
    Failure::new("the recipe names no data set", "name one with --data PATH, or --data digits".to_string())
}

/// Returns what the commands that began and resumed the run in `out` set of its recipe.
fn remembered_settings(out: &Path, group: &Group) -> Vec<String> {
    let read = || saved_progress(out).map_or(Vec::new(), |progress| progress.settings);
    let json = if group.is_leader() { serde_json::json!(read()).to_string() } else { String::new() };
    serde_json::from_slice(&group.broadcast(json.into_bytes())).unwrap_or_default()
}

/// Returns both, without settings whose keys are set again.
fn merged(earlier: Vec<String>, later: Vec<String>) -> Vec<String> {
    let key = |setting: &str| setting.split('=').next().unwrap_or_default().trim().to_string();
    let again = |setting: &String| later.iter().any(|other| key(other) == key(setting));
    earlier.iter().filter(|setting| !again(setting)).chain(&later).cloned().collect()
}

/// Says how the run in `out` on `path` ended and what to do next; `repeat` are the arguments that continue it.
pub fn finish(
    outcome: Outcome,
    group: &Group,
    data: &DataSet,
    path: &str,
    out: &Path,
    repeat: &str,
) -> Result<(), Failure> {
    let program = quoted(&std::env::args().next().unwrap_or_else(|| "mbconv".into()));
    match outcome {
        Outcome::Interrupted if !group.is_leader() => Err(Failure::Interrupted),
        Outcome::Finished { .. } if !group.is_leader() => Ok(()),
        Outcome::Interrupted => {
            eprintln!("everything is kept in {}; continue with", out.display());
            eprintln!("  {program} {repeat}");
            Err(Failure::Interrupted)
        }
        Outcome::Finished { best } => {
            let model = out.join(BEST);
            match best {
                Some(best) => eprintln!(
                    "best model: {}, epoch {}, {} of {} validation images",
                    model.display(),
                    best.epoch,
                    accuracy(best.top1, best.top5, data.classes.len()),
                    best.images
                ),
                None => eprintln!("model: {}", model.display()),
            }
            eprintln!("try next:");
            let split = if data.divided && data.val.is_some() { " --split val" } else { "" };
            let out = quoted_path(out);
            eprintln!("  {program} eval {out} --data {}{split}", quoted_path(path));
            eprintln!("  {program} predict {out} {}", quoted_path(example_image(data)));
            Ok(())
        }
    }
}

/// What the user sees of a run.
pub enum Watch {
    /// Nothing: another process shows it.
    Nothing,
    Line,
    #[cfg(feature = "tui")]
    Dashboard,
}

impl Watch {
    /// The dashboard if `tui`, where there is one and a terminal for it.
    pub fn new(tui: bool, group: &Group) -> Result<Self, Failure> {
        match tui {
            _ if !group.is_leader() => Ok(Self::Nothing),
            false => Ok(Self::Line),
            #[cfg(feature = "tui")]
            true if std::io::stdout().is_terminal() => Ok(Self::Dashboard),
            #[cfg(feature = "tui")]
            true => Err(Failure::new("--tui needs a terminal as standard output", "leave --tui away".to_string())),
            #[cfg(not(feature = "tui"))]
            true => {
                let hint = "build with it: cargo build --release --features tui".to_string();
                Err(Failure::new("this program was built without the dashboard", hint))
            }
        }
    }

    /// Says what is worth keeping.
    pub fn line(&self, progress: &Progress, line: &str) {
        if !matches!(self, Self::Nothing) {
            progress.line(line);
        }
    }

    /// Trains, with everything that watches a run, and completes its page.
    pub fn train(self, run: Run, progress: &mut Progress) -> Result<Outcome, TrainError> {
        let mut observers = Observers::default();
        match self {
            Self::Nothing => return mbconv_train::train(run, &mut |_| ()),
            Self::Line => observers.add("progress", &mut *progress),
            #[cfg(feature = "tui")]
            Self::Dashboard => observers.add("dashboard", Dashboard::new(run.stop)),
        }
        observers.add("TensorBoard curves", TensorBoard::new(run.out, &run.recipe.to_toml()));
        observers.add("report", ReportWriter::new(run.out));
        let outcome = mbconv_train::train(run, &mut |event| observers.event(&event));
        drop(observers);
        if let Ok(Outcome::Finished { best: Some(_) }) = outcome {
            // A run is none the worse for a page that could not be written.
            if let Err(Failure::Failed { message, .. }) = finish_report(&run, progress) {
                progress.line(&format!("note: no complete report: {message}"));
            }
        }
        progress.finish();
        outcome
    }
}

/// Writes the run's page anew, with what the best model makes of the validation images.
fn finish_report(run: &Run, progress: &mut Progress) -> Result<(), Failure> {
    let Run { recipe, data, out, device, stop, .. } = *run;
    let total = data.val.as_ref().map_or(0, |val| val.len());
    let mut advance = |images| progress.advance("report", images, total, String::new());
    let path = report::complete(out, data, recipe, device, stop, &mut advance)?;
    progress.line(&format!("report: {}", path.display()));
    Ok(())
}

/// Locks the folder of a run, in the first process.
pub fn lock(out: &Path, group: &Group) -> Result<Option<RunLock>, Failure> {
    let lock = group.is_leader().then(|| RunLock::acquire(out).map_err(|error| TrainError::from(error).into()));
    group.all_ok(lock.transpose())
}

/// Returns default folder `number`: `runs/NAME` after the recipe's name, then `runs/NAME-2`, …
fn default_folder(recipe: &Path, number: usize) -> PathBuf {
    let name = recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    Path::new("runs").join(if number == 1 { name } else { format!("{name}-{number}") })
}

/// Returns the first default folder in which no run is or was, locked by the first process; prints
/// which ones are in use.
fn new_default_folder(
    recipe: &Path,
    group: &Group,
    line: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Option<RunLock>), Failure> {
    let mut first_free = || -> Result<_, Failure> {
        for folder in (1..).map(|number| default_folder(recipe, number)) {
            if holds_run(&folder) {
                continue;
            }
            match RunLock::acquire(&folder) {
                // A run may have ended there just before.
                Ok(_) if holds_run(&folder) => {}
                Ok(lock) => return Ok((folder, Some(lock))),
                Err(error @ RunLockError::Locked { .. }) => line(&format!("note: {error}")),
                Err(error) => return Err(TrainError::from(error).into()),
            }
        }
        unreachable!("there is a folder for every number")
    };
    // The other processes write nothing.
    group.all_ok(if group.is_leader() { first_free() } else { Ok((default_folder(recipe, 1), None)) })
}

/// Returns the last default folder with a run in it.
fn last_default_folder(recipe: &Path) -> PathBuf {
    let folders = (1..).map(|number| default_folder(recipe, number)).take_while(|folder| folder.is_dir());
    folders.filter(|folder| holds_run(folder)).last().unwrap_or_else(|| default_folder(recipe, 1))
}

/// The digits as image files, in this program's repository.
const DIGITS: &str = "datasets/digits/examples";

/// An image to try `predict` on.
fn example_image(data: &DataSet) -> String {
    let files = |source: &std::sync::Arc<dyn Source>| (source.len() > 0).then(|| source.name(0));
    let first = data.val.as_ref().or(data.train.as_ref()).and_then(files);
    match (data.form, first) {
        (Form::Digits, _) if Path::new(DIGITS).is_dir() => DIGITS.into(),
        (_, Some(file)) if Path::new(&file).is_file() => file,
        _ => "PHOTO.jpg".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_settings_replace_earlier_ones() {
        let settings = |text: &str| -> Vec<String> { text.split(' ').map(String::from).collect() };
        let merged = merged(settings("epochs=3 seed=1 data.path=x"), settings("epochs=5 epochs=6"));
        assert_eq!(merged, ["seed=1", "data.path=x", "epochs=5", "epochs=6"]);
    }
}
