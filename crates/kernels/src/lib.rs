//! Operations of MBConv networks for [Burn](https://burn.dev), channels-last, with their gradients.
//!
//! All maps are float tensors `[N, H, W, C]` (batch, height, width, channels): a 1x1 convolution is then one matrix
//! product, and everything that works channel by channel runs along memory. Weights keep PyTorch's layout.
//!
//! In reading order:
//! - [`convolution`], [`normalisation`] and [`excitation`]: the operations, as a network calls them; [`folded`]: what evaluation
//!   needs of them; [`window`] and [`activation`]: their parameters; [`pictures`]: what augmentation does to bytes; [`descent`]: what optimizers do to parameters; [`chance`]: what is drawn at random; [`recording`]: steps that a GPU repeats;
//! - [`reference`](mod@reference): the same operations in plain tensor operations, as definition and oracle;
//! - [`extension`]: what a backend implements; [`composed`]: its default bodies, for any backend; `autodiff`: the
//!   backward passes; `flex`: fast kernels for the CPU; `cube`: for GPUs; [`memory`]: a setting of the allocator that they profit from;
//! - [`synchronise`](mod@synchronise): batch-norm over several processes; [`vectors`]: other loops for the processor at hand.
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
