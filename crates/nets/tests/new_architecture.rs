//! A network that a stage table can describe needs no other code, as CONTRIBUTING.md promises.

use burn::tensor::{Device, Distribution, Tensor};
use mbconv_nets::stage_table::HeadWidth;
use mbconv_nets::{Activation, Inference, NetworkOptions, Stage, StageTable, Summary};

/// MnasNet-B1, <https://arxiv.org/abs/1807.11626>.
fn mnasnet(width: f64) -> StageTable {
    let stages = vec![
        Stage::new(1, 3, 1, 16, 1),
        Stage::new(3, 3, 2, 24, 3),
        Stage::new(3, 5, 2, 40, 3),
        Stage::new(6, 5, 2, 80, 3),
        Stage::new(6, 3, 1, 96, 2),
        Stage::new(6, 5, 2, 192, 4),
        Stage::new(6, 3, 1, 320, 1),
    ];
    let table = StageTable { width, head_width: HeadWidth::Fixed, ..StageTable::new("mnasnet", stages) };
    StageTable { squeeze_divisor: 0, activation: Activation::Relu, ..table }
}

#[test]
fn adding_an_architecture_is_adding_a_table() {
    // Parameters of torchvision's `mnasnet0_5`, `mnasnet0_75`, `mnasnet1_0` and `mnasnet1_3`.
    for (width, parameters) in [(0.5, 2_218_512), (0.75, 3_170_208), (1.0, 4_383_312), (1.3, 6_282_256)] {
        let architecture = NetworkOptions::of_table(mnasnet(width), 1000).architecture().unwrap();
        assert_eq!(Summary::new(&architecture, [224; 2]).unwrap().parameters, parameters, "width {width}");
    }

    let (device, training) = (Device::flex(), Device::flex().autodiff());
    let architecture = NetworkOptions::of_table(mnasnet(0.25), 5).architecture().unwrap();
    let images = |device: &Device| Tensor::<4>::random([2, 3, 64, 64], Distribution::Normal(0.0, 1.0), device);
    let trained = architecture.init(&training);
    let gradients = trained.forward(images(&training)).sum().backward();
    assert!(trained.stem.weight.val().grad(&gradients).is_some());

    device.seed(1);
    let network = architecture.init(&device);
    let images = images(&device);
    let expected = network.forward(images.clone());
    let fast = Inference::new(&network).forward_channels_last(images.permute([0, 2, 3, 1]));
    let size: f32 = expected.clone().abs().max().into_scalar();
    let difference: f32 = (fast - expected).abs().max().into_scalar();
    assert!(difference < 1e-5 * size, "{difference:e} of {size}");
}
