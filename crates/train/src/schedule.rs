//! Learning-rate schedules, stepped every iteration.

use serde::{Deserialize, Serialize};

use crate::recipe::{RecipeError, ensure};

/// `[schedule]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Which curve follows the warm-up.
    pub name: Curve,
    /// Epochs of linear warm-up; may be a fraction.
    pub warmup_epochs: f64,
    /// Learning rate at the first step of the warm-up, as a share of the full one.
    pub warmup_start: f64,
    /// Learning rate at the end, as a share of the full one.
    pub final_factor: f64,
}

/// Curves from the full learning rate to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// Half a cosine (Loshchilov and Hutter 2017).
    Cosine,
    /// A straight line.
    Linear,
    /// No change.
    Constant,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { name: Curve::Cosine, warmup_epochs: 0.0, warmup_start: 0.01, final_factor: 0.0 }
    }
}

impl ScheduleConfig {
    pub(crate) fn check(&self, epochs: usize) -> Result<(), RecipeError> {
        let Self { warmup_epochs, warmup_start, final_factor, .. } = *self;
        let fits = (0.0..=epochs as f64).contains(&warmup_epochs);
        ensure(fits, "schedule.warmup_epochs", warmup_epochs, &format!("between 0 and epochs ({epochs})"))?;
        ensure((0.0..=1.0).contains(&warmup_start), "schedule.warmup_start", warmup_start, "in [0, 1]")?;
        ensure((0.0..=1.0).contains(&final_factor), "schedule.final_factor", final_factor, "in [0, 1]")
    }

    /// Share of the full learning rate at `step`, counted from 0, of `epochs` epochs of `steps_per_epoch` steps.
    pub fn factor(&self, step: usize, steps_per_epoch: usize, epochs: usize) -> f64 {
        let warmup = self.warmup_epochs * steps_per_epoch as f64;
        let step = step as f64;
        if step < warmup {
            return self.warmup_start + (1.0 - self.warmup_start) * step / warmup;
        }
        let rest = (steps_per_epoch * epochs) as f64 - warmup;
        let progress = ((step - warmup) / rest.max(1.0)).clamp(0.0, 1.0);
        let remaining = match self.name {
            Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Curve::Linear => 1.0 - progress,
            Curve::Constant => return 1.0,
        };
        self.final_factor + (1.0 - self.final_factor) * remaining
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn warm_up_then_half_a_cosine() {
        let schedule = ScheduleConfig { warmup_epochs: 1.0, warmup_start: 0.1, ..Default::default() };
        let factor = |step| schedule.factor(step, 10, 11);
        assert!((factor(0) - 0.1).abs() < 1e-12);
        assert!((factor(5) - 0.55).abs() < 1e-12);
        assert!((factor(10) - 1.0).abs() < 1e-12);
        assert!((factor(60) - 0.5).abs() < 1e-12);
        assert!(factor(109) < 1e-3);
    }

    proptest! {
        #[test]
        fn factors_stay_in_range_and_fall_after_the_warm_up(
            warmup in 0.0f64..3.0, last in 0.0f64..1.0, steps in 1usize..50, epochs in 3usize..20,
        ) {
            for name in [Curve::Cosine, Curve::Linear, Curve::Constant] {
                let schedule = ScheduleConfig { name, warmup_epochs: warmup, warmup_start: 0.0, final_factor: last };
                let factors: Vec<f64> = (0..steps * epochs).map(|step| schedule.factor(step, steps, epochs)).collect();
                prop_assert!(factors.iter().all(|f| (0.0..=1.0).contains(f)));
                let peak = (warmup * steps as f64).ceil() as usize;
                prop_assert!(factors[peak.min(factors.len() - 1)..].windows(2).all(|pair| pair[1] <= pair[0] + 1e-12));
            }
        }
    }
}
