//! Single layers on 8-bit feature maps.

use std::ops::Range;

use super::{
    description::Quantizer,
    finish::Addition,
    plan::{Depthwise, Integers, Product, ProductWeights},
    product::{Output, Packed, Product as Matrix, STEP},
    scratch::Scratch,
};
use crate::{
    cpu::{
        activation::{self, ActivationFn, WithActivation},
        gemm::Rows,
        simd,
        thread_pool::ThreadPool,
    },
    inference::{
        layer::{run_layer as run_float, share_rows},
        map::Map,
        plan,
    },
    multiversion::{self, Work},
};

/// Number of bytes in a band of a feature map that is to stay in the L2 cache together with its
/// results.
pub const BAND: usize = 192 << 10;

/// Returns the number of bytes of a map with those that tiles read after its end.
pub fn with_slack(map: Map) -> usize {
    map.len() + 3 * map.channels + 3
}

/// A map to add to a layer's output.
pub type Residual<'a> = Option<(&'a [u8], Addition)>;

/// Runs a dense or pointwise layer on a map with slack.
pub fn run_layer(layer: &Product, x: &[u8], map: Map, residual: Residual, out: &mut [u8], pool: ThreadPool) {
    match &layer.weights {
        ProductWeights::Float(float) => {
            let results = float_results(layer, float, x, map, pool);
            quantize(&results, layer.output, out);
            if let Some((others, addition)) = residual {
                for (value, other) in out.iter_mut().zip(others) {
                    *value = addition.sum(i32::from(*other), i32::from(*value)) as u8;
                }
            }
        }
        ProductWeights::Int8(weights) if layer.is_pointwise() => {
            pointwise(weights, x, map.pixels(), layer.inputs, Output::Pixels(residual)).compute(out, pool);
        }
        ProductWeights::Int8(weights) => windows(layer, weights, x, map, residual, out, pool),
    }
}

/// Returns the product of a pointwise layer with a number of pixels.
pub fn pointwise<'a>(
    weights: &'a Integers<Packed>,
    x: &'a [u8],
    pixels: usize,
    channels: usize,
    output: Output<'a>,
) -> Matrix<'a> {
    let Integers { weight, start, rounding, .. } = weights;
    let a_rows = Rows::dense(channels);
    Matrix { a: x, a_rows, apart: 0, rows: pixels, b: weight, start, rounding, output }
}

/// Runs a layer with windows, band by band of padded lines.
fn windows(
    layer: &Product,
    weights: &Integers<Packed>,
    x: &[u8],
    map: Map,
    residual: Residual,
    out: &mut [u8],
    pool: ThreadPool,
) {
    let geometry = layer.geometry(map);
    let line = (map.width + geometry.sides.iter().sum::<usize>()) * map.channels;
    let band = (BAND / (line * geometry.stride).max(1)).max(1);
    share_rows(geometry.out.height, &mut out[..geometry.out.len()], pool, |rows, out| {
        Scratch::with(|scratch| {
            let mut memory = std::mem::take(&mut scratch.lines);
            for (first, out) in rows.clone().step_by(band).zip(out.chunks_mut((band * geometry.out.line()).max(1))) {
                let count = band.min(rows.end - first);
                let padded = memory.room(geometry.lines(count) * line + STEP);
                padded.fill(layer.input.zero_point);
                for (index, to) in padded.chunks_exact_mut(line.max(1)).enumerate().take(geometry.lines(count)) {
                    let row = (first * geometry.stride + index).checked_sub(geometry.top);
                    if let Some(row) = row.filter(|row| *row < map.height) {
                        to[geometry.sides[0] * map.channels..][..map.line()]
                            .copy_from_slice(&x[row * map.line()..][..map.line()]);
                    }
                }
                let Integers { weight, start, rounding, .. } = weights;
                let width = geometry.out.width;
                let residual = residual.map(|(others, addition)| (&others[first * geometry.out.line()..], addition));
                Matrix {
                    a: padded,
                    a_rows: Rows { width, line: geometry.stride * line, step: geometry.stride * map.channels },
                    apart: line,
                    rows: count * width,
                    b: weight,
                    start,
                    rounding,
                    output: Output::Pixels(residual),
                }
                .compute(out, ThreadPool::Single);
            }
            scratch.lines = memory;
        });
    });
}

