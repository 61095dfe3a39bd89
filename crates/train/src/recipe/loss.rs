//! `[loss]` and `[distillation]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RecipeError, ensure};

/// `[loss]`: what is minimised. The share of the targets that is spread over all classes is `label_smoothing`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Which loss.
    pub name: LossName,
    /// `focal`: exponent of the probability that is missing; 0 gives cross-entropy.
    pub gamma: f64,
    /// `bce`: targets above this become 1, others 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_threshold: Option<f64>,
    /// `bce`: add the classes up instead of averaging them.
    pub sum_classes: bool,
    /// How much each class counts: `"none"`, `"balanced"` or one number a class.
    pub class_weights: ClassWeights,
}

/// The losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// Cross-entropy of the softmax.
    #[default]
    CrossEntropy,
    /// Binary cross-entropy of each class, as timm's (Wightman et al. 2021).
    Bce,
    /// Cross-entropy that counts well-recognised images less (Lin et al. 2017), of the softmax.
    Focal,
}

/// How much each class counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "class_weights is \"none\", \"balanced\" or a list of one number a class")]
pub enum ClassWeights {
    /// By name.
    Named(NamedWeights),
    /// One number a class.
    Listed(Vec<f32>),
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self::Named(NamedWeights::None)
    }
}

/// Class weights by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedWeights {
    /// All the same.
    None,
    /// In inverse proportion to a class's training images, such that their mean over all images is 1.
    Balanced,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            name: LossName::CrossEntropy,
            gamma: 2.0,
            target_threshold: None,
            sum_classes: false,
            class_weights: ClassWeights::default(),
        }
    }
}

impl LossConfig {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        ensure((0.0..=100.0).contains(&self.gamma), "loss.gamma", self.gamma, "between 0 and 100")?;
        if let Some(threshold) = self.target_threshold {
            ensure((0.0..1.0).contains(&threshold), "loss.target_threshold", threshold, "in [0, 1)")?;
        }
        if let ClassWeights::Listed(weights) = &self.class_weights {
            let holds = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0)
                && weights.iter().any(|weight| *weight > 0.0);
            ensure(holds, "loss.class_weights", format!("{weights:?}"), "numbers of at least 0, one of them above")?;
        }
        Ok(())
    }

    /// One weight a class, for classes of that many training images; none where all are the same.
    ///
    /// # Errors
    /// A list of another length than there are classes.
    pub fn weights(&self, counts: &[usize]) -> Result<Option<Vec<f32>>, RecipeError> {
        match &self.class_weights {
            ClassWeights::Named(NamedWeights::None) => Ok(None),
            ClassWeights::Named(NamedWeights::Balanced) => {
                let present = counts.iter().filter(|&&count| count > 0).count();
                let images: usize = counts.iter().sum();
                let weight = |&count: &usize| images as f64 / (present * count.max(1)) as f64;
                Ok(Some(counts.iter().map(|count| weight(count) as f32).collect()))
            }
            ClassWeights::Listed(weights) => {
                let (given, classes) = (weights.len(), counts.len());
                let shown = format!("a list of {given} numbers");
                ensure(given == classes, "loss.class_weights", shown, &format!("of {classes}, one a class"))?;
                Ok(Some(weights.clone()))
            }
        }
    }
}

/// `[distillation]`: a network to learn from besides the labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillationConfig {
    /// Model file or run folder of the teacher, whose classes are found by name.
    pub teacher: PathBuf,
    /// What is learnt from it.
    #[serde(default)]
    pub kind: DistillationKind,
    /// Share of the teacher in the loss; the rest is the labels'.
    #[serde(default = "half")]
    pub alpha: f64,
    /// `soft`: by what logits are divided.
    #[serde(default = "one")]
    pub temperature: f64,
}

/// What is learnt from a teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistillationKind {
    /// Its probabilities, by Kullback–Leibler divergence times the temperature squared (Hinton et al. 2015).
    #[default]
    Soft,
    /// Its first choice, by cross-entropy (Touvron et al. 2021).
    Hard,
}

fn half() -> f64 {
    0.5
}
fn one() -> f64 {
    1.0
}

impl DistillationConfig {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        let Self { alpha, temperature, .. } = *self;
        ensure((0.0..=1.0).contains(&alpha), "distillation.alpha", alpha, "in [0, 1]")?;
        let positive = temperature > 0.0 && temperature <= 1000.0;
        ensure(positive, "distillation.temperature", temperature, "above 0 and at most 1000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=[0] * 6 + [1] * 3 + [2])
        let balanced = LossConfig { class_weights: ClassWeights::Named(NamedWeights::Balanced), ..Default::default() };
        let weights = balanced.weights(&[6, 3, 1]).unwrap().unwrap();
        assert!(weights.iter().zip([5.0 / 9.0, 10.0 / 9.0, 10.0 / 3.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        // A class without images takes no part.
        assert_eq!(balanced.weights(&[5, 5, 0]).unwrap().unwrap()[..2], [1.0, 1.0]);
        let listed = LossConfig { class_weights: ClassWeights::Listed(vec![1.0, 2.0]), ..Default::default() };
        assert!(listed.weights(&[1, 1, 1]).unwrap_err().to_string().contains("one a class"));
    }
}
