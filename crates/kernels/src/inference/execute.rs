//! Runs a packed network.
//!
//! With at least as many images as threads, each thread takes whole images through all stages, out of memory of its own;
//! an image that is left over is computed by all threads, which share the rows of each stage. Inside a block, a band of the
//! expanded map lives in a ring of lines just long enough for the windows of the depthwise convolution.

use std::{
    cell::Cell,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rayon::prelude::*;

use super::{
    Padding,
    plan::{Block, Depthwise, Product, Stage},
};
use crate::{
    Activation,
    flex::{
        curve::{self, Curve, Identity, WithCurve},
        depthwise_rows::DepthwiseRow,
        gemm::{self, Finish, Rows},
        simd::{self, Loop, Machine, sigmoid},
        team::Team,
    },
};

/// Elements of a band of a map that shall stay in a second-level cache together with what is computed from it.
const BAND: usize = 40 << 10;

/// The sides and channels of one image's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    height: usize,
    width: usize,
    channels: usize,
}

impl Map {
    fn pixels(self) -> usize {
        self.height * self.width
    }

    fn len(self) -> usize {
        self.pixels() * self.channels
    }

    /// Elements of a line.
    fn line(self) -> usize {
        self.width * self.channels
    }
}

/// A window over a map: the map that it gives, and the zeros around the one that it sees.
#[derive(Clone, Copy)]
struct Geometry {
    kernel: usize,
    stride: usize,
    out: Map,
    top: usize,
    /// Zeros left and right of a line, in pixels.
    sides: [usize; 2],
}

impl Geometry {
    fn new(map: Map, kernel: usize, stride: usize, padding: Padding, channels: usize) -> Self {
        let (height, [top, _]) = padding.along(map.height, kernel, stride);
        let (width, sides) = padding.along(map.width, kernel, stride);
        Self { kernel, stride, out: Map { height, width, channels }, top, sides }
    }

    fn of(layer: &Product, map: Map) -> Self {
        Self::new(map, layer.kernel, layer.stride, layer.padding, layer.outputs)
    }

    fn of_depthwise(layer: &Depthwise, map: Map) -> Self {
        Self::new(map, layer.kernel, layer.stride, layer.padding, layer.channels)
    }

    /// Lines of the input that `rows` lines of the result see.
    fn lines(self, rows: usize) -> usize {
        (rows.max(1) - 1) * self.stride + self.kernel
    }
}

impl Block {
    /// The map between the expansion and the depthwise convolution.
    fn expanded(&self, map: Map) -> Map {
        match &self.expand {
            Some(expand) => Geometry::of(expand, map).out,
            None => map,
        }
    }

    /// The map that is projected.
    fn hidden(&self, map: Map) -> Map {
        let expanded = self.expanded(map);
        match &self.depthwise {
            Some(depthwise) => Geometry::of_depthwise(depthwise, expanded).out,
            None => expanded,
        }
    }
}

impl Stage {
    fn output(&self, map: Map) -> Map {
        match self {
            Self::Layer(layer) => Geometry::of(layer, map).out,
            Self::Block(block) => Map { channels: block.project.outputs, ..block.hidden(map) },
            Self::Pool => Map { height: 1, width: 1, ..map },
        }
    }
}

/// Memory that a thread keeps from call to call.
#[derive(Default)]
struct Scratch {
    /// The maps between stages.
    maps: [Vec<f32>; 2],
    /// What is projected: a band, or the whole map where a gate must see it first.
    hidden: Vec<f32>,
    /// Lines with borders.
    lines: Vec<f32>,
    /// Sums, means and gates.
    vectors: [Vec<f32>; 3],
}

impl Scratch {
    fn with<R>(body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: Cell<Scratch> = Cell::default());
        // Taken, not borrowed: a thread that waits inside `body` may be given another piece of work.
        let mut scratch = SCRATCH.take();
        let result = body(&mut scratch);
        SCRATCH.set(scratch);
        result
    }
}

/// The first `length` elements, whatever they hold.
fn room(memory: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if memory.len() < length {
        memory.resize(length, 0.0);
    }
    &mut memory[..length]
}

