//! Results of an evaluation.

use std::collections::BTreeMap;

use serde::Serialize;

/// Means of metrics over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Top-1 accuracy.
    pub top1: f64,
    /// Top-5 accuracy; 1 with up to five classes.
    pub top5: f64,
    /// Mean loss.
    pub loss: f64,
}

/// Results of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Top-1 and top-5 accuracy and mean cross-entropy, without label smoothing.
    #[serde(flatten)]
    pub scores: Scores,
    /// 95 % interval of the top-1 accuracy (Wilson).
    pub top1_interval: [f64; 2],
    /// 95 % interval of the top-5 accuracy (Wilson).
    pub top5_interval: [f64; 2],
    /// Top-k accuracy by the requested k.
    pub top_k: BTreeMap<usize, f64>,
    /// Number of evaluated images.
    pub images: usize,
    /// Averages over the classes.
    #[serde(flatten)]
    pub averages: Averages,
    /// Agreement of probabilities and accuracy.
    #[serde(flatten)]
    pub calibration: Calibration,
    /// Results of each class, by index.
    pub classes: Vec<ClassScores>,
    /// Prediction for each image, in order.
    #[serde(skip)]
    pub predictions: Vec<Predicted>,
    /// Number of images by class and predicted class, `[class][predicted]`. `None` with more than
    /// [`MAX_MATRIX`] classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion_matrix: Option<Vec<Vec<usize>>>,
    /// Images that could not be read, with the reason. Empty unless the loader skips such images.
    pub skipped: Vec<(String, String)>,
}

/// Maximum number of classes for which an [`Evaluation`] contains the confusion matrix.
pub const MAX_MATRIX: usize = 1000;

/// Averages over the classes. Those of precision, recall and F1 are over the classes that occur
/// among labels or predictions, as in scikit-learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Averages {
    /// Mean precision.
    pub macro_precision: f64,
    /// Mean recall.
    pub macro_recall: f64,
    /// Mean F1.
    pub macro_f1: f64,
    /// Mean F1, weighted by the number of images.
    pub weighted_f1: f64,
    /// Mean recall of the classes with images.
    pub balanced_accuracy: f64,
    /// Mean AUROC of the classes that have one.
    pub macro_auroc: Option<f64>,
    /// Mean average precision of the classes that have one.
    pub macro_average_precision: Option<f64>,
}

/// Agreement of the predicted classes' probabilities with the accuracy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: the mean difference between accuracy and probability over bins
    /// of equal width, weighted by their images (Guo et al. 2017).
    pub ece: f64,
    /// Brier score: the mean squared difference between the probabilities and the one-hot label,
    /// summed over the classes, in `[0, 2]`.
    pub brier: f64,
    /// The bins, by ascending probability.
    pub reliability: Vec<ReliabilityBin>,
}

/// Images whose predicted class has a probability in `(low, high]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReliabilityBin {
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Number of images.
    pub images: usize,
    /// Mean probability of the predicted class; `None` without images.
    pub confidence: Option<f64>,
    /// Top-1 accuracy; `None` without images.
    pub accuracy: Option<f64>,
}

/// Prediction for an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Index of the sample in the source.
    pub index: usize,
    /// Label as a class index of the model.
    pub label: usize,
    /// Predicted class.
    pub chosen: usize,
    /// Softmax probability of the predicted class.
    pub probability: f64,
    /// Softmax probability of the label.
    pub target_probability: f64,
    /// Cross-entropy.
    pub loss: f64,
}

/// Results of one class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassScores {
    /// Class name.
    pub label: String,
    /// Number of images of the class (its support).
    pub images: usize,
    /// Top-1 accuracy of the class.
    pub top1: f64,
    /// Top-5 accuracy of the class.
    pub top5: f64,
    /// Share of the predictions of this class that are correct; 0 without predictions.
    pub precision: f64,
    /// Share of the class's images that are predicted correctly; 0 without images.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 without hits.
    pub f1: f64,
    /// AUROC against the other classes; `None` without images of this or of other classes.
    pub auroc: Option<f64>,
    /// Average precision against the other classes; `None` like `auroc`.
    pub average_precision: Option<f64>,
}

/// Returns whether top-5 accuracy is meaningful. With up to five classes it is always 100 %.
pub fn shows_top5(classes: usize) -> bool {
    classes > 5
}
