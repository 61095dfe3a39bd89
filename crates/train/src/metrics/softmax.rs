//! Quantities of one image's logits, computed in f64.

/// Returns `ln Σ exp(logit)`.
pub(super) fn log_sum_exp(logits: impl Iterator<Item = f64> + Clone) -> f64 {
    let highest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    highest + logits.map(|logit| (logit - highest).exp()).sum::<f64>().ln()
}

/// Returns the softmax probabilities.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let values = logits.iter().map(|&logit| f64::from(logit));
    let total = log_sum_exp(values.clone());
    values.map(|logit| (logit - total).exp() as f32).collect()
}

/// Returns the cross-entropy of the class `label`.
pub fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    log_sum_exp(logits.iter().map(|&logit| f64::from(logit))) - f64::from(logits[label])
}

/// Returns the index of the highest value; of the first one if several are equal.
pub fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}

/// Returns the rank of `label`, counted from 0: the number of other classes whose logit is at least
/// as high, as [`target_ranks`](super::target_ranks) does on a device.
pub fn rank(logits: &[f32], label: usize) -> usize {
    let below = logits.iter().filter(|&&logit| logit < logits[label]).count();
    logits.len() - 1 - below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[-1e30, 0.0]), [0.0, 1.0]);
        assert!((cross_entropy(&[1000.0, 998.0], 1) - (2.0 + (-2.0f64).exp().ln_1p())).abs() < 1e-9);
    }

    #[test]
    fn ties_give_the_first_class_and_the_worst_rank() {
        assert_eq!((argmax(&[1.0, 3.0, 3.0]), argmax(&[f32::NAN; 2])), (1, 0));
        assert_eq!([0, 1, 2].map(|label| rank(&[1.0, 3.0, 3.0], label)), [2, 1, 1]);
        assert_eq!(rank(&[f32::NAN; 3], 0), 2);
    }
}
