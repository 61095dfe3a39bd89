//! `mbconv find-lr`

use std::sync::atomic::AtomicBool;

use mbconv_train::Recipe;
use mbconv_train::data;
use mbconv_train::files::write_atomically;
use mbconv_train::find_lr::{Sweep, find_lr};
use mbconv_train::recipe::RecipeFile;
use serde_json::json;

use super::fetch::resolve_in;
use super::{print_json, print_text};
use crate::args::FindLr;
use crate::failure::Failure;
use crate::terminal::Progress;

pub fn run(args: FindLr, stop: &AtomicBool) -> Result<(), Failure> {
    if !(args.from > 0.0 && args.from < args.to && args.to.is_finite()) {
        return Err(Failure::new("--from must be above 0 and below --to", None));
    }
    let mut file = RecipeFile::read(&args.recipe, &args.overrides)?;
    file.data.path = args.data.clone().or(file.data.path);
    resolve_in(&mut file, stop)?;
    let recipe = Recipe::try_from(file)?;
    let device = args.device.open()?;
    let path = recipe.data.path.clone().ok_or_else(|| {
        Failure::new("the recipe names no data set", "say which with --data PATH, or --data digits".to_string())
    })?;
    let data = data::open(&path, &recipe.data.open_options(recipe.seed))?;

    let mut progress = Progress::new();
    let sweep = Sweep { steps: args.steps, from: args.from, to: args.to };
    let mut done = 0;
    let result = find_lr(&recipe, &data, &device, sweep, stop, &mut |point| {
        done += recipe.batch_size;
        let message = format!("rate {:.1e}  loss {:.3}", point.learning_rate, point.smoothed);
        progress.advance("find-lr", done, args.steps * recipe.batch_size, message);
    });
    progress.finish();
    let curve = result?;
    if let Some(svg) = curve.to_svg() {
        write_atomically(&args.out, svg.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.out.display()), None))?;
    }
    if args.json.json {
        let mut json = json!(curve);
        json["svg"] = json!(args.out);
        return print_json(&json);
    }
    let rate = |rate: Option<f64>| rate.map_or("none".into(), |rate| format!("{rate:.2e}"));
    let mut text = format!(
        "suggested      {}\nsteepest fall  {}\nleast loss     {}\ncurve          {}\n",
        rate(curve.suggestion),
        rate(curve.steepest),
        rate(curve.minimum),
        args.out.display()
    );
    if let Some(suggestion) = curve.suggestion {
        text += &format!("\n--set optimizer.learning_rate={suggestion:.2e}\n");
    }
    print_text(&text)
}
