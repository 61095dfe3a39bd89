//! Losses, with one value per sample.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};

use crate::config::error::RecipeError;
use crate::config::loss::{LossConfig, LossName};

/// Training targets of a batch.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Class indices, `[N]`.
    pub labels: Tensor<1, Int>,
    /// Soft targets, `[N, C]`, including label smoothing, if the targets are not just the labels.
    pub shares: Option<Tensor<2>>,
}

/// A recipe's loss for a given number of classes.
#[derive(Clone, Debug)]
pub struct Loss {
    config: LossConfig,
    smoothing: f64,
    /// All class indices, `[1, C]`.
    classes: Tensor<2, Int>,
    /// Class weights, `[1, C]`.
    weights: Option<Tensor<2>>,
}

impl Loss {
    /// Creates the loss for classes with `counts` training images.
    ///
    /// # Errors
    /// Returns an error if the length of a list of class weights differs from the number of
    /// classes.
    pub fn new(config: &LossConfig, smoothing: f64, counts: &[usize], device: &Device) -> Result<Self, RecipeError> {
        let weights = config.weights(counts)?;
        let tensor = |weights: Vec<f32>| Tensor::<1>::from_floats(weights.as_slice(), device).unsqueeze();
        let classes = Tensor::<1, Int>::arange(0..counts.len() as i64, device).unsqueeze();
        Ok(Self { config: config.clone(), smoothing, classes, weights: weights.map(tensor) })
    }

    /// Returns the loss of each sample, `[N]`, for `logits` `[N, C]`. The loss of the batch is
    /// their plain mean, even with class weights.
    pub fn each(&self, logits: Tensor<2>, targets: &Targets) -> Tensor<1> {
        let plain = self.weights.is_none() && targets.shares.is_none();
        match self.config.name {
            LossName::Auto | LossName::CrossEntropy if plain => {
                cross_entropy(logits, targets.labels.clone(), self.smoothing)
            }
            LossName::Auto | LossName::CrossEntropy => {
                let shares = self.weighted(targets);
                soft_cross_entropy(logits, shares)
            }
            LossName::Focal => {
                let shares = self.weighted(targets);
                focal(logits, shares, self.config.gamma)
            }
            LossName::Bce => {
                let (mut shares, classes) = (self.shares(targets), logits.dims()[1]);
                if let Some(threshold) = self.config.target_threshold {
                    shares = shares.greater_elem(threshold).float();
                }
                let losses = binary_cross_entropy(logits, shares);
                let losses = match &self.weights {
                    Some(weights) => losses * weights.clone(),
                    None => losses,
                };
                if self.config.sum_classes { row_sums(losses) } else { row_sums(losses).div_scalar(classes as f64) }
            }
        }
    }

    /// Returns the soft targets, `[N, C]`. If the batch has none, they are the one-hot labels with
    /// label smoothing.
    fn shares(&self, targets: &Targets) -> Tensor<2> {
        let spread = || {
            // Burn's `one_hot` reads the labels, which would synchronize with the device.
            let one_hot = targets.labels.clone().unsqueeze_dim::<2>(1).equal(self.classes.clone()).float();
            one_hot.mul_scalar(1.0 - self.smoothing).add_scalar(self.smoothing / self.classes.dims()[1] as f64)
        };
        targets.shares.clone().unwrap_or_else(spread)
    }

    /// Returns the soft targets times the class weights.
    fn weighted(&self, targets: &Targets) -> Tensor<2> {
        let shares = self.shares(targets);
        match &self.weights {
            Some(weights) => shares * weights.clone(),
            None => shares,
        }
    }
}

fn row_sums(values: Tensor<2>) -> Tensor<1> {
    values.sum_dim(1).squeeze_dim::<1>(1)
}

/// Computes the cross-entropy of `logits` `[N, C]` with the classes `targets` `[N]` and label
/// smoothing `smoothing`, as PyTorch's `cross_entropy(label_smoothing=…)`. Returns one value per
/// sample, `[N]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    let target = log_probabilities.clone().gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1);
    if smoothing == 0.0 {
        return target.neg();
    }
    let uniform = log_probabilities.mean_dim(1).squeeze_dim::<1>(1);
    (target.mul_scalar(1.0 - smoothing) + uniform.mul_scalar(smoothing)).neg()
}

/// Computes the cross-entropy with soft targets; both arguments are `[N, C]`. Equals PyTorch's
/// `cross_entropy` with class probabilities, and with `weight` if `shares` are multiplied by class
/// weights.
fn soft_cross_entropy(logits: Tensor<2>, shares: Tensor<2>) -> Tensor<1> {
    row_sums(log_softmax(logits, 1) * shares).neg()
}