/// See [`super::Chain::run`]. Adds the nanoseconds that each stage takes to its element of `times`, if it has one.
pub fn run(
    stages: &[Stage],
    images: &[f32],
    [count, height, width, channels]: [usize; 4],
    times: &[AtomicU64],
) -> (Vec<f32>, [usize; 4]) {
    let map = Map { height, width, channels };
    assert_eq!(images.len(), count * map.len(), "the images of a network");
    if rayon::current_thread_index().is_none() {
        // Once into the pool, rather than anew for every stage.
        return rayon::scope(|_| run(stages, images, [count, height, width, channels], times));
    }
    // What follows the pool sees one pixel an image: all images together are one map.
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
                run_image(spatial, image, map, out, Team::Alone, times);
            },
        );
    }
    let tail_times = &times[pooled.min(times.len())..];
    if rest * last.len() == 0 {
        return run_tail(tail, features, count, last, Team::Pool, tail_times);
    }
    Team::gathered(|team| {
        for (out, image) in features[each * last.len()..].chunks_mut(last.len()).zip(shared.chunks(map.len())) {
            run_image(spatial, image, map, out, team, times);
        }
        run_tail(tail, features, count, last, team, tail_times)
    })
}

/// The layers that follow the pool: one pixel an image.
fn run_tail(
    stages: &[Stage],
    mut features: Vec<f32>,
    count: usize,
    mut map: Map,
    team: Team,
    times: &[AtomicU64],
) -> (Vec<f32>, [usize; 4]) {
    for (index, stage) in stages.iter().enumerate() {
        let Stage::Layer(layer) = stage else { panic!("only layers may follow the pool") };
        let started = Instant::now();
        let all = Map { height: count, ..map };
        let mut out = vec![0.0; count * layer.outputs];
        layer_rows(layer, &features, all, 0..count, &mut out, team);
        count_time(times, index, started, team);
        (features, map) = (out, Map { channels: layer.outputs, ..map });
    }
    (features, [count, map.height, map.width, map.channels])
}

/// Adds the time since `started`, of so many threads, to that of a stage.
fn count_time(times: &[AtomicU64], stage: usize, started: Instant, team: Team) {
    if let Some(time) = times.get(stage) {
        time.fetch_add(started.elapsed().as_nanos() as u64 * team.threads() as u64, Ordering::Relaxed);
    }
}

/// One image through all stages.
fn run_image(stages: &[Stage], image: &[f32], mut map: Map, out: &mut [f32], team: Team, times: &[AtomicU64]) {
    Scratch::with(|scratch| {
        let [mut from, mut to] = std::mem::take(&mut scratch.maps);
        for (index, stage) in stages.iter().enumerate() {
            let x = if index == 0 { image } else { &from[..map.len()] };
            let next = stage.output(map);
            let target = if index + 1 == stages.len() { &mut *out } else { room(&mut to, next.len()) };
            let started = Instant::now();
            match stage {
                Stage::Layer(layer) => run_layer(layer, x, map, target, team),
                Stage::Block(block) => run_block(block, x, map, target, team, scratch),
                Stage::Pool => {
                    target.fill(0.0);
                    simd::run(AddPixels { sums: target, pixels: x });
                    let share = 1.0 / map.pixels() as f32;
                    target.iter_mut().for_each(|sum| *sum *= share);
                }
            }
            count_time(times, index, started, team);
            std::mem::swap(&mut from, &mut to);
            map = next;
        }
        scratch.maps = [from, to];
    });
}

/// Calls `body` with a range of `rows` and that part of `out`: once, or for several ranges at a time.
fn share_rows(rows: usize, out: &mut [f32], team: Team, body: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let height = rows.div_ceil(team.pieces());
    let line = out.len() / rows.max(1);
    team.chunks(out, (height * line).max(1), |index, out| {
        body(index * height..rows.min((index + 1) * height), out);
    });
}

fn run_layer(layer: &Product, x: &[f32], map: Map, out: &mut [f32], team: Team) {
    let rows = Geometry::of(layer, map).out.height;
    if layer.is_pointwise() {
        return layer_rows(layer, x, map, 0..rows, out, team);
    }
    share_rows(rows, out, team, |rows, out| layer_rows(layer, x, map, rows, out, Team::Alone));
}

