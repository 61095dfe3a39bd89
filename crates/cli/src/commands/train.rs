//! `mbconv train`

#[cfg(feature = "tui")]
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::checkpoint::{self, CHECKPOINT};
use mbconv_train::data::{self, DataSet, Form, Source};
use mbconv_train::engine::TrainError;
use mbconv_train::model_file::{BEST, LAST};
use mbconv_train::observe::Observers;
use mbconv_train::recipe::RecipeFile;
use mbconv_train::report::{self, ReportWriter};
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
    let out = args.out.clone().unwrap_or_else(|| default_folder(&args.recipe, args.resume));
    // What earlier commands set holds unless this one sets it otherwise.
    let remembered = if args.resume { remembered_settings(&out, group) } else { Vec::new() };
    let settings = merged(remembered, args.settings());
    let watch = group.agree(Watch::new(args.tui, group))?;
    let device = group.agree(args.device.open_in(group).map_err(Failure::from))?;
    let prepare = || -> Result<_, Failure> {
        let mut file = RecipeFile::read(&args.recipe, &settings)?;
        resolve_in(&mut file, stop)?;
        let recipe = Recipe::try_from(file)?;
        let path = recipe.data.path.clone().ok_or_else(no_data)?;
        let data = data::open(&path, &recipe.data.open_options(recipe.seed))?;
        Ok((recipe, path, data))
    };
    let (recipe, path, data) = group.agree(prepare())?;

    let mut progress = Progress::new();
    watch.line(&progress, &format!("run folder {}", out.display()));
    let (resume, settings) = (args.resume, Some(&settings[..]));
    let run = Run { recipe: &recipe, data: &data, out: &out, device: &device, group, resume, settings, stop };
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
    let read = || checkpoint::read_progress(&out.join(CHECKPOINT)).map_or(Vec::new(), |progress| progress.settings);
    let json = if group.leads() { serde_json::json!(read()).to_string() } else { String::new() };
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
        Outcome::Interrupted if !group.leads() => Err(Failure::Interrupted),
        Outcome::Finished { .. } if !group.leads() => Ok(()),
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
            _ if !group.leads() => Ok(Self::Nothing),
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

/// `runs/NAME` after the recipe; the first free of `NAME`, `NAME-2`, … for a new run, the last taken one to resume.
fn default_folder(recipe: &Path, resume: bool) -> PathBuf {
    let name = recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    let folder = |number: usize| match number {
        1 => Path::new("runs").join(&name),
        number => Path::new("runs").join(format!("{name}-{number}")),
    };
    let taken = |number: usize| folder(number).join(CHECKPOINT).exists() || folder(number).join(LAST).exists();
    let mut free = 1;
    while taken(free) {
        free += 1;
    }
    folder(if resume { free.saturating_sub(1).max(1) } else { free })
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
