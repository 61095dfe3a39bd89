//! BMP, read by the `image` crate, except for 16 bits per pixel, which are expanded as in Pillow.

use image::ImageFormat;

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::{Gray16, check_size};
use crate::error::DecodeError;
use crate::formats::convert::{decode_other, from_555};

/// Bit masks of red, green and blue.
const MASKS_555: [u32; 3] = [0x7C00, 0x3E0, 0x1F];
const MASKS_565: [u32; 3] = [0xF800, 0x7E0, 0x1F];

pub(crate) fn decode(bytes: &[u8], max_pixels: usize) -> Result<RgbPixels, DecodeError> {
    match decode_16_bits(bytes, max_pixels) {
        Some(image) => image,
        None => decode_other(bytes, ImageFormat::Bmp, max_pixels, Gray16::Clip).map(|(image, _)| image),
    }
}

fn from_565(value: u16) -> [u8; 3] {
    [((value >> 11) * 255 / 31) as u8, ((value >> 5 & 63) * 255 / 63) as u8, ((value & 31) * 255 / 31) as u8]
}

/// Returns `None` if the file has another depth or unsupported masks.
fn decode_16_bits(bytes: &[u8], max_pixels: usize) -> Option<Result<RgbPixels, DecodeError>> {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_le_bytes(bytes));
    let (depth, compression) = (number(28)? & 0xFFFF, number(30)?);
    if number(14)? < 40 || depth != 16 {
        return None;
    }
    let masks = [number(54)?, number(58)?, number(62)?];
    let to_rgb = match compression {
        0 => from_555,
        3 if masks == MASKS_555 => from_555,
        3 if masks == MASKS_565 => from_565,
        _ => return None,
    };
    let (width, height) = (number(18)? as usize, number(22)? as i32);
    let (from_top, height) = (height < 0, height.unsigned_abs() as usize);
    if let Err(error) = check_size(width, height, max_pixels) {
        return Some(Err(error));
    }
    let stride = (width * 2).next_multiple_of(4);
    let pixels = bytes.get(number(10)? as usize..).and_then(|rest| rest.get(..stride * height));
    let Some(pixels) = pixels else { return Some(Err(DecodeError::Truncated)) };
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let row = &pixels[if from_top { y } else { height - 1 - y } * stride..][..width * 2];
        data.extend(row.as_chunks::<2>().0.iter().flat_map(|&pixel| to_rgb(u16::from_le_bytes(pixel))));
    }
    Some(Ok(RgbPixels { width, height, data }))
}
