//! Operations of MBConv networks for [Burn](https://burn.dev), channels-last, with their gradients.
//!
//! All maps are float tensors `[N, H, W, C]` (batch, height, width, channels): a 1x1 convolution is then one matrix
//! product, and everything that works channel by channel runs along memory. Weights keep PyTorch's layout.
//!
//! In reading order:
//! - [`activation`]: what follows a normalisation;
//! - [`reference`]: every operation in plain tensor operations, as a definition and for comparison.
#![deny(missing_docs)]

pub mod activation;
pub mod reference;

pub use activation::Activation;
pub use reference::{
    Statistics, batch_norm_activation, channel_statistics, conv2d, depthwise_conv2d,
    pointwise_conv2d,
};
