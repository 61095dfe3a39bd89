//! `mbconv finetune`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::data;
use mbconv_train::import::{ImportOptions, load_weights};
use mbconv_train::{Group, Recipe, Run, finetune};

use super::fetch::resolve;
use super::train::{Watch, finish};
use crate::args::Finetune;
use crate::failure::Failure;
use crate::terminal::Progress;

pub fn run(args: Finetune, stop: &AtomicBool) -> Result<(), Failure> {
    let group = Group::join()?;
    finetune(args, stop, &group).map_err(|failure| failure.among(&group))
}

fn finetune(args: Finetune, stop: &AtomicBool, group: &Group) -> Result<(), Failure> {
    let watch = group.agree(Watch::new(args.tui, group))?;
    let device = group.agree(args.device.open_in(group).map_err(Failure::from))?;
    let prepare = || -> Result<_, Failure> {
        let weights = resolve(&args.weights, stop)?;
        if weights.to_str().is_none() {
            let message = format!("the path {weights:?} is not UTF-8, and a recipe holds no other");
            return Err(Failure::new(message, "rename it, or make a link to it".to_string()));
        }
        let options = ImportOptions { arch: args.arch.clone(), preprocess: None };
        let loaded = load_weights(&weights, &options, &device)?;
        // What is done to it for this the run will tell.
        let card = match args.input_channels {
            Some(channels) => loaded.model.with_input_channels(channels)?.0.card,
            None => loaded.model.card,
        };
        // The preset follows from the number of images, and how many are left to train on from the recipe.
        let shape = finetune::recipe(&card, &weights, 1000, &args.settings())?;
        let data = data::open(&args.data, &shape.data.open_options(shape.seed))?;
        let images = data.split("train")?.len();
        let mut file = finetune::recipe(&card, &weights, images, &args.settings())?;
        file.data.path = Some(args.data.clone());
        Ok((Recipe::try_from(file)?, data))
    };
    let (recipe, data) = group.agree(prepare())?;

    let mut progress = Progress::new();
    watch.line(&progress, &format!("run folder {}", args.out.display()));
    let run = Run { recipe: &recipe, data: &data, out: &args.out, device: &device, group, resume: args.resume, stop };
    let outcome = watch.train(run, &mut progress);
    finish(outcome?, group, &data, &args.data, &args.out, &repeat(&args))
}

/// The command that continues the run.
fn repeat(args: &Finetune) -> String {
    let [weights, out] = [&args.weights, &args.out].map(|path| Path::display(path));
    let arch = args.arch.as_ref().map(|name| format!(" --arch {name}")).unwrap_or_default();
    let channels = args.input_channels.map(|channels| format!(" --input-channels {channels}")).unwrap_or_default();
    let set: String = args.settings().iter().map(|setting| format!(" --set '{setting}'")).collect();
    format!("finetune --weights {weights}{arch}{channels} --data {} --out {out}{set} --resume", args.data)
}
