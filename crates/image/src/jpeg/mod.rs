//! JPEG files: a decoder for whole files, equal to libjpeg-turbo, and one for crops.

mod arithmetic;
mod color;
mod entropy;
mod full;
mod header;
mod huffman;
mod partial;
mod smooth;
mod standard;
mod stream;
mod transform;

pub(crate) use color::{Space, ink_to_rgb, ycc_to_rgb};
pub(crate) use full::{decode, decode_as, dimensions};
pub(crate) use partial::{LINE, Plane, Scratch, Window};

pub use partial::Jpeg;
