//! Images of bytes and the operations of augmentation, with the pixels that Pillow computes.

mod blur;
mod enhance;
mod geometry;
mod operation;
mod pixels;
mod sampling;
mod tone;

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use blur::{BoxBlur, PASSES};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use enhance::hue_steps;
pub use operation::{Area, Operation};
pub use pixels::RgbPixels;
pub use sampling::{Interpolation, Sampling};
