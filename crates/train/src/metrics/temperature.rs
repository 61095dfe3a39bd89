//! Temperature scaling (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>).

use std::ops::RangeInclusive;

use rayon::prelude::*;

use super::multi_label::binary_cross_entropy;
use super::softmax::log_sum_exp;

/// Temperatures that [`fit_temperature`] considers. Without a limit, the temperature of a perfect
/// classifier would be 0.
const TEMPERATURES: RangeInclusive<f64> = 0.05..=20.0;
/// Relative accuracy of the temperature.
const TOLERANCE: f64 = 1e-8;
/// Number of images per parallel task.
const CHUNK: usize = 256;

/// A fitted temperature. Logits divided by it give calibrated probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// The temperature.
    pub value: f64,
    /// Mean negative log-likelihood with it.
    pub loss: f64,
    /// True if the negative log-likelihood would be lower beyond the limits 0.05 and 20.
    pub at_limit: bool,
}

/// Returns the temperature that minimizes the mean negative log-likelihood of `labels`, `[N]`,
/// under the softmax of `logits / temperature`, `[N, classes]`.
///
/// The likelihood is convex in the inverse temperature β: Newton's method on its derivative, within
/// a bracket that bisection halves whenever a step leaves it.
pub fn fit_temperature(logits: &[f32], labels: &[usize], classes: usize) -> Temperature {
    fit(|beta| Derivatives::new(logits, labels, classes, beta))
}

/// Returns the temperature that minimizes the mean binary cross-entropy of `truths` under the
/// sigmoid of `logits / temperature`, both `[N · classes]`.
pub fn fit_sigmoid_temperature(logits: &[f32], truths: &[bool]) -> Temperature {
    fit(|beta| Derivatives::of_sigmoids(logits, truths, beta))
}

/// Minimizes a convex function of the inverse temperature.
fn fit(at: impl Fn(f64) -> Derivatives) -> Temperature {
    let result = |beta: f64, loss: f64, at_limit| Temperature { value: 1.0 / beta, loss, at_limit };
    let (mut low, mut high) = (1.0 / TEMPERATURES.end(), 1.0 / TEMPERATURES.start());
    for (limit, is_beyond) in [(low, 1.0), (high, -1.0)] {
        let Derivatives { loss, first, .. } = at(limit);
        // A NaN is not beyond a limit.
        if first * is_beyond >= 0.0 {
            return result(limit, loss, true);
        }
    }
    let mut beta = 1.0f64;
    loop {
        let Derivatives { loss, first, second } = at(beta);
        if first > 0.0 {
            high = beta
        } else {
            low = beta
        }
        let newton = beta - first / second;
        let next = if low < newton && newton < high { newton } else { 0.5 * (low + high) };
        if (next - beta).abs() <= TOLERANCE * beta || high - low <= TOLERANCE * beta || !loss.is_finite() {
            return result(next, at(next).loss, false);
        }
        beta = next;
    }
}

/// The mean negative log-likelihood and its derivatives by the inverse temperature.
#[derive(Clone, Copy, Default)]
struct Derivatives {
    loss: f64,
    first: f64,
    second: f64,
}

impl Derivatives {
    fn new(logits: &[f32], labels: &[usize], classes: usize, beta: f64) -> Self {
        let parts = logits.par_chunks(CHUNK * classes).zip(labels.par_chunks(CHUNK)).map(|(logits, labels)| {
            let images = logits.chunks_exact(classes).zip(labels).map(|(row, &label)| Self::of_image(row, label, beta));
            images.fold(Self::default(), Self::plus)
        });
        // Added in order, so that the result does not depend on the number of threads.
        let Self { loss, first, second } = parts.collect::<Vec<_>>().into_iter().fold(Self::default(), Self::plus);
        let n = labels.len().max(1) as f64;
        Self { loss: loss / n, first: first / n, second: second / n }
    }

