//! `[loss]` and `[distillation]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use super::error::{RecipeError, ensure};

/// `[loss]`: the training loss. Label smoothing is set by `label_smoothing`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Name of the loss.
    pub name: LossName,
    /// Exponent γ of `focal`; 0 gives cross-entropy.
    #[schemars(range(min = 0, max = 100))]
    pub gamma: f64,
    /// Threshold of `bce`: targets above it become 1, others 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub target_threshold: Option<f64>,
    /// Sum the classes in `bce` instead of averaging them.
    pub sum_classes: bool,
    /// Weights of the classes.
    pub class_weights: ClassWeights,
}

/// Names of the losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossName {
    /// `cross_entropy`, or `bce` for multi-label data.
    #[default]
    Auto,
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Binary cross-entropy of each class, as in timm (Wightman et al. 2021).
    Bce,
    /// Softmax focal loss (Lin et al. 2017), which reduces the weight of well-classified images.
    Focal,
}

impl LossName {
    /// Returns the loss that `auto` stands for.
    pub fn resolved(self, multi_label: bool) -> Self {
        match self {
            Self::Auto if multi_label => Self::Bce,
            Self::Auto => Self::CrossEntropy,
            name => name,
        }
    }

    /// Returns the name in recipes.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::CrossEntropy => "cross_entropy",
            Self::Bce => "bce",
            Self::Focal => "focal",
        }
    }
}

/// Class weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "class_weights is \"none\", \"balanced\" or a list of one number a class")]
pub enum ClassWeights {
    /// A named rule.
    Named(NamedWeights),
    /// One weight per class.
    Listed(#[schemars(inner(range(min = 0)))] Vec<f32>),
}

impl Default for ClassWeights {
    fn default() -> Self {
        Self::Named(NamedWeights::None)
    }
}

/// Rules for class weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamedWeights {
    /// Equal weights.
    None,
    /// Inversely proportional to the number of training images of the class, with a mean of 1 over
    /// all images.
    Balanced,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            name: LossName::Auto,
            gamma: 2.0,
            target_threshold: None,
            sum_classes: false,
            class_weights: ClassWeights::default(),
        }
    }
}

impl LossConfig {
    pub(super) fn check(&self) -> Result<(), RecipeError> {
        if let ClassWeights::Listed(weights) = &self.class_weights {
            let any = weights.iter().any(|weight| *weight > 0.0);
            ensure(any, "loss.class_weights", format!("{weights:?}"), "numbers of at least 0, one of them above")?;
        }
        Ok(())
    }

    /// Returns one weight per class for classes with `counts` training images, or `None` if all
    /// weights are equal.
    ///
    /// # Errors
    /// Returns an error if the length of a list differs from the number of classes.
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

/// `[distillation]`: knowledge distillation from a teacher network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillationConfig {
    /// Model file or run folder of the teacher; the program also accepts names of published weights
    /// and of architectures. Its classes are matched by name.
    pub teacher: PathBuf,
    /// Kind of distillation.
    #[serde(default)]
    pub kind: DistillationKind,
    /// Weight of the teacher in the loss; the labels have weight `1 - alpha`.
    #[serde(default = "defaults::half")]
    #[schemars(range(min = 0, max = 1))]
    pub alpha: f64,
    /// Temperature of `soft`, by which logits are divided.
    #[serde(default = "defaults::one")]
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
}

/// Kinds of distillation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DistillationKind {
    /// Kullback–Leibler divergence KL(teacher ‖ student), times the temperature squared (Hinton et
    /// al. 2015).
    #[default]
    Soft,
    /// Cross-entropy with the teacher's most probable class (Touvron et al. 2021).
    Hard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_class_weights_match_scikit_learn() {
        // From sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2],
        // y=[0] * 6 + [1] * 3 + [2]).
        let balanced = LossConfig { class_weights: ClassWeights::Named(NamedWeights::Balanced), ..Default::default() };
        let weights = balanced.weights(&[6, 3, 1]).unwrap().unwrap();
        assert!(weights.iter().zip([5.0 / 9.0, 10.0 / 9.0, 10.0 / 3.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        // Classes without images are ignored.
        assert_eq!(balanced.weights(&[5, 5, 0]).unwrap().unwrap()[..2], [1.0, 1.0]);
        let listed = LossConfig { class_weights: ClassWeights::Listed(vec![1.0, 2.0]), ..Default::default() };
        assert!(listed.weights(&[1, 1, 1]).unwrap_err().to_string().contains("one a class"));
    }
}
