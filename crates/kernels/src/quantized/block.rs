//! Inverted residuals in 8 bits, computed band by band.
//!
//! As in single precision, a band of the expanded feature map is kept in a ring of lines. Its
//! pixels are interleaved in groups of four, as the depthwise convolution reads them.

use std::ops::Range;

use super::{
    depthwise::{self, Rows as DepthwiseRows},
    description::Quantizer,
    finish::Addition,
    layer::{BAND, Residual, float_depthwise, pointwise, quantize, run_layer, run_real, with_slack},
    machine::{round, run as run_machine},
    plan::{Block, Depthwise, DepthwiseWeights, Gate, Integers, Product, ProductWeights},
    product::{Output, Packed, Product as Matrix, STEP},
    scratch::Scratch,
};
use crate::{
    cpu::{buffer::Aligned, gemm::Rows, thread_pool::ThreadPool},
    inference::{
        layer::share_rows,
        map::{Geometry, Map},
    },
    multiversion::{self, Work},
};

/// Runs a block on one image. `x` is a map with slack.
pub fn run_block(block: &Block, x: &[u8], map: Map, out: &mut [u8], pool: ThreadPool, scratch: &mut Scratch) {
    let hidden = block.hidden(map);
    let residual = block.addition.map(|addition| (&x[..map.len()], addition));
    let mut memory = std::mem::take(&mut scratch.hidden);
    let [expanded, values, scaled] = &mut memory;
    let fused = Fused::of(block);
    match &fused {
        Some(fused) if block.gate.is_none() && !shares(fused, map, pool) => {
            run_bands(block, fused, x, map, residual, out, pool);
        }
        _ => {
            let values = values.room(with_slack(hidden));
            match &fused {
                Some(fused) => hidden_map(fused, x, map, expanded, &mut values[..hidden.len()], pool),
                None => layers(block, x, map, expanded, values, pool),
            }
            let scaled = match &block.gate {
                Some(gate) => {
                    let scaled = scaled.room(with_slack(hidden));
                    scale_channels(block, gate, values, hidden, scaled, pool);
                    scaled
                }
                None => values,
            };
            run_layer(&block.project, scaled, hidden, residual, out, pool);
        }
    }
    scratch.hidden = memory;
}

/// The parts of a block whose expansion and depthwise convolution are computed together.
struct Fused<'a> {
    expand: Option<(&'a Product, &'a Integers<Packed>)>,
    depthwise: &'a Depthwise,
    weights: &'a Integers<Vec<(usize, depthwise::Packed)>>,
}

impl<'a> Fused<'a> {
    fn of(block: &'a Block) -> Option<Self> {
        let depthwise = block.depthwise.as_ref()?;
        let DepthwiseWeights::Int8(weights) = &depthwise.weights else { return None };
        let expand = match &block.expand {
            None => None,
            Some(expand) => match &expand.weights {
                ProductWeights::Int8(weights) if expand.is_pointwise() => Some((expand, &**weights)),
                _ => return None,
            },
        };
        Some(Self { expand, depthwise, weights })
    }

    /// Returns the dimensions of the map that the depthwise convolution reads.
    fn expanded(&self, map: Map) -> Map {
        self.expand.map_or(map, |(expand, _)| expand.geometry(map).out)
    }
}

/// Returns whether all threads together compute the expanded map, as bands of rows would overlap
/// too much.
fn shares(fused: &Fused, map: Map, pool: ThreadPool) -> bool {
    let overlap = fused.depthwise.kernel.saturating_sub(fused.depthwise.stride);
    pool.threads() > 1 && map.height.div_ceil(pool.threads()) < 16 * overlap
}

/// Computes a block without a gate band by band.
fn run_bands(block: &Block, fused: &Fused, x: &[u8], map: Map, residual: Residual, out: &mut [u8], pool: ThreadPool) {
    let hidden = block.hidden(map);
    let line = hidden.width * block.project.outputs;
    share_rows(hidden.height, &mut out[..hidden.height * line], pool, |rows, out| {
        Scratch::with(|scratch| {
            let mut lines = std::mem::take(&mut scratch.lines);
            let [_, memory, _] = &mut scratch.hidden;
            let mut source = Source::new(fused, x, map, None, &mut lines);
            let band = source.band;
            for (start, out) in rows.clone().step_by(band).zip(out.chunks_mut((band * line).max(1))) {
                let rows = start..rows.end.min(start + band);
                let part = Map { height: rows.len(), ..hidden };
                let values = memory.room(with_slack(part));
                source.rows(rows, &mut values[..part.len()]);
                let residual =
                    residual.map(|(others, addition): (&[u8], Addition)| (&others[start * line..], addition));
                run_layer(&block.project, values, part, residual, out, ThreadPool::Single);
            }
            scratch.lines = lines;
        });
    });
}

