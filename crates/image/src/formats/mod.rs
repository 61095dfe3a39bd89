//! Supported image formats and their conversion to Pillow's RGB.

mod bmp;
mod convert;
mod gif;
mod ico;
pub(crate) mod list;
mod png;
mod pnm;
mod tga;
mod tiff;

pub use convert::Described;
use convert::{Decoded, damaged, decode_other, describe_other};
pub use list::{FORMATS, Format, by_extension, is_image};

use std::io::{BufRead, Cursor, Seek};

use image::ImageError;
use image::ImageFormat;
use image::metadata::Orientation;

use crate::decoding::Decoding;
use crate::error::DecodeError;
use crate::jpeg;

/// Signatures of unsupported formats: offset, signature and name of the format.
#[rustfmt::skip]
const UNREAD: [(usize, &[u8], &str); 29] = [
    (4, b"ftypavif", "AVIF"), (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"), (4, b"ftypheix", "HEIC"), (4, b"ftyphevc", "HEIC"), (4, b"ftyphevx", "HEIC"),
    (4, b"ftypheim", "HEIC"), (4, b"ftypheis", "HEIC"), (4, b"ftypmif1", "HEIF"), (4, b"ftypmsf1", "HEIF"),
    (4, b"ftyp", "MP4 or QuickTime"),
    (0, b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"), (0, b"\xFF\x4F\xFF\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"), (0, b"\xFF\x0A", "JPEG XL"),
    (0, b"\xFF\xD8\xFF\xF7", "JPEG-LS"), (0, b"II\xBC\x01", "JPEG XR"),
    (0, b"8BPS", "Photoshop (PSD)"), (0, b"%PDF-", "PDF"), (0, b"%!PS", "PostScript"), (0, b"DDS ", "DDS"),
    (0, b"\x76\x2F\x31\x01", "OpenEXR"), (0, b"#?RADIANCE", "Radiance HDR"), (0, b"farbfeld", "farbfeld"),
    (0, b"icns", "ICNS"), (0, b"\0\0\x02\0", "Windows cursor"), (128, b"DICM", "DICOM"),
    (0, b"gimp xcf", "GIMP (XCF)"), (0, b"<svg", "SVG"),
];

/// Detects the format from the content.
///
/// # Errors
/// [`DecodeError::Unsupported`] for a known but unsupported format, otherwise
/// [`DecodeError::UnknownFormat`].
pub fn recognize(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    let starts = |at: usize, mark: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(mark));
    // TGA has no signature; some TGA headers begin like a Windows cursor.
    let cursor_or_tga = starts(0, b"\0\0\x02\0") && bytes.get(4..10) == Some(&[0; 6]);
    let unread = UNREAD.iter().find(|(at, mark, _)| starts(*at, mark));
    if let Some((_, _, name)) = unread.filter(|_| !cursor_or_tga) {
        return Err(DecodeError::Unsupported(format!("the format {name}")));
    }
    if tiff::is_tiff(bytes) {
        return Ok(ImageFormat::Tiff);
    }
    match image::guess_format(bytes) {
        Ok(format) if FORMATS.iter().any(|known| known.id == format) => Ok(format),
        Ok(format) => Err(DecodeError::Unsupported(format!("the format {format:?}"))),
        Err(_) if tga::is_tga(bytes) => Ok(ImageFormat::Tga),
        Err(_) => Err(DecodeError::UnknownFormat),
    }
}

/// Returns width and height; reads only the header.
pub fn dimensions(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    match recognize(bytes)? {
        ImageFormat::Jpeg => jpeg::dimensions(bytes),
        format => describe(&mut Cursor::new(bytes), format).map(|header| (header.width, header.height)),
    }
}

/// Reads the header of an image of the given format, other than JPEG.
///
/// # Errors
/// See [`DecodeError`].
pub fn describe(reader: &mut (impl BufRead + Seek), format: ImageFormat) -> Result<Described, DecodeError> {
    let of_bytes = match format {
        ImageFormat::Tiff => tiff::describe,
        ImageFormat::Tga => tga::describe,
        ImageFormat::Ico => ico::describe,
        ImageFormat::Gif => gif::describe,
        _ => return describe_other(reader, format),
    };
    // The metadata of these formats may be anywhere in the file.
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| damaged(ImageError::IoError(error)))?;
    of_bytes(&bytes)
}

/// Decodes an image of the given format.
pub(crate) fn decode(bytes: &[u8], format: ImageFormat, decoding: &Decoding) -> Result<Decoded, DecodeError> {
    let &Decoding { max_pixels, gray16, .. } = decoding;
    let upright = |image| (image, Orientation::NoTransforms);
    match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, max_pixels),
        ImageFormat::Png => png::decode(bytes, max_pixels, gray16),
        ImageFormat::Tiff => tiff::decode(bytes, max_pixels, gray16).map(upright),
        ImageFormat::Tga => tga::decode(bytes, max_pixels).map(upright),
        ImageFormat::Gif => gif::decode(bytes, max_pixels).map(upright),
        ImageFormat::Ico => ico::decode(bytes, max_pixels).map(upright),
        ImageFormat::Bmp => bmp::decode(bytes, max_pixels).map(upright),
        ImageFormat::Pnm => pnm::decode(bytes, max_pixels, gray16).map(upright),
        _ => decode_other(bytes, format, max_pixels, gray16),
    }
}

/// Pixel types of gray with more than 8 bits; by default, values above 255 become white.
pub const WIDE_GRAY: [&str; 3] = ["grey, 16 bits", "grey, 32 bits", "grey, floating-point"];

/// Returns whether an encoded image is gray of more than 8 bits, so that [`Gray16`](crate::Gray16)
/// applies.
pub fn is_wide_gray(bytes: &[u8]) -> bool {
    let described = recognize(bytes).and_then(|format| match format {
        // JPEG files have at most 8 bits.
        ImageFormat::Jpeg => Err(DecodeError::UnknownFormat),
        format => describe(&mut Cursor::new(bytes), format),
    });
    described.is_ok_and(|described| WIDE_GRAY.contains(&described.color))
}

/// Returns the warning about clipped images of [`WIDE_GRAY`] types: `count` of `of` images, with an
/// example.
pub fn wide_gray_warning(count: usize, of: usize, example: &str) -> String {
    format!(
        "{count} of {of} images are gray of more than 8 bits ({example}, for example): values above 255 become \
         white, as in Pillow; the recipe's data.gray16 = \"image\" scales each image's own range, \"full\" 0 to 65535"
    )
}
