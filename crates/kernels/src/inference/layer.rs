//! Single layers: a matrix multiplication over pixels or windows, and the activation or residual
//! after it.

use std::ops::Range;

use super::{
    map::{Geometry, Map},
    plan::Product,
    scratch::Scratch,
};
use crate::cpu::{
    activation::{self, ActivationFn, WithActivation},
    gemm::{self, Finish, Rows},
    simd::{Machine, Vector},
    thread_pool::ThreadPool,
};

/// Number of elements in a band of a feature map that is to stay in the L2 cache together with its
/// results.
pub const BAND: usize = 96 << 10;

/// Calls `body` with a range of `rows` and the corresponding part of `out`: once for all rows, or
/// in parallel for several ranges.
pub fn share_rows<T: Send>(rows: usize, out: &mut [T], pool: ThreadPool, body: impl Fn(Range<usize>, &mut [T]) + Sync) {
    let height = rows.div_ceil(pool.pieces());
    let line = out.len() / rows.max(1);
    pool.chunks(out, (height * line).max(1), |index, out| {
        body(index * height..rows.min((index + 1) * height), out);
    });
}

pub fn run_layer(layer: &Product, x: &[f32], map: Map, out: &mut [f32], pool: ThreadPool) {
    let rows = Geometry::of(layer, map).out.height;
    if layer.is_pointwise() {
        return layer_rows(layer, x, map, 0..rows, out, pool);
    }
    share_rows(rows, out, pool, |rows, out| layer_rows(layer, x, map, rows, out, ThreadPool::Single));
}

/// Computes some rows of a layer's output.
pub fn layer_rows(layer: &Product, x: &[f32], map: Map, rows: Range<usize>, out: &mut [f32], pool: ThreadPool) {
    let geometry = Geometry::of(layer, map);
    if layer.is_pointwise() {
        let x = &x[rows.start * map.line()..rows.end * map.line()];
        return product(layer, x, Rows::dense(map.channels), (1, 0), rows.len() * map.width, Pixels::dense(out), pool);
    }
    Scratch::with(|scratch| {
        let mut lines = std::mem::take(&mut scratch.lines);
        let line = (map.width + geometry.sides.iter().sum::<usize>()) * map.channels;
        let band = (BAND / (line * geometry.stride)).clamp(1, rows.len().max(1));
        for (start, out) in rows.clone().step_by(band).zip(out.chunks_mut(band * geometry.out.line())) {
            let count = band.min(rows.end - start);
            let padded = lines.room(geometry.lines(count) * line);
            for (index, to) in padded.chunks_exact_mut(line).enumerate() {
                let source =
                    (start * geometry.stride + index).checked_sub(geometry.top).filter(|row| *row < map.height);
                copy_line(source.map(|row| &x[row * map.line()..][..map.line()]), geometry.sides, map.channels, to);
            }
            let step = geometry.stride * map.channels;
            let from = Rows { width: geometry.out.width, line: geometry.stride * line, step };
            product(layer, padded, from, (layer.kernel, line), count * geometry.out.width, Pixels::dense(out), pool);
        }
        scratch.lines = lines;
    });
}

/// Copies a line and writes its padding; all zeros if there is no source.
pub fn copy_line(source: Option<&[f32]>, sides: [usize; 2], channels: usize, to: &mut [f32]) {
    let Some(source) = source else { return to.fill(0.0) };
    let (left, rest) = to.split_at_mut(sides[0] * channels);
    let (inner, right) = rest.split_at_mut(source.len());
    left.fill(0.0);
    inner.copy_from_slice(source);
    right.fill(0.0);
}

/// Destination of a matrix multiplication.
pub struct Pixels<'a> {
    pub out: &'a mut [f32],
    pub rows: Option<Rows>,
}

impl<'a> Pixels<'a> {
    pub fn dense(out: &'a mut [f32]) -> Self {
        Self { out, rows: None }
    }
}

/// Computes a layer's matrix multiplication with its activation.
pub fn product(
    layer: &Product,
    a: &[f32],
    a_rows: Rows,
    runs: (usize, usize),
    rows: usize,
    to: Pixels,
    pool: ThreadPool,
) {
    struct Body<'a>(gemm::Product<'a, ()>, &'a mut [f32], ThreadPool<'a>);
    impl WithActivation for Body<'_> {
        type Output = ();
        fn with<A: ActivationFn>(self, activation: A) {
            self.0.finishing(Activated(activation)).compute(self.1, self.2);
        }
    }
    let out_rows = to.rows.unwrap_or(Rows::dense(layer.outputs));
    let product = gemm::Product { a, a_rows, runs, rows, b: &layer.weight, bias: &layer.bias, finish: (), out_rows };
    activation::with(layer.activation, Body(product, to.out, pool));
}

/// Applies an activation to the results of a matrix multiplication.
#[derive(Clone, Copy)]
pub struct Activated<A>(pub A);

impl<A: ActivationFn> Finish for Activated<A> {
    #[inline(always)]
    fn finish<M: Machine>(self, sums: M::Vector, _: usize, _: usize, _: usize) -> M::Vector {
        sums.map(|sum| self.0.value::<M>(sum))
    }
}

/// Adds a residual to the results of a matrix multiplication.
#[derive(Clone, Copy)]
pub struct Added<'a> {
    pub residual: &'a [f32],
    pub channels: usize,
}

impl Finish for Added<'_> {
    #[inline(always)]
    fn finish<M: Machine>(self, sums: M::Vector, row: usize, column: usize, valid: usize) -> M::Vector {
        let residual = &self.residual[row * self.channels + column..][..valid.min(M::Vector::WIDTH)];
        // SAFETY: `sums` proves that the processor has M's instructions. A full vector is loaded
        // only if the slice is as long.
        let residual = unsafe {
            if residual.len() == M::Vector::WIDTH {
                M::Vector::load(residual.as_ptr())
            } else {
                M::Vector::load_first(residual.as_ptr(), residual.len())
            }
        };
        sums.add(residual)
    }
}
