//! Results of an evaluation.

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
    /// Number of evaluated images.
    pub images: usize,
    /// Results of each class, by index.
    pub classes: Vec<ClassScores>,
    /// Prediction for each image, in order.
    #[serde(skip)]
    pub predictions: Vec<Predicted>,
    /// Images that could not be read, with the reason. Empty unless the loader skips such images.
    pub skipped: Vec<(String, String)>,
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
    /// Number of images of the class.
    pub images: usize,
    /// Top-1 accuracy of the class.
    pub top1: f64,
    /// Top-5 accuracy of the class.
    pub top5: f64,
}

/// Returns whether top-5 accuracy is meaningful. With up to five classes it is always 100 %.
pub fn shows_top5(classes: usize) -> bool {
    classes > 5
}