/// Some rows of a layer's map.
fn layer_rows(layer: &Product, x: &[f32], map: Map, rows: Range<usize>, out: &mut [f32], team: Team) {
    let geometry = Geometry::of(layer, map);
    if layer.is_pointwise() {
        let x = &x[rows.start * map.line()..rows.end * map.line()];
        return product(layer, x, Rows::dense(map.channels), (1, 0), rows.len() * map.width, Pixels::dense(out), team);
    }
    Scratch::with(|scratch| {
        let mut lines = std::mem::take(&mut scratch.lines);
        let line = (map.width + geometry.sides.iter().sum::<usize>()) * map.channels;
        let band = (BAND / (line * geometry.stride)).clamp(1, rows.len().max(1));
        for (start, out) in rows.clone().step_by(band).zip(out.chunks_mut(band * geometry.out.line())) {
            let count = band.min(rows.end - start);
            let padded = room(&mut lines, geometry.lines(count) * line);
            for (index, to) in padded.chunks_exact_mut(line).enumerate() {
                let source =
                    (start * geometry.stride + index).checked_sub(geometry.top).filter(|row| *row < map.height);
                copy_line(source.map(|row| &x[row * map.line()..][..map.line()]), geometry.sides, map.channels, to);
            }
            let step = geometry.stride * map.channels;
            let from = Rows { width: geometry.out.width, line: geometry.stride * line, step };
            product(layer, padded, from, (layer.kernel, line), count * geometry.out.width, Pixels::dense(out), team);
        }
        scratch.lines = lines;
    });
}

/// A line with its borders; zeros where there is no source.
fn copy_line(source: Option<&[f32]>, sides: [usize; 2], channels: usize, to: &mut [f32]) {
    let Some(source) = source else { return to.fill(0.0) };
    let (left, rest) = to.split_at_mut(sides[0] * channels);
    let (inner, right) = rest.split_at_mut(source.len());
    left.fill(0.0);
    inner.copy_from_slice(source);
    right.fill(0.0);
}

/// Where a product goes.
struct Pixels<'a> {
    out: &'a mut [f32],
    rows: Option<Rows>,
}

impl<'a> Pixels<'a> {
    fn dense(out: &'a mut [f32]) -> Self {
        Self { out, rows: None }
    }
}

/// A layer's product with its own activation.
fn product(layer: &Product, a: &[f32], a_rows: Rows, runs: (usize, usize), rows: usize, to: Pixels, team: Team) {
    struct Body<'a>(gemm::Product<'a, ()>, &'a mut [f32], Team<'a>);
    impl WithCurve for Body<'_> {
        type Output = ();
        fn with<A: Curve>(self, curve: A) {
            self.0.finishing(Activated(curve)).compute(self.1, self.2);
        }
    }
    let out_rows = to.rows.unwrap_or(Rows::dense(layer.outputs));
    let product = gemm::Product { a, a_rows, runs, rows, b: &layer.weight, bias: &layer.bias, finish: (), out_rows };
    curve::with(layer.activation, Body(product, to.out, team));
}

/// An activation after a product.
#[derive(Clone, Copy)]
struct Activated<A>(A);

impl<A: Curve> Finish for Activated<A> {
    #[inline(always)]
    fn finish<M: Machine, const LANES: usize>(
        self,
        mut sums: [f32; LANES],
        _: usize,
        _: usize,
        _: usize,
    ) -> [f32; LANES] {
        for sum in &mut sums {
            *sum = self.0.value::<M>(*sum);
        }
        sums
    }
}

/// The sigmoid after a product.
#[derive(Clone, Copy)]
struct Gated;

impl Finish for Gated {
    #[inline(always)]
    fn finish<M: Machine, const LANES: usize>(
        self,
        mut sums: [f32; LANES],
        _: usize,
        _: usize,
        _: usize,
    ) -> [f32; LANES] {
        for sum in &mut sums {
            *sum = sigmoid::<M>(*sum);
        }
        sums
    }
}

/// A residual added to a product.
#[derive(Clone, Copy)]
struct Added<'a> {
    residual: &'a [f32],
    channels: usize,
}

impl Finish for Added<'_> {
    #[inline(always)]
    fn finish<M: Machine, const LANES: usize>(
        self,
        mut sums: [f32; LANES],
        row: usize,
        column: usize,
        valid: usize,
    ) -> [f32; LANES] {
        let residual = &self.residual[row * self.channels + column..][..valid];
        if let Ok(residual) = <&[f32; LANES]>::try_from(residual) {
            for lane in 0..LANES {
                sums[lane] += residual[lane];
            }
        } else {
            sums.iter_mut().zip(residual).for_each(|(sum, value)| *sum += value);
        }
        sums
    }
}

/// Adds each pixel's channels to the sums.
struct AddPixels<'a> {
    sums: &'a mut [f32],
    pixels: &'a [f32],
}

