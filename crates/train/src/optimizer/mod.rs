//! The recipe's optimizers and their parameter groups.
//!
//! SGD, TensorFlow's RMSProp and AdamW are a [`Rule`] for each parameter. [`NetworkOptimizer`] runs
//! the steps of all parameters at once. LAMB, Adan and Muon are Burn's implementations, which
//! Burn's [`ModuleOptimizer`] runs parameter by parameter.

mod burn_optimizers;
pub(crate) mod clip;
pub(crate) mod groups;
pub(crate) mod multi_tensor;
pub(crate) mod param_ids;
mod record;
mod rule;

use std::collections::HashMap;

use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdanConfig, AdjustLrFn, LambConfig, ModuleOptimizer, MuonConfig, SgdConfig};
use mbconv_nets::Architecture;

use self::burn_optimizers::{MuonOnConvolutions, Scaled};
pub use self::clip::{Clipping, global_norm, scale};
use self::groups::{Group, Kind, groups};
pub use self::multi_tensor::NetworkOptimizer;
pub use self::param_ids::{fresh_network, with_stable_ids};
pub use self::rule::{Rule, RuleKind};
use crate::config::optimizer::{OptimizerConfig, OptimizerName};

impl OptimizerConfig {
    /// Returns the gradient-clipping settings.
    pub fn clipping(&self) -> Clipping {
        Clipping { norm: self.clip_norm, adaptive: self.adaptive_clip }
    }

    /// Creates the optimizer of a network of `architecture` whose parameters have [stable
    /// ids](with_stable_ids).
    pub fn init(&self, architecture: &Architecture) -> NetworkOptimizer {
        let mut rules = HashMap::new();
        let mut burn: Option<ModuleOptimizer> = None;
        for group in groups(self, architecture) {
            match (self.name, group.kind) {
                (OptimizerName::Lamb | OptimizerName::Adan, _) | (OptimizerName::Muon, Kind::Matrix) => {
                    // Burn requires an optimizer for other parameters. They have no gradients.
                    let optimizer = burn.unwrap_or_else(|| SgdConfig::new().init());
                    burn = Some(self.add_burn_optimizer(optimizer, group));
                }
                _ => {
                    let rule = self.rule(self.decay(&group), group.factor);
                    rules.extend(group.ids.into_iter().map(|id| (id, rule)));
                }
            }
        }
        NetworkOptimizer::new(rules, burn)
    }

    /// Adds Burn's implementation of this optimizer for the parameters of `group`.
    fn add_burn_optimizer(&self, optimizer: ModuleOptimizer, group: Group) -> ModuleOptimizer {
        let decay = self.decay(&group);
        let Group { ids, factor, .. } = group;
        let beta = |index: usize, default: f64| {
            self.betas.as_ref().and_then(|betas| betas.get(index)).map_or(default, |&beta| beta) as f32
        };
        let epsilon = |default: f64| self.epsilon.unwrap_or(default) as f32;
        let ids = ParamGroup::from_ids(ids);
        match self.name {
            OptimizerName::Lamb => {
                let config = LambConfig::new().with_beta_1(beta(0, 0.9)).with_beta_2(beta(1, 0.999));
                let lamb = config.with_epsilon(epsilon(1e-6)).with_weight_decay(decay as f32).build();
                optimizer.with_group(ids, Scaled { optimizer: lamb, factor }, None)
            }
            OptimizerName::Adan => {
                let config = AdanConfig::new().with_beta_1(beta(0, 0.98)).with_beta_2(beta(1, 0.92));
                let config = config.with_beta_3(beta(2, 0.99)).with_epsilon(epsilon(1e-8));
                let adan = config.with_weight_decay(decay as f32).build();
                optimizer.with_group(ids, Scaled { optimizer: adan, factor }, None)
            }
            _ => {
                let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
                let config = MuonConfig::new()
                    .with_momentum(momentum.with_nesterov(true))
                    .with_weight_decay((decay > 0.0).then(|| WeightDecayConfig::new(decay as f32)))
                    .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW);
                let muon = MuonOnConvolutions(config.build());
                optimizer.with_group(ids, Scaled { optimizer: muon, factor }, None)
            }
        }
    }

    /// Returns the weight decay of a group.
    fn decay(&self, group: &Group) -> f64 {
        if group.decays { self.weight_decay } else { 0.0 }
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

    /// Muon uses Burn's optimizer for some parameters and AdamW for the others.
    #[test]
    fn optimizer_continues_bit_identically_from_saved_state() {
        let device = Device::default().autodiff();
        for name in [OptimizerName::Sgd, OptimizerName::AdamW, OptimizerName::Lamb, OptimizerName::Muon] {
            device.seed(1);
            let config = OptimizerConfig { name, weight_decay: 1e-4, ..Default::default() };
            let mut network = with_stable_ids(MobileNetV2Config::new(2).with_width(0.1).init(&device));
            let mut optimizer = config.init(network.architecture());
            let gradients = |network: &mbconv_nets::Network| {
                let loss = network.forward(Tensor::ones([2, 3, 32, 32], &device)).square().sum();
                GradientsParams::from_grads(loss.backward(), network)
            };
            network = optimizer.step(0.01, network.clone(), gradients(&network));
            let bytes = optimizer.into_bytes().unwrap();
            let mut restored = config.init(network.architecture()).from_bytes(bytes.clone()).unwrap();
            assert_eq!(restored.into_bytes().unwrap(), bytes, "{name:?}");
            let weights = |optimizer: &mut NetworkOptimizer| {
                let stepped = optimizer.step(0.01, network.clone(), gradients(&network));
                [stepped.head.weight.val().flatten::<1>(0, 3), stepped.stem.norm.gamma.val()].map(Tensor::into_data)
            };
            assert_eq!(weights(&mut optimizer), weights(&mut restored), "{name:?}");
        }
    }
}
