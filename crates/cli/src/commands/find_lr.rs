//! `mbconv find-lr`

use std::sync::atomic::AtomicBool;

use mbconv_train::auto_batch::with_batch_size;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::{self, DataSet};
use mbconv_train::device::Device;
use mbconv_train::lr_finder::{Sweep, find_lr};
use mbconv_train::{Group, Recipe};
use serde_json::json;

use super::finetune::Start;
use super::train::no_data;
use crate::args::FindLr;
use crate::error::CliError;
use crate::model_ref::locate_in;
use crate::output::{check_extension, print_json, print_text, write_file};
use crate::terminal::Progress;

/// Maximum ratio between the suggestions of single sweeps for a certain result.
const MAX_SPREAD: f64 = 4.0;
/// Default number of updates of a sweep from new weights, whose loss falls late,
const STEPS: usize = 600;
/// and from a model's weights.
const STEPS_FROM_WEIGHTS: usize = 200;

pub fn run(args: FindLr, stop: &AtomicBool) -> Result<(), CliError> {
    if !(args.from > 0.0 && args.from < args.to && args.to.is_finite()) {
        return Err(CliError::new("--from must be positive and less than --to", None));
    }
    check_extension(&args.out, "an SVG file", &["svg"])?;
    let device = args.device.open()?;
    let (recipe, data) = recipe_and_data(&args, &device, stop)?;

    let mut progress = Progress::new();
    let from_weights = recipe.finetune.as_ref().is_some_and(|finetune| finetune.weights.is_some());
    let steps = args.steps.unwrap_or(if from_weights { STEPS_FROM_WEIGHTS } else { STEPS });
    let sweep = Sweep { steps, from: args.from, to: args.to, sweeps: args.sweeps };
    let mut done = 0;
    let result = find_lr(&recipe, &data, &device, sweep, stop, &mut |point| {
        done += recipe.batch_size;
        let message = format!("learning rate {:.1e}  loss {:.3}", point.learning_rate, point.smoothed);
        progress.advance("find-lr", done, args.sweeps * steps * recipe.batch_size, message);
    });
    progress.finish();
    let curve = result?;
    if let Some(svg) = curve.to_svg() {
        write_file(&args.out, svg.as_bytes())?;
    }
    if args.json.json {
        let mut json = json!(curve);
        json["svg"] = json!(args.out);
        return print_json(&json);
    }
    let rate = |rate: Option<f64>| rate.map_or("none".into(), |rate| format!("{rate:.2e}"));
    let mut text = format!(
        "suggestion      {}\nsteepest slope  {}\nminimum loss    {}\ndecrease        {:.0} % of the initial loss\n",
        rate(curve.suggestion),
        rate(curve.steepest),
        rate(curve.minimum),
        100.0 * curve.fall.max(0.0)
    );
    if curve.sweeps.len() > 1 {
        let each: Vec<String> = curve.sweeps.iter().map(|&single| rate(single)).collect();
        text += &format!("single sweeps   {}\n", each.join("  "));
    }
    text += &format!("curve           {}\n\n", args.out.display());
    let certain = curve.sweeps.is_empty() || curve.range().is_some_and(|(least, most)| most <= MAX_SPREAD * least);
    text += &match curve.suggestion {
        None => "no suggestion: the loss did not clearly decrease; look at the curve, or try\n\
                 more --steps, other --from and --to\n"
            .into(),
        Some(suggestion) => format!("--set optimizer.learning_rate={suggestion:.2e}\n"),
    };
    if curve.suggestion.is_some() && !certain {
        text += "uncertain: single sweeps suggest other learning rates; use more --steps or --sweeps\n";
    }
    print_text(&text)
}

/// Prints the reason of a chosen batch size.
fn print_note(line: Option<String>) {
    if let Some(line) = line {
        eprintln!("{line}");
    }
}

/// Returns the recipe and the data of the test.
fn recipe_and_data(args: &FindLr, device: &Device, stop: &AtomicBool) -> Result<(Recipe, DataSet), CliError> {
    let settings = args.settings();
    let Some(path) = &args.recipe else {
        let (Some(weights), Some(data)) = (&args.weights, &args.data) else { return Err(no_data()) };
        let start = Start { weights, arch: args.arch.clone(), channels: None, data, settings: &settings };
        let (recipe, data, line) = start.recipe(device, &Group::alone(), stop)?;
        print_note(line);
        return Ok((recipe, data));
    };
    let mut file = RecipeFile::read(path, &settings)?;
    file.data.path = args.data.clone().or(file.data.path);
    if let Some(weights) = &args.weights {
        file.finetune.get_or_insert_default().weights = Some(weights.clone());
    }
    locate_in(&mut file, stop)?;
    Recipe::try_from(file.clone().or_batch(1))?;
    let path = file.data.path.as_ref().ok_or_else(no_data)?;
    let data = data::open(path, &file.data.open_options(file.seed))?;
    let (recipe, line) = with_batch_size(file, None, &data, device, &Group::alone())?;
    print_note(line);
    Ok((recipe, data))
}
