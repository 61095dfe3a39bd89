//! Access to the parameters of a network without regard to their rank.

use std::collections::HashMap;

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use mbconv_nets::Network;

/// Returns the tensors that are not trained, as vectors without autodiff: the running statistics,
/// which are the only state that a forward pass changes, and frozen weights.
pub(crate) fn untrained(network: &Network) -> Vec<Tensor<1>> {
    struct Collect(Vec<Tensor<1>>);

    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.is_require_grad() {
                self.0.push(param.val().inner().reshape([-1]));
            }
        }
    }

    let mut collect = Collect(Vec::new());
    network.visit(&mut collect);
    collect.0
}

/// Replaces the tensors that [`untrained`] returns.
pub(crate) fn with_untrained(network: Network, tensors: impl IntoIterator<Item = Tensor<1>>) -> Network {
    struct Restore<I>(I);

    impl<I: Iterator<Item = Tensor<1>>> ModuleMapper for Restore<I> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if param.is_require_grad() {
                return param;
            }
            let Some(tensor) = self.0.next() else { return param };
            param.map(|before| with_autodiff_of(&before, tensor.reshape(before.dims())))
        }
    }

    network.map(&mut Restore(tensors.into_iter()))
}

/// Replaces parameters by tensors without autodiff.
pub(crate) fn replace(network: Network, tensors: HashMap<ParamId, DispatchTensor>) -> Network {
    struct Replace(HashMap<ParamId, DispatchTensor>);

    impl ModuleMapper for Replace {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(tensor) = self.0.remove(&param.id) else { return param };
            param.map(|before| with_autodiff_of(&before, Tensor::from_dispatch(tensor)))
        }
    }

    network.map(&mut Replace(tensors))
}

/// Returns `tensor`, which has no autodiff, with the autodiff settings of `other`.
pub(crate) fn with_autodiff_of<const D: usize>(other: &Tensor<D>, tensor: Tensor<D>) -> Tensor<D> {
    let Some(strategy) = other.gradient_checkpointing_strategy() else { return tensor };
    let tensor = Tensor::from_inner(tensor).with_gradient_checkpointing_strategy(strategy);
    tensor.set_require_grad(other.is_require_grad())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use mbconv_nets::MobileNetV2Config;

    use super::*;

    #[test]
    fn running_statistics_can_be_restored() {
        let device = Device::default().autodiff();
        let network = MobileNetV2Config::new(2).with_width(0.1).init(&device);
        let means = |network: &Network| network.head.norm.running_mean.value().into_data();
        let before = means(&network);
        let statistics = untrained(&network);
        network.forward(Tensor::full([2, 3, 32, 32], f32::NAN, &device));
        assert_ne!(means(&network), before);
        let network = with_untrained(network, statistics);
        assert_eq!(means(&network), before);
        assert!(network.classifier.weight.is_require_grad());
    }
}
