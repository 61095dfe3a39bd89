//! PNM, as read by Pillow's `PpmImagePlugin`. Values with a maximum other than 255 are rescaled.

use image::ImageFormat;

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::{Gray16, check_size};
use crate::error::DecodeError;
use crate::formats::convert::{decode_other, repeat};

fn damaged<T>(why: &str) -> Result<T, DecodeError> {
    Err(DecodeError::Damaged(why.into()))
}

/// Reads a number, skipping comments. Returns it with the data after the following white space.
fn number(mut rest: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let mut value = None;
    loop {
        let (&byte, after) = match rest.split_first() {
            Some(split) => split,
            None => return value.map(|value| (value, rest)).ok_or(DecodeError::Truncated),
        };
        rest = after;
        match byte {
            b'#' => {
                let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
            }
            b'0'..=b'9' => match value.unwrap_or(0) * 10 + usize::from(byte - b'0') {
                value @ 0x8000_0000.. => return damaged(&format!("it has the number {value}")),
                small => value = Some(small),
            },
            b' ' | b'\t'..=b'\r' => {
                if let Some(value) = value {
                    return Ok((value, rest));
                }
            }
            _ => return damaged("its header or pixels contain something other than numbers"),
        }
    }
}

pub(crate) fn decode(bytes: &[u8], max_pixels: usize, gray16: Gray16) -> Result<RgbPixels, DecodeError> {
    let kind = match *bytes {
        [b'P', kind @ b'1'..=b'6', ..] => kind - b'0',
        _ => return decode_other(bytes, ImageFormat::Pnm, max_pixels, gray16).map(|(image, _)| image),
    };
    let (width, rest) = number(&bytes[2..])?;
    let (height, rest) = number(rest)?;
    check_size(width, height, max_pixels)?;
    let (plain, channels) = (kind < 4, if kind % 3 == 0 { 3 } else { 1 });
    if kind % 3 == 1 {
        return bits(rest, plain, width, height);
    }
    let (most, rest) = number(rest)?;
    if !(1..=65535).contains(&most) {
        return damaged("its maximum value is not in 1 to 65535");
    }
    // Gray of more than 8 bits is first scaled to 16 bits.
    let wide = channels == 1 && most > 255;
    let range = if wide { 65535.0 } else { 255.0 };
    let scale = |value: usize| (value as f64 / most as f64 * range).round_ties_even().min(range) as u16;
    let count = width * height * channels;
    let samples: Vec<u16> = if plain {
        let mut rest = rest;
        // Every sample but the last takes at least two bytes.
        let mut samples = Vec::with_capacity(count.min(rest.len() / 2 + 1));
        for _ in 0..count {
            let (value, after) = number(rest)?;
            if value > most {
                return damaged("a pixel value exceeds the maximum in its header");
            }
            samples.push(scale(value));
            rest = after;
        }
        samples
    } else if most < 256 {
        let table: Vec<u16> = (0..256).map(scale).collect();
        let raw = rest.get(..count).ok_or(DecodeError::Truncated)?;
        raw.iter().map(|&value| table[usize::from(value)]).collect()
    } else {
        let raw = rest.get(..2 * count).ok_or(DecodeError::Truncated)?;
        raw.as_chunks::<2>().0.iter().map(|&value| scale(u16::from_be_bytes(value).into())).collect()
    };
    let data = if wide {
        let values: Vec<f32> = samples.into_iter().map(f32::from).collect();
        repeat(gray16.to_bytes(&values))
    } else {
        let bytes = samples.into_iter().map(|sample| sample as u8).collect();
        if channels == 3 { bytes } else { repeat(bytes) }
    };
    Ok(RgbPixels { width, height, data })
}

/// Reads pixels of one bit: 1 is black, 0 is white.
fn bits(rest: &[u8], plain: bool, width: usize, height: usize) -> Result<RgbPixels, DecodeError> {
    let shade = |black: bool| [if black { 0 } else { 255 }; 3];
    let mut data = Vec::new();
    if plain {
        let mut rest = rest.iter();
        while data.len() < width * height * 3 {
            match rest.next().ok_or(DecodeError::Truncated)? {
                b'0' => data.extend(shade(false)),
                b'1' => data.extend(shade(true)),
                b'#' => drop(rest.find(|byte| matches!(byte, b'\r' | b'\n'))),
                b' ' | b'\t'..=b'\r' => {}
                _ => return damaged("its pixels contain something other than 0 and 1"),
            }
        }
    } else {
        let stride = width.div_ceil(8);
        let rows = rest.get(..stride * height).ok_or(DecodeError::Truncated)?;
        data.reserve(width * height * 3);
        for row in rows.chunks_exact(stride) {
            data.extend((0..width).flat_map(|x| shade(row[x / 8] & 0x80 >> (x % 8) != 0)));
        }
    }
    Ok(RgbPixels { width, height, data })
}
