//! Conversion of decoded images to RGB.

use std::io::{BufRead, Cursor, Seek};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::{Gray16, check_size};
use crate::error::DecodeError;

/// Size and pixel type of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Pixel type, for example `"RGB"`.
    pub color: &'static str,
}

/// A decoded image with its EXIF orientation, not yet applied.
pub(crate) type Decoded = (RgbPixels, Orientation);

pub(crate) fn damaged(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        error => DecodeError::Damaged(error.to_string()),
    }
}

/// Decodes with the `image` crate.
pub(crate) fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    max_pixels: usize,
    gray16: Gray16,
) -> Result<Decoded, DecodeError> {
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(damaged)?;
    check_size(width as usize, height as usize, max_pixels)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some((max_pixels as u64).saturating_mul(8));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok((from_dynamic(image, gray16), orientation))
}

/// Keeps red, green and blue of pixels with `N` channels, or repeats gray.
pub(crate) fn pick<const N: usize, T: Copy>(data: &[T], to_byte: impl Fn(T) -> u8) -> Vec<u8> {
    let (pixels, _) = data.as_chunks::<N>();
    pixels
        .iter()
        .flat_map(|pixel| if N < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] })
        .map(to_byte)
        .collect()
}

/// Converts like Pillow's `convert("RGB")`.
pub(crate) fn from_dynamic(image: DynamicImage, gray16: Gray16) -> RgbPixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let high = |value: u16| (value >> 8) as u8;
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => pick::<4, _>(image.as_raw(), |v| v),
        DynamicImage::ImageLuma8(image) => pick::<1, _>(image.as_raw(), |v| v),
        DynamicImage::ImageLumaA8(image) => pick::<2, _>(image.as_raw(), |v| v),
        DynamicImage::ImageRgb16(image) => pick::<3, _>(image.as_raw(), high),
        DynamicImage::ImageRgba16(image) => pick::<4, _>(image.as_raw(), high),
        DynamicImage::ImageLuma16(image) => {
            let values: Vec<f32> = image.as_raw().iter().map(|&value| value.into()).collect();
            repeat(gray16.to_bytes(&values))
        }
        DynamicImage::ImageLumaA16(image) => pick::<2, _>(image.as_raw(), high),
        other => other.into_rgb8().into_raw(),
    };
    RgbPixels { width, height, data }
}

/// Repeats gray values as red, green and blue.
pub(crate) fn repeat(gray: Vec<u8>) -> Vec<u8> {
    gray.into_iter().flat_map(|gray| [gray; 3]).collect()
}

/// Expands a color of 5 bits per channel as Pillow does.
pub(crate) fn from_555(value: u16) -> [u8; 3] {
    [value >> 10, value >> 5, value].map(|channel| ((channel & 31) * 255 / 31) as u8)
}

/// A color table. Undefined entries are shades of gray, as in Pillow.
pub(crate) struct Palette([[u8; 3]; 256]);

impl Palette {
    pub(crate) fn new(colors: impl IntoIterator<Item = [u8; 3]>) -> Self {
        let mut palette = [[0; 3]; 256];
        for (shade, color) in (0..=255).zip(&mut palette) {
            *color = [shade; 3];
        }
        for (own, color) in palette.iter_mut().zip(colors) {
            *own = color;
        }
        Palette(palette)
    }

    pub(crate) fn color(&self, index: u8) -> [u8; 3] {
        self.0[usize::from(index)]
    }
}

/// Reads the header of an image of a format that the `image` crate describes.
pub(crate) fn describe_other(reader: impl BufRead + Seek, format: ImageFormat) -> Result<Described, DecodeError> {
    let decoder = ImageReader::with_format(reader, format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.original_color_type();
    let wide = color.bits_per_pixel() > 8 * u16::from(color.channel_count());
    let color = color_name(color.channel_count(), wide);
    Ok(Described { width: width as usize, height: height as usize, color })
}

/// Returns the pixel type for a number of channels; `wide` channels have more than 8 bits.
fn color_name(channels: u8, wide: bool) -> &'static str {
    match (channels, wide) {
        (1, false) => "grey",
        (1, true) => "grey, 16 bits",
        (2, false) => "grey with alpha",
        (2, true) => "grey with alpha, 16 bits",
        (3, false) => "RGB",
        (3, true) => "RGB, 16 bits",
        (_, false) => "RGB with alpha",
        (_, true) => "RGB with alpha, 16 bits",
    }
}
