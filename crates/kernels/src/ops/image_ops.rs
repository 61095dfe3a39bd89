//! Image augmentation with the pixels that Pillow computes: for one image on the CPU
//! ([`Operation::apply`]), or for a whole batch on a device, where each image has its own operation
//! ([`perform`]).
//!
//! On a device a batch of images is an integer tensor `[N, H, W]` with one number per pixel: red +
//! 256 · green + 65,536 · blue.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use crate::backend::Kernels;
pub use crate::types::image::operation::{Area, Operation};
pub use crate::types::image::pixels::RgbPixels;
pub use crate::types::image::sampling::{Interpolation, Sampling};

/// Creates images on a device from bytes `[N, H, W, 3]`, red first. Only three bytes per pixel are
/// transferred.
pub fn packed(mut bytes: Vec<u8>, shape: [usize; 3], device: &Device) -> Tensor<3, Int> {
    let words = bytes.len().div_ceil(4);
    bytes.resize(4 * words, 0);
    let words =
        Tensor::<1, Int>::from_data(TensorData::from_bytes_vec(bytes, [words], DType::I32), (device, DType::I32));
    Tensor::from_dispatch(Dispatch::unpack(words.into_dispatch(), shape))
}

/// Returns the bytes of images as floats, `[N, H, W, 3]`.
pub fn channels(images: Tensor<3, Int>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::channels(images.into_dispatch()))
}

/// Creates images from `channels` `[N, H, W, 3]`, integers from 0 to 255.
pub fn from_channels(channels: Tensor<4>) -> Tensor<3, Int> {
    let [images, height, width, _] = channels.dims();
    let channels = channels.int();
    let channel = |at: usize, shift: i32| {
        channels.clone().slice([0..images, 0..height, 0..width, at..at + 1]).bitwise_left_shift_scalar(shift)
    };
    channel(0, 0).bitwise_or(channel(1, 8)).bitwise_or(channel(2, 16)).squeeze_dim::<3>(3)
}

/// Applies each image's operation. On a GPU, which has no double precision, operations that
/// interpolate, stretch or blend can differ from [`Operation::apply`] by 1 (of 255), and hue by a
/// few; all others are equal.
///
/// # Panics
/// If there is not one operation per image.
pub fn perform(images: Tensor<3, Int>, operations: Vec<(Operation, Sampling)>) -> Tensor<3, Int> {
    assert_eq!(images.dims()[0], operations.len(), "an operation for each image");
    if operations.iter().all(|(operation, _)| *operation == Operation::Identity) {
        return images;
    }
    Tensor::from_dispatch(Dispatch::perform(images.into_dispatch(), operations.into()))
}
