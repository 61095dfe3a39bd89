//! `mbconv finetune`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::auto_batch::with_batch_size;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::{self, DataSet};
use mbconv_train::device::Device;
use mbconv_train::import::{ImportOptions, load_weights};
use mbconv_train::run_dir::holds_run;
use mbconv_train::shell::{quoted, quoted_path};
use mbconv_train::{Group, Recipe, Run, finetune};

use super::train::{finish, last_default_folder, lock, new_default_folder, recipe_of};
use crate::args::Finetune;
use crate::error::CliError;
use crate::model_ref::locate;
use crate::progress_ui::ProgressUi;
use crate::terminal::Progress;

pub fn run(args: Finetune, stop: &AtomicBool) -> Result<(), CliError> {
    let group = Group::join()?;
    finetune(args, stop, &group).map_err(|error| error.report_among(&group))
}

fn finetune(args: Finetune, stop: &AtomicBool, group: &Group) -> Result<(), CliError> {
    let ui = group.all_ok(ProgressUi::new(args.tui, group))?;
    let device = group.all_ok(args.device.open_in(group).map_err(CliError::from))?;
    let settings = args.settings();
    let name = run_name(args.data(), args.model());
    let resumed_out = args.resume.then(|| args.out.clone().unwrap_or_else(|| last_default_folder(&name, &holds_run)));
    let stored_recipe = resumed_out.as_deref().and_then(|out| recipe_of(out, group));
    let prepare = || match &stored_recipe {
        Some(recipe) => resumed(recipe, &args, &settings, stop).map(|(recipe, data)| (recipe, data, None)),
        None => {
            let (weights, data) = (args.model(), args.data());
            let (arch, channels) = (args.arch.clone(), args.input_channels);
            Start { weights, arch, channels, data, settings: &settings }.recipe(&device, group, stop)
        }
    };
    let (recipe, data, line) = group.all_ok(prepare())?;

    let mut progress = Progress::new();
    let (out, lock) = match resumed_out.or(args.out.clone()) {
        Some(out) => {
            let lock = lock(&out, group)?;
            (out, lock)
        }
        None => new_default_folder(&name, &holds_run, group, &mut |line| ui.line(&progress, line))?,
    };
    ui.line(&progress, &format!("run folder {}", out.display()));
    line.iter().for_each(|line| ui.line(&progress, line));
    let (resume, settings, lock) = (args.resume, Some(&settings[..]), lock.as_ref());
    let run = Run { recipe: &recipe, data: &data, out: &out, device: &device, group, resume, settings, lock, stop };
    let outcome = ui.train(run, &mut progress);
    finish(outcome?, group, &data, args.data(), &out, &repeat(&args, &out))
}

/// Extensions of weights and data sets, which the names of runs omit.
const EXTENSIONS: [&str; 9] = ["safetensors", "pth", "pt", "bin", "zip", "tar", "csv", "gz", "parquet"];

/// Returns the name of a run without an output folder: `photos-efficientnet_lite0`.
fn run_name(data: &str, model: &Path) -> String {
    let model = model.to_string_lossy();
    let [data, model] = [data, &model].map(|text| {
        let text = text.split(['?', '#', '@']).next().unwrap_or_default().trim_end_matches(['/', '\\']);
        let mut name = text.rsplit(['/', '\\', ':']).next().unwrap_or_default();
        while let Some((stem, _)) = name.rsplit_once('.').filter(|(_, last)| EXTENSIONS.contains(last)) {
            name = stem;
        }
        let name = name.replace(|c: char| !(c.is_alphanumeric() || "._-".contains(c)), "-");
        if name.chars().all(|c| c == '.') { "data".into() } else { name }
    });
    format!("{data}-{model}")
}

/// Initial weights, data and settings of fine-tuning.
pub struct Start<'a> {
    /// The model, as given on the command line.
    pub weights: &'a Path,
    /// Architecture, if it cannot be detected from the weights.
    pub arch: Option<String>,
    /// Channels of the images.
    pub channels: Option<usize>,
    /// The data set.
    pub data: &'a str,
    /// Keys set in the recipe, as `key=value`.
    pub settings: &'a [String],
}

