//! `mbconv eval`

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use mbconv_train::classifier::{Classifier, Tta};
use mbconv_train::evaluate::{ClassScores, Classified, Evaluation, Evaluator, Labelled, Predicted, classify};
use mbconv_train::metrics::{shows_top5, wilson_interval};
use mbconv_train::predict::{Prediction, Table, TableError, Truth, candidates};
use mbconv_train::report::{Evaluated, Pictures, Report};
use mbconv_train::text::visible_name;

use super::eval_multi_label;
use super::eval_output::{Circumstances, finish_table};
use super::eval_report::write_report;
use super::labelled_data::LabelledData;
use crate::args::Eval;
use crate::error::CliError;
use crate::model_ref::{ReadyModel, open_ready};
use crate::output::print_text;
use crate::terminal::Progress;
use crate::units::{count, interval, percent};

pub fn run(args: Eval, stop: &AtomicBool) -> Result<(), CliError> {
    let model = open_ready(&args.model, &args.device, &args.dtype, stop)?;
    let ReadyModel { card, inference: network, device, .. } = &model;
    let tta = Tta::from(args.tta.tta);
    let multi_label = card.multi_label.is_some();
    let classifier = Classifier { network, preprocess: &card.preprocess, device, tta, multi_label };
    if multi_label {
        return eval_multi_label::run(args, &model, &classifier, stop);
    }
    let top_k = args.top_k.clone().unwrap_or_else(|| vec![1, 5]);
    let data = LabelledData::open(&args.images, &args.loader, card, tta, false)?;
    let labelled = Labelled::by_name(&data.loader, &data.data, &card.classes)?;
    let table = args.predictions.as_deref().map(|path| PredictionTable::create(path, &top_k, card.classes.len()));
    let table = table.transpose()?;

    let started = Instant::now();
    let evaluation = evaluate(&classifier, &labelled, &card.classes, &top_k, table, stop)?;
    let seconds = started.elapsed().as_secs_f64();
    data.report_skipped();
    if let Some(folder) = &args.report {
        let name = format!("{} · split {}", args.images.data, data.split);
        if model.network.is_none() {
            eprintln!("note: the report of an 8-bit model has no heatmaps");
        }
        let source = data.loader.source().as_ref();
        let pictures = Pictures::new(source, model.network.as_ref(), &card.preprocess, device);
        let image = |predicted: &Predicted| pictures.of(predicted);
        let evaluated = Some(Evaluated { evaluation: &evaluation, image: &image, name: &name });
        write_report(&args.model, &model, Report { evaluated, ..Report::default() }, folder)?;
    }
    let circumstances =
        Circumstances { path: &args.images.data, data: &data, tta, temperature: card.temperature, seconds };
    if args.json.json {
        return circumstances.print_json(serde_json::to_value(&evaluation).map_err(std::io::Error::from)?);
    }
    let mut text = circumstances.heading(evaluation.images, evaluation.skipped.len());
    text += &summary(&evaluation);
    text += &class_table(&evaluation, args.per_class);
    print_text(&text)
}

