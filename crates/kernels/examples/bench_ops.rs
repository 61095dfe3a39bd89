//! Milliseconds of typical layers, forward and backward: the kernels beside their definitions in
//! plain operations.
//!
//! `cargo run --release --example bench_ops [part of a layer's name]`

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use mbconv_kernels::{
    Activation, Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_conv2d, pointwise_conv2d,
    reference,
};

/// A layer as a function of its map and weight.
type Layer = Box<dyn Fn(Tensor<4>, Tensor<4>) -> Tensor<4>>;

struct Case {
    name: String,
    map: [usize; 4],
    weight: [usize; 4],
    fast: Layer,
    plain: Layer,
}

fn depthwise(batch: usize, side: usize, channels: usize, kernel: usize, stride: usize) -> Case {
    let padding = kernel / 2;
    Case {
        name: format!("depthwise {kernel}x{kernel} s{stride} {batch}x{side}x{side}x{channels}"),
        map: [batch, side, side, channels],
        weight: [channels, 1, kernel, kernel],
        fast: Box::new(move |x, w| depthwise_conv2d(x, w, stride, padding)),
        plain: Box::new(move |x, w| reference::depthwise_conv2d(x, w, stride, padding)),
    }
}

fn pointwise(batch: usize, side: usize, inputs: usize, outputs: usize) -> Case {
    Case {
        name: format!("pointwise {batch}x{side}x{side}x{inputs} to {outputs}"),
        map: [batch, side, side, inputs],
        weight: [outputs, inputs, 1, 1],
        fast: Box::new(|x, w| pointwise_conv2d(x, w, None)),
        plain: Box::new(|x, w| reference::pointwise_conv2d(x, w, None)),
    }
}

fn stem(batch: usize, side: usize) -> Case {
    Case {
        name: format!("stem 3x3 s2 {batch}x{side}x{side}x3 to 32"),
        map: [batch, side, side, 3],
        weight: [32, 3, 3, 3],
        fast: Box::new(|x, w| conv2d(x, w, 2, 1)),
        plain: Box::new(|x, w| reference::conv2d(x, w, 2, 1)),
    }
}

fn normalization(batch: usize, side: usize, channels: usize, statistics: Statistics, activation: Activation) -> Case {
    let split =
        move |w: Tensor<4>| (w.clone().narrow(0, 0, 1).reshape([channels]), w.narrow(0, 1, 1).reshape([channels]));
    Case {
        name: format!("norm {activation:?} {statistics:?} {batch}x{side}x{side}x{channels}"),
        map: [batch, side, side, channels],
        weight: [2, channels, 1, 1],
        fast: Box::new(move |x, w| {
            let (gamma, beta) = split(w);
            let (mean, variance) = match statistics {
                Statistics::Batch => channel_statistics(x.clone()),
                Statistics::Fixed => (beta.clone().detach(), gamma.clone().detach().abs()),
            };
            batch_norm_activation(x, gamma, beta, mean, variance, 1e-5, statistics, activation)
        }),
        plain: Box::new(move |x, w| {
            let (gamma, beta) = split(w);
            let (mean, variance) = (beta.clone().detach(), gamma.clone().detach().abs());
            reference::batch_norm_activation(x, gamma, beta, mean, variance, 1e-5, statistics, activation)
        }),
    }
}

/// Best of several runs: milliseconds of the forward pass alone (without a graph), and of forward
/// and backward.
fn time(case: &Case, layer: &Layer, map_gradient: bool) -> [f64; 2] {
    let random =
        |shape: [usize; 4], device: &Device| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let plain = Device::flex();
    let (x, w) = (random(case.map, &plain), random(case.weight, &plain));
    let forward = best(|| drop(layer(x.clone(), w.clone())));
    let autodiff = Device::flex().autodiff();
    let (x, w) = (random(case.map, &autodiff), random(case.weight, &autodiff).require_grad());
    let x = if map_gradient { x.require_grad() } else { x };
    let outgoing = random(layer(x.clone(), w.clone()).dims(), &autodiff);
    // The product that stands for the rest of the network is timed alone and taken off.
    let rest = {
        let y = outgoing.clone().detach().require_grad();
        best(|| drop((y.clone() * outgoing.clone()).sum().backward()))
    };
    let both = best(|| drop((layer(x.clone(), w.clone()) * outgoing.clone()).sum().backward()));
    [forward, both - rest]
}

fn best(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || (runs < 30 && start.elapsed().as_secs_f64() < 0.7) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    best
}

fn main() {
    use {Activation::*, Statistics::*};
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let cases = [
        stem(8, 224),
        stem(128, 32),
        depthwise(8, 112, 96, 3, 2),
        depthwise(8, 56, 144, 3, 1),
        depthwise(8, 56, 144, 5, 2),
        depthwise(8, 28, 240, 5, 1),
        depthwise(8, 14, 576, 3, 1),
        depthwise(128, 8, 192, 3, 1),
        depthwise(128, 4, 576, 3, 1),
        depthwise(1, 112, 32, 3, 1),
        pointwise(8, 112, 16, 96),
        pointwise(8, 56, 144, 24),
        pointwise(8, 14, 96, 576),
        pointwise(8, 7, 320, 1280),
        pointwise(128, 8, 32, 192),
        pointwise(128, 4, 96, 576),
        pointwise(1, 7, 320, 1280),
        normalization(8, 112, 96, Batch, Relu6),
        normalization(8, 56, 144, Batch, Silu),
        normalization(8, 56, 24, Batch, Identity),
        normalization(8, 56, 144, Fixed, Relu6),
        normalization(128, 8, 192, Batch, Relu6),
    ];
    println!("{:45} {:>9} {:>9}   {:>9} {:>9}", "", "forward", "plain", "both", "plain");
    for case in cases.iter().filter(|case| case.name.contains(&wanted)) {
        let map_gradient = !case.name.starts_with("stem");
        let ([a, b], [c, d]) = (time(case, &case.fast, map_gradient), time(case, &case.plain, map_gradient));
        println!("{:45} {a:9.2} {c:9.2}   {b:9.2} {d:9.2}", case.name);
    }
}
