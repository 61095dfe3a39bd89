//! Evaluation of multi-label models.

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use mbconv_data::{DataSet, LabelSets, Loader};
pub use mbconv_report::{MultiLabelClass, MultiLabelEvaluated, MultiLabelEvaluation};

use crate::classifier::Classifier;
use crate::evaluate::{EvaluateError, Labelled, class_indices, classify};
use crate::metrics::{MultiLabelScores, Outcomes, macro_mean, mean_average_precision};

/// Returns the sets of classes of multi-label data as class indices of a model.
///
/// # Errors
/// Returns an error if the data have one class per image, or a class that the model does not have.
pub fn label_sets_of(data: &DataSet, model: &[String]) -> Result<LabelSets, EvaluateError> {
    let sets = data.label_sets().ok_or(EvaluateError::SingleLabelData)?;
    let indices = class_indices(data, model)?;
    Ok(sets.renamed(|class| indices[class]))
}

/// Classifies all images of multi-label data, whose sets have the model's class indices. Calls
/// `progress` with the number of images done.
///
/// # Errors
/// See [`classify`].
pub fn multi_label_scores(
    classifier: &Classifier,
    (loader, sets): (&Loader, &LabelSets),
    classes: usize,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<MultiLabelScores, EvaluateError> {
    let mut scores = MultiLabelScores::new(classes);
    classify(classifier, &Labelled::in_sets(loader, sets), stop, &mut |images| {
        for image in images {
            scores.add(image.logits, sets.classes(image.label));
        }
        progress(scores.len());
        ControlFlow::Continue(())
    })?;
    Ok(scores)
}

/// Returns the results of a model with these classes, which are predicted from these thresholds.
/// `skipped` are the images that could not be read.
pub fn evaluation(
    scores: &MultiLabelScores,
    classes: &[String],
    thresholds: &[f32],
    skipped: Vec<(String, String)>,
) -> MultiLabelEvaluation {
    let (rankings, outcomes) = (scores.rankings(), scores.outcomes(thresholds));
    let aurocs: Vec<f64> = rankings.iter().filter_map(|ranking| ranking.auroc).collect();
    let all = Outcomes::sum(&outcomes);
    let class = |index: usize| MultiLabelClass {
        label: classes[index].clone(),
        images: outcomes[index].images,
        predicted: outcomes[index].predicted,
        threshold: thresholds[index],
        average_precision: rankings[index].average_precision,
        auroc: rankings[index].auroc,
        precision: outcomes[index].precision(),
        recall: outcomes[index].recall(),
        f1: outcomes[index].f1(),
    };
    MultiLabelEvaluation {
        multi_label: true,
        map: mean_average_precision(&rankings),
        macro_auroc: (!aurocs.is_empty()).then(|| aurocs.iter().sum::<f64>() / aurocs.len() as f64),
        loss: scores.loss(),
        micro_precision: all.precision(),
        micro_recall: all.recall(),
        micro_f1: all.f1(),
        macro_precision: macro_mean(&outcomes, Outcomes::precision),
        macro_recall: macro_mean(&outcomes, Outcomes::recall),
        macro_f1: macro_mean(&outcomes, Outcomes::f1),
        exact_match: scores.exact_match(thresholds),
        images: scores.len(),
        classes: (0..classes.len()).map(class).collect(),
        skipped,
    }
}
