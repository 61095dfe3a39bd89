//! Image files to 8-bit RGB, as Pillow's `Image.open(file).convert("RGB")`.

use image::DynamicImage;
use image::metadata::Orientation;

use serde::{Deserialize, Serialize};

use super::{DecodeError, RgbPixels, formats};

/// The most pixels that an image may have; above it Pillow raises `DecompressionBombError` too.
pub const MAX_PIXELS: usize = 178_956_970;

/// How image files become pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Whether an image is turned as its EXIF data says (Pillow's `ImageOps.exif_transpose`). torchvision does not.
    pub exif_orientation: bool,
    /// How gray of more than 8 bits becomes 8 bits.
    pub gray16: Gray16,
    /// The most pixels that an image may have; what announces more is refused before memory is taken for it.
    pub max_pixels: usize,
    /// Whether a training crop may be made without the whole image, within a unit or so of 255 of the exact one. Concerns
    /// baseline JPEG files under [`Crop::RandomResized`](super::Crop::RandomResized) in a [`Loader`](super::Loader) alone.
    pub fast: bool,
}

/// How gray of more than 8 bits becomes 8 bits.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Gray16 {
    /// Values above 255 become 255, as in Pillow.
    #[default]
    Clip,
    /// The least value of each image becomes 0 and the greatest 255.
    Image,
    /// 0 to 65535 become 0 to 255.
    Full,
}

impl Gray16 {
    /// Converts values.
    pub(super) fn to_bytes(self, values: &[f32]) -> Vec<u8> {
        let (mut least, mut greatest) = (f32::INFINITY, f32::NEG_INFINITY);
        if self == Gray16::Image {
            for &value in values.iter().filter(|value| value.is_finite()) {
                (least, greatest) = (least.min(value), greatest.max(value));
            }
        }
        let range = (greatest - least).max(f32::MIN_POSITIVE);
        let convert = |value: f32| match self {
            // The fraction is dropped, and what is out of range becomes the nearest byte.
            Gray16::Clip => value as u8,
            Gray16::Image => ((value - least) / range * 255.0).round() as u8,
            Gray16::Full => (value / 256.0) as u8,
        };
        values.iter().map(|&value| convert(value)).collect()
    }
}

impl Default for Decoding {
    /// As Pillow: exact, not turned, up to [`MAX_PIXELS`].
    fn default() -> Self {
        Decoding { exif_orientation: false, gray16: Gray16::Clip, max_pixels: MAX_PIXELS, fast: false }
    }
}

/// [`decode()`] as Pillow does it without being asked for more.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbPixels, DecodeError> {
    decode(bytes, &Decoding::default())
}

/// Decodes an image file's bytes; the format is recognised by its content.
///
/// The result is that of Pillow's `Image.open(file).convert("RGB")`:
/// - alpha is dropped, not blended; of an animation the first frame is taken; EXIF orientation is applied only on request;
/// - CMYK is converted by the naive formula; in JPEG it is taken to be inverted, as Adobe's programs write it;
/// - 16-bit color keeps its high byte, but 16-bit gray is *clipped* at 255, as Pillow 13 does, or scaled on request;
/// - a JPEG without its end is an error; one that is damaged inside is decoded as libjpeg decodes it;
/// - the orientation of a TIFF file is always applied.
///
/// # Errors
/// See [`DecodeError`]; no input makes it panic.
pub fn decode(bytes: &[u8], decoding: &Decoding) -> Result<RgbPixels, DecodeError> {
    let (image, orientation) = formats::decode(bytes, formats::recognize(bytes)?, decoding)?;
    Ok(if decoding.exif_orientation { turn(image, orientation) } else { image })
}

/// Turns and mirrors an image as it is to be looked at.
pub(super) fn turn(image: RgbPixels, orientation: Orientation) -> RgbPixels {
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
        // No decoder here gives another number of bytes.
        None => RgbPixels { width, height, data: vec![0; width * height * 3] },
    }
}

pub(super) fn check_size(width: usize, height: usize, limit: usize) -> Result<(), DecodeError> {
    match width.checked_mul(height) {
        Some(0) => Err(DecodeError::Damaged(format!("it has {width}×{height} pixels"))),
        Some(pixels) if pixels <= limit => Ok(()),
        _ => Err(DecodeError::TooLarge { width, height, limit }),
    }
}
