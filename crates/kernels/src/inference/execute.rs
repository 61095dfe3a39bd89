//! Runs a packed network.
//!
//! Each thread runs whole images through all stages, in its own memory. If the number of images
//! leaves a remainder of at most half the threads, all threads compute these images together,
//! sharing the rows of each stage.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rayon::prelude::*;

use super::{
    block::run_block,
    layer::{layer_rows, run_layer},
    map::Map,
    plan::Stage,
    scratch::Scratch,
};
use crate::cpu::{pixels::AddPixels, simd, thread_pool::ThreadPool};

/// Implements [`super::Chain::run`]. If `times` is not empty, adds each stage's nanoseconds to its
/// element.
pub fn run(
    stages: &[Stage],
    images: &[f32],
    [count, height, width, channels]: [usize; 4],
    times: &[AtomicU64],
) -> (Vec<f32>, [usize; 4]) {
    let map = Map { height, width, channels };
    assert_eq!(images.len(), count * map.len(), "the images of a network");
    if rayon::current_thread_index().is_none() {
        // Enter the thread pool once, rather than for every stage.
        return rayon::scope(|_| run(stages, images, [count, height, width, channels], times));
    }
    // After the pooling stage every image is one pixel, so all images together form one feature
    // map.
    let pooled = stages.iter().position(|stage| matches!(stage, Stage::Pool)).map_or(stages.len(), |pool| pool + 1);
    let (spatial, tail) = stages.split_at(pooled);
    let last = spatial.iter().fold(map, |map, stage| stage.output(map));
    let mut features = vec![0.0; count * last.len()];
    let threads = rayon::current_num_threads();
    let rest = if count % threads * 2 > threads { 0 } else { count % threads };
    let each = count - rest;
    let (own, shared) = images.split_at(each * map.len());
    if each * last.len() > 0 {
        features[..each * last.len()].par_chunks_mut(last.len()).zip(own.par_chunks(map.len())).for_each(
            |(out, image)| {
                run_image(spatial, image, map, out, ThreadPool::Single, times);
            },
        );
    }
    let tail_times = &times[pooled.min(times.len())..];
    if rest * last.len() == 0 {
        return run_tail(tail, features, count, last, ThreadPool::Rayon, tail_times);
    }
    ThreadPool::spinning(|pool| {
        for (out, image) in features[each * last.len()..].chunks_mut(last.len()).zip(shared.chunks(map.len())) {
            run_image(spatial, image, map, out, pool, times);
        }
        run_tail(tail, features, count, last, pool, tail_times)
    })
}

/// Runs the layers after the pooling stage, with one pixel per image.
fn run_tail(
    stages: &[Stage],
    mut features: Vec<f32>,
    count: usize,
    mut map: Map,
    pool: ThreadPool,
    times: &[AtomicU64],
) -> (Vec<f32>, [usize; 4]) {
    for (index, stage) in stages.iter().enumerate() {
        let Stage::Layer(layer) = stage else { panic!("only layers may follow the pool") };
        let started = Instant::now();
        let all = Map { height: count, ..map };
        let mut out = vec![0.0; count * layer.outputs];
        layer_rows(layer, &features, all, 0..count, &mut out, pool);
        count_time(times, index, started, pool);
        (features, map) = (out, Map { channels: layer.outputs, ..map });
    }
    (features, [count, map.height, map.width, map.channels])
}

/// Adds the time since `started`, multiplied by the number of threads, to the stage's time.
pub fn count_time(times: &[AtomicU64], stage: usize, started: Instant, pool: ThreadPool) {
    if let Some(time) = times.get(stage) {
        time.fetch_add(started.elapsed().as_nanos() as u64 * pool.threads() as u64, Ordering::Relaxed);
    }
}

/// Runs one image through all stages.
fn run_image(stages: &[Stage], image: &[f32], mut map: Map, out: &mut [f32], pool: ThreadPool, times: &[AtomicU64]) {
    Scratch::with(|scratch| {
        let [mut from, mut to] = std::mem::take(&mut scratch.maps);
        for (index, stage) in stages.iter().enumerate() {
            let x = if index == 0 { image } else { &from[..map.len()] };
            let next = stage.output(map);
            let target = if index + 1 == stages.len() { &mut *out } else { to.room(next.len()) };
            let started = Instant::now();
            match stage {
                Stage::Layer(layer) => run_layer(layer, x, map, target, pool),
                Stage::Block(block) => run_block(block, x, map, target, pool, scratch),
                Stage::Pool => {
                    target.fill(0.0);
                    simd::run(AddPixels { sums: target, pixels: x });
                    let share = 1.0 / map.pixels() as f32;
                    target.iter_mut().for_each(|sum| *sum *= share);
                }
            }
            count_time(times, index, started, pool);
            std::mem::swap(&mut from, &mut to);
            map = next;
        }
        scratch.maps = [from, to];
    });
}