/// Computes the whole input of the projection.
fn hidden_map(fused: &Fused, x: &[u8], map: Map, expanded: &mut Aligned<u8>, out: &mut [u8], pool: ThreadPool) {
    let whole = (pool.threads() > 1 && fused.expand.is_some()).then(|| {
        let inner = fused.expanded(map);
        let lines = Lines::new(fused, inner);
        let memory = expanded.room(lines.length * (inner.height + 1));
        lines.pad(fused, memory);
        lines.fill(fused, x, map, 0..inner.height, memory, pool);
        &*memory
    });
    let height = fused.depthwise.geometry(fused.expanded(map)).out.height;
    share_rows(height, out, pool, |rows, out| {
        Scratch::with(|scratch| {
            let mut lines = std::mem::take(&mut scratch.lines);
            let mut source = Source::new(fused, x, map, whole, &mut lines);
            let (band, line) = (source.band, source.geometry.out.line());
            for (start, out) in rows.clone().step_by(band).zip(out.chunks_mut((band * line).max(1))) {
                source.rows(start..rows.end.min(start + band), out);
            }
            scratch.lines = lines;
        });
    });
}

/// Computes the whole input of the projection layer by layer.
fn layers(block: &Block, x: &[u8], map: Map, memory: &mut Aligned<u8>, out: &mut [u8], pool: ThreadPool) {
    let inner = block.expanded(map);
    let Some(depthwise) = &block.depthwise else {
        match &block.expand {
            Some(expand) => run_layer(expand, x, map, None, out, pool),
            None => out[..map.len()].copy_from_slice(&x[..map.len()]),
        }
        return;
    };
    let x = match &block.expand {
        Some(expand) => {
            let expanded = memory.room(with_slack(inner));
            run_layer(expand, x, map, None, expanded, pool);
            expanded
        }
        None => x,
    };
    match &depthwise.weights {
        DepthwiseWeights::Float(float) => float_depthwise(depthwise, float, x, inner, out, pool),
        DepthwiseWeights::Int8(weights) => {
            let length = depthwise.geometry(inner).out.len();
            let fused = Fused { expand: None, depthwise, weights };
            hidden_map(&fused, x, inner, &mut Aligned::default(), &mut out[..length], pool);
        }
    }
}

/// Padded lines of interleaved pixels.
#[derive(Clone, Copy)]
struct Lines {
    /// Number of bytes of a line.
    length: usize,
    /// Number of bytes of padding before the first pixel.
    lead: usize,
    /// Number of pixels of a line without padding, rounded up to whole groups.
    width: usize,
}

impl Lines {
    fn new(fused: &Fused, inner: Map) -> Self {
        let geometry = fused.depthwise.geometry(inner);
        let weight = fused.weights.for_padding(geometry.sides[0]);
        let width = inner.width.next_multiple_of(STEP);
        let groups = weight.groups(geometry.out.width).max(weight.lead() + width / STEP);
        let group = inner.channels * STEP;
        Self { length: groups * group, lead: weight.lead() * group, width }
    }

    /// Writes the padding of lines, the last of which is only padding.
    fn pad(self, fused: &Fused, lines: &mut [u8]) {
        let zero = fused.depthwise.input.zero_point;
        let end = self.lead + self.width * fused.depthwise.channels;
        let (inner, last) = lines.split_at_mut(lines.len() - self.length);
        for line in inner.chunks_exact_mut(self.length.max(1)) {
            line[..self.lead].fill(zero);
            line[end..].fill(zero);
        }
        last.fill(zero);
    }

    /// Computes lines of the expanded map.
    fn fill(self, fused: &Fused, x: &[u8], map: Map, rows: Range<usize>, out: &mut [u8], pool: ThreadPool) {
        let inner = fused.expanded(map);
        let zero = fused.depthwise.input.zero_point;
        let x = &x[rows.start * map.line()..];
        let count = rows.len();
        if count == 0 {
            return;
        }
        match fused.expand {
            Some((_, weights)) => {
                let product = pointwise(
                    weights,
                    x,
                    count * self.width,
                    map.channels,
                    Output::Quads { width: self.width, line: self.length },
                );
                let a_rows = Rows { width: self.width, line: map.line(), step: map.channels };
                Matrix { a_rows, ..product }.compute(&mut out[self.lead..], pool);
            }
            None => {
                for (line, x) in out.chunks_exact_mut(self.length).zip(x.chunks_exact(map.line())).take(count) {
                    multiversion::run(Interleave { x, channels: map.channels, out: &mut line[self.lead..] });
                }
            }
        }
        // The last group also holds pixels behind the end of the line.
        let beyond = inner.width % STEP;
        if beyond > 0 {
            let group = inner.channels * STEP;
            for line in out.chunks_exact_mut(self.length).take(count) {
                let last = &mut line[self.lead + (self.width / STEP - 1) * group..][..group];
                last.chunks_exact_mut(STEP).for_each(|pixels| pixels[beyond..].fill(zero));
            }
        }
    }
}

