//! Exponential moving average (EMA) of a network's weights and running statistics.

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use mbconv_kernels::optimizer_step::{StepScalars, lerp};
use mbconv_nets::Network;

use crate::params::replace;

/// Updates an average of weights and running statistics: `decay · average + (1 - decay) · network`.
/// Both networks must have the same parameter ids.
pub fn update(average: Network, network: &Network, decay: f64) -> Network {
    update_from(average, network, decay, None)
}

/// Updates an average like [`update`], but reads `decay` and `1 - decay` from `scalars`, so that
/// the update can be replayed with other values.
pub(crate) fn update_from(average: Network, network: &Network, decay: f64, scalars: Option<StepScalars>) -> Network {
    // Used as a container of tensors by parameter id.
    let mut current = GradientsParams::new();
    network.visit(&mut Collect(&mut current));
    let mut taken = Take { current, ids: Vec::new(), averages: Vec::new(), values: Vec::new() };
    let average = average.map(&mut taken);
    let shares = taken.ids.iter().map(|_| [decay, 1.0 - decay]);
    let averaged = lerp(taken.averages, taken.values, shares, scalars);
    replace(average, taken.ids.into_iter().zip(averaged).collect())
}

struct Collect<'a>(&'a mut GradientsParams);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val().inner());
    }
}

/// Takes the averages out of the network, to hold the only reference to their memory. The current
/// weights are placeholders for them.
struct Take {
    current: GradientsParams,
    ids: Vec<ParamId>,
    averages: Vec<DispatchTensor>,
    values: Vec<DispatchTensor>,
}

impl ModuleMapper for Take {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(current) = self.current.remove::<D>(param.id) else { return param };
        self.ids.push(param.id);
        param.map(|average| {
            self.averages.push(average.into_dispatch());
            self.values.push(current.clone().into_dispatch());
            current
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use mbconv_nets::MobileNetV2Config;

    use super::*;
    use crate::config::EmaConfig;

    fn small(seed: u64) -> Network {
        let device = Device::default().autodiff();
        device.seed(seed);
        MobileNetV2Config::new(2).with_width(0.1).init(&device)
    }

    fn first(network: &Network) -> [f32; 2] {
        let value = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap()[0];
        [
            value(network.classifier.weight.val().inner().slice([0..1, 0..1]).flatten(0, 1)),
            value(network.stem.norm.running_mean.value()),
        ]
    }

    #[test]
    fn average_includes_weights_and_running_statistics() {
        let network = small(1);
        let start = network.valid();
        let before = first(&start);
        // A forward pass in training mode changes the statistics of the network, but not of the
        // average.
        network.forward(Tensor::ones([2, 3, 32, 32], &Device::default().autodiff()));
        assert_eq!(first(&start), before);
        let now = first(&network);
        assert_ne!(now[1], before[1]);
        let average = first(&update(start, &network, 0.75));
        for index in 0..2 {
            assert!((average[index] - (0.75 * before[index] + 0.25 * now[index])).abs() < 1e-7);
        }
    }

    #[test]
    fn decay_warmup_matches_tensorflow() {
        let config = EmaConfig::default();
        assert_eq!(config.decay_at(0), 0.1);
        assert_eq!(config.decay_at(90), 0.91);
        assert_eq!(config.decay_at(10_000_000), 0.9999);
        assert_eq!(EmaConfig { warmup: false, ..config }.decay_at(0), 0.9999);
    }
}
