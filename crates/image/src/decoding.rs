//! Options for decoding image files, and steps that all formats share.

use image::DynamicImage;
use image::metadata::Orientation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_kernels::image_ops::RgbPixels;

use crate::error::DecodeError;

/// Maximum number of pixels of an image, above which Pillow raises `DecompressionBombError`.
pub const MAX_PIXELS: usize = 178_956_970;

/// Options for decoding image files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Applies the EXIF orientation (Pillow's `ImageOps.exif_transpose`). torchvision does
    /// not.
    pub exif_orientation: bool,
    /// Conversion of gray images of more than 8 bits to 8 bits.
    pub gray16: Gray16,
    /// Maximum number of pixels of an image. Larger images are rejected before memory is allocated.
    pub max_pixels: usize,
    /// Allows decoding a training crop without the whole image; it differs from the exact one by
    /// about 1 of 255. Only affects baseline JPEG files under
    /// [`Crop::RandomResized`](crate::Crop::RandomResized) in a loader of the `mbconv-data` crate.
    pub fast: bool,
}

/// Conversion of gray images of more than 8 bits to 8 bits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gray16 {
    /// Clips values above 255, as Pillow does.
    #[default]
    Clip,
    /// Scales the minimum and maximum of each image to 0 and 255.
    Image,
    /// Scales 0..65535 to 0..255.
    Full,
}

impl Gray16 {
    /// Converts values to bytes.
    pub(crate) fn to_bytes(self, values: &[f32]) -> Vec<u8> {
        let (mut least, mut greatest) = (f32::INFINITY, f32::NEG_INFINITY);
        if self == Gray16::Image {
            for &value in values.iter().filter(|value| value.is_finite()) {
                (least, greatest) = (least.min(value), greatest.max(value));
            }
        }
        let range = (greatest - least).max(f32::MIN_POSITIVE);
        let convert = |value: f32| match self {
            // Casts truncate and saturate.
            Gray16::Clip => value as u8,
            Gray16::Image => ((value - least) / range * 255.0).round() as u8,
            Gray16::Full => (value / 256.0) as u8,
        };
        values.iter().map(|&value| convert(value)).collect()
    }
}

impl Default for Decoding {
    /// As Pillow: exact, without EXIF orientation, up to [`MAX_PIXELS`].
    fn default() -> Self {
        Decoding { exif_orientation: false, gray16: Gray16::Clip, max_pixels: MAX_PIXELS, fast: false }
    }
}

/// Rotates and mirrors an image according to its orientation.
pub(crate) fn turn(image: RgbPixels, orientation: Orientation) -> RgbPixels {
    if orientation == Orientation::NoTransforms {
        return image;
    }
    let RgbPixels { width, height, data } = image;
    let (across, down) = (width as u32, height as u32);
    match image::RgbImage::from_raw(across, down, data) {
        Some(image) => {
            let mut image = DynamicImage::ImageRgb8(image);
            image.apply_orientation(orientation);
            RgbPixels {
                width: image.width() as usize,
                height: image.height() as usize,
                data: image.into_rgb8().into_raw(),
            }
        }
        // Unreachable: every decoder returns `3 * width * height` bytes.
        None => RgbPixels { width, height, data: vec![0; width * height * 3] },
    }
}

pub(crate) fn check_size(width: usize, height: usize, limit: usize) -> Result<(), DecodeError> {
    match width.checked_mul(height) {
        Some(0) => Err(DecodeError::Damaged(format!("it has {width}×{height} pixels"))),
        Some(pixels) if pixels <= limit => Ok(()),
        _ => Err(DecodeError::TooLarge { width, height, limit }),
    }
}