/// Evaluates all images and writes the table, if there is one.
fn evaluate(
    classifier: &Classifier,
    data: &Labelled,
    classes: &[String],
    top_k: &[usize],
    mut table: Option<PredictionTable>,
    stop: &AtomicBool,
) -> Result<Evaluation, CliError> {
    let total = data.loader.len();
    let mut evaluator = Evaluator::new(classes, total, top_k);
    if evaluator.omits_rankings() {
        eprintln!(
            "note: AUROC and average precision are left out, because {} × {} probabilities do not fit into 1 GiB",
            count(total),
            count(classes.len())
        );
    }
    let mut progress = Progress::new();
    let mut failed = None;
    let classified = classify(classifier, data, stop, &mut |images| {
        for image in images {
            let probabilities = evaluator.add(image);
            let Some(table) = &mut table else { continue };
            let path = data.loader.source().name(image.index);
            if let Err(error) = table.write(path, image, classes, probabilities) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        progress.advance("evaluating", evaluator.len(), total, String::new());
        ControlFlow::Continue(())
    });
    progress.finish();
    finish_table(table.map(|table| table.table), evaluator.len(), classified, failed)?;
    Ok(evaluator.finish(data.loader.skipped()))
}

/// The table of `--predictions`.
struct PredictionTable {
    table: Table,
    /// Number of classes per image.
    top_k: usize,
    /// Includes the probabilities of all classes.
    probabilities: bool,
}

impl PredictionTable {
    fn create(path: &Path, top_k: &[usize], classes: usize) -> Result<Self, TableError> {
        let top_k = top_k.iter().copied().max().unwrap_or(1).min(classes);
        let table = Table::create(path, top_k, true)?;
        Ok(Self { probabilities: table.is_json(), table, top_k })
    }

    fn write(
        &mut self,
        path: String,
        image: &Classified,
        classes: &[String],
        probabilities: Vec<f32>,
    ) -> Result<(), TableError> {
        let predictions = candidates(&probabilities, classes, self.top_k);
        let label = image.label;
        let correct = predictions.first().is_some_and(|candidate| candidate.index == label);
        self.table.write(&Prediction {
            path,
            truth: Some(Truth { true_label: classes[label].clone(), true_index: label, correct }),
            true_labels: None,
            predictions,
            logits: None,
            probabilities: self.probabilities.then_some(probabilities),
        })
    }
}

/// Formats the metrics of all images.
fn summary(evaluation: &Evaluation) -> String {
    let Evaluation { scores, top_k, images, averages, calibration, classes, .. } = evaluation;
    let mut text = String::new();
    let mut row = |name: &str, value: String, note: String| {
        let line = format!("{name:<18}{value:>9}  {note}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    for (&k, &accuracy) in top_k.iter().filter(|(k, _)| **k != 5 || shows_top5(classes.len())) {
        let note = interval(wilson_interval((accuracy * *images as f64).round() as usize, *images));
        row(&format!("top-{k}"), percent(accuracy), note);
    }
    row("macro F1", percent(averages.macro_f1), String::new());
    row("balanced accuracy", percent(averages.balanced_accuracy), String::new());
    if let Some(auroc) = averages.macro_auroc {
        let without = classes.iter().filter(|class| class.auroc.is_none()).count();
        let note = if without == 0 { String::new() } else { format!("({without} classes without images left out)") };
        row("macro AUROC", format!("{auroc:.4}"), note);
    }
    row("loss", format!("{:.4}", scores.loss), String::new());
    row("ECE", percent(calibration.ece), format!("({} bins)", calibration.reliability.len()));
    text
}

/// Formats the metrics of the classes with images; the worst F1 comes last. Shows only the worst
/// ones, unless `all`.
fn class_table(evaluation: &Evaluation, all: bool) -> String {
    const CLASSES_SHOWN: usize = 20;
    let mut present: Vec<_> = evaluation.classes.iter().filter(|class| class.images > 0).collect();
    present.sort_by(|a, b| b.f1.total_cmp(&a.f1).then(a.label.cmp(&b.label)));
    let hidden = if all { 0 } else { present.len().saturating_sub(CLASSES_SHOWN) };
    let shown = &present[hidden..];
    let width = shown.iter().map(|class| visible_name(&class.label).chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("\n{:<width$}  images  precision    recall        F1   AUROC\n", "class");
    if hidden > 0 {
        let _ = writeln!(text, "… {hidden} better classes (all of them with --per-class)");
    }
    for ClassScores { label, images, precision, recall, f1, auroc, .. } in shown {
        let [precision, recall, f1] = [precision, recall, f1].map(|value| percent(*value));
        let auroc = auroc.map_or("–".into(), |value| format!("{value:.4}"));
        let name = visible_name(label);
        let _ = writeln!(text, "{name:<width$}  {images:>6}  {precision:>9}  {recall:>8}  {f1:>8}  {auroc:>6}");
    }
    text
}
