//! Images of bytes and the operations of augmentation, with the pixels that Pillow computes.

pub(crate) mod blur;
pub(crate) mod enhance;
mod geometry;
pub(crate) mod operation;
pub(crate) mod pixels;
pub(crate) mod sampling;
mod tone;