impl Loop for AddPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for pixel in self.pixels.chunks_exact(self.sums.len()) {
            self.sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// Multiplies each pixel's channels by the gate.
struct ScalePixels<'a> {
    pixels: &'a mut [f32],
    gate: &'a [f32],
}

impl Loop for ScalePixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for pixel in self.pixels.chunks_exact_mut(self.gate.len()) {
            pixel.iter_mut().zip(self.gate).for_each(|(value, gate)| *value *= gate);
        }
    }
}

fn run_block(block: &Block, x: &[f32], map: Map, out: &mut [f32], team: Team, scratch: &mut Scratch) {
    let hidden = block.hidden(map);
    let shared = if team.threads() > 1 { expand_together(block, x, map, team, scratch) } else { None };
    let expanded = shared.as_deref();
    if block.gate.is_none() {
        share_rows(hidden.height, out, team, |rows, out| {
            Scratch::with(|scratch| {
                let mut memory = std::mem::take(&mut scratch.hidden);
                let mut lines = std::mem::take(&mut scratch.lines);
                let mut source = Source::new(block, x, map, expanded, &mut lines);
                let band = source.band;
                for (start, out) in
                    rows.clone().step_by(band).zip(out.chunks_mut(band * hidden.width * block.project.outputs))
                {
                    let rows = start..rows.end.min(start + band);
                    let values = room(&mut memory, rows.len() * hidden.line());
                    source.rows(rows.clone(), values, None);
                    project(block, x, map, values, rows.start * hidden.width, out, Team::Alone);
                }
                (scratch.hidden, scratch.lines) = (memory, lines);
            });
        });
    } else {
        let mut memory = std::mem::take(&mut scratch.hidden);
        let mut vectors = std::mem::take(&mut scratch.vectors);
        let values = room(&mut memory, hidden.len());
        gated(block, x, map, expanded, values, &mut vectors, out, team);
        (scratch.hidden, scratch.vectors) = (memory, vectors);
    }
    if let Some(memory) = shared {
        scratch.lines = memory;
    }
}

/// The expanded map with its borders, computed by all threads together, where bands of rows would overlap too much.
fn expand_together(block: &Block, x: &[f32], map: Map, team: Team, scratch: &mut Scratch) -> Option<Vec<f32>> {
    let (expand, depthwise) = (block.expand.as_ref()?, block.depthwise.as_ref()?);
    let expanded = Map { channels: expand.outputs, ..map };
    let geometry = Geometry::of_depthwise(depthwise, expanded);
    let overlap = geometry.kernel.saturating_sub(geometry.stride);
    if map.height.div_ceil(team.threads()) >= 16 * overlap {
        return None;
    }
    let mut memory = std::mem::take(&mut scratch.lines);
    let line = (map.width + geometry.sides.iter().sum::<usize>()) * expanded.channels;
    let lines = geometry.lines(geometry.out.height).max(geometry.top + map.height);
    let padded = room(&mut memory, lines * line);
    let (above, inner) = padded.split_at_mut(geometry.top * line);
    let (inner, below) = inner.split_at_mut(map.height * line);
    above.fill(0.0);
    below.fill(0.0);
    clear_sides(inner, line, geometry.sides, expanded.channels);
    let inner = &mut inner[geometry.sides[0] * expanded.channels..];
    let rows = Rows { width: map.width, line, step: expanded.channels };
    let to = Pixels { out: inner, rows: Some(rows) };
    product(expand, x, Rows::dense(map.channels), (1, 0), map.pixels(), to, team);
    Some(memory)
}

/// Zeros left and right of each line.
fn clear_sides(lines: &mut [f32], line: usize, [left, right]: [usize; 2], channels: usize) {
    for line in lines.chunks_exact_mut(line) {
        let end = line.len() - right * channels;
        line[..left * channels].fill(0.0);
        line[end..].fill(0.0);
    }
}

