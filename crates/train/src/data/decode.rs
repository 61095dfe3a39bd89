//! Image files to 8-bit RGB, as Pillow's `Image.open(file).convert("RGB")`.

use std::io::Cursor;

use image::error::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{DecodeError, RgbPixels};

/// The most pixels that an image may have; above it Pillow raises `DecompressionBombError` too.
pub const MAX_PIXELS: usize = 178_956_970;

/// How image files become pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Whether an image is turned as its EXIF data says (Pillow's `ImageOps.exif_transpose`). torchvision does not.
    pub exif_orientation: bool,
    /// The most pixels that an image may have; what announces more is refused before memory is taken for it.
    pub max_pixels: usize,
    /// Whether a training crop may be made without the whole image, within a unit or so of 255 of the exact one. Concerns
    /// baseline JPEG files under [`Crop::RandomResized`](super::Crop::RandomResized) in a [`Loader`](super::Loader) alone.
    pub fast: bool,
}

impl Default for Decoding {
    /// As Pillow: exact, not turned, up to [`MAX_PIXELS`].
    fn default() -> Self {
        Decoding { exif_orientation: false, max_pixels: MAX_PIXELS, fast: false }
    }
}

/// [`decode()`] as Pillow does it without being asked for more.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbPixels, DecodeError> {
    decode(bytes, &Decoding::default())
}

/// Width and height, from the header alone.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let format = image::guess_format(bytes).map_err(|_| DecodeError::UnknownFormat)?;
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(damaged)?;
    Ok((width as usize, height as usize))
}

/// Decodes an image file's bytes; the format is recognised by its content.
///
/// The result is that of Pillow's `Image.open(file).convert("RGB")`:
/// - alpha is dropped, not blended; of an animation the first frame is taken; EXIF orientation is applied only on request;
/// - CMYK is converted by the naive formula; in JPEG it is taken to be inverted, as Adobe's programs write it;
/// - 16-bit colour keeps its high byte, but 16-bit grey is *clipped* at 255, as Pillow 13 does;
/// - a JPEG without its end is an error; damage inside of one is not, so long as the decoder finds its way.
///
/// Two differences are left: JPEG pixels come from another inverse transform than libjpeg's and may differ by a few units
/// of 255, and CMYK in TIFF by one.
///
/// # Errors
/// See [`DecodeError`]; no input makes it panic.
pub fn decode(bytes: &[u8], decoding: &Decoding) -> Result<RgbPixels, DecodeError> {
    let (image, orientation) = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => decode_jpeg(bytes, decoding.max_pixels)?,
        Ok(format) => decode_other(bytes, format, decoding.max_pixels)?,
        Err(_) => return Err(DecodeError::UnknownFormat),
    };
    Ok(if decoding.exif_orientation { turn(image, orientation) } else { image })
}

/// Turns and mirrors an image as it is to be looked at.
fn turn(image: RgbPixels, orientation: Orientation) -> RgbPixels {
    let RgbPixels { width, height, data } = image;
    let (across, down) = (width as u32, height as u32);
    match image::RgbImage::from_raw(across, down, data) {
        Some(image) => {
            let mut image = DynamicImage::ImageRgb8(image);
            image.apply_orientation(orientation);
            from_dynamic(image)
        }
        // No decoder here gives another number of bytes.
        None => RgbPixels { width, height, data: vec![0; width * height * 3] },
    }
}

fn check_size(width: usize, height: usize, limit: usize) -> Result<(), DecodeError> {
    match width.checked_mul(height) {
        Some(0) => Err(DecodeError::Damaged(format!("it has {width}×{height} pixels"))),
        Some(pixels) if pixels <= limit => Ok(()),
        _ => Err(DecodeError::TooLarge { width, height, limit }),
    }
}

fn damaged(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        error => DecodeError::Damaged(error.to_string()),
    }
}

fn decode_other(bytes: &[u8], format: ImageFormat, max_pixels: usize) -> Result<(RgbPixels, Orientation), DecodeError> {
    let (width, height) = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions().map_err(damaged)?;
    check_size(width as usize, height as usize, max_pixels)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some((max_pixels as u64).saturating_mul(8));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok((from_dynamic(image), orientation))
}

/// Keeps red, green and blue of pixels of `N` channels, or repeats grey.
fn pick<const N: usize, T: Copy>(data: &[T], to_byte: impl Fn(T) -> u8) -> Vec<u8> {
    let (pixels, _) = data.as_chunks::<N>();
    pixels
        .iter()
        .flat_map(|pixel| if N < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] })
        .map(to_byte)
        .collect()
}

fn from_dynamic(image: DynamicImage) -> RgbPixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let high = |value: u16| (value >> 8) as u8;
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => pick::<4, _>(image.as_raw(), |v| v),
        DynamicImage::ImageLuma8(image) => pick::<1, _>(image.as_raw(), |v| v),
        DynamicImage::ImageLumaA8(image) => pick::<2, _>(image.as_raw(), |v| v),
        DynamicImage::ImageRgb16(image) => pick::<3, _>(image.as_raw(), high),
        DynamicImage::ImageRgba16(image) => pick::<4, _>(image.as_raw(), high),
        // Pillow opens these as "I;16" and clips, rather than scales, on the way to RGB.
        DynamicImage::ImageLuma16(image) => pick::<1, _>(image.as_raw(), |v| v.min(255) as u8),
        DynamicImage::ImageLumaA16(image) => pick::<2, _>(image.as_raw(), high),
        other => other.into_rgb8().into_raw(),
    };
    RgbPixels { width, height, data }
}

