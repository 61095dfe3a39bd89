//! Runs a packed 8-bit network, with the threads shared as in single precision.

use std::{sync::atomic::AtomicU64, time::Instant};

use rayon::prelude::*;

use super::{
    block::{average, run_block},
    description::Quantizer,
    layer::{quantize, run_layer, run_real, with_slack},
    plan::Stage,
    scratch::Scratch,
};
use crate::{
    cpu::thread_pool::ThreadPool,
    inference::{execute::count_time, map::Map},
};

/// A packed network with the quantizers of its input and of its last stage.
#[derive(Debug)]
pub struct Network {
    pub stages: Vec<Stage>,
    pub input: Quantizer,
    pub output: Quantizer,
}

/// Implements [`super::Chain::run`]. If `times` is not empty, adds each stage's nanoseconds to its
/// element.
pub fn run(
    network: &Network,
    images: &[f32],
    [count, height, width, channels]: [usize; 4],
    times: &[AtomicU64],
) -> (Vec<f32>, [usize; 4]) {
    let map = Map { height, width, channels };
    assert_eq!(images.len(), count * map.len(), "the images of a network");
    if rayon::current_thread_index().is_none() {
        // Enter the thread pool once, rather than for every stage.
        return rayon::scope(|_| run(network, images, [count, height, width, channels], times));
    }
    // The last layer's results are real. After a pooling stage every image is one pixel, so the
    // layers behind it process all images as one map.
    let pooled = network.stages.iter().position(|stage| matches!(stage, Stage::Pool(_)));
    let spatial = pooled.map_or(network.stages.len(), |pool| pool + 1);
    let (spatial, tail) = network.stages.split_at(spatial);
    let last = spatial.iter().fold(map, |map, stage| stage.output(map));
    let (spatial, own_tail) = match (tail, spatial.split_last()) {
        ([], Some((end @ Stage::Layer(_), rest))) => (rest, Some(end)),
        _ => (spatial, None),
    };
    let before = spatial.iter().fold(map, |map, stage| stage.output(map));
    let mut features = vec![0; count * before.len() + with_slack(before) - before.len()];
    let threads = rayon::current_num_threads();
    let rest = if count % threads * 2 > threads { 0 } else { count % threads };
    let each = (count - rest) * before.len();
    let (own, shared) = images.split_at((count - rest) * map.len());
    if each > 0 {
        let images = own.par_chunks(map.len());
        features[..each].par_chunks_mut(before.len()).zip(images).for_each(|(out, image)| {
            run_image(network, spatial, image, map, out, ThreadPool::Single, times);
        });
    }
    ThreadPool::spinning(|pool| {
        for (image, out) in shared.chunks(map.len().max(1)).zip(features[each..].chunks_mut(before.len().max(1))) {
            run_image(network, spatial, image, map, out, pool, times);
        }
        let end = tail.iter().fold(last, |map, stage| stage.output(map));
        let size = [count, end.height, end.width, end.channels];
        if let Some(Stage::Layer(layer)) = own_tail {
            let images = features.chunks(before.len().max(1)).take(count).map(|x| {
                let mut x = x.to_vec();
                x.resize(with_slack(before), 0);
                x
            });
            return (images.flat_map(|x| run_real(layer, &x, before, pool)).collect(), size);
        }
        let all = Map { height: count * before.height, ..before };
        let tail_times = times.get(spatial.len()..).unwrap_or_default();
        (run_tail(network, tail, features, all, pool, tail_times), size)
    })
}

/// Runs the layers after the pooling stage, with one pixel per image, and returns real numbers.
fn run_tail(
    network: &Network,
    stages: &[Stage],
    mut features: Vec<u8>,
    mut map: Map,
    pool: ThreadPool,
    times: &[AtomicU64],
) -> Vec<f32> {
    for (index, stage) in stages.iter().enumerate() {
        let Stage::Layer(layer) = stage else { panic!("only layers may follow the pool") };
        let (next, started) = (Map { channels: layer.outputs, ..map }, Instant::now());
        if index + 1 == stages.len() {
            let real = run_real(layer, &features, map, pool);
            count_time(times, index, started, pool);
            return real;
        }
        let mut out = vec![0; with_slack(next)];
        run_layer(layer, &features, map, None, &mut out, pool);
        count_time(times, index, started, pool);
        (features, map) = (out, next);
    }
    features.iter().take(map.len()).map(|value| network.output.real(*value)).collect()
}

/// Runs one image through all stages.
fn run_image(
    network: &Network,
    stages: &[Stage],
    image: &[f32],
    mut map: Map,
    out: &mut [u8],
    pool: ThreadPool,
    times: &[AtomicU64],
) {
    Scratch::with(|scratch| {
        let [mut from, mut to] = std::mem::take(&mut scratch.maps);
        quantize(image, network.input, from.room(with_slack(map)));
        let mut quantizer = network.input;
        for (index, stage) in stages.iter().enumerate() {
            let started = Instant::now();
            let x = &from[..with_slack(map)];
            let next = stage.output(map);
            let target = to.room(with_slack(next));
            match stage {
                Stage::Layer(layer) => run_layer(layer, x, map, None, target, pool),
                Stage::Block(block) => run_block(block, x, map, target, pool, scratch),
                Stage::Pool(output) => {
                    let means = average(x, map, quantizer, *output);
                    target[..next.len()].copy_from_slice(&means[..next.len()]);
                }
            }
            quantizer = match stage {
                Stage::Layer(layer) => layer.output,
                Stage::Block(block) => block.output,
                Stage::Pool(output) => *output,
            };
            count_time(times, index, started, pool);
            std::mem::swap(&mut from, &mut to);
            map = next;
        }
        out[..map.len()].copy_from_slice(&from[..map.len()]);
        scratch.maps = [from, to];
    });
}
