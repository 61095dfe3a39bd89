//! Learning-rate schedules, evaluated at each optimizer step.

use std::f64::consts::PI;

use crate::config::checkpoint::Score;
use crate::config::schedule::{Curve, ScheduleConfig};

impl ScheduleConfig {
    /// Returns the learning-rate factor at `step`, counted from 0, in a run of `epochs` epochs of
    /// `steps_per_epoch` steps. The decay of `plateau` is returned by [`after`](Self::after)
    /// instead.
    pub fn factor(&self, step: usize, steps_per_epoch: usize, epochs: usize) -> f64 {
        let total = (steps_per_epoch * epochs) as f64;
        let warmup = self.warmup_epochs * steps_per_epoch as f64;
        let step = step as f64;
        let between = |from: f64, to: f64, share: f64| to + (from - to) * 0.5 * (1.0 + (PI * share).cos());
        if self.name == Curve::OneCycle {
            let rise = (if warmup > 0.0 { warmup } else { 0.3 * total } - 1.0).max(1.0);
            let fall = (total - 1.0 - rise).max(1.0);
            return match step < rise {
                true => between(self.warmup_start, 1.0, step / rise),
                false => between(1.0, self.final_factor, ((step - rise) / fall).min(1.0)),
            };
        }
        if step < warmup {
            return self.warmup_start + (1.0 - self.warmup_start) * step / warmup;
        }
        let progress = ((step - warmup) / (total - warmup).max(1.0)).clamp(0.0, 1.0);
        let epoch = step / steps_per_epoch.max(1) as f64;
        let falling = |falls: f64| self.decay().powf(falls).max(self.final_factor);
        let towards_end = |remaining: f64| self.final_factor + (1.0 - self.final_factor) * remaining;
        match self.name {
            Curve::Cosine => towards_end(between(1.0, 0.0, progress)),
            Curve::Linear => towards_end(1.0 - progress),
            Curve::Polynomial => towards_end((1.0 - progress).powf(self.power)),
            Curve::Step => falling(match &self.milestones {
                Some(milestones) => milestones.iter().filter(|&&at| at <= epoch).count() as f64,
                None => (epoch / self.every()).floor(),
            }),
            Curve::Exponential if self.staircase => falling((epoch / self.every()).floor()),
            Curve::Exponential => falling(epoch / self.every()),
            Curve::Constant | Curve::Plateau | Curve::OneCycle => 1.0,
        }
    }

    /// Returns the learning-rate factor of `plateau` after epochs with these scores; 1 for the
    /// other curves. It depends only on the scores, so that checkpoints need no state of the
    /// schedule.
    pub fn after(&self, scores: impl IntoIterator<Item = Score>) -> f64 {
        if self.name != Curve::Plateau {
            return 1.0;
        }
        let (mut best, mut waited, mut falls) = ([f64::NEG_INFINITY; 2], 0, 0);
        for score in scores {
            waited += 1;
            if score > best {
                (best, waited) = (score, 0);
            } else if waited > self.patience {
                (falls, waited) = (falls + 1, 0);
            }
        }
        self.decay().powi(falls).max(self.final_factor)
    }
}

#[cfg(test)]
mod tests;
