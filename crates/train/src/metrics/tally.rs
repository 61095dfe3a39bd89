//! Top-1 and top-5 accuracy, and intervals of proportions.

use burn::tensor::{Int, Tensor};

use mbconv_interop::model_file::Results;
use mbconv_report::Scores;

/// Returns the rank of each sample's target among its logits, counted from 0: the number of other
/// classes whose logit is at least as high.
///
/// Ties count as errors, so that a network with equal or NaN logits has an accuracy of 0. Shapes:
/// `logits` `[N, C]`, `targets` `[N]`, result `[N]`.
pub fn target_ranks(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1, Int> {
    let classes = logits.dims()[1] as i64;
    let target = logits.clone().gather(1, targets.unsqueeze_dim(1));
    let below = logits.lower(target).int().sum_dim(1).squeeze_dim::<1>(1);
    below.neg().add_scalar(classes - 1)
}

/// Sums of metrics over samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Number of samples.
    pub images: usize,
    /// Number of samples whose target has the highest logit.
    pub top1: usize,
    /// Number of samples whose target is among the five highest logits.
    pub top5: usize,
    /// Sum of the losses.
    pub loss: f64,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            images: self.images + other.images,
            top1: self.top1 + other.top1,
            top5: self.top5 + other.top5,
            loss: self.loss + other.loss,
        }
    }
}

impl Tally {
    /// Adds samples, given the ranks of their targets and the sum of their losses.
    pub fn add(&mut self, ranks: &[usize], loss: f64) {
        self.images += ranks.len();
        self.top1 += ranks.iter().filter(|&&rank| rank < 1).count();
        self.top5 += ranks.iter().filter(|&&rank| rank < 5).count();
        self.loss += loss;
    }

    /// Returns the means, or zeros without samples.
    pub fn scores(&self) -> Scores {
        let n = self.images.max(1) as f64;
        Scores { top1: self.top1 as f64 / n, top5: self.top5 as f64 / n, loss: self.loss / n }
    }
}

/// Returns validation results as stored in a model file, without metrics of the classes.
pub fn results(epoch: usize, scores: Scores, images: usize) -> Results {
    let Scores { top1, top5, loss } = scores;
    Results { epoch, top1, top5, loss, images, macro_f1: None, balanced_accuracy: None, map: None }
}

/// Returns Wilson's 95 % score interval of the proportion `hits / n`.
pub fn wilson_interval(hits: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    const Z: f64 = 1.959_963_984_540_054;
    let n = n as f64;
    let p = hits as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    fn ranks(logits: &[f32], classes: usize, targets: &[i64]) -> Vec<usize> {
        let device = Device::default();
        let n = targets.len();
        let logits = Tensor::<1>::from_floats(logits, &device).reshape([n, classes]);
        let targets = Tensor::<1, Int>::from_data(targets, &device);
        let ranks = target_ranks(logits, targets).into_data().convert::<i64>();
        ranks.try_to_vec::<i64>().unwrap().into_iter().map(|rank| rank as usize).collect()
    }

    #[test]
    fn rank_counts_other_logits_at_least_as_high() {
        assert_eq!(ranks(&[0.1, 0.9, 0.5, 3.0, 1.0, 2.0], 3, &[1, 0]), [0, 0]);
        assert_eq!(ranks(&[0.1, 0.9, 0.5, 3.0, 1.0, 2.0], 3, &[0, 1]), [2, 2]);
        assert_eq!(ranks(&[1.0, 1.0, 1.0], 3, &[0]), [2]);
        assert_eq!(ranks(&[f32::NAN; 3], 3, &[0]), [2]);
    }

    #[test]
    fn top5_of_five_or_fewer_classes_is_one() {
        let mut tally = Tally::default();
        tally.add(&[0, 1, 2, 2], 4.0);
        assert_eq!(tally.scores(), Scores { top1: 0.25, top5: 1.0, loss: 1.0 });
    }

    #[test]
    fn wilson_interval_matches_statsmodels() {
        // statsmodels.stats.proportion.proportion_confint(45, 50, method="wilson")
        let [low, high] = wilson_interval(45, 50);
        assert!((low - 0.786_398).abs() < 1e-5 && (high - 0.956_524).abs() < 1e-5, "{low} {high}");
    }

    proptest! {
        #[test]
        fn wilson_interval_contains_the_proportion(n in 1usize..10_000, share in 0.0f64..=1.0) {
            let hits = (share * n as f64) as usize;
            let [low, high] = wilson_interval(hits, n);
            let p = hits as f64 / n as f64;
            prop_assert!(0.0 <= low && low <= p + 1e-12 && p <= high + 1e-12 && high <= 1.0);
        }
    }
}
