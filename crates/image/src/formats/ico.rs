//! Windows icons: the largest image, as in Pillow's `IcoImagePlugin`.

use std::io::Cursor;

use image::ImageFormat;

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::Gray16;
use crate::error::DecodeError;
use crate::formats::bmp;
use crate::formats::convert::{Described, describe_other};
use crate::formats::png;

const ENTRY: usize = 16;

/// Returns the data of the largest image; among equal sizes, the one with the fewest colors.
fn chosen(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let count = bytes.get(4..6).map_or(0, |count| usize::from(u16::from_le_bytes([count[0], count[1]])));
    let entries = bytes.get(6..).unwrap_or_default().as_chunks::<ENTRY>().0.iter().take(count);
    let order = |entry: &&[u8; ENTRY]| {
        let side = |length: u8| if length == 0 { 256 } else { usize::from(length) };
        let bits = usize::from(u16::from_le_bytes([entry[6], entry[7]]));
        let colors = match entry[2] {
            0 | 1 => 256,
            colors => usize::from(colors).next_power_of_two().ilog2() as usize,
        };
        let depth = if bits > 0 { bits } else { colors };
        (std::cmp::Reverse(side(entry[0]) * side(entry[1])), depth)
    };
    let entry = entries.min_by_key(order).ok_or(DecodeError::Truncated)?;
    let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize;
    bytes.get(number(12)..).map(|rest| &rest[..rest.len().min(number(8))]).ok_or(DecodeError::Truncated)
}

/// Returns the image as a complete PNG or BMP file.
fn unwrapped(image: &[u8]) -> Result<(ImageFormat, Vec<u8>), DecodeError> {
    if image.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok((ImageFormat::Png, image.to_vec()));
    }
    let (Some(header), 40..) = (image.first_chunk::<40>(), image.len()) else { return Err(DecodeError::Truncated) };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let bits = u16::from_le_bytes([header[14], header[15]]);
    let colors = match (bits, number(32)) {
        (9.., _) => 0,
        (_, 0) => 1u32 << bits,
        (_, used) => used,
    };
    let start = colors.saturating_mul(4).saturating_add(number(0)).saturating_add(14);
    // Add the file header that icons lack. The height is halved, because it includes a mask.
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend(start.to_le_bytes());
    file.extend(image);
    file[14 + 8..14 + 12].copy_from_slice(&((number(8) as i32) / 2).to_le_bytes());
    Ok((ImageFormat::Bmp, file))
}

pub(crate) fn describe(bytes: &[u8]) -> Result<Described, DecodeError> {
    let (format, file) = unwrapped(chosen(bytes)?)?;
    describe_other(Cursor::new(file), format)
}

pub(crate) fn decode(bytes: &[u8], max_pixels: usize) -> Result<RgbPixels, DecodeError> {
    match unwrapped(chosen(bytes)?)? {
        (ImageFormat::Png, file) => png::decode(&file, max_pixels, Gray16::Clip).map(|(image, _)| image),
        (_, file) => bmp::decode(&file, max_pixels),
    }
}