    fn of_image(logits: &[f32], label: usize, beta: f64) -> Self {
        let scaled = logits.iter().map(|&logit| beta * f64::from(logit));
        let total = log_sum_exp(scaled.clone());
        let (mut mean, mut square) = (0.0, 0.0);
        // Relative to the label's logit, so that squares do not cancel.
        let target = f64::from(logits[label]);
        for (&logit, scaled) in logits.iter().zip(scaled) {
            let (probability, above) = ((scaled - total).exp(), f64::from(logit) - target);
            mean += probability * above;
            square += probability * above * above;
        }
        Self { loss: total - beta * target, first: mean, second: square - mean * mean }
    }

    fn of_sigmoids(logits: &[f32], truths: &[bool], beta: f64) -> Self {
        let of_logit = |(&logit, &truth): (&f32, &bool)| {
            let z = f64::from(logit);
            let (loss, probability) = (binary_cross_entropy(beta * z, truth), 1.0 / (1.0 + (-beta * z).exp()));
            let first = (probability - f64::from(u8::from(truth))) * z;
            Self { loss, first, second: probability * (1.0 - probability) * z * z }
        };
        let parts = logits
            .par_chunks(CHUNK)
            .zip(truths.par_chunks(CHUNK))
            .map(|(logits, truths)| logits.iter().zip(truths).map(of_logit).fold(Self::default(), Self::plus));
        let Self { loss, first, second } = parts.collect::<Vec<_>>().into_iter().fold(Self::default(), Self::plus);
        let n = logits.len().max(1) as f64;
        Self { loss: loss / n, first: first / n, second: second / n }
    }

    fn plus(self, other: Self) -> Self {
        Self { loss: self.loss + other.loss, first: self.first + other.first, second: self.second + other.second }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn perfect_and_useless_classifiers_stop_at_the_limits() {
        let perfect = fit_temperature(&[3.0, 1.0, 1.0, 2.0], &[0, 1], 2);
        assert_eq!((perfect.value, perfect.at_limit), (0.05, true));
        let inverted = fit_temperature(&[3.0, 1.0, 1.0, 2.0], &[1, 0], 2);
        assert_eq!((inverted.value, inverted.at_limit), (20.0, true));
        assert!(fit_temperature(&[f32::NAN; 4], &[0, 1], 2).loss.is_nan());
    }

    #[test]
    fn two_classes_have_a_closed_form() {
        // Three of four are right with a margin of 4: the probability 3/4 needs a margin of ln 3.
        let logits = [4.0, 0.0].repeat(4);
        let found = fit_temperature(&logits, &[0, 0, 0, 1], 2);
        assert!((found.value - 4.0 / 3.0f64.ln()).abs() < 1e-6 && !found.at_limit, "{found:?}");
    }

    #[test]
    fn one_sigmoid_has_a_closed_form() {
        // Three of four are right at a logit of 4: the probability 3/4 needs a logit of ln 3.
        let found = fit_sigmoid_temperature(&[4.0, 4.0, -4.0, 4.0], &[true, true, false, false]);
        assert!((found.value - 4.0 / 3.0f64.ln()).abs() < 1e-6 && !found.at_limit, "{found:?}");
        assert_eq!(fit_sigmoid_temperature(&[2.0, -1.0], &[true, false]).value, 0.05);
    }

    proptest! {
        #[test]
        fn scaled_logits_scale_the_temperature(
            images in prop::collection::vec(([-3.0f32..3.0, -3.0f32..3.0, -3.0f32..3.0], 0usize..3), 4..40),
            scale in 0.5f32..2.0,
        ) {
            let labels: Vec<usize> = images.iter().map(|image| image.1).collect();
            let logits: Vec<f32> = images.iter().flat_map(|image| image.0).collect();
            let scaled: Vec<f32> = logits.iter().map(|logit| logit * scale).collect();
            let (one, two) = (fit_temperature(&logits, &labels, 3), fit_temperature(&scaled, &labels, 3));
            if !one.at_limit && !two.at_limit {
                prop_assert!((one.value * f64::from(scale) / two.value - 1.0).abs() < 1e-3, "{one:?} {two:?}");
            }
            let unscaled = Derivatives::new(&logits, &labels, 3, 1.0).loss;
            prop_assert!(one.loss <= unscaled + 1e-12);
        }
    }
}
