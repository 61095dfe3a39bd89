//! Results of classification.

use std::fmt::{self, Display};
use std::path::Path;

use serde::Serialize;

/// The network's result for one image.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// Path of the image file.
    pub path: String,
    /// The most probable classes, best first.
    pub predictions: Vec<Candidate>,
    /// Logits of all classes, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// A class with its probability.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Name of the class.
    pub label: String,
    /// Index of the class.
    pub index: usize,
    /// Softmax probability.
    pub probability: f32,
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
