//! Inverted residuals, computed band by band.
//!
//! A band of the expanded feature map is kept in a ring buffer of lines, just long enough for the
//! windows of the depthwise convolution.

use std::ops::Range;

use super::{
    layer::{Activated, Added, BAND, Pixels, copy_line, layer_rows, product, share_rows},
    map::{Geometry, Map},
    plan::{Block, Depthwise},
    scratch::Scratch,
};
use crate::{
    cpu::{
        activation::{self, ActivationFn, Identity, Sigmoid, WithActivation},
        buffer::Aligned,
        depthwise_rows::DepthwiseRows,
        gemm::{self, Rows},
        pixels::{AddPixels, ScalePixels},
        simd,
        thread_pool::ThreadPool,
    },
    types::Activation,
};

/// Runs a block on one image.
pub fn run_block(block: &Block, x: &[f32], map: Map, out: &mut [f32], pool: ThreadPool, scratch: &mut Scratch) {
    let hidden = block.hidden(map);
    let shared = if pool.threads() > 1 { expand_together(block, x, map, pool, scratch) } else { None };
    let expanded = shared.as_deref();
    // With few pixels, the weight is larger than the feature map: the threads split the weight,
    // instead of each reading all of it.
    let few = pool.threads() > 1 && hidden.pixels() < block.project.outputs;
    if few && block.gate.is_none() {
        let mut memory = std::mem::take(&mut scratch.hidden);
        let values = memory.room(hidden.len());
        share_rows(hidden.height, values, pool, |rows, values| {
            Scratch::with(|scratch| {
                let mut lines = std::mem::take(&mut scratch.lines);
                let mut source = Source::new(block, x, map, expanded, &mut lines);
                let band = source.band;
                for (start, values) in rows.clone().step_by(band).zip(values.chunks_mut(band * hidden.line())) {
                    source.rows(start..rows.end.min(start + band), values, None);
                }
                scratch.lines = lines;
            });
        });
        project(block, x, map, values, 0, out, pool);
        scratch.hidden = memory;
    } else if block.gate.is_none() {
        share_rows(hidden.height, out, pool, |rows, out| {
            Scratch::with(|scratch| {
                let mut memory = std::mem::take(&mut scratch.hidden);
                let mut lines = std::mem::take(&mut scratch.lines);
                let mut source = Source::new(block, x, map, expanded, &mut lines);
                let band = source.band;
                for (start, out) in
                    rows.clone().step_by(band).zip(out.chunks_mut(band * hidden.width * block.project.outputs))
                {
                    let rows = start..rows.end.min(start + band);
                    let values = memory.room(rows.len() * hidden.line());
                    source.rows(rows.clone(), values, None);
                    project(block, x, map, values, rows.start * hidden.width, out, ThreadPool::Single);
                }
                (scratch.hidden, scratch.lines) = (memory, lines);
            });
        });
    } else {
        let mut memory = std::mem::take(&mut scratch.hidden);
        let mut vectors = std::mem::take(&mut scratch.vectors);
        let values = memory.room(hidden.len());
        gated(block, x, map, expanded, values, &mut vectors, out, pool);
        (scratch.hidden, scratch.vectors) = (memory, vectors);
    }
    if let Some(memory) = shared {
        scratch.lines = memory;
    }
}

/// Computes the padded expanded feature map by all threads together, if bands of rows would overlap
/// too much.
fn expand_together(block: &Block, x: &[f32], map: Map, pool: ThreadPool, scratch: &mut Scratch) -> Option<Aligned> {
    let (expand, depthwise) = (block.expand.as_ref()?, block.depthwise.as_ref()?);
    let expanded = Map { channels: expand.outputs, ..map };
    let geometry = Geometry::of_depthwise(depthwise, expanded);
    let overlap = geometry.kernel.saturating_sub(geometry.stride);
    if map.height.div_ceil(pool.threads()) >= 16 * overlap {
        return None;
    }
    let mut memory = std::mem::take(&mut scratch.lines);
    let line = (map.width + geometry.sides.iter().sum::<usize>()) * expanded.channels;
    let lines = geometry.lines(geometry.out.height).max(geometry.top + map.height);
    let padded = memory.room(lines * line);
    let (above, inner) = padded.split_at_mut(geometry.top * line);
    let (inner, below) = inner.split_at_mut(map.height * line);
    above.fill(0.0);
    below.fill(0.0);
    clear_sides(inner, line, geometry.sides, expanded.channels);
    let inner = &mut inner[geometry.sides[0] * expanded.channels..];
    let rows = Rows { width: map.width, line, step: expanded.channels };
    let to = Pixels { out: inner, rows: Some(rows) };
    product(expand, x, Rows::dense(map.channels), (1, 0), map.pixels(), to, pool);
    Some(memory)
}

