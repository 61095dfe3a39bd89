use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use mbconv_nets::MobileNetV2Config;

use super::*;

/// Returns the number of parameters with gradients, and whether the statistics of the first and
/// the last batch-norm changed.
fn trained(network: Network, config: &FinetuneConfig, epoch: usize) -> (Network, usize, [bool; 2]) {
    let network = apply(network, config, epoch);
    let means =
        |network: &Network| [&network.stem.norm, &network.head.norm].map(|norm| norm.running_mean.value().into_data());
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
