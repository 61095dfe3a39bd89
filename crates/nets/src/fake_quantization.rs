//! Fake quantization: rounds weights and activations to the values of an 8-bit network during
//! training, with straight-through gradients (Jacob et al. 2018, Krishnamoorthi 2018).
//!
//! A weight has one scale per output channel, which absorbs the factor of the batch-norm that
//! follows. Rounding the raw weight therefore equals rounding the folded one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;
use mbconv_kernels::fake_quantize;
use mbconv_kernels::quantized::Quantizer;

/// Share of a batch in the moving average of a range, as in PyTorch's
/// `MovingAverageMinMaxObserver`.
const MOMENTUM: f32 = 0.01;
/// Largest magnitude of an 8-bit weight.
const MOST_STEPS: f64 = 127.0;

/// Lowest and highest value of an activation.
pub type Range = [f32; 2];
/// The range before the first batch.
const UNOBSERVED: Range = [0.0; 2];

/// Rounds an activation to the 8-bit values of its observed range. Clones share their state: a
/// network, its copy for validation and its moving average have the same ranges.
#[derive(Clone, Debug, Default)]
pub struct FakeQuantizer(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    range: Range,
    frozen: bool,
}

impl FakeQuantizer {
    /// Rounds `x`. On a device with autodiff, `x` moves the range before, unless it is frozen.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let State { mut range, frozen } = *self.state();
        if x.device().is_autodiff() && (!frozen || range == UNOBSERVED) {
            range = moved(range, observed(&x));
            self.set_range(range);
        }
        fake_quantize(x, Quantizer::of_range(range[0], range[1]))
    }

    /// Returns the observed range.
    pub fn range(&self) -> Range {
        self.state().range
    }

    /// Replaces the observed range.
    pub fn set_range(&self, range: Range) {
        self.state().range = range;
    }

    /// Sets whether training keeps an observed range as it is.
    pub fn set_frozen(&self, frozen: bool) {
        self.state().frozen = frozen;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounds `x` with the quantizer of its place in the network, if there is one.
pub(crate) fn quantized<const D: usize>(quantizer: &Option<FakeQuantizer>, x: Tensor<D>) -> Tensor<D> {
    match quantizer {
        Some(quantizer) => quantizer.forward(x),
        None => x,
    }
}

/// Rounds the weight of a layer whose activation has `quantizer`.
pub(crate) fn quantized_weight<const D: usize>(quantizer: &Option<FakeQuantizer>, weight: Tensor<D>) -> Tensor<D> {
    match quantizer {
        Some(_) => fake_quantize_weight(weight),
        None => weight,
    }
}

/// Returns the smallest and the largest value of `x`.
fn observed<const D: usize>(x: &Tensor<D>) -> Range {
    let x = x.clone().detach();
    let [low, high] = [x.clone().min(), x.max()];
    let mut values = Tensor::cat(vec![low, high], 0).into_data().iter::<f32>().collect::<Vec<_>>().into_iter();
    [(); 2].map(|()| values.next().unwrap_or(0.0))
}

/// Moves `range` towards that of a batch. A batch with values that are not finite is ignored.
fn moved(range: Range, batch: Range) -> Range {
    match range {
        _ if !batch.iter().all(|value| value.is_finite()) => range,
        UNOBSERVED => batch,
        [low, high] => [low + MOMENTUM * (batch[0] - low), high + MOMENTUM * (batch[1] - high)],
    }
}

/// Rounds a weight `[C_out, …]` to 255 values that are symmetric around 0, with one scale per
/// output channel. The gradient is that of the identity.
pub fn fake_quantize_weight<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    let channels = weight.dims()[0];
    let mut shape = [1; D];
    shape[0] = channels;
    let scale = weight.clone().detach().abs().reshape([channels as i32, -1]).max_dim(1).div_scalar(MOST_STEPS);
    let empty = scale.clone().equal_elem(0.0);
    let scale = scale.mask_fill(empty, 1.0).reshape(shape);
    let rounded = (weight.clone().detach() / scale.clone()).round() * scale;
    // The sum is exact, because a value differs from the rounded one by at most half a step.
    let difference = rounded - weight.clone().detach();
    weight + difference
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Distribution, TensorData};

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn values_are_those_of_the_8_bit_network() {
        let device = Device::default();
        device.seed(2);
        let x = Tensor::<1>::random([4096], Distribution::Normal(0.5, 1.0), &device);
        for [low, high] in [[0.0, 6.0], [-1.3, 2.1], [-0.7, -0.2], [0.3, 0.9], [0.0, 0.0], [-1e-3, 1e-4]] {
            let quantizer = Quantizer::of_range(low, high);
            let expected: Vec<f32> =
                values(x.clone()).iter().map(|&real| quantizer.real(quantizer.quantize(real))).collect();
            assert_eq!(values(fake_quantize(x.clone(), quantizer)), expected, "{low} {high}");
        }
    }

    #[test]
    fn values_and_gradients_match_pytorch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/golden_fake_quantization.json")).unwrap();
        let list = |value: &serde_json::Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
        let device = Device::default().autodiff();
        let tensor =
            |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &device);
        let close = |found: Vec<f32>, expected: Vec<f32>| {
            let same = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-6 * expected.abs();
            assert!(found.iter().zip(&expected).all(same), "{found:?} {expected:?}");
        };
        let cases = golden["activations"].as_array().unwrap().iter();
        // Single precision runs the backend's kernels, double precision the default bodies.
        for (case, dtype) in cases.flat_map(|case| [DType::F32, DType::F64].map(|dtype| (case, dtype))) {
            let zero_point = case["zero_point"].as_u64().unwrap() as u8;
            let quantizer = Quantizer { scale: list(&case["scale"])[0], zero_point };
            let x = list(&case["x"]);
            let x = tensor(x.clone(), [1, x.len()]).require_grad();
            let y = fake_quantize(x.clone().cast(dtype), quantizer).cast(DType::F32);
            close(values(y.clone().inner()), list(&case["y"]));
            let gradients = (y * tensor(list(&case["factors"]), x.dims())).sum().backward();
            assert_eq!(values(x.grad(&gradients).unwrap()), list(&case["gradient"]));
        }
        let case = &golden["weight"];
        let weight = list(&case["x"]);
        let weight = tensor(weight.clone(), [3, weight.len() / 3]).require_grad();
        let y = fake_quantize_weight(weight.clone());
        close(values(y.clone().inner()), list(&case["y"]));
        let gradients = (y * tensor(list(&case["factors"]), weight.dims())).sum().backward();
        assert_eq!(values(weight.grad(&gradients).unwrap()), list(&case["gradient"]));
    }

    #[test]
    fn ranges_follow_training_batches_only() {
        let device = Device::default().autodiff();
        let quantizer = FakeQuantizer::default();
        let batch = |low: f32, high: f32| Tensor::<1>::from_floats([low, high], &device);
        quantizer.set_frozen(true);
        quantizer.forward(batch(-1.0, 1.0).inner());
        assert_eq!(quantizer.range(), UNOBSERVED, "evaluation");
        quantizer.forward(batch(-1.0, 1.0));
        assert_eq!(quantizer.range(), [-1.0, 1.0], "the first batch");
        quantizer.set_frozen(false);
        quantizer.forward(batch(-2.0, 3.0));
        let [low, high] = quantizer.range();
        assert!((low + 1.01).abs() < 1e-6 && (high - 1.02).abs() < 1e-6, "{low} {high}");
        quantizer.forward(batch(f32::NAN, 9.0));
        quantizer.set_frozen(true);
        quantizer.forward(batch(-9.0, 9.0));
        assert_eq!(quantizer.range(), [low, high], "not finite, then frozen");
    }
}
