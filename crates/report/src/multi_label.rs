//! Results of an evaluation of multi-label classification, and their section of the page.

use serde::Serialize;

use crate::html::{escape, percent};

/// Results of a multi-label evaluation. A class is predicted if its probability is at least its
/// threshold.
#[derive(Clone, Debug, Serialize)]
pub struct MultiLabelEvaluation {
    /// Always true.
    pub multi_label: bool,
    /// Mean average precision: the mean over the classes with images. `None` if there are none.
    pub map: Option<f64>,
    /// Mean AUROC of the classes that have one.
    pub macro_auroc: Option<f64>,
    /// Mean binary cross-entropy over images and classes, without label smoothing.
    pub loss: f64,
    /// Precision of all predictions together.
    pub micro_precision: f64,
    /// Recall of all predictions together.
    pub micro_recall: f64,
    /// Harmonic mean of micro precision and micro recall.
    pub micro_f1: f64,
    /// Mean precision of all classes.
    pub macro_precision: f64,
    /// Mean recall of all classes.
    pub macro_recall: f64,
    /// Mean F1 of all classes.
    pub macro_f1: f64,
    /// Share of images whose predicted classes are exactly their classes.
    pub exact_match: f64,
    /// Number of evaluated images.
    pub images: usize,
    /// Results of each class, by index.
    pub classes: Vec<MultiLabelClass>,
    /// Images that could not be read, with the reason. Empty unless the loader skips such images.
    pub skipped: Vec<(String, String)>,
}

/// Results of one class of a multi-label model.
#[derive(Clone, Debug, Serialize)]
pub struct MultiLabelClass {
    /// Class name.
    pub label: String,
    /// Number of images of the class (its support).
    pub images: usize,
    /// Number of images for which the class is predicted.
    pub predicted: usize,
    /// Probability from which the class is predicted.
    pub threshold: f32,
    /// Average precision; `None` without images of the class.
    pub average_precision: Option<f64>,
    /// AUROC; `None` without images of the class, or without others.
    pub auroc: Option<f64>,
    /// Share of the predictions of this class that are correct; 0 without predictions.
    pub precision: f64,
    /// Share of the class's images for which it is predicted; 0 without images.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 without hits.
    pub f1: f64,
}

/// A multi-label evaluation, and the name of its data.
#[derive(Clone, Copy)]
pub struct MultiLabelEvaluated<'a> {
    /// Results.
    pub evaluation: &'a MultiLabelEvaluation,
    /// Name of the data, such as `split val of photos`.
    pub name: &'a str,
}

/// Returns the main figures: value, name and note.
pub(crate) fn tiles(evaluation: &MultiLabelEvaluation) -> Vec<(String, &'static str, String)> {
    let MultiLabelEvaluation { micro_precision, micro_recall, micro_f1, macro_f1, loss, images, .. } = evaluation;
    let micro = format!("precision {}, recall {}", percent(*micro_precision), percent(*micro_recall));
    let map = evaluation.map.map_or("–".into(), percent);
    vec![
        (map, "mAP", "mean of the classes' average precision".into()),
        (percent(*micro_f1), "micro F1", micro),
        (percent(*macro_f1), "macro F1", "mean of the classes".into()),
        (format!("{loss:.4}"), "loss", format!("{images} images")),
    ]
}

/// Renders the metrics of each class, the lowest average precision first.
pub(crate) fn classes(evaluation: &MultiLabelEvaluation) -> String {
    let mut sorted: Vec<&MultiLabelClass> = evaluation.classes.iter().collect();
    let order = |class: &MultiLabelClass| class.average_precision.unwrap_or(f64::INFINITY);
    sorted.sort_by(|a, b| order(a).total_cmp(&order(b)).then(a.label.cmp(&b.label)));
    let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.4}"));
    let row = |class: &MultiLabelClass| {
        let bar = format!("<td class=bar><i style=\"width:{:.1}%\"></i></td>", 100.0 * class.f1);
        let cells = [
            class.images.to_string(),
            class.predicted.to_string(),
            number(class.average_precision),
            number(class.auroc),
            format!("{:.3}", class.threshold),
            percent(class.precision),
            percent(class.recall),
            percent(class.f1),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td class=n>{cell}</td>")).collect();
        format!("<tr><td>{}</td>{bar}{cells}</tr>", escape(&class.label))
    };
    let names = ["images", "predicted", "average precision", "AUROC", "threshold", "precision", "recall", "F1"];
    let names: String = names.iter().map(|name| format!("<th class=n>{name}</th>")).collect();
    let rows: String = sorted.into_iter().map(row).collect();
    format!("<table class=classes><thead><tr><th>class</th><th></th>{names}</tr></thead><tbody>{rows}</tbody></table>")
}