fn float_results(layer: &Product, float: &plan::Product, x: &[u8], map: Map, pool: ThreadPool) -> Vec<f32> {
    let real: Vec<f32> = x[..map.len()].iter().map(|value| layer.input.real(*value)).collect();
    let mut results = vec![0.0; layer.geometry(map).out.len()];
    run_float(float, &real, map, &mut results, pool);
    results
}

/// Rounds real numbers to 8 bits.
pub fn quantize(real: &[f32], quantizer: Quantizer, out: &mut [u8]) {
    struct Quantize<'a>(&'a [f32], Quantizer, &'a mut [u8]);
    impl Work for Quantize<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            self.2.iter_mut().zip(self.0).for_each(|(to, real)| *to = self.1.quantize(*real));
        }
    }
    multiversion::run(Quantize(real, quantizer, out));
}

/// Runs a pointwise layer with real results, after its activation.
pub fn run_real(layer: &Product, x: &[u8], map: Map, pool: ThreadPool) -> Vec<f32> {
    let weights = match &layer.weights {
        ProductWeights::Float(float) => return float_results(layer, float, x, map, pool),
        ProductWeights::Int8(weights) => weights,
    };
    assert!(layer.is_pointwise(), "the last layer of a network is pointwise");
    let mut sums = crate::cpu::buffer::Aligned::<i32>::zeros(map.pixels() * layer.outputs);
    pointwise(weights, x, map.pixels(), layer.inputs, Output::Sums).compute(sums.bytes_mut(), pool);
    let mut results: Vec<f32> = sums
        .chunks_exact(layer.outputs)
        .flat_map(|sums| sums.iter().zip(&weights.units).map(|(sum, unit)| *sum as f32 * unit))
        .collect();
    activation::with(weights.activation, Activate(&mut results));
    results
}

struct Activate<'a>(&'a mut [f32]);

impl WithActivation for Activate<'_> {
    type Output = ();

    fn with<A: ActivationFn>(self, activation: A) {
        self.0.iter_mut().for_each(|value| *value = activation.value::<simd::Portable>(*value));
    }
}

/// Runs a depthwise layer that stays in single precision.
pub fn float_depthwise(
    layer: &Depthwise,
    float: &plan::Depthwise,
    x: &[u8],
    map: Map,
    out: &mut [u8],
    pool: ThreadPool,
) {
    let geometry = layer.geometry(map);
    share_rows(geometry.out.height, &mut out[..geometry.out.len()], pool, |rows: Range<usize>, out| {
        let mut sums = vec![0.0; geometry.out.line()];
        for (row, out) in rows.zip(out.chunks_exact_mut(geometry.out.line().max(1))) {
            for (column, sums) in sums.chunks_exact_mut(map.channels).enumerate() {
                sums.copy_from_slice(&float.bias);
                for tap in 0..layer.kernel * layer.kernel {
                    let y = (row * layer.stride + tap / layer.kernel).checked_sub(geometry.top);
                    let at = (column * layer.stride + tap % layer.kernel).checked_sub(geometry.sides[0]);
                    let (Some(y), Some(at)) = (y, at) else { continue };
                    if y >= map.height || at >= map.width {
                        continue;
                    }
                    let pixel = &x[(y * map.width + at) * map.channels..][..map.channels];
                    let weight = &float.weight[tap * map.channels..][..map.channels];
                    for ((sum, value), weight) in sums.iter_mut().zip(pixel).zip(weight) {
                        *sum += layer.input.real(*value) * weight;
                    }
                }
            }
            activation::with(float.activation, Activate(&mut sums));
            quantize(&sums, layer.output, out);
        }
    });
}
