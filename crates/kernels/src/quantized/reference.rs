//! The definition of an 8-bit network, one number after another: the oracle of the tests.

use rayon::prelude::*;

use super::description::{Block, Gate, Layer, Quantizer, Stage, Weights};
use crate::{
    inference::Kind,
    types::activation::{Activation, RELU6_MAX},
};

/// A feature map [H, W, C].
struct Map<T> {
    size: [usize; 3],
    values: Vec<T>,
}

/// Runs images [N, H, W, C], as [`Chain::run`](super::Chain::run) does.
pub fn run(stages: &[Stage], images: &[f32], [count, height, width, channels]: [usize; 4]) -> (Vec<f32>, [usize; 4]) {
    let size = [height, width, channels];
    assert_eq!(images.len(), count * height * width * channels, "the images of a network");
    let outputs: Vec<Map<f32>> = images
        .par_chunks(size.iter().product::<usize>().max(1))
        .map(|image| run_image(stages, Map { size, values: image.to_vec() }))
        .collect();
    let [height, width, channels] = outputs.first().map_or([0; 3], |map| map.size);
    (outputs.into_iter().flat_map(|map| map.values).collect(), [count, height, width, channels])
}

fn run_image(stages: &[Stage], image: Map<f32>) -> Map<f32> {
    let Some((last, stages)) = stages.split_last() else { return image };
    let input = stages.first().unwrap_or(last).input();
    let mut map = quantize(&image, input);
    let mut quantizer = input;
    for stage in stages {
        map = run_stage(stage, &map, quantizer);
        quantizer = stage.output();
    }
    match last {
        Stage::Layer(layer) => real_layer(layer, &map, activate(layer.activation)),
        stage => {
            let map = run_stage(stage, &map, quantizer);
            Map { size: map.size, values: map.values.iter().map(|value| stage.output().real(*value)).collect() }
        }
    }
}

fn run_stage(stage: &Stage, x: &Map<u8>, input: Quantizer) -> Map<u8> {
    match stage {
        Stage::Layer(layer) => run_layer(layer, x),
        Stage::Block(block) => run_block(block, x),
        Stage::Pool(output) => average(x, input, *output),
    }
}

fn run_block(block: &Block, x: &Map<u8>) -> Map<u8> {
    let hidden: Vec<&Layer> = block.expand.iter().chain(&block.depthwise).collect();
    let mut y = Map { size: x.size, values: x.values.clone() };
    for layer in &hidden {
        y = run_layer(layer, &y);
    }
    if let Some(gate) = &block.gate {
        let input = hidden.last().map_or(block.first().input, |layer| layer.output);
        scale_channels(gate, &mut y, input, block.project.input);
    }
    let mut y = run_layer(&block.project, &y);
    if let Some(sum) = block.sum {
        let (a, b) = (block.first().input, block.project.output);
        for (y, x) in y.values.iter_mut().zip(&x.values) {
            *y = add((*x, a), (*y, b), sum);
        }
    }
    y
}

/// Adds two values of different scales.
fn add((x, a): (u8, Quantizer), (y, b): (u8, Quantizer), sum: Quantizer) -> u8 {
    let centered = |value: u8, quantizer: Quantizer| f32::from(value) - f32::from(quantizer.zero_point);
    round(centered(x, a) * (a.scale / sum.scale) + centered(y, b) * (b.scale / sum.scale), sum.zero_point)
}

/// Rounds a number of steps from the zero point to the nearest value, with ties to even.
fn round(steps: f32, zero_point: u8) -> u8 {
    let zero = f32::from(zero_point);
    (steps.clamp(-zero, 255.0 - zero).round_ties_even() + zero) as u8
}

/// Averages every channel over all pixels.
fn average(x: &Map<u8>, input: Quantizer, output: Quantizer) -> Map<u8> {
    let [height, width, channels] = x.size;
    let mut sums = vec![0i32; channels];
    for pixel in x.values.chunks_exact(channels) {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(*value) - i32::from(input.zero_point));
    }
    let multiplier = input.scale / output.scale / (height * width) as f32;
    let values = sums.iter().map(|sum| round(*sum as f32 * multiplier, output.zero_point)).collect();
    Map { size: [1, 1, channels], values }
}

fn scale_channels(gate: &Gate, x: &mut Map<u8>, input: Quantizer, output: Quantizer) {
    let mean = average(x, input, gate.reduce.input);
    let squeezed = run_layer(&gate.reduce, &mean);
    let excited = real_layer(&gate.expand, &squeezed, |z| 1.0 / (1.0 + (-z).exp()));
    let factors = quantize(&excited, gate.expand.output);
    let multiplier = input.scale * gate.expand.output.scale / output.scale;
    let zeros = [input.zero_point, gate.expand.output.zero_point].map(i32::from);
    for pixel in x.values.chunks_exact_mut(factors.values.len()) {
        for (value, factor) in pixel.iter_mut().zip(&factors.values) {
            let product = (i32::from(*value) - zeros[0]) * (i32::from(*factor) - zeros[1]);
            *value = round(product as f32 * multiplier, output.zero_point);
        }
    }
}

