//! Results of classification.

use std::fmt::{self, Display};
use std::path::Path;

use serde::Serialize;

/// The network's result for one image.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// Path of the image file.
    pub path: String,
    /// The label, if it is known.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub truth: Option<Truth>,
    /// The classes of the image, if they are known and the model is multi-label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_labels: Option<Vec<String>>,
    /// The most probable classes, or those of a multi-label model from their thresholds; best
    /// first.
    pub predictions: Vec<Candidate>,
    /// Logits of all classes, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
    /// Probabilities of all classes, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f32>>,
}

/// The label of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    /// Name of the image's class.
    pub true_label: String,
    /// Index of the image's class.
    pub true_index: usize,
    /// True if it is the most probable class.
    pub correct: bool,
}

/// A class with its probability.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Name of the class.
    pub label: String,
    /// Index of the class.
    pub index: usize,
    /// Softmax probability; of a multi-label model, sigmoid probability.
    pub probability: f32,
}

/// Returns the `top_k` most probable classes, best first.
pub fn candidates(probabilities: &[f32], classes: &[String], top_k: usize) -> Vec<Candidate> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let candidate =
        |index: usize| Candidate { label: classes[index].clone(), index, probability: probabilities[index] };
    order.into_iter().take(top_k).map(candidate).collect()
}

/// Returns the classes whose probability is at least their threshold, the most probable first.
pub fn from_thresholds(probabilities: &[f32], classes: &[String], thresholds: &[f32]) -> Vec<Candidate> {
    let mut found = candidates(probabilities, classes, classes.len());
    found.retain(|candidate| candidate.probability >= thresholds[candidate.index]);
    found
}

/// A file, folder or pattern that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The path or pattern.
    pub path: String,
    /// Reason.
    pub why: String,
}

impl Unread {
    pub(crate) fn new(path: &Path, why: impl Display) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }
}

impl Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}
