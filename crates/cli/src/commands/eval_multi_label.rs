//! `mbconv eval` of multi-label models.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::CommandFactory;
use clap::error::ErrorKind;
use mbconv_train::classifier::Classifier;
use mbconv_train::data::LabelSets;
use mbconv_train::evaluate::{Classified, Labelled, classify};
use mbconv_train::metrics::MultiLabelScores;
use mbconv_train::multi_label::{
    MultiLabelClass, MultiLabelEvaluated, MultiLabelEvaluation, evaluation, label_sets_of,
};
use mbconv_train::predict::{Prediction, Table, TableError, from_thresholds};
use mbconv_train::report::Report;
use mbconv_train::text::visible_name;

use super::eval_output::{Circumstances, finish_table};
use super::eval_report::write_report;
use super::labelled_data::LabelledData;
use crate::args::{Arguments, Eval};
use crate::error::CliError;
use crate::model_ref::ReadyModel;
use crate::output::print_text;
use crate::terminal::Progress;
use crate::units::percent;

/// Evaluates a multi-label model.
pub fn run(args: Eval, model: &ReadyModel, classifier: &Classifier, stop: &AtomicBool) -> Result<(), CliError> {
    if args.top_k.is_some() {
        let message = "--top-k is for models with one class per image; this model is multi-label";
        Arguments::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    let card = &model.card;
    let thresholds = card.thresholds().unwrap_or_default();
    let data = LabelledData::open(&args.images, &args.loader, card, classifier.tta, false)?;
    let sets = label_sets_of(&data.data, &card.classes)?;
    let table = args.predictions.as_deref().map(|path| Table::create_multi_label(path, &card.classes, true));
    let evaluating = Evaluating { classes: &card.classes, thresholds: &thresholds, sets: &sets };

    let started = Instant::now();
    let scores = evaluating.scores(classifier, &data, table.transpose()?, stop)?;
    let seconds = started.elapsed().as_secs_f64();
    data.report_skipped();
    let evaluation = evaluation(&scores, &card.classes, &thresholds, data.loader.skipped());
    if let Some(folder) = &args.report {
        let name = format!("{} · split {}", args.images.data, data.split);
        let evaluated = Some(MultiLabelEvaluated { evaluation: &evaluation, name: &name });
        write_report(&args.model, model, Report { multi_label: evaluated, ..Report::default() }, folder)?;
    }
    let path = &args.images.data;
    let circumstances =
        Circumstances { path, data: &data, tta: classifier.tta, temperature: card.temperature, seconds };
    if args.json.json {
        return circumstances.print_json(serde_json::to_value(&evaluation).map_err(std::io::Error::from)?);
    }
    let mut text = circumstances.heading(evaluation.images, evaluation.skipped.len());
    text += &summary(&evaluation);
    text += &class_table(&evaluation, args.per_class);
    print_text(&text)?;
    let chosen = card.multi_label.as_ref().is_some_and(|multi_label| multi_label.thresholds.is_some());
    if !chosen {
        eprintln!("note: every threshold is 0.5; `mbconv calibrate` chooses one for each class");
    }
    Ok(())
}

/// The model's classes, and the classes of the images.
struct Evaluating<'a> {
    classes: &'a [String],
    thresholds: &'a [f32],
    sets: &'a LabelSets,
}

impl Evaluating<'_> {
    /// Classifies all images and writes the table, if there is one.
    fn scores(
        &self,
        classifier: &Classifier,
        data: &LabelledData,
        mut table: Option<Table>,
        stop: &AtomicBool,
    ) -> Result<MultiLabelScores, CliError> {
        let (loader, total) = (&data.loader, data.loader.len());
        let mut scores = MultiLabelScores::new(self.classes.len());
        let mut progress = Progress::new();
        let mut failed = None;
        let classified = classify(classifier, &Labelled::in_sets(loader, self.sets), stop, &mut |images| {
            for image in images {
                let probabilities = scores.add(image.logits, self.sets.classes(image.label));
                let Some(table) = &mut table else { continue };
                if let Err(error) = self.write(table, loader.source().name(image.index), image, probabilities) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            progress.advance("evaluating", scores.len(), total, String::new());
            ControlFlow::Continue(())
        });
        progress.finish();
        finish_table(table, scores.len(), classified, failed)?;
        Ok(scores)
    }

    fn write(
        &self,
        table: &mut Table,
        path: String,
        image: &Classified,
        probabilities: &[f32],
    ) -> Result<(), TableError> {
        let truths = self.sets.classes(image.label).iter().map(|&class| self.classes[class].clone());
        table.write(&Prediction {
            path,
            truth: None,
            true_labels: Some(truths.collect()),
            predictions: from_thresholds(probabilities, self.classes, self.thresholds),
            logits: None,
            probabilities: Some(probabilities.to_vec()),
        })
    }
}

/// Formats the metrics of all images.
fn summary(evaluation: &MultiLabelEvaluation) -> String {
    let MultiLabelEvaluation { micro_precision, micro_recall, macro_precision, macro_recall, .. } = evaluation;
    let mut text = String::new();
    let mut row = |name: &str, value: String, note: String| {
        let line = format!("{name:<18}{value:>9}  {note}");
        let _ = writeln!(text, "{}", line.trim_end());
    };
    let both = |precision: f64, recall: f64| format!("(precision {}, recall {})", percent(precision), percent(recall));
    let without = evaluation.classes.iter().filter(|class| class.average_precision.is_none()).count();
    let note = if without == 0 { String::new() } else { format!("({without} classes without images left out)") };
    row("mAP", evaluation.map.map_or("–".into(), percent), note);
    row("micro F1", percent(evaluation.micro_f1), both(*micro_precision, *micro_recall));
    row("macro F1", percent(evaluation.macro_f1), both(*macro_precision, *macro_recall));
    if let Some(auroc) = evaluation.macro_auroc {
        row("macro AUROC", format!("{auroc:.4}"), String::new());
    }
    row("exact match", percent(evaluation.exact_match), String::new());
    row("loss", format!("{:.4}", evaluation.loss), String::new());
    text
}

/// Formats the metrics of the classes with images; the lowest average precision comes last. Shows
/// only the lowest ones, unless `all`.
fn class_table(evaluation: &MultiLabelEvaluation, all: bool) -> String {
    const CLASSES_SHOWN: usize = 20;
    let precision = |class: &MultiLabelClass| class.average_precision.unwrap_or(0.0);
    let mut present: Vec<_> = evaluation.classes.iter().filter(|class| class.images > 0).collect();
    present.sort_by(|a, b| precision(b).total_cmp(&precision(a)).then(a.label.cmp(&b.label)));
    let hidden = if all { 0 } else { present.len().saturating_sub(CLASSES_SHOWN) };
    let shown = &present[hidden..];
    let width = shown.iter().map(|class| visible_name(&class.label).chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("\n{:<width$}  images  threshold  precision    recall        F1       AP\n", "class");
    if hidden > 0 {
        let _ = writeln!(text, "… {hidden} better classes (all of them with --per-class)");
    }
    for class in shown {
        let MultiLabelClass { label, images, threshold, .. } = class;
        let [precision, recall, f1] = [class.precision, class.recall, class.f1].map(percent);
        let average = class.average_precision.map_or("–".into(), percent);
        let name = visible_name(label);
        let _ = writeln!(
            text,
            "{name:<width$}  {images:>6}  {threshold:>9.3}  {precision:>9}  {recall:>8}  {f1:>8}  {average:>7}"
        );
    }
    text
}
