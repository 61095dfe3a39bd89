//! `mbconv train`

#[cfg(feature = "tui")]
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::checkpoint::CHECKPOINT;
use mbconv_train::data::{self, DataSet, Form, Source};
use mbconv_train::engine::TrainError;
use mbconv_train::model_file::LAST;
use mbconv_train::observe::Observers;
use mbconv_train::recipe::RecipeFile;
use mbconv_train::report::{self, ReportWriter};
use mbconv_train::tensorboard::TensorBoard;
use mbconv_train::{Group, Outcome, Recipe, Run};

use super::accuracy;
use super::fetch::resolve_in;
use crate::args::{OnNan, Train};
#[cfg(feature = "tui")]
use crate::dashboard::Dashboard;
use crate::failure::Failure;
use crate::terminal::Progress;

pub fn run(args: Train, stop: &AtomicBool) -> Result<(), Failure> {
    let group = Group::join()?;
    train(args, stop, &group).map_err(|failure| failure.among(&group))
}

fn train(args: Train, stop: &AtomicBool, group: &Group) -> Result<(), Failure> {
    let on_nan = args.on_nan.map(|on_nan| match on_nan {
        OnNan::Stop => "on_nan=stop".to_string(),
        OnNan::Skip => "on_nan=skip".to_string(),
    });
    let settings: Vec<String> = args.overrides.iter().cloned().chain(on_nan).collect();
    let watch = group.agree(Watch::new(args.tui, group))?;
    let device = group.agree(args.device.open_in(group).map_err(Failure::from))?;
    let prepare = || -> Result<_, Failure> {
        let mut file = RecipeFile::read(&args.recipe, &settings)?;
        file.data.path = args.data.clone().or(file.data.path);
        resolve_in(&mut file, stop)?;
        let recipe = Recipe::try_from(file)?;
        let path = recipe.data.path.clone().ok_or_else(|| {
            Failure::new("the recipe names no data set", "say which with --data PATH, or --data digits".to_string())
        })?;
        let data = data::open(&path, &recipe.data.open_options(recipe.seed))?;
        Ok((recipe, path, data))
    };
    let (recipe, path, data) = group.agree(prepare())?;
    let out = args.out.unwrap_or_else(|| default_folder(&args.recipe, args.resume));

    let mut progress = Progress::new();
    watch.line(&progress, &format!("run folder {}", out.display()));
    let run = Run { recipe: &recipe, data: &data, out: &out, device: &device, group, resume: args.resume, stop };
    let outcome = watch.train(run, &mut progress);
    let set: String = settings.iter().map(|setting| format!(" --set '{setting}'")).collect();
    let given = args.data.map(|data| format!(" --data {}", quoted(&data))).unwrap_or_default();
    let repeat = format!("train {} --out {}{given}{set} --resume", args.recipe.display(), out.display());
    finish(outcome?, group, &data, &path, &out, &repeat)
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
    let program = std::env::args().next().unwrap_or_else(|| "mbconv".into());
    let out = out.display();
    match outcome {
        Outcome::Interrupted if !group.leads() => Err(Failure::Interrupted),
        Outcome::Finished { .. } if !group.leads() => Ok(()),
        Outcome::Interrupted => {
            eprintln!("everything is kept in {out}; continue with");
            eprintln!("  {program} {repeat}");
            Err(Failure::Interrupted)
        }
        Outcome::Finished { best } => {
            match best {
                Some(best) => eprintln!(
                    "best model: {out}/best.safetensors, epoch {}, {} of {} validation images",
                    best.epoch,
                    accuracy(best.top1, best.top5, data.classes.len()),
                    best.images
                ),
                None => eprintln!("model: {out}/best.safetensors"),
            }
            eprintln!("try next:");
            let split = if data.divided { " --split val" } else { "" };
            eprintln!("  {program} eval {out} --data {}{split}", quoted(path));
            eprintln!("  {program} predict {out} {}", quoted(&example_image(data)));
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

/// An argument as a shell takes it: in quotes if it has blanks, or braces and stars that the shell would expand.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/\\._-+:=,@%".contains(c);
    if argument.chars().all(plain) { argument.to_string() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}

/// An image to try `predict` on.
fn example_image(data: &DataSet) -> String {
    let files = |source: &std::sync::Arc<dyn Source>| (source.len() > 0).then(|| source.name(0));
    let first = data.val.as_ref().or(data.train.as_ref()).and_then(files);
    match (data.form, first) {
        (Form::Digits, _) => "datasets/digits/examples".into(),
        (_, Some(file)) if Path::new(&file).is_file() => file,
        _ => "PHOTO.jpg".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_for_the_shell() {
        assert_eq!(quoted("data/a-1.tar"), "data/a-1.tar");
        assert_eq!(quoted("a-{0..1}.tar"), "'a-{0..1}.tar'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
