//! The operations as functions on tensors. Each calls the backend of its tensors.

pub mod convolution;
pub mod dropout;
pub mod fake_quantization;
pub mod folded;
pub mod image_ops;
pub mod normalization;
pub mod optimizer_step;
pub mod squeeze_excitation;