fn quantize(map: &Map<f32>, quantizer: Quantizer) -> Map<u8> {
    Map { size: map.size, values: map.values.iter().map(|real| quantizer.quantize(*real)).collect() }
}

/// Returns an activation as a function. In single precision, 1 - exp(-z) would lose nothing here.
fn activate(activation: Activation) -> impl Fn(f32) -> f32 {
    move |z| match activation {
        Activation::Identity => z,
        Activation::Relu => z.max(0.0),
        Activation::Relu6 => z.clamp(0.0, RELU6_MAX as f32),
        Activation::Silu => z / (1.0 + (-z).exp()),
    }
}

/// Runs a layer on values, rounding its results to its output's quantizer.
fn run_layer(layer: &Layer, x: &Map<u8>) -> Map<u8> {
    let Layer { activation, input, output, .. } = *layer;
    match (&layer.weights, bounds(activation, output)) {
        // A piecewise linear activation only limits the result.
        (Weights::Int8 { weight, scales, bias }, Some([low, high])) => {
            let finish = |sum: i32, channel: usize| {
                let steps = sum as f32 * (input.scale * scales[channel] / output.scale);
                (steps.clamp(low, high).round_ties_even() + f32::from(output.zero_point)) as u8
            };
            integer_sums(layer, x, weight, bias, finish)
        }
        _ => quantize(&real_layer(layer, x, activate(activation)), output),
    }
}

/// Returns the limits that a piecewise linear activation sets to its output, in whole steps from
/// the zero point.
pub(super) fn bounds(activation: Activation, output: Quantizer) -> Option<[f32; 2]> {
    let zero = f32::from(output.zero_point);
    match activation {
        Activation::Identity => Some([-zero, 255.0 - zero]),
        Activation::Relu => Some([0.0, 255.0 - zero]),
        Activation::Relu6 => Some([0.0, (RELU6_MAX as f32 / output.scale).round_ties_even().min(255.0 - zero)]),
        Activation::Silu => None,
    }
}

/// Runs a layer on values, with real results.
fn real_layer(layer: &Layer, x: &Map<u8>, activation: impl Fn(f32) -> f32) -> Map<f32> {
    match &layer.weights {
        Weights::Int8 { weight, scales, bias } => {
            let finish = |sum: i32, channel: usize| activation(sum as f32 * (layer.input.scale * scales[channel]));
            integer_sums(layer, x, weight, bias, finish)
        }
        Weights::Float { weight, bias } => convolve(layer, x, |taps, channel| {
            let sum: f32 = taps.map(|(value, index)| layer.input.real(value) * weight[index]).sum();
            activation(sum + bias[channel])
        }),
    }
}

fn integer_sums<T>(
    layer: &Layer,
    x: &Map<u8>,
    weight: &[i8],
    bias: &[i32],
    finish: impl Fn(i32, usize) -> T,
) -> Map<T> {
    let zero = i32::from(layer.input.zero_point);
    convolve(layer, x, |taps, channel| {
        let sum: i32 = taps.map(|(value, index)| (i32::from(value) - zero) * i32::from(weight[index])).sum();
        finish(sum + bias[channel], channel)
    })
}

/// Calls `output` for each pixel and output channel, with the values of the window inside the image
/// and the indices of their weights.
fn convolve<T>(
    layer: &Layer,
    x: &Map<u8>,
    output: impl Fn(&mut dyn Iterator<Item = (u8, usize)>, usize) -> T,
) -> Map<T> {
    let Layer { kind, inputs, outputs, kernel, stride, padding, .. } = *layer;
    let [height, width, channels] = x.size;
    assert_eq!(channels, inputs, "the channels of a map and of the layer that it enters");
    let (rows, [top, _]) = padding.along(height, kernel, stride);
    let (columns, [left, _]) = padding.along(width, kernel, stride);
    let inside = move |position: usize, tap: usize, before: usize, side: usize| {
        (position * stride + tap).checked_sub(before).filter(|at| *at < side)
    };
    let mut values = Vec::with_capacity(rows * columns * outputs);
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        // The pixels of the window, with the index of their tap.
        let pixels: Vec<(usize, usize)> = (0..kernel * kernel)
            .filter_map(|tap| {
                let y = inside(row, tap / kernel, top, height)?;
                let x = inside(column, tap % kernel, left, width)?;
                Some(((y * width + x) * channels, tap))
            })
            .collect();
        for channel in 0..outputs {
            let own = if kind == Kind::Depthwise { channel..channel + 1 } else { 0..inputs };
            let depth = own.len();
            let mut taps = pixels.iter().flat_map(|(pixel, tap)| {
                let first = own.start;
                own.clone().map(move |input| {
                    (x.values[pixel + input], (channel * depth + input - first) * kernel * kernel + tap)
                })
            });
            values.push(output(&mut taps, channel));
        }
    }
    Map { size: [rows, columns, outputs], values }
}
