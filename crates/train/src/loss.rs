//! Losses.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// Cross-entropy of `logits` `[N, C]` with the classes `targets` `[N]`, a share `smoothing` of each target being spread
/// evenly over all classes (PyTorch's `cross_entropy(label_smoothing=…)`). One value per sample, `[N]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let log_probabilities = log_softmax(logits, 1);
    let target = log_probabilities.clone().gather(1, targets.unsqueeze_dim(1)).squeeze_dim::<1>(1);
    if smoothing == 0.0 {
        return target.neg();
    }
    let uniform = log_probabilities.mean_dim(1).squeeze_dim::<1>(1);
    (target.mul_scalar(1.0 - smoothing) + uniform.mul_scalar(smoothing)).neg()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn agrees_with_pytorch() {
        let device = Device::default();
        let logits = Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]], &device);
        let targets = Tensor::<1, Int>::from_ints([2, 1], &device);
        // torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=s)
        for (smoothing, expected) in [(0.0, [0.407_606, 2.104_131]), (0.1, [0.507_606, 2.020_797])] {
            let loss = cross_entropy(logits.clone(), targets.clone(), smoothing);
            let loss: Vec<f32> = loss.into_data().try_to_vec().unwrap();
            assert!(loss.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5), "{loss:?}");
        }
    }
}
