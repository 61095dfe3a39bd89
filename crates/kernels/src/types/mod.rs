//! The parameters of the operations, and the data that they process. Nothing in here calls a
//! backend.

pub mod activation;
pub mod conv2d_geometry;
pub mod convolution;
pub mod dropout;
pub mod image;
pub mod normalization;
pub mod optimizer_step;
pub(crate) mod precision;
pub mod quantizer;
pub mod tensors;

pub use activation::Activation;
pub use conv2d_geometry::Conv2dGeometry;
pub use convolution::Convolution;
pub use normalization::{Normalization, Statistics};
pub use quantizer::Quantizer;
