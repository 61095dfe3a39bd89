//! `[optimizer]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::defaults;
use super::error::{RecipeError, ensure};

/// `[optimizer]`: the optimizer and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Name of the optimizer.
    pub name: OptimizerName,
    /// Base learning rate, scaled by the schedule.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Number of images per optimizer step for which `learning_rate` is given: the learning rate is
    /// scaled in proportion to `batch_size · accumulate` (Goyal et al. 2017). If absent, it is used
    /// unscaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub learning_rate_per: Option<usize>,
    /// Momentum of `sgd`, `rmsprop_tf` and `muon`.
    #[serde(default = "default_momentum")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// Use Nesterov momentum in `sgd`.
    #[serde(default = "defaults::yes")]
    pub nesterov: bool,
    /// Decay factor of the mean square in `rmsprop_tf`.
    #[serde(default = "default_alpha")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub alpha: f64,
    /// Decay factors of the moments: two for `adamw` and `lamb` (default `[0.9, 0.999]`), three for
    /// `adan` (default `[0.98, 0.92, 0.99]`). The defaults are those of the authors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = { "type": "number", "minimum": 0, "exclusiveMaximum": 1 }))]
    pub betas: Option<Vec<f64>>,
    /// Added to denominators. Defaults: 1e-3 for `rmsprop_tf`, 1e-6 for `lamb`, 1e-8 for the
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: Option<f64>,
    /// Weight decay: an L2 penalty added to the gradient in `sgd` and `rmsprop_tf`, decoupled in
    /// the others.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub weight_decay: f64,
    /// Also decay biases and the weight and bias of batch-norms.
    #[serde(default)]
    pub decay_norm_and_bias: bool,
    /// Learning-rate factor of all layers except the classifier.
    #[serde(default = "defaults::one")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub body_factor: f64,
    /// Factor by which the learning rate decreases per stage from the classifier to the stem.
    #[serde(default = "defaults::one")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub layer_decay: f64,
    /// Largest global gradient norm (Pascanu et al. 2013).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// Largest gradient norm of an output channel relative to the norm of its weights: adaptive
    /// gradient clipping (Brock et al. 2021) for all layers except the classifier. 0.01 is
    /// customary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adaptive_clip: Option<f64>,
}

/// Names of the optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// SGD as in PyTorch, without dampening.
    Sgd,
    /// RMSProp as in TensorFlow and timm's `RMSpropTF`.
    RmspropTf,
    /// AdamW as in PyTorch.
    #[serde(rename = "adamw")]
    AdamW,
    /// LAMB (You et al. 2020), from Burn.
    Lamb,
    /// Adan (Xie et al. 2022), from Burn.
    Adan,
    /// Muon (Jordan et al. 2024), from Burn, for all convolutions except depthwise ones, with the
    /// learning rate matched to AdamW's. The other parameters use AdamW.
    Muon,
}

fn default_momentum() -> f64 {
    0.9
}
fn default_alpha() -> f64 {
    0.9
}

impl Default for OptimizerConfig {
    /// SGD with Nesterov momentum and a learning rate of 0.1.
    fn default() -> Self {
        Self {
            name: OptimizerName::Sgd,
            learning_rate: 0.1,
            learning_rate_per: None,
            momentum: default_momentum(),
            nesterov: defaults::yes(),
            alpha: default_alpha(),
            betas: None,
            epsilon: None,
            weight_decay: 0.0,
            decay_norm_and_bias: false,
            body_factor: defaults::one(),
            layer_decay: defaults::one(),
            clip_norm: None,
            adaptive_clip: None,
        }
    }
}

impl OptimizerConfig {
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        let Some(betas) = &self.betas else { return Ok(()) };
        let count = if self.name == OptimizerName::Adan { 3 } else { 2 };
        let expected = format!("{count} numbers for this optimizer");
        ensure(betas.len() == count, "optimizer.betas", format!("{betas:?}"), &expected)
    }

    /// Returns the base learning rate for optimizer steps on `images` images.
    pub fn learning_rate_for(&self, images: usize) -> f64 {
        self.learning_rate * self.learning_rate_per.map_or(1.0, |per| images as f64 / per as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_per_scales_with_the_batch_size() {
        let config = OptimizerConfig { learning_rate: 0.016, learning_rate_per: Some(256), ..Default::default() };
        assert!((config.learning_rate_for(2048) - 0.128).abs() < 1e-12);
        assert_eq!(OptimizerConfig::default().learning_rate_for(2048), 0.1);
    }
}
