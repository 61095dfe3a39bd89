//! Every layer in plain tensor operations, differentiated by Burn: short, slow, and the oracle of
//! the tests.

use burn::tensor::{Tensor, module, ops::ConvOptions};

use crate::types::activation::Activation;
use crate::types::normalization::Statistics;

/// 1x1 convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, 1, 1], `bias` `[Co]` → [N, H, W, Co].
pub fn pointwise_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let [outputs, ..] = weight.dims();
    let weight = weight.reshape([outputs, channels]).transpose();
    let y = x.reshape([batch * height * width, channels]).matmul(weight);
    let y = match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    };
    y.reshape([batch, height, width, outputs])
}

/// Depthwise convolution: `x` [N, H, W, C], `weight` [C, 1, k, k] → [N, H', W', C].
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let [.., channels] = x.dims();
    grouped_conv2d(x, weight, stride, padding, channels)
}

/// Dense convolution: `x` [N, H, W, Ci], `weight` [Co, Ci, k, k] → [N, H', W', Co].
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    grouped_conv2d(x, weight, stride, padding, 1)
}

fn grouped_conv2d(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize, groups: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], groups);
    module::conv2d(x.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1])
}

/// Averages every channel over each image: [N, H, W, C] → [N, 1, 1, C].
pub fn global_average(x: Tensor<4>) -> Tensor<4> {
    x.mean_dim(1).mean_dim(2)
}

/// Scales every channel of an image in `x` [N, H, W, C] by `gate` [N, 1, 1, C].
pub fn scale_channels(x: Tensor<4>, gate: Tensor<4>) -> Tensor<4> {
    x * gate
}

/// Returns the mean `[C]` and the biased variance `[C]` per channel of `x` [N, H, W, C], detached
/// from the graph.
pub fn channel_statistics(x: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    differentiable_statistics(x.detach())
}

fn differentiable_statistics(x: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let [batch, height, width, channels] = x.dims();
    let x = x.reshape([batch * height * width, channels]);
    let mean = x.clone().mean_dim(0);
    let centered = x - mean.clone();
    let variance = centered.clone().mul(centered).mean_dim(0);
    (mean.reshape([channels]), variance.reshape([channels]))
}

/// Returns `activation((x - mean) / sqrt(var + epsilon) * gamma + beta)` for `x` [N, H, W, C] and
/// vectors `[C]`.
///
/// Gradients flow to `x`, `gamma` and `beta`. With [`Statistics::Batch`], `mean` and `var` must be
/// those of `x`; the gradient of `x` then includes their dependence on it.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_activation(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    mean: Tensor<1>,
    var: Tensor<1>,
    epsilon: f64,
    statistics: Statistics,
    activation: Activation,
) -> Tensor<4> {
    let (mean, var) = match statistics {
        Statistics::Batch => differentiable_statistics(x.clone()),
        Statistics::Fixed => (mean.detach(), var.detach()),
    };
    let inverse = (var + epsilon).sqrt().recip();
    let normalized = (x - mean.unsqueeze()) * inverse.unsqueeze();
    activation.apply(normalized * gamma.unsqueeze() + beta.unsqueeze())
}