fn decode_jpeg(bytes: &[u8], max_pixels: usize) -> Result<(RgbPixels, Orientation), DecodeError> {
    let layout = Layout::read(bytes)?;
    let damaged = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Damaged(error.to_string());
    // zune-jpeg takes Adobe's transform 0 for CMYK even where there are three components, which are RGB then. Told that they
    // are YCbCr and that YCbCr is wanted, it hands them over as they are.
    let patched;
    let (bytes, plain_rgb) = match layout.adobe {
        Some((offset, 0)) if layout.components == 3 => {
            let mut copy = bytes.to_vec();
            copy[offset] = 1;
            patched = copy;
            (patched.as_slice(), true)
        }
        _ => (bytes, false),
    };
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let Some((width, height)) = decoder.dimensions() else {
        return Err(DecodeError::Damaged("no size in its header".into()));
    };
    check_size(width, height, max_pixels)?;
    let wanted = match decoder.input_colorspace() {
        Some(space @ (ColorSpace::CMYK | ColorSpace::YCCK)) => space,
        Some(ColorSpace::YCbCr) if plain_rgb => ColorSpace::YCbCr,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let data = decoder.decode().map_err(damaged)?;
    let exif = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let data = match wanted {
        ColorSpace::CMYK | ColorSpace::YCCK => from_cmyk(&data, wanted == ColorSpace::YCCK),
        _ => data,
    };
    if data.len() != width * height * 3 {
        return Err(DecodeError::Damaged(format!("{} bytes for {width}×{height} pixels", data.len())));
    }
    Ok((RgbPixels { width, height, data }, exif.unwrap_or(Orientation::NoTransforms)))
}

/// libjpeg's YCCK → CMYK where needed, then Pillow's CMYK → RGB.
fn from_cmyk(data: &[u8], ycck: bool) -> Vec<u8> {
    let (pixels, _) = data.as_chunks::<4>();
    pixels
        .iter()
        .flat_map(|&[a, b, c, k]| {
            let ink = if ycck { ycc_to_rgb(a, b, c).map(|v| 255 - v) } else { [a, b, c] };
            // Adobe stores ink inverted, and Pillow takes every CMYK JPEG for Adobe's.
            let (ink, white) = (ink.map(|v| 255 - v), u32::from(k));
            // Pillow's MULDIV255: the product over 255, rounded.
            ink.map(|v| {
                let product = v as u32 * white + 128;
                (white - (((product >> 8) + product) >> 8)) as u8
            })
        })
        .collect()
}

/// libjpeg's conversion, in 16-bit fixed point.
#[inline(always)]
pub(super) fn ycc_to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (y as i32, cb as i32 - 128, cr as i32 - 128);
    let half = 1 << 15;
    let red = y + ((91881 * cr + half) >> 16);
    let green = y + ((-22554 * cb - 46802 * cr + half) >> 16);
    let blue = y + ((116130 * cb + half) >> 16);
    [red.clamp(0, 255) as u8, green.clamp(0, 255) as u8, blue.clamp(0, 255) as u8]
}

/// What the markers of a JPEG file say.
struct Layout {
    /// Colour components of a pixel.
    components: u8,
    /// Where Adobe's colour transform stands and what it is.
    adobe: Option<(usize, u8)>,
}

impl Layout {
    /// Walks over the markers, from the first to the end of the image.
    ///
    /// A file without the end marker is cut off: libjpeg, as Pillow uses it, refuses it, while zune-jpeg's strict mode, which
    /// would notice, refuses much that is sound besides.
    fn read(bytes: &[u8]) -> Result<Layout, DecodeError> {
        let mut layout = Layout { components: 0, adobe: None };
        let mut at = 2;
        loop {
            // Both fill bytes and entropy-coded data are passed over by looking for the next 0xFF that opens a marker.
            let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF)) else {
                return Err(DecodeError::Truncated);
            };
            at += found + 1;
            match bytes.get(at) {
                None => return Err(DecodeError::Truncated),
                // A stuffed byte, a fill byte (looked at again), a restart, a marker without content.
                Some(0xFF) => continue,
                Some(0x00 | 0x01 | 0xD0..=0xD8) => at += 1,
                Some(0xD9) => return Ok(layout),
                Some(&marker) => {
                    let (Some(&high), Some(&low)) = (bytes.get(at + 1), bytes.get(at + 2)) else {
                        return Err(DecodeError::Truncated);
                    };
                    let content = at + 3;
                    match marker {
                        0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                            layout.components = bytes.get(content + 5).copied().unwrap_or(0);
                        }
                        0xEE if bytes.get(content..).is_some_and(|rest| rest.starts_with(b"Adobe")) => {
                            layout.adobe = bytes.get(content + 11).map(|&transform| (content + 11, transform));
                        }
                        _ => {}
                    }
                    at += 1 + usize::from(u16::from_be_bytes([high, low])).max(2);
                }
            }
        }
    }
}
