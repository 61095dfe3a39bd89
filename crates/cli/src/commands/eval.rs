//! `mbconv eval`

use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use mbconv_train::Model;
use mbconv_train::config::RecipeFile;
use mbconv_train::data::{
    self, DataSet, Loader, LoaderConfig, MOST_UNREADABLE, NO_SPLITS, OnBadImage, OpenOptions, Source, Transform,
};
use mbconv_train::evaluate::{Evaluation, Labelled, evaluate};
use mbconv_train::metrics::shows_top5;
use mbconv_train::model_file::ModelCard;
use mbconv_train::report::{self, Evaluated, REPORT, Report};
use mbconv_train::run_dir::RECIPE;
use mbconv_train::text::visible_name;

use crate::args::Eval;
use crate::error::CliError;
use crate::model_ref::open_classifier;
use crate::output::{create_folder, print_json, print_text};
use crate::terminal::Progress;
use crate::units::percent;

pub fn run(args: Eval, stop: &AtomicBool) -> Result<(), CliError> {
    let device = args.device.open()?;
    let precision = args.dtype.check(&device)?;
    let model = open_classifier(&args.model, &device)?;
    let card = &model.card;
    // Data without splits are divided as in training, so that `val` contains no training image.
    let options = RecipeFile::of_model(card).map(|recipe| recipe.data.open_options(recipe.seed)).unwrap_or_default();
    // Classes are matched by name: a split may have a subset of them.
    let data = data::open(&args.data, &OpenOptions { classes_may_differ: true, ..options })?;
    let selected = data.select(args.split.as_deref());
    // The note about held-out images does not apply to an evaluation of all images.
    let whole = selected.as_ref().is_ok_and(|(split, _)| *split == "all");
    for note in data.notes.iter().filter(|note| !(whole && note.starts_with(NO_SPLITS))) {
        eprintln!("note: {note}");
    }
    let (split, source) = selected?;
    let default = LoaderConfig::default();
    let config = LoaderConfig {
        batch_size: args.batch_size,
        workers: args.workers.unwrap_or(default.workers),
        on_bad_image: if args.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Fail },
        ..default
    };
    let loader = Loader::new(source, Transform::Eval(card.preprocess.clone()), config);
    let labelled = Labelled::by_name(&loader, &data, &card.classes)?;
    if let Some(note) = trained_on(card, &data, &args, split) {
        eprintln!("note: {note}");
    }

    let network = precision.inference(&model.network);
    let mut progress = Progress::new();
    let total = loader.len();
    let mut advance = |images| progress.advance("evaluating", images, total, String::new());
    let started = Instant::now();
    let result = evaluate(&network, &labelled, &card.preprocess, &card.classes, &device, stop, &mut advance);
    let seconds = started.elapsed().as_secs_f64();
    progress.finish();
    let evaluation = result?;
    for (name, why) in &evaluation.skipped {
        eprintln!("skipped {name}: {why}");
    }
    let skipped = evaluation.skipped.len();
    if skipped as f64 > MOST_UNREADABLE * total as f64 {
        eprintln!("warning: {skipped} of {total} images cannot be read; the results are for the others");
    }
    if let Some(folder) = &args.report {
        let name = format!("{} · split {split}", args.data);
        report(&args.model, &model, &evaluation, loader.source().as_ref(), &name, folder)?;
    }
    let measured = Measured { split: split_name(split, &data), seconds, images_per_second: total as f64 / seconds };
    if args.json.json {
        let mut json = serde_json::to_value(&evaluation).map_err(std::io::Error::from)?;
        json["split"] = split.into();
        json["data"] = args.data.into();
        json["seconds"] = seconds.into();
        json["images_per_second"] = measured.images_per_second.into();
        return print_json(&json);
    }
    print_text(&table(&evaluation, &measured))
}

/// Name of the evaluated split, and the speed.
struct Measured {
    split: String,
    seconds: f64,
    images_per_second: f64,
}

