//! Losses and ranks of a batch, on the device.

use burn::tensor::{Int, Tensor};

use crate::metrics::target_ranks;

/// Returns the losses of a batch followed by the ranks of its targets among the logits, `[2N]`.
pub(crate) fn batch_metrics(logits: &Tensor<2>, targets: &Tensor<1, Int>, losses: &Tensor<1>) -> Tensor<1> {
    let device = logits.device().inner();
    let ranks = target_ranks(logits.clone().detach().inner(), targets.clone().to_device(&device));
    with_ranks(losses, ranks)
}

/// Returns the losses of a multi-label batch followed by the rank of each image's most probable
/// true class, `[2N]`. A class is true if its target is above 0.5. Images without a class have the
/// last rank. Shapes: `logits` and `shares` `[N, C]`, `losses` `[N]`.
pub(crate) fn multi_label_batch_metrics(logits: &Tensor<2>, shares: &Tensor<2>, losses: &Tensor<1>) -> Tensor<1> {
    let [logits, shares] = [logits, shares].map(|tensor| tensor.clone().detach().inner());
    let classes = logits.dims()[1] as i64;
    let target = logits.clone().mask_fill(shares.lower_equal_elem(0.5), f32::NEG_INFINITY).max_dim(1);
    let below = logits.lower(target).int().sum_dim(1).squeeze_dim::<1>(1);
    with_ranks(losses, below.neg().add_scalar(classes - 1))
}

fn with_ranks(losses: &Tensor<1>, ranks: Tensor<1, Int>) -> Tensor<1> {
    let losses = losses.clone().detach().inner();
    let ranks = ranks.float().cast(losses.dtype());
    Tensor::cat(vec![losses, ranks], 0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rank_of_several_classes_is_that_of_the_best() {
        let device = Device::default();
        let logits = Tensor::<2>::from_floats([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], &device);
        let shares = Tensor::<2>::from_floats([[0.95, 0.95, 0.05], [0.05, 0.95, 0.95], [0.05, 0.05, 0.05]], &device);
        let metrics = multi_label_batch_metrics(&logits, &shares, &Tensor::from_floats([1.0, 2.0, 3.0], &device));
        assert_eq!(metrics.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 0.0, 1.0, 2.0]);
    }
}
