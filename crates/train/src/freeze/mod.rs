//! Freezing of layers.

use burn::module::Module;
use mbconv_nets::Network;

use crate::config::QuantizationConfig;
use crate::config::finetune::{FinetuneConfig, Freeze};

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

/// Freezes running statistics and the ranges of activations as `config` requires in `epoch`,
/// counted from 0.
pub(crate) fn apply_quantization(network: Network, config: &QuantizationConfig, epoch: usize) -> Network {
    network.freeze_ranges(epoch >= config.range_epochs);
    if epoch >= config.norm_epochs { network.freeze_norms(true) } else { network }
}

fn set_frozen<M: Module>(module: M, frozen: bool) -> M {
    if frozen { module.freeze() } else { module.unfreeze() }
}

#[cfg(test)]
mod tests;
