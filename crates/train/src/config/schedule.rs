//! `[schedule]`.

use serde::{Deserialize, Serialize};

use super::error::{RecipeError, ensure};

/// `[schedule]`: the learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Curve after the warm-up.
    pub name: Curve,
    /// Epochs of linear warm-up; may be fractional. For `one_cycle`, the epochs of rising learning
    /// rate; 0 means 0.3 of all epochs.
    pub warmup_epochs: f64,
    /// Factor of the learning rate at the first step of the warm-up.
    pub warmup_start: f64,
    /// Factor of the learning rate at the end; the lower bound for `step`, `exponential` and
    /// `plateau`.
    pub final_factor: f64,
    /// Epochs between decays of `step` (default 30) and `exponential` (default 2.4), counted from
    /// the start of the run; may be fractional.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<f64>,
    /// Decay factor of `step` (default 0.1), `exponential` (default 0.97) and `plateau` (default
    /// 0.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<f64>,
    /// Epochs after which `step` decays, instead of `every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milestones: Option<Vec<f64>>,
    /// Let `exponential` decay in steps rather than continuously.
    pub staircase: bool,
    /// Exponent of `polynomial`.
    pub power: f64,
    /// Epochs without improvement on the validation split before `plateau` decays.
    pub patience: usize,
}

/// Learning-rate curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        let Self { warmup_epochs, warmup_start, final_factor, power, .. } = *self;
        let fits = (0.0..=epochs as f64).contains(&warmup_epochs);
        ensure(fits, "schedule.warmup_epochs", warmup_epochs, &format!("between 0 and epochs ({epochs})"))?;
        ensure((0.0..=1.0).contains(&warmup_start), "schedule.warmup_start", warmup_start, "in [0, 1]")?;
        ensure((0.0..=1.0).contains(&final_factor), "schedule.final_factor", final_factor, "in [0, 1]")?;
        let (every, decay) = (self.every(), self.decay());
        ensure(every > 0.0 && every.is_finite(), "schedule.every", every, "above 0")?;
        ensure(decay > 0.0 && decay <= 1.0, "schedule.decay", decay, "above 0 and at most 1")?;
        ensure(power > 0.0 && power.is_finite(), "schedule.power", power, "above 0")?;
        ensure(self.patience > 0, "schedule.patience", self.patience, "above 0")?;
        let milestones = self.milestones.as_deref().unwrap_or_default();
        let ordered = milestones.iter().all(|epoch| *epoch >= 0.0) && milestones.is_sorted();
        ensure(ordered, "schedule.milestones", format!("{milestones:?}"), "rising numbers of epochs")
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
