//! `[checkpoint]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_interop::model_file::Results;

/// A metric of the validation split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// `top1`, or `map` for multi-label data.
    #[default]
    Auto,
    /// Top-1 accuracy.
    Top1,
    /// Top-5 accuracy.
    Top5,
    /// Mean cross-entropy; lower is better.
    Loss,
    /// Mean F1 of the classes that occur among labels or predictions.
    MacroF1,
    /// Mean recall of the classes with images.
    BalancedAccuracy,
    /// Mean average precision of the classes with images, for multi-label data.
    Map,
}

/// Quality of an epoch, compared from left to right; higher is better.
pub type Score = [f64; 2];

impl Metric {
    /// Returns the metric that `auto` stands for.
    pub fn resolved(self, multi_label: bool) -> Self {
        match self {
            Self::Auto if multi_label => Self::Map,
            Self::Auto => Self::Top1,
            metric => metric,
        }
    }

    /// Returns whether the metric requires counts of each class.
    pub fn needs_classes(self) -> bool {
        matches!(self, Self::MacroF1 | Self::BalancedAccuracy)
    }

    /// Returns the name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Top1 => "top1",
            Self::Top5 => "top5",
            Self::Loss => "loss",
            Self::MacroF1 => "macro_f1",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::Map => "map",
        }
    }

    /// Returns the metric of results. It is not a number if they lack it.
    pub fn value(self, results: &Results) -> f64 {
        let [score, _] = self.score(results);
        match self {
            Self::Loss => -score,
            _ if score == f64::NEG_INFINITY => f64::NAN,
            _ => score,
        }
    }

    /// Returns the quality for comparisons: the metric, and for equal values the loss. Results
    /// without the metric are worse than all others.
    pub fn score(self, results: &Results) -> Score {
        let value = match self {
            Self::Auto | Self::Top1 => Some(results.top1),
            Self::Top5 => Some(results.top5),
            Self::Loss => Some(-results.loss),
            Self::MacroF1 => results.macro_f1,
            Self::BalancedAccuracy => results.balanced_accuracy,
            Self::Map => results.map,
        };
        [value.unwrap_or(f64::NEG_INFINITY), -results.loss]
    }
}

/// `[checkpoint]`: frequency of checkpoints and models to keep. A resumed run may change all of
/// these settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Metric of the validation split that selects the best model. Early stopping and the plateau
    /// schedule follow it.
    pub metric: Metric,
    /// Minutes between checkpoints within an epoch; 0 saves only at the end of epochs.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub minutes: f64,
    /// Number of last epochs whose models are kept in `epochs/`, in addition to `last.safetensors`.
    pub keep_last: usize,
    /// Number of best epochs whose models are kept in `epochs/`, in addition to `best.safetensors`.
    pub keep_best: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { metric: Metric::Auto, minutes: 10.0, keep_last: 0, keep_best: 0 }
    }
}
