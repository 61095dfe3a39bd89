//! Images of bytes and the operations of augmentation, with the pixels that Pillow computes.

mod blur;
mod enhance;
mod geometry;
pub(crate) mod operation;
pub(crate) mod pixels;
pub(crate) mod sampling;
mod tone;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use blur::{BoxBlur, PASSES};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use enhance::hue_steps;