/// Writes zeros to the left and right of each line.
fn clear_sides(lines: &mut [f32], line: usize, [left, right]: [usize; 2], channels: usize) {
    for line in lines.chunks_exact_mut(line) {
        let end = line.len() - right * channels;
        line[..left * channels].fill(0.0);
        line[end..].fill(0.0);
    }
}

/// Runs a block with squeeze-and-excitation: computes the whole hidden feature map, its means, the
/// gate and the projection.
#[allow(clippy::too_many_arguments)]
fn gated(
    block: &Block,
    x: &[f32],
    map: Map,
    expanded: Option<&[f32]>,
    values: &mut [f32],
    [sums, means, gate]: &mut [Aligned; 3],
    out: &mut [f32],
    pool: ThreadPool,
) {
    let Some([reduce, expand]) = &block.gate else { return };
    let hidden = block.hidden(map);
    // One sum per line, added up in order: the result is bit-identical however the lines are split
    // among threads.
    let sums = &mut *sums.room(hidden.height * hidden.channels);
    sums.fill(0.0);
    let lines = hidden.height.div_ceil(pool.pieces());
    let (values_of, sums_of) = ((&mut *values, lines * hidden.line()), (&mut *sums, lines * hidden.channels));
    pool.chunk_pairs(values_of, sums_of, |index, values, sums| {
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
    let mean = means.room(hidden.channels);
    mean.fill(0.0);
    simd::run(AddPixels { sums: mean, pixels: sums });
    let share = 1.0 / hidden.pixels() as f32;
    mean.iter_mut().for_each(|sum| *sum *= share);
    let squeezed = gate.room(reduce.outputs + expand.outputs);
    let (squeezed, gate) = squeezed.split_at_mut(reduce.outputs);
    product(reduce, mean, Rows::dense(hidden.channels), (1, 0), 1, Pixels::dense(squeezed), ThreadPool::Single);
    gemm::Product {
        a: squeezed,
        a_rows: Rows::dense(reduce.outputs),
        runs: (1, 0),
        rows: 1,
        b: &expand.weight,
        bias: &expand.bias,
        finish: Activated(Sigmoid),
        out_rows: Rows::dense(expand.outputs),
    }
    .compute(gate, ThreadPool::Single);

    // Few enough pixels to stay in the L1 cache until they are projected.
    let pixels = (4096 / hidden.channels.max(1)).max(1).next_multiple_of(12);
    let outputs = block.project.outputs;
    let pieces = hidden.pixels().div_ceil(pool.pieces()).next_multiple_of(pixels);
    let gate = &*gate;
    if pool.threads() > 1 && hidden.pixels() < outputs {
        simd::run(ScalePixels { pixels: values, gate });
        return project(block, x, map, values, 0, out, pool);
    }
    pool.chunk_pairs((values, pieces * hidden.channels), (out, pieces * outputs), |index, values, out| {
        let parts = values.chunks_mut(pixels * hidden.channels).zip(out.chunks_mut(pixels * outputs));
        for (part, (values, out)) in parts.enumerate() {
            simd::run(ScalePixels { pixels: values, gate });
            project(block, x, map, values, index * pieces + part * pixels, out, ThreadPool::Single);
        }
    });
}

/// Projects the pixels from `first` on, and adds the input if the block has a residual connection.
fn project(block: &Block, x: &[f32], map: Map, values: &[f32], first: usize, out: &mut [f32], pool: ThreadPool) {
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
        product.finishing(added).compute(out, pool);
    } else {
        debug_assert_eq!(layer.activation, Activation::Identity);
        product.finishing(Activated(Identity)).compute(out, pool);
    }
}

/// Maximum number of lines of the expanded feature map that a band of the hidden one reads.
const LINES: usize = 32;

/// Computes the hidden feature map of a block, line by line from top to bottom.
struct Source<'a> {
    block: &'a Block,
    x: &'a [f32],
    map: Map,
    /// The whole padded expanded feature map, if it was computed in advance.
    expanded: Option<&'a [f32]>,
    geometry: Geometry,
    /// A ring of padded lines, followed by a line of zeros.
    ring: &'a mut [f32],
    capacity: usize,
    line: usize,
    /// The input line up to which the ring was filled.
    filled: usize,
    /// Preferred number of lines of the hidden feature map per call of `rows`.
    band: usize,
}

