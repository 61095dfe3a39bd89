//! Parameter groups: weight decay and learning-rate factor of each parameter.

use burn::module::ParamId;
use mbconv_nets::Architecture;
use mbconv_nets::layout::{Role, TensorInfo, tensors};

use super::param_ids::stable_id;
use crate::config::optimizer::OptimizerConfig;

/// Parameters that share the settings of an optimizer.
pub(super) struct Group {
    pub(super) ids: Vec<ParamId>,
    pub(super) kind: Kind,
    /// True if weight decay applies.
    pub(super) decays: bool,
    /// Factor of the learning rate.
    pub(super) factor: f64,
}

/// Kind of parameter. Muon treats the two kinds differently.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Weights of ungrouped convolutions.
    Matrix,
    /// The classifier, depthwise convolutions, batch-norms and biases.
    Other,
}

/// Groups all trained parameters by kind, weight decay and learning-rate factor.
pub(super) fn groups(config: &OptimizerConfig, architecture: &Architecture) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for tensor in tensors(architecture).iter().filter(|tensor| tensor.role != Role::Statistic) {
        let decays = tensor.role == Role::Weight || config.decay_norm_and_bias;
        let is_matrix = tensor.shape.len() == 4 && tensor.shape[1] > 1;
        let kind = if is_matrix { Kind::Matrix } else { Kind::Other };
        let factor = factor(config, architecture, tensor);
        let id = stable_id(&tensor.path);
        let like = |group: &&mut Group| (group.kind, group.decays, group.factor) == (kind, decays, factor);
        match groups.iter_mut().find(like) {
            Some(group) => group.ids.push(id),
            None => groups.push(Group { ids: vec![id], kind, decays, factor }),
        }
    }
    groups
}

/// Returns the learning-rate factor of a tensor: 1 for the classifier; for other layers
/// `body_factor`, multiplied by `layer_decay` for each stage between the layer and the classifier.
fn factor(config: &OptimizerConfig, architecture: &Architecture, tensor: &TensorInfo) -> f64 {
    let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
    let mut path = tensor.path.split('.');
    // Distance from the classifier in stages.
    let distance = match (path.next(), path.next().and_then(|index| index.parse::<usize>().ok())) {
        (Some("classifier"), _) => return 1.0,
        (Some("head"), _) => 1,
        (_, Some(block)) => 1 + stages - architecture.blocks[block].stage,
        _ => 2 + stages,
    };
    config.body_factor * config.layer_decay.powi(distance as i32)
}

#[cfg(test)]
mod tests {
    use mbconv_nets::MobileNetV2Config;

    use super::*;

    #[test]
    fn each_parameter_is_in_one_group_and_layer_decay_lowers_its_factor() {
        let architecture = MobileNetV2Config::new(3).architecture().unwrap();
        let config = OptimizerConfig { body_factor: 0.5, layer_decay: 0.8, ..OptimizerConfig::default() };
        let groups = groups(&config, &architecture);
        let trained = tensors(&architecture).iter().filter(|tensor| tensor.role != Role::Statistic).count();
        assert_eq!(groups.iter().map(|group| group.ids.len()).sum::<usize>(), trained);
        let factor_of = |path: &str| {
            let id = stable_id(path);
            groups.iter().find(|group| group.ids.contains(&id)).unwrap().factor
        };
        assert_eq!(factor_of("classifier.weight"), 1.0);
        for (path, distance) in [("head.weight", 1), ("blocks.16.project.weight", 2), ("blocks.0.depthwise.weight", 8)]
        {
            assert!((factor_of(path) - 0.5 * 0.8f64.powi(distance)).abs() < 1e-12, "{path}");
        }
        assert!((factor_of("stem.norm.beta") - 0.5 * 0.8f64.powi(9)).abs() < 1e-12);
    }
}
