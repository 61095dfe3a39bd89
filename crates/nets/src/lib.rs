//! MobileNetV2 and EfficientNet for [Burn](https://burn.dev).
//!
//! Both networks are a table of stages of one block, the inverted residual (MBConv). In reading
//! order:
//!
//! 1. [`stage_table`]: a network as its paper describes it; [`mobilenet_v2`] and [`efficientnet`]:
//!    the two papers' tables; `custom_network`: checks of user-written tables; [`architecture`]:
//!    the table scaled ([`scaling`]) and unrolled into blocks;
//! 2. [`norm`], [`layers`], [`inverted_residual`], [`network`]: the Burn modules;
//!    [`fake_quantization`]: rounding in training for 8-bit networks;
//! 3. [`inference`]: the network for evaluation; `inference_gpu`: its form on GPUs;
//!    [`quantization`]: networks in 8 bits;
//! 4. [`layout`] and [`summary`]: every tensor and layer of an architecture, counted without
//!    allocation;
//! 5. [`weights`]: state dictionaries in the layouts of torchvision and others;
//! 6. [`options`]: a network's options in recipes and model files; [`registry`]: networks by name;
//!    [`detect`]: networks by the shapes of their weights.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use mbconv_nets::MobileNetV2Config;
//!
//! let device = Device::default();
//! let model = MobileNetV2Config::new(10).with_width(0.25).init(&device);
//! let logits = model.forward(Tensor::<4>::zeros([2, 3, 32, 32], &device));
//! assert_eq!(logits.dims(), [2, 10]);
//! ```

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod architecture;
mod custom_network;
pub mod detect;
pub mod efficientnet;
mod error;
pub mod fake_quantization;
pub mod inference;
mod inference_gpu;
pub mod inverted_residual;
pub mod layers;
pub mod layout;
mod limits;
pub mod mobilenet_v2;
pub mod network;
pub mod norm;
pub mod options;
mod padding;
pub mod quantization;
pub mod registry;
pub mod scaling;
pub mod stage_table;
pub mod summary;
mod types;
pub mod weights;

pub use architecture::Architecture;
pub use efficientnet::EfficientNetConfig;
pub use error::ArchitectureError;
pub use fake_quantization::Range;
pub use inference::{Inference, cast_images};
pub use inverted_residual::{InvertedResidual, InvertedResidualConfig};
pub use layout::Layout;
pub use mbconv_kernels::{Activation, inference::instructions, malloc::keep_freed_memory, multiversion, synchronize};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use mbconv_kernels::{Allocator, set_up_gpus};
pub use mobilenet_v2::MobileNetV2Config;
pub use network::Network;
pub use options::{NetworkOptions, TableSource};
pub use stage_table::{Stage, StageTable};
pub use summary::Summary;
pub use types::{Family, Initialization, Padding, Strides};