/// A block with squeeze-and-excitation: the whole hidden map, its means, the gate, the projection.
#[allow(clippy::too_many_arguments)]
fn gated(
    block: &Block,
    x: &[f32],
    map: Map,
    expanded: Option<&[f32]>,
    values: &mut [f32],
    [sums, means, gate]: &mut [Vec<f32>; 3],
    out: &mut [f32],
    team: Team,
) {
    let Some([reduce, expand]) = &block.gate else { return };
    let hidden = block.hidden(map);
    // A sum for each line, added up in order: the same bits however the lines are shared.
    let sums = &mut *room(sums, hidden.height * hidden.channels);
    sums.fill(0.0);
    let lines = hidden.height.div_ceil(team.pieces());
    let (values_of, sums_of) = ((&mut *values, lines * hidden.line()), (&mut *sums, lines * hidden.channels));
    team.chunk_pairs(values_of, sums_of, |index, values, sums| {
        let rows = index * lines..hidden.height.min((index + 1) * lines);
        Scratch::with(|scratch| {
            let mut lines = std::mem::take(&mut scratch.lines);
            let mut source = Source::new(block, x, map, expanded, &mut lines);
            let band = source.band;
            for start in rows.clone().step_by(band) {
                let part = start..rows.end.min(start + band);
                let skip = start - rows.start;
                let values = &mut values[skip * hidden.line()..][..part.len() * hidden.line()];
                let sums = &mut sums[skip * hidden.channels..][..part.len() * hidden.channels];
                source.rows(part, values, Some(sums));
            }
            scratch.lines = lines;
        });
    });
    let mean = room(means, hidden.channels);
    mean.fill(0.0);
    simd::run(AddPixels { sums: mean, pixels: sums });
    let share = 1.0 / hidden.pixels() as f32;
    mean.iter_mut().for_each(|sum| *sum *= share);
    let squeezed = room(gate, reduce.outputs + expand.outputs);
    let (squeezed, gate) = squeezed.split_at_mut(reduce.outputs);
    product(reduce, mean, Rows::dense(hidden.channels), (1, 0), 1, Pixels::dense(squeezed), Team::Alone);
    gemm::Product {
        a: squeezed,
        a_rows: Rows::dense(reduce.outputs),
        runs: (1, 0),
        rows: 1,
        b: &expand.weight,
        bias: &expand.bias,
        finish: Gated,
        out_rows: Rows::dense(expand.outputs),
    }
    .compute(gate, Team::Alone);

    // Few enough pixels to be still in the first-level cache when they are projected.
    let pixels = (4096 / hidden.channels.max(1)).max(1).next_multiple_of(12);
    let outputs = block.project.outputs;
    let pieces = hidden.pixels().div_ceil(team.pieces()).next_multiple_of(pixels);
    let gate = &*gate;
    team.chunk_pairs((values, pieces * hidden.channels), (out, pieces * outputs), |index, values, out| {
        let parts = values.chunks_mut(pixels * hidden.channels).zip(out.chunks_mut(pixels * outputs));
        for (part, (values, out)) in parts.enumerate() {
            simd::run(ScalePixels { pixels: values, gate });
            project(block, x, map, values, index * pieces + part * pixels, out, Team::Alone);
        }
    });
}

/// The projection of the pixels from `first` on, plus the input where the block has a residual.
fn project(block: &Block, x: &[f32], map: Map, values: &[f32], first: usize, out: &mut [f32], team: Team) {
    let layer = &block.project;
    let product = gemm::Product {
        a: values,
        a_rows: Rows::dense(layer.inputs),
        runs: (1, 0),
        rows: values.len() / layer.inputs,
        b: &layer.weight,
        bias: &layer.bias,
        finish: (),
        out_rows: Rows::dense(layer.outputs),
    };
    if block.residual {
        let added = Added { residual: &x[first * map.channels..], channels: map.channels };
        product.finishing(added).compute(out, team);
    } else {
        debug_assert_eq!(layer.activation, Activation::Identity);
        product.finishing(Activated(Identity)).compute(out, team);
    }
}

/// The hidden map of a block, line by line from top to bottom.
struct Source<'a> {
    block: &'a Block,
    x: &'a [f32],
    map: Map,
    /// The whole expanded map with its borders, if it is there.
    expanded: Option<&'a [f32]>,
    geometry: Geometry,
    /// A ring of lines with their borders, and a line of zeros.
    ring: &'a mut [f32],
    capacity: usize,
    line: usize,
    /// Lines of the input up to which the ring was filled.
    filled: usize,
    /// Lines of the hidden map that are best asked for at a time.
    band: usize,
}

