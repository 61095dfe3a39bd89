//! GIF: the first frame within the logical screen, as in Pillow's `GifImagePlugin`.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError};

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::check_size;
use crate::error::DecodeError;
use crate::formats::convert::{Described, Palette};

fn damaged(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        error => DecodeError::Damaged(error.to_string()),
    }
}

fn open(bytes: &[u8]) -> Result<Decoder<Cursor<&[u8]>>, DecodeError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.read_info(Cursor::new(bytes)).map_err(damaged)
}

/// Returns the size of the union of logical screen and frame.
fn size(decoder: &Decoder<Cursor<&[u8]>>, frame: &gif::Frame) -> (usize, usize) {
    let end = |start: u16, length: u16| usize::from(start) + usize::from(length);
    let width = usize::from(decoder.width()).max(end(frame.left, frame.width));
    (width, usize::from(decoder.height()).max(end(frame.top, frame.height)))
}

pub(crate) fn describe(bytes: &[u8]) -> Result<Described, DecodeError> {
    let mut decoder = open(bytes)?;
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or(DecodeError::Truncated)?.clone();
    let (width, height) = size(&decoder, &frame);
    Ok(Described { width, height, color: if frame.transparent.is_some() { "RGB with alpha" } else { "RGB" } })
}

pub(crate) fn decode(bytes: &[u8], max_pixels: usize) -> Result<RgbPixels, DecodeError> {
    let mut decoder = open(bytes)?;
    let frame = decoder.next_frame_info().map_err(damaged)?.ok_or(DecodeError::Truncated)?.clone();
    let (width, height) = size(&decoder, &frame);
    check_size(width, height, max_pixels)?;
    let (left, top, columns) = (usize::from(frame.left), usize::from(frame.top), usize::from(frame.width));
    let mut indices = vec![0; columns * usize::from(frame.height)];
    decoder.read_into_buffer(&mut indices).map_err(damaged)?;
    let colors = frame.palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    let palette = Palette::new(colors.as_chunks::<3>().0.iter().copied());
    // As in Pillow, pixels outside the frame have the transparent color, or else the first color;
    // the background color is ignored.
    let mut data = palette.color(frame.transparent.unwrap_or(0)).repeat(width * height);
    let rows = data.as_chunks_mut::<3>().0.chunks_exact_mut(width).skip(top);
    for (row, indices) in rows.zip(indices.chunks_exact(columns.max(1))) {
        for (pixel, &index) in row[left..].iter_mut().zip(indices) {
            *pixel = palette.color(index);
        }
    }
    Ok(RgbPixels { width, height, data })
}
