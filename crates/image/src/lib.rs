//! Images on the host: decoding, resizing, transforms and augmentation.
//!
//! Decoding and resizing agree with Pillow, and crops with torchvision, because published
//! accuracies were measured with them: see [`decode_rgb`] and [`Preprocess`]. A training crop of a
//! JPEG file can be decoded without the rest of the image: see [`jpeg_crop`].

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod augment;
mod decode;
mod decoding;
mod error;
pub mod formats;
mod image_size;
mod imagenet;
mod jpeg;
pub mod jpeg_crop;
mod plane_resize;
pub mod preprocess;
pub mod resize;
pub mod seed;
mod transform;

pub use decode::{decode, decode_rgb};
pub use decoding::{Decoding, Gray16, MAX_PIXELS};
pub use error::{DecodeError, UnsupportedChannels};
pub use image_size::ImageSize;
pub use imagenet::{IMAGENET_CLASSES, IMAGENET_MEAN, IMAGENET_STD};
pub use mbconv_kernels::image_ops::{Interpolation, RgbPixels};
pub use preprocess::{CropRounding, Preprocess, ResizeMode, mean_color};
pub use seed::sample_rng;
pub use transform::{Crop, Progressive, TrainTransform, Transform};
