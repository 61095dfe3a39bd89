//! Reduction of gradients and running statistics over all processes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use mbconv_nets::Network;

use super::group::Group;
use crate::params::{untrained, with_untrained};

/// Values per message: large enough to hide latency, small enough to save memory. PyTorch's buckets
/// have the same size.
const BUCKET: usize = 25 << 18;

impl Group {
    /// Sums the gradients of all processes, which must exist for the same parameters everywhere.
    pub(crate) fn sum_gradients(&self, network: &Network, gradients: &mut GradientsParams) {
        if self.size() == 1 {
            return;
        }
        let mut flat = Flatten { gradients, values: Vec::new() };
        network.visit(&mut flat);
        let mut values = flat.values;
        values.chunks_mut(BUCKET).for_each(|bucket| self.sum(bucket));
        network.visit(&mut Spread { gradients, values: values.as_slice() });
    }

    /// Averages the running statistics of all processes.
    pub(crate) fn average_statistics(&self, network: Network) -> Network {
        if self.size() == 1 {
            return network;
        }
        let statistics = untrained(&network);
        let mut values: Vec<f32> =
            statistics.iter().flat_map(|tensor| tensor.to_data().iter::<f32>().collect::<Vec<_>>()).collect();
        values.chunks_mut(BUCKET).for_each(|bucket| self.sum(bucket));
        let share = 1.0 / self.size() as f32;
        values.iter_mut().for_each(|value| *value *= share);
        let mut values = values.as_slice();
        with_untrained(network, statistics.iter().map(|tensor| take(&mut values, tensor)))
    }

    /// Averages the observed ranges of the activations of all processes.
    pub(crate) fn average_ranges(&self, network: &Network) {
        let mut ranges = network.activation_ranges();
        if self.size() == 1 || ranges.is_empty() {
            return;
        }
        let mut values: Vec<f32> = ranges.iter().flat_map(|(_, range)| *range).collect();
        self.sum(&mut values);
        let share = 1.0 / self.size() as f32;
        let averaged = values.chunks_exact(2).map(|range| [range[0] * share, range[1] * share]);
        ranges.iter_mut().zip(averaged).for_each(|((_, range), averaged)| *range = averaged);
        network.set_activation_ranges(&ranges);
    }
}

/// Collects all gradients in the network's order.
struct Flatten<'a> {
    gradients: &'a GradientsParams,
    values: Vec<f32>,
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.values.extend(gradient.into_data().iter::<f32>());
        }
    }
}

/// Writes the summed gradients back.
struct Spread<'a> {
    gradients: &'a mut GradientsParams,
    values: &'a [f32],
}

impl ModuleVisitor for Spread<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let values = take(&mut self.values, &gradient);
            self.gradients.register(param.id, values);
        }
    }
}

/// Takes the next values in the shape of `like`.
fn take<const D: usize>(values: &mut &[f32], like: &Tensor<D>) -> Tensor<D> {
    let (mine, rest) = values.split_at(like.shape().num_elements());
    *values = rest;
    Tensor::from_data(TensorData::new(mine.to_vec(), like.shape()), &like.device())
}
