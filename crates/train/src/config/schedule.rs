//! `[schedule]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{RecipeError, ensure};

/// `[schedule]`: the learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Curve after the warm-up.
    pub name: Curve,
    /// Epochs of linear warm-up; may be fractional. For `one_cycle`, the epochs of rising learning
    /// rate; 0 means 0.3 of all epochs.
    #[schemars(range(min = 0))]
    pub warmup_epochs: f64,
    /// Factor of the learning rate at the first step of the warm-up.
    #[schemars(range(min = 0, max = 1))]
    pub warmup_start: f64,
    /// Factor of the learning rate at the end; the lower bound for `step`, `exponential` and
    /// `plateau`.
    #[schemars(range(min = 0, max = 1))]
    pub final_factor: f64,
    /// Epochs between decays of `step` (default 30) and `exponential` (default 2.4), counted from
    /// the start of the run; may be fractional.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub every: Option<f64>,
    /// Decay factor of `step` (default 0.1), `exponential` (default 0.97) and `plateau` (default
    /// 0.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub decay: Option<f64>,
    /// Epochs after which `step` decays, instead of `every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 0)), extend("x-rising" = true))]
    pub milestones: Option<Vec<f64>>,
    /// Let `exponential` decay in steps rather than continuously.
    pub staircase: bool,
    /// Exponent of `polynomial`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub power: f64,
    /// Epochs without improvement on the validation split before `plateau` decays.
    #[schemars(range(min = 1))]
    pub patience: usize,
}

/// Learning-rate curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// Half a cosine (Loshchilov and Hutter 2017).
    Cosine,
    /// Linear decay.
    Linear,
    /// Constant learning rate.
    Constant,
    /// A power of the remaining fraction of the run.
    Polynomial,
    /// Decay at regular intervals or at milestones.
    Step,
    /// Exponential decay; by default EfficientNet's factor of 0.97 every 2.4 epochs.
    Exponential,
    /// Half a cosine up and another down (Smith and Topin 2018), as PyTorch's `OneCycleLR` without
    /// cycling of the momentum.
    OneCycle,
    /// Decay when the validation score stops improving.
    Plateau,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            name: Curve::Cosine,
            warmup_epochs: 0.0,
            warmup_start: 0.01,
            final_factor: 0.0,
            every: None,
            decay: None,
            milestones: None,
            staircase: true,
            power: 2.0,
            patience: 10,
        }
    }
}

impl ScheduleConfig {
    pub(crate) fn check(&self, epochs: usize) -> Result<(), RecipeError> {
        let fits = self.warmup_epochs <= epochs as f64;
        ensure(fits, "schedule.warmup_epochs", self.warmup_epochs, &format!("at most epochs ({epochs})"))
    }

    /// Returns the epochs between decays.
    pub(crate) fn every(&self) -> f64 {
        self.every.unwrap_or(if self.name == Curve::Exponential { 2.4 } else { 30.0 })
    }

    /// Returns the decay factor.
    pub(crate) fn decay(&self) -> f64 {
        self.decay.unwrap_or(if self.name == Curve::Exponential { 0.97 } else { 0.1 })
    }
}