/// Interleaves the pixels of a line in groups of four.
struct Interleave<'a> {
    x: &'a [u8],
    channels: usize,
    out: &'a mut [u8],
}

impl Work for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, channels, out } = self;
        let group = channels * STEP;
        for (x, out) in x.chunks(group).zip(out.chunks_exact_mut(group)) {
            if x.len() == group {
                let (a, rest) = x.split_at(channels);
                let (b, rest) = rest.split_at(channels);
                let (c, d) = rest.split_at(channels);
                for (i, out) in out.chunks_exact_mut(STEP).enumerate() {
                    out.copy_from_slice(&[a[i], b[i], c[i], d[i]]);
                }
            } else {
                for (pixel, values) in x.chunks_exact(channels).enumerate() {
                    out[pixel..].iter_mut().step_by(STEP).zip(values).for_each(|(to, value)| *to = *value);
                }
            }
        }
    }
}

/// Most lines that a band reads.
const LINES: usize = 32;

/// Computes the input of the projection, line by line from top to bottom.
struct Source<'a> {
    fused: &'a Fused<'a>,
    x: &'a [u8],
    map: Map,
    lines: Lines,
    geometry: Geometry,
    /// The lines of the expanded map followed by one of padding: all of them, or a ring.
    ring: &'a [u8],
    memory: &'a mut [u8],
    capacity: usize,
    /// The input line up to which the ring was filled.
    filled: usize,
    /// Preferred number of lines per call of `rows`.
    band: usize,
}

impl<'a> Source<'a> {
    fn new(fused: &'a Fused, x: &'a [u8], map: Map, whole: Option<&'a [u8]>, memory: &'a mut Aligned<u8>) -> Self {
        let inner = fused.expanded(map);
        let geometry = fused.depthwise.geometry(inner);
        let lines = Lines::new(fused, inner);
        let Geometry { kernel, stride, .. } = geometry;
        // Limits a band so that its windows read at most `LINES` lines.
        let seen = (LINES.saturating_sub(kernel) / stride + 1).max(1);
        let band = (BAND / (lines.length * stride).max(1)).clamp(1, geometry.out.height.max(1)).min(seen);
        let capacity = geometry.lines(band);
        let (ring, memory, capacity): (&[u8], &mut [u8], usize) = match whole {
            Some(whole) => (whole, &mut [], inner.height),
            None => {
                let memory = memory.room((capacity + 1) * lines.length);
                lines.pad(fused, memory);
                (&[], memory, capacity)
            }
        };
        Self { fused, x, map, lines, geometry, ring, memory, capacity, filled: 0, band }
    }

    /// Computes lines, at most a band.
    fn rows(&mut self, rows: Range<usize>, out: &mut [u8]) {
        let Geometry { stride, out: hidden, sides, .. } = self.geometry;
        if self.ring.is_empty() {
            self.fill(rows.clone());
        }
        let first = rows.start * stride;
        let count = self.geometry.lines(rows.len());
        assert!(count <= LINES, "a window of more than {LINES} pixels");
        let mut sources = [&self.x[..0]; LINES];
        for (line, source) in sources[..count].iter_mut().enumerate() {
            *source = self.source(first + line);
        }
        let Integers { start, rounding, .. } = self.fused.weights;
        let weight = self.fused.weights.for_padding(sides[0]);
        run_machine(DepthwiseRows { out, sources: &sources[..count], weight, start, rounding, width: hidden.width });
    }

    /// Returns the padded line at index `padded`, counted with the padding at the top.
    fn source(&self, padded: usize) -> &[u8] {
        let lines = if self.ring.is_empty() { &*self.memory } else { self.ring };
        let height = self.fused.expanded(self.map).height;
        let row = padded.checked_sub(self.geometry.top).filter(|row| *row < height);
        let slot = row.map_or(self.capacity, |row| row % self.capacity);
        &lines[slot * self.lines.length..][..self.lines.length]
    }

