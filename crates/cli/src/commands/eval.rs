//! `mbconv eval`

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use mbconv_train::Model;
use mbconv_train::data::{self, Loader, LoaderConfig, OnBadImage, OpenOptions, Source, Transform};
use mbconv_train::evaluate::{Evaluation, Labelled, evaluate};
use mbconv_train::recipe::RecipeFile;
use mbconv_train::report::{Evaluated, REPORT, Report};
use mbconv_train::run_folder::RECIPE;

use super::{percent, print_json, print_text};
use crate::args::Eval;
use crate::failure::Failure;
use crate::terminal::Progress;

pub fn run(args: Eval, stop: &AtomicBool) -> Result<(), Failure> {
    let device = args.device.open()?;
    let precision = args.dtype.check(&device)?;
    let model = Model::open(&args.model, &device)?;
    let card = &model.card;
    // A folder without splits is divided as it was for training, so that no training image is counted.
    let split = card.recipe.as_ref().map(|recipe| recipe.data.open_options(recipe.seed)).unwrap_or_default();
    // Classes are matched by name, so that a split may have any of them.
    let split = OpenOptions { classes_may_differ: true, ..split };
    let data = data::open(&args.data, &split)?;
    let default = LoaderConfig::default();
    let config = LoaderConfig {
        batch_size: args.batch_size,
        workers: args.workers.unwrap_or(default.workers),
        on_bad_image: if args.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Fail },
        ..default
    };
    let loader = Loader::new(data.split(&args.split)?, Transform::Eval(card.preprocess.clone()), config);
    let labelled = Labelled::by_name(&loader, &data, &card.classes)?;

    let network = precision.inference(&model.network);
    let mut progress = Progress::new();
    let total = loader.len();
    let mut advance = |images| progress.advance("evaluating", images, total, String::new());
    let result = evaluate(&network, &labelled, &card.preprocess, &card.classes, &device, stop, &mut advance);
    progress.finish();
    let evaluation = result?;
    for (name, why) in &evaluation.skipped {
        eprintln!("skipped {name}: {why}");
    }
    if let Some(folder) = &args.report {
        let name = format!("{} · split {}", args.data, args.split);
        report(&args.model, &model, &evaluation, loader.source().as_ref(), &name, folder)?;
    }
    if args.json.json {
        let json = serde_json::to_value(&evaluation).map_err(std::io::Error::from)?;
        return print_json(&json);
    }
    print_text(&table(&evaluation, &args.split))
}

/// Writes the page, with the curves of the run that the model belongs to, if it lies in a run's folder.
fn report(
    given: &Path,
    model: &Model,
    evaluation: &Evaluation,
    source: &dyn Source,
    name: &str,
    folder: &Path,
) -> Result<(), Failure> {
    let run = model.path.parent().filter(|run| run.join(RECIPE).is_file());
    let report = match run {
        Some(run) => Report::of_run(run)?,
        None => Report { recipe: model.card.recipe.as_ref().map(RecipeFile::to_toml), ..Report::default() },
    };
    let title = given.file_name().unwrap_or(given.as_os_str()).to_string_lossy().into_owned();
    let evaluated = Some(Evaluated { evaluation, source, name });
    std::fs::create_dir_all(folder)?;
    let path = folder.join(REPORT);
    Report { title, card: Some(&model.card), evaluated, ..report }.write(&path)?;
    eprintln!("report: {}", path.display());
    Ok(())
}

/// The results for people: the worst classes last, where the eye rests.
fn table(evaluation: &Evaluation, split: &str) -> String {
    const CLASSES_SHOWN: usize = 20;
    let Evaluation { scores, top1_interval, top5_interval, images, classes, skipped, .. } = evaluation;
    let interval = |[low, high]: [f64; 2]| format!("(95 % interval {:.2}–{:.2})", 100.0 * low, 100.0 * high);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{images} images of the split `{split}`{}",
        match skipped.len() {
            0 => String::new(),
            count => format!(", {count} skipped"),
        }
    );
    let _ = writeln!(text, "top-1  {:>8}  {}", percent(scores.top1), interval(*top1_interval));
    let _ = writeln!(text, "top-5  {:>8}  {}", percent(scores.top5), interval(*top5_interval));
    let _ = writeln!(text, "loss   {:>8.4}", scores.loss);
    let mut present: Vec<_> = classes.iter().filter(|class| class.images > 0).collect();
    present.sort_by(|a, b| b.top1.total_cmp(&a.top1).then(a.label.cmp(&b.label)));
    let hidden = present.len().saturating_sub(CLASSES_SHOWN);
    let width = present.iter().map(|class| class.label.chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "\n{:<width$}  images     top-1     top-5", "class");
    if hidden > 0 {
        let _ = writeln!(text, "… {hidden} better classes (all of them with --json)");
    }
    for class in &present[hidden..] {
        let (top1, top5) = (percent(class.top1), percent(class.top5));
        let _ = writeln!(text, "{:<width$}  {:>6}  {top1:>8}  {top5:>8}", class.label, class.images);
    }
    text
}
