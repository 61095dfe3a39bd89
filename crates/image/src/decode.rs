//! Decoding of image files to 8-bit RGB, as Pillow's `Image.open(file).convert("RGB")`.

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::{Decoding, turn};
use crate::error::DecodeError;
use crate::formats;

/// Decodes an image file with the default options, as Pillow does.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbPixels, DecodeError> {
    decode(bytes, &Decoding::default())
}

/// Decodes the bytes of an image file; the format is detected from its content.
///
/// The result is that of Pillow's `Image.open(file).convert("RGB")`:
/// - Alpha is dropped, not blended. Of an animation, the first frame is used. The EXIF orientation
///   is applied only on request.
/// - CMYK is converted by the naive formula. In JPEG files it is assumed to be inverted, as written
///   by Adobe's programs.
/// - 16-bit color keeps its high byte. 16-bit gray is *clipped* at 255, as in Pillow 13, or scaled
///   on request.
/// - A truncated JPEG is an error. A JPEG with damage inside is decoded as by libjpeg.
/// - The orientation of a TIFF file is always applied.
///
/// # Errors
/// See [`DecodeError`]. No input causes a panic.
pub fn decode(bytes: &[u8], decoding: &Decoding) -> Result<RgbPixels, DecodeError> {
    let (image, orientation) = formats::decode(bytes, formats::recognize(bytes)?, decoding)?;
    Ok(if decoding.exif_orientation { turn(image, orientation) } else { image })
}
