//! Parameter ids that are the same in every process.

use crate::fnv::{BASIS, fnv};
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor};
use mbconv_nets::weights::{load_state_dict, state_dict};
use mbconv_nets::{Architecture, Network};

/// Gives every parameter an id computed from its path, so that an optimizer state can be loaded in
/// another process. Burn's own ids are random, and its optimizer records are keyed by id.
pub fn with_stable_ids(network: Network) -> Network {
    network.map(&mut StableIds { path: Vec::new() })
}

/// Creates a network with initialized weights and stable ids. The weights are initialized on the
/// CPU, so that a seed gives the same weights on every device.
pub fn fresh_network(architecture: &Architecture, seed: u64, device: &Device) -> Network {
    let host = Device::flex();
    host.seed(seed);
    device.seed(seed);
    let drawn = state_dict(&Network::new(architecture, &host)).into_iter().map(|(info, data)| (info.key, data));
    let network = load_state_dict(Network::new(architecture, device), drawn.collect()).expect("the same architecture");
    with_stable_ids(network)
}

/// Returns the FNV-1a hash of a parameter's path as its id.
pub(super) fn stable_id(path: &str) -> ParamId {
    // Checkpoints were first written when γ and β had PyTorch's names.
    let path = path.replace(".norm.gamma", ".norm.weight").replace(".norm.beta", ".norm.bias");
    ParamId::from(fnv(BASIS, path.as_bytes()))
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

    use mbconv_nets::EfficientNetConfig;
    use mbconv_nets::layout::tensors;

    use super::*;

    #[test]
    fn stable_ids_are_unique() {
        let architecture = EfficientNetConfig::published(7, 1000).unwrap().architecture().unwrap();
        let list = tensors(&architecture);
        let ids: HashSet<u64> = list.iter().map(|tensor| stable_id(&tensor.path).val()).collect();
        assert_eq!(ids.len(), list.len());
    }
}
