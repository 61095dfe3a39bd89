//! `mbconv train`

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use mbconv_train::auto_batch::with_batch_size;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::{self, DataSet, Form, Source};
use mbconv_train::engine::TrainError;
use mbconv_train::model_file::{BEST, Results};
use mbconv_train::run_dir::{holds_run, saved_progress};
use mbconv_train::run_lock::{RunLock, RunLockError};
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::{Group, Outcome, Recipe, Run};

use crate::args::Train;
use crate::error::CliError;
use crate::model_ref::locate_in;
use crate::progress_ui::ProgressUi;
use crate::terminal::Progress;
use crate::units::{accuracy_with_interval, percent};

pub fn run(args: Train, stop: &AtomicBool) -> Result<(), CliError> {
    let group = Group::join()?;
    train(args, stop, &group).map_err(|error| error.report_among(&group))
}

fn train(args: Train, stop: &AtomicBool, group: &Group) -> Result<(), CliError> {
    let resumed = args
        .resume
        .then(|| args.out.clone().unwrap_or_else(|| last_default_folder(&recipe_name(&args.recipe), &holds_run)));
    // Settings of earlier commands remain unless this command changes them.
    let remembered = resumed.as_ref().map_or(Vec::new(), |out| remembered_settings(out, group));
    let settings = merged(remembered, args.settings());
    let ui = group.all_ok(ProgressUi::new(args.tui, group))?;
    let device = group.all_ok(args.device.open_in(group).map_err(CliError::from))?;
    let prepare = || -> Result<_, CliError> {
        let mut file = RecipeFile::read(&args.recipe, &settings)?;
        locate_in(&mut file, stop)?;
        Recipe::try_from(file.clone().or_batch(1))?;
        let path = file.data.path.clone().ok_or_else(no_data)?;
        let data = data::open(&path, &file.data.open_options(file.seed))?;
        let stored = resumed.as_deref().filter(|_| file.has_auto_batch()).and_then(|out| stored_batch(out, group));
        let (recipe, line) = with_batch_size(file, stored, &data, &device, group)?;
        Ok((recipe, path, data, line))
    };
    let (recipe, path, data, line) = group.all_ok(prepare())?;

    let mut progress = Progress::new();
    let (out, lock) = match resumed.or(args.out) {
        Some(out) => {
            let lock = lock(&out, group)?;
            (out, lock)
        }
        None => {
            new_default_folder(&recipe_name(&args.recipe), &holds_run, group, &mut |line| ui.line(&progress, line))?
        }
    };
    ui.line(&progress, &format!("run folder {}", out.display()));
    line.iter().for_each(|line| ui.line(&progress, line));
    let (resume, settings, lock) = (args.resume, Some(&settings[..]), lock.as_ref());
    let run = Run { recipe: &recipe, data: &data, out: &out, device: &device, group, resume, settings, lock, stop };
    let outcome = ui.train(run, &mut progress);
    let device = args.device.repeated();
    // The run folder stores all settings.
    let repeat = format!("train {} --out {}{device} --resume", quoted_path(&args.recipe), quoted_path(&out));
    finish(outcome?, group, &data, &path, &out, &repeat)
}

/// Returns the error of a recipe without a data set.
pub fn no_data() -> CliError {
    CliError::new("the recipe has no data set", "add --data PATH, or --data digits".to_string())
}

/// Returns the recipe settings of the commands that started and resumed the run in `out`.
fn remembered_settings(out: &Path, group: &Group) -> Vec<String> {
    let read = || saved_progress(out).map_or(Vec::new(), |progress| progress.settings);
    let json = if group.is_leader() { serde_json::json!(read()).to_string() } else { String::new() };
    serde_json::from_slice(&group.broadcast(json.into_bytes())).unwrap_or_default()
}

/// Returns the recipe of the run in `out`, or `None` if it cannot be read.
pub fn recipe_of(out: &Path, group: &Group) -> Option<String> {
    let read = || saved_progress(out).map_or(String::new(), |progress| progress.recipe);
    let text = group.broadcast(if group.is_leader() { read().into_bytes() } else { Vec::new() });
    String::from_utf8(text).ok().filter(|text| !text.is_empty())
}

/// Returns the batch size of the run in `out`, if it can be read.
fn stored_batch(out: &Path, group: &Group) -> Option<usize> {
    Some(RecipeFile::parse(&recipe_of(out, group)?, "checkpoint", &[]).ok()?.batch_size)
}