impl<'a> Source<'a> {
    fn new(block: &'a Block, x: &'a [f32], map: Map, expanded: Option<&'a [f32]>, memory: &'a mut Vec<f32>) -> Self {
        let inner = block.expanded(map);
        let hidden = block.hidden(map);
        let affordable = |line: usize| (BAND / line.max(1)).clamp(1, hidden.height.max(1));
        let Some(depthwise) = &block.depthwise else {
            let geometry = Geometry { kernel: 1, stride: 1, out: inner, top: 0, sides: [0; 2] };
            let band = affordable(hidden.line());
            return Self { block, x, map, expanded, geometry, ring: &mut [], capacity: 0, line: 0, filled: 0, band };
        };
        let geometry = Geometry::of_depthwise(depthwise, inner);
        let line = (inner.width + geometry.sides.iter().sum::<usize>()) * inner.channels;
        let band = affordable(line * geometry.stride);
        let capacity = geometry.lines(band);
        let ring = if expanded.is_some() { &mut [] } else { room(memory, (capacity + 1) * line) };
        if !ring.is_empty() {
            clear_sides(ring, line, geometry.sides, inner.channels);
            ring[capacity * line..].fill(0.0);
        }
        Self { block, x, map, expanded, geometry, ring, capacity, line, filled: 0, band }
    }

    /// The lines `rows` of the hidden map, at most a band, and the sum of each over its pixels, added to `sums`.
    fn rows(&mut self, rows: Range<usize>, out: &mut [f32], mut sums: Option<&mut [f32]>) {
        let hidden = self.geometry.out;
        match &self.block.depthwise {
            None => {
                if let Some(expand) = &self.block.expand {
                    layer_rows(expand, self.x, self.map, rows, out, Team::Alone);
                }
            }
            Some(depthwise) => {
                if self.expanded.is_none() {
                    self.fill(rows.clone());
                }
                struct Body<'a>(&'a mut [f32], &'a [&'a [f32]], &'a Depthwise);
                impl WithCurve for Body<'_> {
                    type Output = ();
                    fn with<A: Curve>(self, activation: A) {
                        let Self(out, sources, Depthwise { weight, bias, kernel, stride, .. }) = self;
                        simd::run(DepthwiseRow {
                            out,
                            sources,
                            weight,
                            bias,
                            kernel: *kernel,
                            stride: *stride,
                            activation,
                        });
                    }
                }
                let mut sources = [&self.x[..0]; 16];
                assert!(depthwise.kernel <= sources.len(), "a window of more than {} pixels", sources.len());
                for (row, out) in rows.zip(out.chunks_exact_mut(hidden.line())) {
                    let sources = &mut sources[..depthwise.kernel];
                    for (tap, source) in sources.iter_mut().enumerate() {
                        *source = self.source(row * self.geometry.stride + tap);
                    }
                    curve::with(depthwise.activation, Body(out, sources, depthwise));
                }
            }
        }
        if let Some(sums) = &mut sums {
            for (sums, line) in sums.chunks_exact_mut(hidden.channels).zip(out.chunks_exact(hidden.line())) {
                simd::run(AddPixels { sums, pixels: line });
            }
        }
    }

    /// The line of the expanded map, with its borders, that stands at `padded` from the top of the border above.
    fn source(&self, padded: usize) -> &[f32] {
        let start = match self.expanded {
            Some(expanded) => return &expanded[padded * self.line..][..self.line],
            None => match padded.checked_sub(self.geometry.top).filter(|row| *row < self.map.height) {
                Some(row) => row % self.capacity,
                None => self.capacity,
            },
        };
        &self.ring[start * self.line..][..self.line]
    }

    /// Puts into the ring what the lines `rows` see of the expanded map.
    fn fill(&mut self, rows: Range<usize>) {
        let Geometry { stride, top, sides, .. } = self.geometry;
        let first = (rows.start * stride).saturating_sub(top).max(self.filled);
        let end = ((rows.end - 1) * stride + self.geometry.kernel).saturating_sub(top).min(self.map.height);
        let mut row = first;
        while row < end {
            let slot = row % self.capacity;
            let count = (end - row).min(self.capacity - slot);
            let to = &mut self.ring[slot * self.line..][..count * self.line];
            let x = &self.x[row * self.map.line()..][..count * self.map.line()];
            match &self.block.expand {
                Some(expand) => {
                    let rows = Rows { width: self.map.width, line: self.line, step: expand.outputs };
                    let to = Pixels { out: &mut to[sides[0] * expand.outputs..], rows: Some(rows) };
                    let pixels = count * self.map.width;
                    product(expand, x, Rows::dense(self.map.channels), (1, 0), pixels, to, Team::Alone);
                }
                None => {
                    for (x, to) in x.chunks_exact(self.map.line()).zip(to.chunks_exact_mut(self.line)) {
                        copy_line(Some(x), sides, self.map.channels, to);
                    }
                }
            }
            row += count;
        }
        self.filled = self.filled.max(end);
    }
}