impl<'a> Source<'a> {
    fn new(block: &'a Block, x: &'a [f32], map: Map, expanded: Option<&'a [f32]>, memory: &'a mut Aligned) -> Self {
        let inner = block.expanded(map);
        let hidden = block.hidden(map);
        let affordable = |line: usize| (BAND / line.max(1)).clamp(1, hidden.height.max(1));
        // Limits a band so that its windows read at most `LINES` lines.
        let seen = |depthwise: &Depthwise| (LINES.saturating_sub(depthwise.kernel) / depthwise.stride + 1).max(1);
        let Some(depthwise) = &block.depthwise else {
            let geometry = Geometry { kernel: 1, stride: 1, out: inner, top: 0, sides: [0; 2] };
            let band = affordable(hidden.line());
            return Self { block, x, map, expanded, geometry, ring: &mut [], capacity: 0, line: 0, filled: 0, band };
        };
        let geometry = Geometry::of_depthwise(depthwise, inner);
        let line = (inner.width + geometry.sides.iter().sum::<usize>()) * inner.channels;
        let band = affordable(line * geometry.stride).min(seen(depthwise));
        let capacity = geometry.lines(band);
        let ring = if expanded.is_some() { &mut [] } else { memory.room((capacity + 1) * line) };
        if !ring.is_empty() {
            clear_sides(ring, line, geometry.sides, inner.channels);
            ring[capacity * line..].fill(0.0);
        }
        Self { block, x, map, expanded, geometry, ring, capacity, line, filled: 0, band }
    }

    /// Computes the lines `rows` of the hidden feature map, at most a band, and adds the sum of
    /// each line over its pixels to `sums`.
    fn rows(&mut self, rows: Range<usize>, out: &mut [f32], mut sums: Option<&mut [f32]>) {
        let hidden = self.geometry.out;
        match &self.block.depthwise {
            None => {
                if let Some(expand) = &self.block.expand {
                    layer_rows(expand, self.x, self.map, rows, out, ThreadPool::Single);
                }
            }
            Some(depthwise) => {
                if self.expanded.is_none() {
                    self.fill(rows.clone());
                }
                struct Body<'a>(&'a mut [f32], &'a [&'a [f32]], usize, &'a Depthwise);
                impl WithActivation for Body<'_> {
                    type Output = ();
                    fn with<A: ActivationFn>(self, activation: A) {
                        let Self(out, sources, width, Depthwise { weight, bias, kernel, stride, .. }) = self;
                        let (kernel, stride) = (*kernel, *stride);
                        simd::run(DepthwiseRows { out, sources, weight, bias, kernel, stride, width, activation });
                    }
                }
                let first = rows.start * self.geometry.stride;
                let lines = self.geometry.lines(rows.len());
                let mut sources = [&self.x[..0]; LINES];
                assert!(lines <= sources.len(), "a window of more than {} pixels", sources.len());
                for (line, source) in sources[..lines].iter_mut().enumerate() {
                    *source = self.source(first + line);
                }
                activation::with(depthwise.activation, Body(out, &sources[..lines], hidden.width, depthwise));
            }
        }
        if let Some(sums) = &mut sums {
            for (sums, line) in sums.chunks_exact_mut(hidden.channels).zip(out.chunks_exact(hidden.line())) {
                simd::run(AddPixels { sums, pixels: line });
            }
        }
    }

    /// Returns the padded line of the expanded feature map at index `padded`, counted with the
    /// padding at the top.
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

    /// Fills the ring with the lines of the expanded feature map that the lines `rows` read.
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
                    product(expand, x, Rows::dense(self.map.channels), (1, 0), pixels, to, ThreadPool::Single);
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