impl Start<'_> {
    /// Returns the recipe chosen for the weights and the data, the data, and a line about the batch
    /// size if it was chosen for the memory.
    pub fn recipe(
        self,
        device: &Device,
        group: &Group,
        stop: &AtomicBool,
    ) -> Result<(Recipe, DataSet, Option<String>), CliError> {
        let weights = resolve_utf8(self.weights, stop)?;
        let prefix = self.settings.iter().rev().find_map(|setting| setting.strip_prefix("finetune.prefix="));
        let prefix = prefix.map(String::from);
        let options = ImportOptions { arch: self.arch, prefix, without_classifier: true, ..ImportOptions::default() };
        let loaded = load_weights(&weights, &options, device)?;
        // The run prints the note about this change.
        let card = match self.channels {
            Some(channels) => loaded.model.with_input_channels(channels)?.0.card,
            None => loaded.model.card,
        };
        // The preset depends on the number of training images, which depends on the recipe's split.
        let shape = finetune::recipe(&card, &weights, 1000, self.settings)?;
        let data = data::open(self.data, &shape.data.open_options(shape.seed))?;
        let images = data.split("train")?.len();
        // Smoothed targets would move the probabilities of multi-label models away from 0 and 1.
        let smoothing = data.label_sets().map(|_| "label_smoothing=0.0".to_string());
        let settings: Vec<String> = smoothing.into_iter().chain(self.settings.iter().cloned()).collect();
        let mut file = finetune::recipe(&card, &weights, images, &settings)?;
        file.data.path = Some(self.data.into());
        let (recipe, line) = with_batch_size(file, None, &data, device, group)?;
        Ok((recipe, data, line))
    }
}

/// Returns the path of the weights file, which must be UTF-8.
fn resolve_utf8(weights: &Path, stop: &AtomicBool) -> Result<std::path::PathBuf, CliError> {
    let weights = locate(weights, stop)?;
    if weights.to_str().is_none() {
        let message = format!("the path {weights:?} is not UTF-8, as recipes require");
        return Err(CliError::new(message, "rename the file or create a link to it".to_string()));
    }
    Ok(weights)
}

/// Returns the stored recipe with the current settings, and the data. Values derived from the
/// number of epochs are kept.
fn resumed(
    recipe: &str,
    args: &Finetune,
    settings: &[String],
    stop: &AtomicBool,
) -> Result<(Recipe, DataSet), CliError> {
    let stored = RecipeFile::parse(recipe, "checkpoint", &[])?.batch_size;
    let mut file = RecipeFile::parse(recipe, "checkpoint", settings)?.or_batch(stored);
    let weights = resolve_utf8(args.model(), stop)?;
    if let Some(finetune) = &mut file.finetune {
        let same = |other: &Path| match (other.canonicalize(), weights.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => other == weights,
        };
        if !finetune.weights.as_deref().is_some_and(same) {
            finetune.weights = Some(weights);
        }
    }
    file.model.input_channels = args.input_channels.unwrap_or(file.model.input_channels);
    file.data.path = Some(args.data().into());
    let data = data::open(args.data(), &file.data.open_options(file.seed))?;
    Ok((Recipe::try_from(file)?, data))
}

/// Returns the arguments that continue the run, which stores its settings.
fn repeat(args: &Finetune, out: &Path) -> String {
    let [model, out] = [args.model(), out].map(quoted_path);
    let arch = args.arch.as_ref().map(|name| format!(" --arch {}", quoted(name))).unwrap_or_default();
    let channels = args.input_channels.map(|channels| format!(" --input-channels {channels}")).unwrap_or_default();
    let (data, device) = (quoted_path(args.data()), args.device.repeated());
    format!("finetune {model} {data}{arch}{channels} --out {out}{device} --resume")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_folders_are_named_after_data_and_model() {
        for (data, model, name) in [
            ("photos", "efficientnet_lite0", "photos-efficientnet_lite0"),
            ("/a/my photos.tar.gz", "timm/mobilenetv2_100.ra_in1k", "my-photos-mobilenetv2_100.ra_in1k"),
            ("photos/", "runs/pets/", "photos-pets"),
            ("labels.csv?label=species", "hf:google/mobilenet_v2_1.0_224@main", "labels-mobilenet_v2_1.0_224"),
            (".", "mobilenet_v2", "data-mobilenet_v2"),
            ("digits", "https://x.org/a/small.pth#sha256=00112233", "digits-small"),
        ] {
            assert_eq!(run_name(data, Path::new(model)), name);
        }
    }
}
