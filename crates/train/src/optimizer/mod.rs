//! The recipe's optimizers and their parameter groups.
//!
//! [`Rule`] implements SGD, TensorFlow's RMSProp and AdamW. [`NetworkOptimizer`] applies their
//! steps to all parameters at once. LAMB, Adan and Muon are Burn's implementations. All of them are
//! [`burn::optim::Optimizer`]s inside Burn's [`ModuleOptimizer`].

mod burns;
mod clip;
mod groups;
mod ids;
mod rule;
mod together;

use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdanConfig, AdjustLrFn, LambConfig, ModuleOptimizer, MuonConfig, SgdConfig};
use mbconv_nets::Architecture;
use serde::{Deserialize, Serialize};

use self::burns::{MuonOnConvolutions, Scaled};
pub use self::clip::{Clipping, global_norm, scale};
use self::groups::{Group, Kind, groups};
pub use self::ids::{fresh_network, with_stable_ids};
pub use self::rule::{Rule, RuleKind};
pub use self::together::NetworkOptimizer;
use self::together::{Notes, Noting};
use crate::recipe::error::{RecipeError, ensure};

/// `[optimizer]`: the optimizer and gradient clipping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Name of the optimizer.
    pub name: OptimizerName,
    /// Base learning rate, scaled by the schedule.
    pub learning_rate: f64,
    /// Number of images per optimizer step for which `learning_rate` is given: the learning rate is
    /// scaled in proportion to `batch_size · accumulate` (Goyal et al. 2017). If absent, it is used
    /// unscaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate_per: Option<usize>,
    /// Momentum of `sgd`, `rmsprop_tf` and `muon`.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// Use Nesterov momentum in `sgd`.
    #[serde(default = "yes")]
    pub nesterov: bool,
    /// Decay factor of the mean square in `rmsprop_tf`.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Decay factors of the moments: two for `adamw` and `lamb` (default `[0.9, 0.999]`), three for
    /// `adan` (default `[0.98, 0.92, 0.99]`). The defaults are those of the authors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<Vec<f64>>,
    /// Added to denominators. Defaults: 1e-3 for `rmsprop_tf`, 1e-6 for `lamb`, 1e-8 for the
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Weight decay: an L2 penalty added to the gradient in `sgd` and `rmsprop_tf`, decoupled in
    /// the others.
    #[serde(default)]
    pub weight_decay: f64,
    /// Also decay biases and the weight and bias of batch-norms.
    #[serde(default)]
    pub decay_norm_and_bias: bool,
    /// Learning-rate factor of all layers except the classifier.
    #[serde(default = "one")]
    pub body_factor: f64,
    /// Factor by which the learning rate decreases per stage from the classifier to the stem.
    #[serde(default = "one")]
    pub layer_decay: f64,
    /// Largest global gradient norm (Pascanu et al. 2013).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Largest gradient norm of an output channel relative to the norm of its weights: adaptive
    /// gradient clipping (Brock et al. 2021) for all layers except the classifier. 0.01 is
    /// customary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<f64>,
}

/// Names of the optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.0
}

impl Default for OptimizerConfig {
    /// SGD with Nesterov momentum and a learning rate of 0.1.
    fn default() -> Self {
        Self {
            name: OptimizerName::Sgd,
            learning_rate: 0.1,
            learning_rate_per: None,
            momentum: default_momentum(),
            nesterov: yes(),
            alpha: default_alpha(),
            betas: None,
            epsilon: None,
            weight_decay: 0.0,
            decay_norm_and_bias: false,
            body_factor: one(),
            layer_decay: one(),
            clip_norm: None,
            adaptive_clip: None,
        }
    }
}

