//! Inputs, memory layouts and comparisons shared by the tests.
#![allow(dead_code)]

use burn::tensor::{DType, Device, Tensor, TensorData};

/// Returns numbers in (-2, 2) that depend only on `seed`.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// Memory layout of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the order of its axes.
    Plain,
    /// Last axis first.
    Permuted,
    /// A part of a larger tensor.
    Sliced,
}

/// Device and precision of test tensors.
#[derive(Clone)]
pub struct Place {
    pub device: Device,
    pub dtype: DType,
}

impl Place {
    pub fn new(device: Device, dtype: DType) -> Self {
        Self { device, dtype }
    }

    /// Returns the same place with another precision.
    pub fn of(&self, dtype: DType) -> Self {
        Self { dtype, ..self.clone() }
    }

    pub fn tensor<const D: usize>(&self, shape: [usize; D], layout: Layout, seed: u64) -> Tensor<D> {
        let make = |shape: [usize; D]| {
            let data = TensorData::new(numbers(shape.iter().product(), seed), shape);
            Tensor::<D>::from_data(data, (&self.device, self.dtype))
        };
        match layout {
            Layout::Plain => make(shape),
            Layout::Permuted => {
                let mut reversed = shape;
                reversed.reverse();
                make(reversed).permute(std::array::from_fn(|axis| (D - 1 - axis) as isize))
            }
            Layout::Sliced => {
                let larger = shape.map(|side| side + 2);
                make(larger).slice(shape.map(|side| 1..1 + side))
            }
        }
    }
}

/// Returns the output of `operation`, and the gradients of all operands for an output weighted by
/// random numbers.
pub fn differentiate(
    maps: &[Tensor<4>],
    vectors: &[Tensor<1>],
    operation: impl Fn(&[Tensor<4>], &[Tensor<1>]) -> Tensor<4>,
) -> Vec<Vec<f64>> {
    let maps: Vec<_> = maps.iter().map(|tensor| tensor.clone().require_grad()).collect();
    let vectors: Vec<_> = vectors.iter().map(|tensor| tensor.clone().require_grad()).collect();
    let y = operation(&maps, &vectors);
    let weights = Place::new(y.device(), y.dtype()).tensor(y.dims(), Layout::Plain, 99);
    let gradients = (y.clone() * weights).sum().backward();
    let mut results = vec![values(y)];
    results.extend(maps.iter().map(|tensor| values(tensor.grad(&gradients).expect("a gradient"))));
    results.extend(vectors.iter().map(|tensor| values(tensor.grad(&gradients).expect("a gradient"))));
    results
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Asserts that each pair of arrays agrees within `tolerance` times the largest expected element,
/// or `tolerance` if that is below 1.
pub fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (which, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "result {which}: length");
        let scale = expected.iter().fold(1.0f64, |scale, value| scale.max(value.abs()));
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!(
                (a - b).abs() <= tolerance * scale,
                "result {which}, element {index}: {a}, not {b} (scale {scale})"
            );
        }
    }
}
