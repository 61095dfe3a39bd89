//! Operations of MBConv networks for [Burn](https://burn.dev), channels-last, with their gradients.
//!
//! All feature maps are float tensors `[N, H, W, C]` (batch, height, width, channels). In this
//! layout a 1x1 convolution is one matrix multiplication, and operations per channel access memory
//! sequentially. Weights keep PyTorch's layout.
//!
//! In reading order:
//! - `types`: the parameters of the operations; `ops`: the operations as functions on tensors, such
//!   as [`conv2d`], [`batch_norm_activation`] and [`image_ops`];
//! - [`reference`](mod@reference): the layers in plain tensor operations, as definition and test
//!   oracle;
//! - `backend`: the trait that backends implement; `fallback`: its default implementation, for any
//!   backend; `autodiff`: the backward passes; `cpu`: fast kernels for the CPU; `gpu`: fast kernels
//!   for GPUs;
//! - [`inference`]: whole networks on the CPU; [`quantized`]: the same in 8 bits;
//! - [`malloc`]: allocator settings for large feature maps; [`synchronize`](mod@synchronize):
//!   batch-norm over several processes; [`multiversion`]: loops compiled for the CPU's vector
//!   instructions.
#![allow(unsafe_code)]

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod autodiff;
mod backend;
mod cpu;
mod fallback;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu;
#[doc(hidden)]
pub mod graph_capture;
pub mod inference;
pub mod malloc;
pub mod multiversion;
mod ops;
pub mod quantized;
pub mod reference;
pub mod synchronize;
mod types;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use gpu::{allocator::Allocator, settings::set_up_gpus};
pub use ops::{
    convolution::{conv2d, depthwise_conv2d, pointwise_conv2d},
    fake_quantization::fake_quantize,
    folded::{depthwise_between_activations, shift_activation},
    image_ops,
    normalization::{batch_norm_activation, channel_statistics},
    squeeze_excitation::{global_average, scale_channels},
};
#[doc(hidden)]
pub use ops::{dropout, optimizer_step};
pub use types::{Activation, Conv2dGeometry, Statistics};