/// Returns the name of a split in messages.
fn split_name(split: &str, data: &DataSet) -> String {
    match split {
        "all" if data.divided => "the whole data set (it has no splits)".into(),
        "all" => "all splits".into(),
        split => format!("the split `{split}`"),
    }
}

/// Returns a note if the images include training images of the model.
fn trained_on(card: &ModelCard, data: &DataSet, args: &Eval, split: &str) -> Option<String> {
    let trained = &RecipeFile::of_model(card)?.data.path?;
    let place = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    if split != "all" || data.train.is_none() || place(trained) != place(&args.data) {
        return None;
    }
    let remedy = match data.val {
        Some(_) => "use --split val for the held-out images only",
        None => "no images were held out",
    };
    Some(format!("the model was trained on images of {}, which are evaluated here too: {remedy}", args.data))
}

/// Writes the report, with the curves of the run if the model is in a run folder.
fn report(
    given: &Path,
    model: &Model,
    evaluation: &Evaluation,
    source: &dyn Source,
    name: &str,
    folder: &Path,
) -> Result<(), CliError> {
    let run = model.path.parent().filter(|run| run.join(RECIPE).is_file());
    let report = match run {
        Some(run) => report::of_run(run)?,
        None => {
            Report { recipe: RecipeFile::of_model(&model.card).map(|recipe| recipe.to_toml()), ..Report::default() }
        }
    };
    let title = given.file_name().unwrap_or(given.as_os_str()).to_string_lossy().into_owned();
    let evaluated = Some(Evaluated { evaluation, image: &|index| report::image_of(source, index), name });
    create_folder(folder)?;
    let path = folder.join(REPORT);
    Report { title, model: Some(report::model_facts(&model.card)), evaluated, ..report }.write(&path)?;
    eprintln!("report: {}", path.display());
    Ok(())
}

/// Formats the results as text; the worst classes come last.
fn table(evaluation: &Evaluation, measured: &Measured) -> String {
    const CLASSES_SHOWN: usize = 20;
    let Evaluation { scores, top1_interval, top5_interval, images, classes, skipped, .. } = evaluation;
    let interval = |[low, high]: [f64; 2]| format!("(95 % interval {:.2}–{:.2})", 100.0 * low, 100.0 * high);
    let mut text = String::new();
    let Measured { split, seconds, images_per_second } = measured;
    let skipped = match skipped.len() {
        0 => "none".to_string(),
        count => count.to_string(),
    };
    let _ = writeln!(text, "{images} images of {split}, {skipped} skipped");
    let _ = writeln!(text, "{seconds:.2} s, {images_per_second:.0} images per second\n");
    let _ = writeln!(text, "top-1  {:>8}  {}", percent(scores.top1), interval(*top1_interval));
    let with_top5 = shows_top5(classes.len());
    if with_top5 {
        let _ = writeln!(text, "top-5  {:>8}  {}", percent(scores.top5), interval(*top5_interval));
    }
    let _ = writeln!(text, "loss   {:>8.4}", scores.loss);
    let mut present: Vec<_> = classes.iter().filter(|class| class.images > 0).collect();
    present.sort_by(|a, b| b.top1.total_cmp(&a.top1).then(a.label.cmp(&b.label)));
    let hidden = present.len().saturating_sub(CLASSES_SHOWN);
    let width = present.iter().map(|class| visible_name(&class.label).chars().count()).max().unwrap_or(0).max(5);
    let column = |value: String| if with_top5 { format!("  {value:>8}") } else { String::new() };
    let _ = writeln!(text, "\n{:<width$}  images     top-1{}", "class", column("top-5".into()));
    if hidden > 0 {
        let _ = writeln!(text, "… {hidden} better classes (all of them with --json)");
    }
    for class in &present[hidden..] {
        let (top1, top5) = (percent(class.top1), column(percent(class.top5)));
        let _ = writeln!(text, "{:<width$}  {:>6}  {top1:>8}{top5}", visible_name(&class.label), class.images);
    }
    text
}