/// Returns all settings; later ones replace earlier ones of the same key.
pub fn merged(earlier: Vec<String>, later: Vec<String>) -> Vec<String> {
    let key = |setting: &str| setting.split('=').next().unwrap_or_default().trim().to_string();
    let again = |setting: &String| later.iter().any(|other| key(other) == key(setting));
    earlier.iter().filter(|setting| !again(setting)).chain(&later).cloned().collect()
}

/// Prints the result of the run in `out` on the data `path` and the next commands. `repeat` are the
/// arguments that continue the run.
pub fn finish(
    outcome: Outcome,
    group: &Group,
    data: &DataSet,
    path: &str,
    out: &Path,
    repeat: &str,
) -> Result<(), CliError> {
    let program = quoted(&std::env::args().next().unwrap_or_else(|| "mbconv".into()));
    match outcome {
        Outcome::Interrupted if !group.is_leader() => Err(CliError::Interrupted),
        Outcome::Finished { .. } if !group.is_leader() => Ok(()),
        Outcome::Interrupted => {
            eprintln!("the run is saved in {}; continue with", out.display());
            eprintln!("  {program} {repeat}");
            Err(CliError::Interrupted)
        }
        Outcome::Finished { best } => {
            let model = out.join(BEST);
            match best {
                Some(Results { epoch, top1, top5, images, map, .. }) => {
                    let accuracy = match map {
                        Some(map) => format!("mAP {}", percent(map)),
                        None => accuracy_with_interval(top1, top5, images, data.classes.len()),
                    };
                    eprintln!("best model: {}, epoch {epoch}", model.display());
                    eprintln!("{accuracy} of {images} validation images");
                }
                None => eprintln!("model: {}", model.display()),
            }
            eprintln!("try next:");
            let split = if data.divided && data.val.is_some() { " --split val" } else { "" };
            let onnx = Path::new(out.file_name().unwrap_or("model".as_ref())).with_added_extension("onnx");
            let out = quoted_path(out);
            if data.label_sets().is_some() {
                eprintln!("  {program} calibrate {out} --data {}", quoted_path(path));
            }
            eprintln!("  {program} eval {out} --data {}{split}", quoted_path(path));
            eprintln!("  {program} predict {out} {}", quoted_path(example_image(data)));
            eprintln!("  {program} export {out} {}", quoted_path(onnx));
            Ok(())
        }
    }
}

/// Locks the folder of a run, in the first process.
pub fn lock(out: &Path, group: &Group) -> Result<Option<RunLock>, CliError> {
    let lock = group.is_leader().then(|| RunLock::acquire(out).map_err(|error| TrainError::from(error).into()));
    group.all_ok(lock.transpose())
}

pub fn recipe_name(recipe: &Path) -> String {
    recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Returns default folder `number` of runs called `name`: `runs/NAME`, then `runs/NAME-2`, …
fn default_folder(name: &str, number: usize) -> PathBuf {
    Path::new("runs").join(if number == 1 { name.into() } else { format!("{name}-{number}") })
}

/// Returns the first default folder that is not taken, locked by the first process. Prints the
/// folders in use.
pub fn new_default_folder(
    name: &str,
    is_taken: &dyn Fn(&Path) -> bool,
    group: &Group,
    line: &mut dyn FnMut(&str),
) -> Result<(PathBuf, Option<RunLock>), CliError> {
    let mut first_free = || -> Result<_, CliError> {
        for folder in (1..).map(|number| default_folder(name, number)) {
            if is_taken(&folder) {
                continue;
            }
            match RunLock::acquire(&folder) {
                // A run may have ended there in the meantime.
                Ok(_) if is_taken(&folder) => {}
                Ok(lock) => return Ok((folder, Some(lock))),
                Err(error @ RunLockError::Locked { .. }) => line(&format!("note: {error}")),
                Err(error) => return Err(TrainError::from(error).into()),
            }
        }
        unreachable!("there is a folder for every number")
    };
    // Other processes do not write.
    group.all_ok(if group.is_leader() { first_free() } else { Ok((default_folder(name, 1), None)) })
}

/// Returns the last default folder that is taken.
pub fn last_default_folder(name: &str, is_taken: &dyn Fn(&Path) -> bool) -> PathBuf {
    let folders = (1..).map(|number| default_folder(name, number)).take_while(|folder| folder.is_dir());
    folders.filter(|folder| is_taken(folder)).last().unwrap_or_else(|| default_folder(name, 1))
}

/// The digits as image files in mbconv's repository.
const DIGITS: &str = "datasets/digits/examples";

/// Returns an image for an example of `predict`.
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
