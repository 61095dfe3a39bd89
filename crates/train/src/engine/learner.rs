//! The state that training changes.

use mbconv_nets::Network;

use crate::distributed::Group;
use crate::optimizer::multi_tensor::NetworkOptimizer;

/// The network in training, its optimizer and its moving average.
pub(crate) struct Learner {
    pub(crate) network: Network,
    pub(crate) optimizer: NetworkOptimizer,
    /// Moving average of the network, on a device without autodiff.
    pub(crate) average: Option<Network>,
}

impl Learner {
    /// Averages the running statistics and the ranges of the activations over all processes.
    pub(crate) fn average_statistics(self, group: &Group) -> Self {
        let Self { network, optimizer, average } = self;
        group.average_ranges(&network);
        let average = average.map(|average| group.average_statistics(average));
        Self { network: group.average_statistics(network), optimizer, average }
    }
}