/// Computes the cross-entropy with soft targets, with each class's term multiplied by
/// `(1 - p)^gamma`.
fn focal(logits: Tensor<2>, shares: Tensor<2>, gamma: f64) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    // Clamped above 0, where powers below 1 have an infinite derivative.
    let missing = log_probabilities.clone().exp().neg().add_scalar(1.0).clamp_min(1e-7);
    row_sums(missing.powf_scalar(gamma) * log_probabilities * shares).neg()
}

/// Computes `max(x, 0) - x·t + ln(1 + e^-|x|)`, `[N, C]`.
fn binary_cross_entropy(logits: Tensor<2>, shares: Tensor<2>) -> Tensor<2> {
    let overflow_free = logits.clone().abs().neg().exp().log1p();
    logits.clone().clamp_min(0.0) - logits * shares + overflow_free
}

/// Computes the Kullback–Leibler divergence KL(teacher ‖ student) of softmax probabilities, with
/// logits `[N, C]` divided by `temperature`, times `temperature²` (Hinton et al. 2015). Returns one
/// value per sample, `[N]`.
pub fn soft_distillation(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let student = log_softmax(student.div_scalar(temperature), 1);
    let teacher = log_softmax(teacher.div_scalar(temperature), 1);
    row_sums(teacher.clone().exp() * (teacher - student)).mul_scalar(temperature * temperature)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::ClassWeights;

    #[derive(Deserialize)]
    struct Fixture {
        logits: Vec<[f32; 4]>,
        labels: Vec<i64>,
        shares: Vec<[f32; 4]>,
        weights: Vec<f32>,
        teacher: Vec<[f32; 4]>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        smoothing: f64,
        dense: bool,
        weighted: bool,
        gamma: Option<f64>,
        threshold: Option<f64>,
        sum: Option<bool>,
        temperature: Option<f64>,
        losses: Vec<f64>,
        gradient: Vec<f64>,
    }

    /// The fixture is written by `scripts/golden_losses.py`.
    #[test]
    fn losses_and_gradients_match_pytorch_and_timm() {
        let fixture: Fixture = serde_json::from_str(include_str!("../tests/fixtures/loss/losses.json")).unwrap();
        assert!(fixture.cases.len() > 15);
        let device = Device::default().autodiff();
        let matrix =
            |rows: &[[f32; 4]]| Tensor::<1>::from_floats(rows.as_flattened(), &device).reshape([rows.len(), 4]);
        for case in &fixture.cases {
            let logits = matrix(&fixture.logits).require_grad();
            let targets = Targets {
                labels: Tensor::from_data(fixture.labels.as_slice(), &device),
                shares: case.dense.then(|| matrix(&fixture.shares)),
            };
            let losses = match case.temperature {
                Some(temperature) => soft_distillation(logits.clone(), matrix(&fixture.teacher), temperature),
                None => {
                    let config = LossConfig {
                        name: serde_json::from_value(case.name.as_str().into()).unwrap(),
                        gamma: case.gamma.unwrap_or(2.0),
                        target_threshold: case.threshold,
                        sum_classes: case.sum.unwrap_or(false),
                        class_weights: match case.weighted {
                            true => ClassWeights::Listed(fixture.weights.clone()),
                            false => LossConfig::default().class_weights,
                        },
                    };
                    let loss = Loss::new(&config, case.smoothing, &[1; 4], &device).unwrap();
                    loss.each(logits.clone(), &targets)
                }
            };
            let gradients = losses.clone().mean().backward();
            let gradient = logits.grad(&gradients).unwrap();
            let close = |ours: burn::tensor::TensorData, theirs: &[f64], what: &str| {
                let ours: Vec<f64> = ours.iter::<f64>().collect();
                assert_eq!(ours.len(), theirs.len());
                for (a, b) in ours.iter().zip(theirs) {
                    assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{} {what}: {ours:?} {theirs:?}", case.name);
                }
            };
            close(losses.into_data(), &case.losses, "values");
            close(gradient.into_data(), &case.gradient, "gradient");
        }
    }

    #[test]
    fn extreme_logits_have_finite_losses_and_gradients() {
        let device = Device::default().autodiff();
        for name in [LossName::CrossEntropy, LossName::Bce, LossName::Focal] {
            for gamma in [0.5, 2.0] {
                let logits = Tensor::<2>::from_floats([[300.0, -300.0], [-90.0, 90.0]], &device).require_grad();
                let labels = Tensor::<1, Int>::from_ints([0, 0], &device);
                let shares = Some(Tensor::from_floats([[0.7, 0.3], [1.0, 0.0]], &device));
                let loss = Loss::new(&LossConfig { name, gamma, ..Default::default() }, 0.0, &[1, 1], &device).unwrap();
                let losses = loss.each(logits.clone(), &Targets { labels, shares });
                let gradient = logits.grad(&losses.clone().mean().backward()).unwrap();
                let all: Vec<f32> = losses.into_data().iter().chain(gradient.into_data().iter()).collect();
                assert!(all.iter().all(|value: &f32| value.is_finite()), "{name:?} {gamma} {all:?}");
            }
        }
    }
}
