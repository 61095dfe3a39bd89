//! Models in and out: model files, import of other projects' weights, and export to ONNX and
//! Burn's own format.

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod adapt;
pub mod burnpack;
pub mod import;
pub mod model_file;
pub mod model_folder;
pub mod onnx;
pub mod pretrained;
pub mod quantized_model;

pub use model_file::{Model, ModelCard};
pub use pretrained::{Pretrained, PretrainedError, pretrained, pretrained_from};
