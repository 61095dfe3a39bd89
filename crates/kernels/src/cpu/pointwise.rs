//! 1x1 convolution: a matrix multiplication with one row per pixel.

use super::{
    gemm::{Finish, Packed, Product, Rows},
    simd::Machine,
    thread_pool::ThreadPool,
    weight_gradient::outer_products,
};

/// Multiplies `x` [pixels, Ci] and `weight` [Co, Ci] → [pixels, Co]. The result is empty if Ci is
/// zero, since `x` then does not determine the number of pixels.
///
/// # Panics
/// If the lengths do not match.
pub fn forward(x: &[f32], weight: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    multiply(x, inputs, &Packed::from_columns(weight, inputs, outputs))
}

/// Returns the gradient of `x`, from the gradient of the output [pixels, Co]; empty if Co is zero.
///
/// # Panics
/// If the lengths do not match.
pub fn input_gradient(gradient: &[f32], weight: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    multiply(gradient, outputs, &Packed::from_rows(weight, outputs, inputs))
}

/// Returns the gradient of the weight [Co, Ci].
pub fn weight_gradient(x: &[f32], gradient: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    outer_products(gradient, x, outputs, inputs)
}

/// Multiplies `a` [rows, depth] by `b`.
fn multiply(a: &[f32], depth: usize, b: &Packed) -> Vec<f32> {
    assert!(a.len().is_multiple_of(depth), "{} elements are no rows of {depth}", a.len());
    let bias = vec![0.0; b.padded()];
    product(a, a.len().checked_div(depth).unwrap_or(0), b, &bias).computed(ThreadPool::Rayon)
}

/// Returns the plain product of a dense `a` [rows, depth] and `b`; the bias must be zeros.
pub fn product<'a>(a: &'a [f32], rows: usize, b: &'a Packed, bias: &'a [f32]) -> Product<'a, Sums> {
    let (a_rows, out_rows) = (Rows::dense(b.depth()), Rows::dense(b.columns()));
    Product { a, a_rows, runs: (1, 0), rows, b, bias, finish: Sums, out_rows }
}

/// Leaves the sums unchanged.
#[derive(Clone, Copy)]
pub struct Sums;

impl Finish for Sums {
    #[inline(always)]
    fn finish<M: Machine>(self, sums: M::Vector, _: usize, _: usize, _: usize) -> M::Vector {
        sums
    }
}