    /// Fills the ring with the lines that the lines `rows` read.
    fn fill(&mut self, rows: Range<usize>) {
        let Geometry { stride, top, kernel, .. } = self.geometry;
        let first = (rows.start * stride).saturating_sub(top).max(self.filled);
        let end = ((rows.end - 1) * stride + kernel).saturating_sub(top).min(self.map.height);
        let mut row = first;
        while row < end {
            let slot = row % self.capacity;
            let count = (end - row).min(self.capacity - slot);
            let to = &mut self.memory[slot * self.lines.length..][..count * self.lines.length];
            self.lines.fill(self.fused, self.x, self.map, row..row + count, to, ThreadPool::Single);
            row += count;
        }
        self.filled = self.filled.max(end);
    }
}

/// Multiplies the channels of a map by their gates.
fn scale_channels(block: &Block, gate: &Gate, x: &[u8], map: Map, out: &mut [u8], pool: ThreadPool) {
    let input = block.hidden_quantizer();
    let mean = average(x, map, input, gate.reduce.input);
    let pixel = Map { height: 1, width: 1, channels: map.channels };
    let mut squeezed = vec![0; with_slack(Map { channels: gate.reduce.outputs, ..pixel })];
    run_layer(&gate.reduce, &mean, pixel, None, &mut squeezed, ThreadPool::Single);
    let mut factors = vec![0; map.channels];
    let squeezed_map = Map { channels: gate.reduce.outputs, ..pixel };
    match &gate.expand.weights {
        ProductWeights::Int8(_) => {
            run_layer(&gate.expand, &squeezed, squeezed_map, None, &mut factors, ThreadPool::Single);
        }
        ProductWeights::Float(_) => {
            let real = run_real(&gate.expand, &squeezed, squeezed_map, ThreadPool::Single);
            let excited: Vec<f32> = real.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
            quantize(&excited, gate.expand.output, &mut factors);
        }
    }
    let multiplier = input.scale * gate.expand.output.scale / block.project.input.scale;
    let factor_zero = i32::from(gate.expand.output.zero_point);
    let factors: Vec<i32> = factors.iter().map(|factor| i32::from(*factor) - factor_zero).collect();
    let lines = map.height.div_ceil(pool.pieces());
    pool.chunks(&mut out[..map.len()], (lines * map.line()).max(1), |index, out| {
        let x = &x[index * lines * map.line()..][..out.len()];
        let zeros = [input.zero_point, block.project.input.zero_point];
        multiversion::run(Scale { x, factors: &factors, zeros, multiplier, out });
    });
}

/// Multiplies every pixel by the factors of its channels.
struct Scale<'a> {
    x: &'a [u8],
    factors: &'a [i32],
    /// Zero points of the values and of the products.
    zeros: [u8; 2],
    multiplier: f32,
    out: &'a mut [u8],
}

impl Work for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, factors, zeros, multiplier, out } = self;
        let zeros = zeros.map(i32::from);
        let (low, high) = (-zeros[1] as f32, (255 - zeros[1]) as f32);
        for (x, out) in x.chunks_exact(factors.len()).zip(out.chunks_exact_mut(factors.len())) {
            for ((value, factor), out) in x.iter().zip(factors).zip(out) {
                let product = (i32::from(*value) - zeros[0]) * factor;
                *out = (round((product as f32 * multiplier).clamp(low, high)) + zeros[1]) as u8;
            }
        }
    }
}

/// Averages every channel over all pixels. The result has slack.
pub fn average(x: &[u8], map: Map, input: Quantizer, output: Quantizer) -> Vec<u8> {
    struct Sums<'a>(&'a [u8], &'a mut [i32]);
    impl Work for Sums<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            for pixel in self.0.chunks_exact(self.1.len()) {
                self.1.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(*value));
            }
        }
    }
    let mut sums = vec![0i32; map.channels];
    multiversion::run(Sums(&x[..map.len()], &mut sums));
    let zero = i32::from(input.zero_point) * map.pixels() as i32;
    let multiplier = input.scale / output.scale / map.pixels() as f32;
    let output_zero = f32::from(output.zero_point);
    let mut means = vec![0; with_slack(Map { height: 1, width: 1, ..map })];
    for (mean, sum) in means.iter_mut().zip(sums) {
        let steps = ((sum - zero) as f32 * multiplier).clamp(-output_zero, 255.0 - output_zero);
        *mean = (round(steps) + i32::from(output.zero_point)) as u8;
    }
    means
}