impl OptimizerConfig {
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        let positive = |key: &str, value: f64| {
            ensure(value > 0.0 && value.is_finite(), &format!("optimizer.{key}"), value, "above 0 and finite")
        };
        let share = |key: &str, value: f64| {
            ensure((0.0..1.0).contains(&value), &format!("optimizer.{key}"), value, "in [0, 1)")
        };
        let factor = |key: &str, value: f64| {
            ensure(value > 0.0 && value <= 1.0, &format!("optimizer.{key}"), value, "above 0 and at most 1")
        };
        positive("learning_rate", self.learning_rate)?;
        ensure(self.learning_rate_per != Some(0), "optimizer.learning_rate_per", 0, "above 0")?;
        share("momentum", self.momentum)?;
        share("alpha", self.alpha)?;
        let decay = self.weight_decay;
        ensure((0.0..=1.0).contains(&decay), "optimizer.weight_decay", decay, "in [0, 1]")?;
        factor("body_factor", self.body_factor)?;
        factor("layer_decay", self.layer_decay)?;
        for (key, value) in
            [("epsilon", self.epsilon), ("clip_norm", self.clip_norm), ("adaptive_clip", self.adaptive_clip)]
        {
            value.map_or(Ok(()), |value| positive(key, value))?;
        }
        if let Some(betas) = &self.betas {
            let count = if self.name == OptimizerName::Adan { 3 } else { 2 };
            let shown = format!("{betas:?}");
            ensure(betas.len() == count, "optimizer.betas", shown, &format!("{count} numbers for this optimizer"))?;
            betas.iter().try_for_each(|&beta| share("betas", beta))?;
        }
        Ok(())
    }

    /// Returns the base learning rate for optimizer steps on `images` images.
    pub fn learning_rate_for(&self, images: usize) -> f64 {
        self.learning_rate * self.learning_rate_per.map_or(1.0, |per| images as f64 / per as f64)
    }

    /// Returns the gradient-clipping settings.
    pub fn clipping(&self) -> Clipping {
        Clipping { norm: self.clip_norm, adaptive: self.adaptive_clip }
    }

    /// Creates the optimizer of a network of `architecture` whose parameters have [stable
    /// ids](with_stable_ids).
    pub fn init(&self, architecture: &Architecture) -> NetworkOptimizer {
        let notes = Notes::default();
        // Burn requires a fallback optimizer. It is unused because every parameter is in a group.
        let fallback = SgdConfig::new().init();
        let groups = groups(self, architecture).into_iter();
        let optimizer = groups.fold(fallback, |optimizer, group| self.add(optimizer, group, &notes));
        NetworkOptimizer::new(optimizer, notes)
    }

    fn add(
        &self,
        optimizer: ModuleOptimizer,
        Group { ids, kind, decays, factor }: Group,
        notes: &Notes,
    ) -> ModuleOptimizer {
        let decay = if decays { self.weight_decay } else { 0.0 };
        let beta = |index: usize, default: f64| {
            self.betas.as_ref().and_then(|betas| betas.get(index)).map_or(default, |&beta| beta) as f32
        };
        let epsilon = |default: f64| self.epsilon.unwrap_or(default) as f32;
        match (self.name, kind) {
            (OptimizerName::Lamb, _) => {
                let config = LambConfig::new().with_beta_1(beta(0, 0.9)).with_beta_2(beta(1, 0.999));
                let optimizer_ = config.with_epsilon(epsilon(1e-6)).with_weight_decay(decay as f32).build();
                optimizer.with_group(ParamGroup::from_ids(ids), Scaled { optimizer: optimizer_, factor }, None)
            }
            (OptimizerName::Adan, _) => {
                let config = AdanConfig::new().with_beta_1(beta(0, 0.98)).with_beta_2(beta(1, 0.92));
                let config = config.with_beta_3(beta(2, 0.99)).with_epsilon(epsilon(1e-8));
                let optimizer_ = config.with_weight_decay(decay as f32).build();
                optimizer.with_group(ParamGroup::from_ids(ids), Scaled { optimizer: optimizer_, factor }, None)
            }
            (OptimizerName::Muon, Kind::Matrix) => {
                let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
                let config = MuonConfig::new()
                    .with_momentum(momentum.with_nesterov(true))
                    .with_weight_decay((decay > 0.0).then(|| WeightDecayConfig::new(decay as f32)))
                    .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW);
                let optimizer_ = MuonOnConvolutions(config.build());
                optimizer.with_group(ParamGroup::from_ids(ids), Scaled { optimizer: optimizer_, factor }, None)
            }
            _ => {
                let rule = self.rule(decay, factor);
                ids.into_iter().fold(optimizer, |optimizer, id| {
                    let noting = Noting { id, rule, notes: notes.clone() };
                    optimizer.with_group(ParamGroup::from_ids(vec![id]), noting, None)
                })
            }
        }
    }

    /// Returns the rule of this optimizer, or AdamW for the optimizers that [`Rule`] does not
    /// implement.
    fn rule(&self, weight_decay: f64, factor: f64) -> Rule {
        let kind = match self.name {
            OptimizerName::Sgd => RuleKind::Sgd { momentum: self.momentum, nesterov: self.nesterov },
            OptimizerName::RmspropTf => RuleKind::RmsPropTf {
                alpha: self.alpha,
                momentum: self.momentum,
                epsilon: self.epsilon.unwrap_or(1e-3),
            },
            _ => {
                let betas = self.betas.as_deref().and_then(|betas| betas.try_into().ok()).unwrap_or([0.9, 0.999]);
                RuleKind::AdamW { betas, epsilon: self.epsilon.unwrap_or(1e-8) }
            }
        };
        Rule { kind, weight_decay, factor }
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor, TensorData};
    use mbconv_nets::{MobileNetV2Config, Strides};

    use super::*;

    /// With zero gradients, a step multiplies decayed parameters by `1 - lr · decay` and leaves the
    /// others unchanged.
    #[test]
    fn norms_and_biases_do_not_decay() {
        let device = Device::default().autodiff();
        let network = with_stable_ids(MobileNetV2Config::new(2).with_width(0.1).init(&device));
        let config = OptimizerConfig { nesterov: false, weight_decay: 0.1, ..OptimizerConfig::default() };
        let loss = network.forward(Tensor::zeros([2, 3, 32, 32], &device)).sum().mul_scalar(0.0);
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        let read = |data: TensorData| data.try_to_vec::<f32>().unwrap();
        let before = read(network.classifier.weight.val().into_data());
        let network = config.init(network.architecture()).step(0.5, network, gradients);
        let after = read(network.classifier.weight.val().into_data());
        assert!(before.iter().zip(&after).all(|(b, a)| (b * 0.95 - a).abs() < 1e-7));
        assert!(read(network.stem.norm.gamma.val().into_data()).iter().all(|&w| w == 1.0));
    }

    /// Every optimizer fits a small network to eight random images, and continues from a saved
    /// state.
    #[test]
    fn every_optimizer_learns() {
        let names = ["sgd", "rmsprop_tf", "adamw", "lamb", "adan", "muon"];
        for (name, learning_rate) in names.into_iter().zip([0.02, 0.002, 0.002, 0.01, 0.002, 0.002]) {
            let device = Device::default().autodiff();
            device.seed(1);
            let name: OptimizerName = serde_json::from_value(name.into()).unwrap();
            let config = OptimizerConfig { name, learning_rate, weight_decay: 1e-4, ..Default::default() };
            config.check().unwrap();
            let strides = Strides::Custom(vec![1, 1, 2, 2, 1, 1, 1, 1]);
            let small = MobileNetV2Config::new(2).with_width(0.1).with_strides(strides);
            let mut network = with_stable_ids(small.init(&device));
            let mut optimizer = config.init(network.architecture());
            let images = Tensor::<4>::random([8, 3, 16, 16], burn::tensor::Distribution::Default, &device);
            let targets = Tensor::<1, burn::tensor::Int>::from_ints([0, 1, 0, 1, 0, 1, 0, 1], &device);
            let mut losses = Vec::new();
            for step in 0..30 {
                let logits = network.forward(images.clone());
                let loss = crate::loss::cross_entropy(logits, targets.clone(), 0.0).mean();
                losses.push(loss.clone().into_scalar::<f32>());
                let gradients = GradientsParams::from_grads(loss.backward(), &network);
                network = optimizer.step(learning_rate, network, gradients);
                if step == 10 {
                    let bytes = optimizer.into_bytes().unwrap();
                    optimizer = config.init(network.architecture()).from_bytes(bytes).unwrap();
                }
            }
            assert!(losses[29] < 0.5 * losses[0], "{name:?}: {losses:?}");
        }
    }

    #[test]
    fn learning_rate_per_scales_with_the_batch_size() {
        let config = OptimizerConfig { learning_rate: 0.016, learning_rate_per: Some(256), ..Default::default() };
        assert!((config.learning_rate_for(2048) - 0.128).abs() < 1e-12);
        assert_eq!(OptimizerConfig::default().learning_rate_for(2048), 0.1);
    }
}
