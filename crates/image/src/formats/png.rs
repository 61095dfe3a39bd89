//! PNG, read by the `image` crate. Files that only Pillow accepts are repaired first.

use std::io;

use image::ImageFormat;

use crate::decoding::Gray16;
use crate::error::DecodeError;
use crate::formats::convert::{Decoded, decode_other};

const SIGNATURE: usize = 8;
const END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";

pub(crate) fn decode(bytes: &[u8], max_pixels: usize, gray16: Gray16) -> Result<Decoded, DecodeError> {
    let without_transparency;
    // Pillow clips 16-bit gray even if the file has a transparent shade.
    let bytes = match remove_gray16_transparency(bytes) {
        Some(file) => {
            without_transparency = file;
            without_transparency.as_slice()
        }
        None => bytes,
    };
    decode_other(bytes, ImageFormat::Png, max_pixels, gray16).or_else(|error| match repaired(bytes) {
        Some(bytes) => decode_other(&bytes, ImageFormat::Png, max_pixels, gray16),
        None => Err(error),
    })
}

/// Removes the tRNS chunk of a 16-bit gray file. Returns `None` for other files.
fn remove_gray16_transparency(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.get(24..26)? != [16, 0] {
        return None;
    }
    let before_pixels = bytes.windows(4).position(|name| name == b"IDAT")?;
    let at = bytes[..before_pixels].windows(8).position(|chunk| chunk == b"\0\0\0\x02tRNS")?;
    let (head, rest) = bytes.split_at(at);
    Some([head, rest.get(14..)?].concat())
}

/// Corrects the checksums of pixel chunks and adds a missing end. Returns `None` if nothing needs
/// repair, or if the checksum of the compressed stream is wrong, the only one that Pillow verifies.
fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut file = bytes.to_vec();
    let (mut at, mut pixels, mut changed) = (SIGNATURE, Vec::new(), false);
    while let Some(&[a, b, c, d, ref kind @ ..]) = file.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let kind: [u8; 4] = *kind;
        let end = u32::from_be_bytes([a, b, c, d]) as usize + at + 8;
        let (Some(content), Some(sum)) = (file.get(at + 4..end), file.get(end..end + 4)) else { break };
        if &kind == b"IEND" {
            return (changed && is_sound(&pixels)).then_some(file);
        }
        if &kind == b"IDAT" {
            pixels.extend_from_slice(&content[4..]);
            let mut crc = flate2::Crc::new();
            crc.update(content);
            let right = crc.sum().to_be_bytes();
            if sum != right {
                file[end..end + 4].copy_from_slice(&right);
                changed = true;
            }
        }
        at = end + 4;
    }
    file.truncate(at.min(file.len()));
    file.extend(END);
    is_sound(&pixels).then_some(file)
}

/// Returns whether compressed data are complete and match their checksum.
fn is_sound(data: &[u8]) -> bool {
    io::copy(&mut flate2::read::ZlibDecoder::new(data), &mut io::sink()).is_ok_and(|length| length > 0)
}
