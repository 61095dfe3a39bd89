//! Optimizers by recipe, on Burn's.

use burn::module::{Module, ModuleMapper, Param, ParamGroup, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::tensor::Tensor;
use mbconv_nets::Network;
use mbconv_nets::layout::{Role, tensors};
use serde::{Deserialize, Serialize};

use crate::recipe::{RecipeError, ensure};

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which optimizer.
    pub name: OptimizerName,
    /// Full learning rate, which the schedule scales.
    pub learning_rate: f64,
    /// Momentum.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// Nesterov's momentum rather than the classical.
    #[serde(default = "yes")]
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decay biases and batch-norm's weight and bias too.
    #[serde(default)]
    pub decay_norm_and_bias: bool,
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// Stochastic gradient descent, as PyTorch's (no dampening).
    Sgd,
}

fn default_momentum() -> f64 {
    0.9
}
fn yes() -> bool {
    true
}

impl OptimizerConfig {
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        let Self { learning_rate, momentum, weight_decay, .. } = *self;
        let positive = learning_rate > 0.0 && learning_rate.is_finite();
        ensure(positive, "optimizer.learning_rate", learning_rate, "above 0 and finite")?;
        ensure((0.0..1.0).contains(&momentum), "optimizer.momentum", momentum, "in [0, 1)")?;
        ensure((0.0..=1.0).contains(&weight_decay), "optimizer.weight_decay", weight_decay, "in [0, 1]")
    }

    /// The optimizer for `network`, with a group that is not decayed.
    pub fn init(&self, network: &Network) -> ModuleOptimizer {
        let momentum = (self.momentum > 0.0).then(|| {
            MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0).with_nesterov(self.nesterov)
        });
        let plain = SgdConfig::new().with_momentum(momentum);
        if self.weight_decay == 0.0 {
            return plain.init();
        }
        let decay = WeightDecayConfig::new(self.weight_decay as f32);
        let decayed = plain.clone().with_weight_decay(Some(decay)).init();
        if self.decay_norm_and_bias {
            return decayed;
        }
        let undecayed = tensors(network.architecture()).into_iter().filter(|tensor| tensor.role == Role::NormOrBias);
        let paths: Vec<String> = undecayed.map(|tensor| tensor.path).collect();
        decayed.with_group(ParamGroup::from_paths(paths), plain.build(), None)
    }
}

/// Gives every parameter an id that follows from its path, so that an optimizer's saved state finds it again in
/// another process (Burn's ids are random, and its optimizer records are keyed by them).
pub fn with_stable_ids(network: Network) -> Network {
    network.map(&mut StableIds { path: Vec::new() })
}

fn stable_id(path: &str) -> ParamId {
    // FNV-1a
    let hash = path
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ParamId::from(hash)
}

struct StableIds {
    path: Vec<String>,
}

impl ModuleMapper for StableIds {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(stable_id(&self.path.join(".")), tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use burn::optim::GradientsParams;
    use burn::tensor::{Device, TensorData};
    use mbconv_nets::{EfficientNetConfig, MobileNetV2Config};

    use super::*;

    #[test]
    fn ids_are_unique() {
        let architecture = EfficientNetConfig::published(7, 1000).unwrap().architecture().unwrap();
        let list = tensors(&architecture);
        let ids: HashSet<u64> = list.iter().map(|tensor| stable_id(&tensor.path).val()).collect();
        assert_eq!(ids.len(), list.len());
    }

    /// One step with zero gradients: what decays shrinks by `lr · decay`, the rest stays.
    #[test]
    fn norms_and_biases_do_not_decay() {
        let device = Device::default().autodiff();
        let network = with_stable_ids(MobileNetV2Config::new(2).with_width(0.1).init(&device));
        let config = OptimizerConfig {
            name: OptimizerName::Sgd,
            learning_rate: 0.5,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.1,
            decay_norm_and_bias: false,
        };
        let loss = network.forward(Tensor::zeros([2, 3, 32, 32], &device)).sum().mul_scalar(0.0);
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        let read = |data: TensorData| data.try_to_vec::<f32>().unwrap();
        let before = read(network.classifier.weight.val().into_data());
        let network = config.init(&network).step(0.5, network, gradients);
        let after = read(network.classifier.weight.val().into_data());
        assert!(before.iter().zip(&after).all(|(b, a)| (b * 0.95 - a).abs() < 1e-7));
        assert!(read(network.stem.norm.weight.val().into_data()).iter().all(|&w| w == 1.0));
    }
}
