//! Pictures, and what augmentation does to their pixels: as Pillow does it, on the processor; and for a whole batch where it is, each
//! picture with an operation of its own.
//!
//! On a device a batch of pictures is an integer tensor `[N, H, W]`, a pixel a number: red, and 256 times green, and 65,536 times blue.

mod blur;
mod enhance;
mod geometry;
mod operation;
mod tone;

use std::fmt;

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

pub use operation::{Area, Operation, Sampling};
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) use {
    blur::{BoxBlur, PASSES},
    enhance::hue_steps,
};

use crate::extension::Kernels;

/// An 8-bit RGB image.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbPixels {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Height in pixels, at least 1.
    pub height: usize,
    /// `[height, width, 3]`, red first.
    pub data: Vec<u8>,
}

impl fmt::Debug for RgbPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbPixels({}×{})", self.width, self.height)
    }
}

/// How pixels between pixels are found; each gives the pixels of Pillow's filter of that name. A resize is antialiased by all but
/// the nearest.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle of two pixels.
    Bilinear,
    /// Cubic of four pixels.
    Bicubic,
    /// The one pixel under each new pixel's centre.
    Nearest,
}

/// Bytes `[N, H, W, 3]`, red first, as pictures on the device; three bytes a pixel travel.
pub fn packed(mut bytes: Vec<u8>, shape: [usize; 3], device: &Device) -> Tensor<3, Int> {
    let words = bytes.len().div_ceil(4);
    bytes.resize(4 * words, 0);
    let words =
        Tensor::<1, Int>::from_data(TensorData::from_bytes_vec(bytes, [words], DType::I32), (device, DType::I32));
    Tensor::from_dispatch(Dispatch::unpack(words.into_dispatch(), shape))
}

/// The pictures' bytes as numbers, `[N, H, W, 3]`.
pub fn channels(pictures: Tensor<3, Int>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::channels(pictures.into_dispatch()))
}

/// The pictures whose bytes are `channels` `[N, H, W, 3]`, whole numbers from 0 to 255.
pub fn from_channels(channels: Tensor<4>) -> Tensor<3, Int> {
    let [images, height, width, _] = channels.dims();
    let channels = channels.int();
    let channel = |at: usize, shift: i32| {
        channels.clone().slice([0..images, 0..height, 0..width, at..at + 1]).bitwise_left_shift_scalar(shift)
    };
    channel(0, 0).bitwise_or(channel(1, 8)).bitwise_or(channel(2, 16)).squeeze_dim::<3>(3)
}

/// Each picture after its operation. Operations that interpolate, stretch or blend may come out a unit of 255 apart from
/// [`Operation::apply`], and turned hues some units, since GPUs have no double precision; all others are equal.
///
/// # Panics
/// If there is not one operation for each picture.
pub fn perform(pictures: Tensor<3, Int>, operations: Vec<(Operation, Sampling)>) -> Tensor<3, Int> {
    assert_eq!(pictures.dims()[0], operations.len(), "an operation for each picture");
    if operations.iter().all(|(operation, _)| *operation == Operation::Identity) {
        return pictures;
    }
    Tensor::from_dispatch(Dispatch::perform(pictures.into_dispatch(), operations.into()))
}
