//! MobileNetV2 and EfficientNet for [Burn](https://burn.dev).
//!
//! Both networks are one thing: a table of stages of one block, the inverted residual (MBConv).
//! Read the modules in this order:
//!
//! 1. [`architecture`]: a network as data, from which everything else follows;
//! 2. [`mobilenet_v2`] and [`efficientnet`]: the two papers' tables; [`stage_table`]: a user's own;
//! 3. [`norm`], [`layers`], [`inverted_residual`], [`network`]: the Burn modules;
//! 4. [`folded`]: the network for inference; `folded_layers`: its form on GPUs;
//! 5. [`layout`] and [`summary`]: every tensor and layer of an architecture, counted without being allocated;
//! 6. [`weights`]: state dictionaries in torchvision's and others' key layouts, in and out;
//! 7. [`registry`]: networks by name; [`detect`]: networks by the shapes of their weights.
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
#![deny(missing_docs)]

pub mod architecture;
pub mod detect;
pub mod efficientnet;
pub mod folded;
mod folded_layers;
pub mod inverted_residual;
pub mod layers;
pub mod layout;
pub mod mobilenet_v2;
pub mod network;
pub mod norm;
mod padding;
pub mod registry;
pub mod stage_table;
pub mod summary;
pub mod weights;

pub use architecture::{Architecture, ArchitectureError, Family, Initialisation, Padding, Stage, Strides};
pub use efficientnet::EfficientNetConfig;
pub use folded::{Inference, images_in};
pub use layout::Layout;
pub use mbconv_kernels::{Activation, inference::instructions, memory::keep_freed_memory, synchronise, vectors};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use mbconv_kernels::{Allocator, set_up_gpus};
pub use mobilenet_v2::MobileNetV2Config;
pub use network::Network;
pub use registry::ArchitectureOptions;
pub use stage_table::StageTable;
pub use summary::Summary;
