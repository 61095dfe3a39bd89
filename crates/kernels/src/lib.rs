//! Operations of MBConv networks for [Burn](https://burn.dev), channels-last, with their gradients.
//!
//! All feature maps are float tensors `[N, H, W, C]` (batch, height, width, channels). In this
//! layout a 1x1 convolution is one matrix multiplication, and operations per channel access memory
//! sequentially. Weights keep PyTorch's layout.
//!
//! In reading order:
//! - [`convolution`], [`normalisation`] and [`excitation`]: the layers of a network; [`window`] and
//!   [`activation`]: their parameters; [`folded`]: layers for evaluation with folded batch-norms;
//! - [`pictures`]: image augmentation on bytes; [`descent`]: optimizer steps; [`chance`]: dropout
//!   masks; [`recording`]: training steps recorded and replayed on a GPU;
//! - [`inference`]: whole networks on the CPU;
//! - [`reference`](mod@reference): the layers in plain tensor operations, as definition and test
//!   oracle;
//! - [`extension`]: the trait that backends implement; [`composed`]: its default implementation,
//!   for any backend; `autodiff`: the backward passes; `flex`: fast kernels for the CPU; `cube`:
//!   fast kernels for GPUs;
//! - [`memory`]: allocator settings for large feature maps; [`synchronise`](mod@synchronise):
//!   batch-norm over several processes; [`vectors`]: loops compiled for the CPU's vector
//!   instructions.
#![deny(missing_docs)]

pub mod activation;
mod autodiff;
pub mod chance;
pub mod composed;
pub mod convolution;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
pub mod descent;
pub mod excitation;
pub mod extension;
mod flex;
pub mod folded;
pub mod inference;
pub mod memory;
pub mod normalisation;
pub mod pictures;
pub mod recording;
pub mod reference;
pub mod synchronise;
pub mod vectors;
pub mod window;

pub use activation::Activation;
pub use convolution::{Convolution, conv2d, depthwise_conv2d, pointwise_conv2d};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use cube::{allocator::Allocator, settings::set_up_gpus};
pub use excitation::{excite, global_average};
pub use folded::{depthwise_between_activations, shift_activation};
pub use normalisation::{Normalisation, Statistics, batch_norm_activation, channel_statistics};
pub use window::Window;
