//! Freezing of layers.

use burn::module::Module;
use mbconv_nets::Network;

use crate::recipe::{FinetuneConfig, Freeze};

/// Freezes and unfreezes layers as `config` requires in `epoch`, counted from 0. Frozen layers have
/// no gradients, use the running statistics of their batch-norms and take no part in the backward
/// pass.
pub fn apply(mut network: Network, config: &FinetuneConfig, epoch: usize) -> Network {
    let blocks = &network.architecture().blocks;
    let frozen_blocks = match config.freeze {
        _ if epoch < config.head_epochs => blocks.len(),
        Freeze::None => 0,
        Freeze::Body => blocks.len(),
        Freeze::Stages(stages) => blocks.iter().filter(|block| block.stage < stages).count(),
    };
    let whole_body = epoch < config.head_epochs || config.freeze == Freeze::Body;
    network.blocks = (network.blocks.into_iter().enumerate())
        .map(|(index, block)| set_frozen(block, index < frozen_blocks))
        .collect();
    network.stem = set_frozen(network.stem, frozen_blocks > 0);
    network.head = set_frozen(network.head, whole_body);
    network.freeze_norms(config.freeze_norms)
}

fn set_frozen<M: Module>(module: M, frozen: bool) -> M {
    if frozen { module.freeze() } else { module.unfreeze() }
}

#[cfg(test)]
mod tests {
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Distribution, Tensor};
    use mbconv_nets::MobileNetV2Config;

    use super::*;

    /// Returns the number of parameters with gradients, and whether the statistics of the first and
    /// the last batch-norm changed.
    fn trained(network: Network, config: &FinetuneConfig, epoch: usize) -> (Network, usize, [bool; 2]) {
        let network = apply(network, config, epoch);
        let means = |network: &Network| {
            [&network.stem.norm, &network.head.norm].map(|norm| norm.running_mean.value().into_data())
        };
        let before = means(&network);
        let device = Device::default().autodiff();
        let loss = network.forward(Tensor::random([4, 3, 64, 64], Distribution::Default, &device)).square().sum();
        let count = GradientsParams::from_grads(loss.backward(), &network).len();
        let after = means(&network);
        (network, count, [before[0] != after[0], before[1] != after[1]])
    }

    #[test]
    fn layers_are_frozen_and_unfrozen() {
        let device = Device::default().autodiff();
        let network = MobileNetV2Config::new(2).with_width(0.1).init(&device);
        let all = 3 * (2 + 2 + 16 * 3) + 2;
        let config = |freeze| FinetuneConfig { freeze, ..Default::default() };
        let probe = FinetuneConfig { head_epochs: 1, ..config(Freeze::None) };
        let (network, count, moved) = trained(network, &probe, 0);
        assert_eq!((count, moved), (2, [false, false]));
        let (network, count, moved) = trained(network, &probe, 1);
        assert_eq!((count, moved), (all, [true, true]));
        let (network, count, _) = trained(network, &config(Freeze::Body), 5);
        assert_eq!(count, 2);
        // The stem and stages of one and two blocks; the first block has no expansion.
        let (network, count, moved) = trained(network, &config(Freeze::Stages(2)), 5);
        assert_eq!((count, moved), (all - 3 * (1 + 2 + 6), [false, true]));
        let (_, count, moved) = trained(network, &FinetuneConfig { freeze_norms: true, ..Default::default() }, 5);
        assert_eq!((count, moved), (all, [false, false]));
    }
}
