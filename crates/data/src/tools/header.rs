//! Reads the header of an image file: format, size, color type and orientation.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use image::ImageFormat;
use image::metadata::Orientation;

use mbconv_image::DecodeError;
use mbconv_image::formats::{self, FORMATS};

/// The header of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format, detected from the content.
    pub format: ImageFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Color type, such as `RGB` or `grey with alpha`.
    pub color: &'static str,
    /// EXIF orientation, 1 to 8; 1 is upright. Only read from JPEG files; 1 for other formats.
    pub orientation: u8,
}

/// Reads the header of an image file. Reads only what is needed, usually one block.
///
/// # Errors
/// An unknown format, a truncated header, or a header with contradictory values.
pub fn read(reader: &mut (impl BufRead + Seek)) -> Result<Header, DecodeError> {
    let mut start = Vec::with_capacity(1024);
    reader.take(1024).read_to_end(&mut start).map_err(from_io)?;
    reader.rewind().map_err(from_io)?;
    match formats::recognize(&start)? {
        ImageFormat::Jpeg => jpeg(reader),
        format => other(reader, format),
    }
}

/// Returns the usual name of a format, such as `JPEG`.
pub fn format_name(format: ImageFormat) -> &'static str {
    FORMATS.iter().find(|known| known.id == format).map_or("other", |known| known.name)
}

/// Returns the format for a file name extension, or `None` if it is unknown.
pub fn format_of_extension(extension: &str) -> Option<ImageFormat> {
    formats::by_extension(extension).map(|format| format.id)
}

/// Converts an I/O error; the end of the file means a truncated image.
fn from_io(error: io::Error) -> DecodeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        _ => DecodeError::Damaged(error.to_string()),
    }
}

/// Reads the header of a format other than JPEG.
fn other(reader: &mut (impl BufRead + Seek), format: ImageFormat) -> Result<Header, DecodeError> {
    let formats::Described { width, height, color } = formats::describe(reader, format)?;
    Ok(Header { format, width: width as u32, height: height as u32, color, orientation: 1 })
}

/// Reads a JPEG file's markers up to the frame header.
fn jpeg(reader: &mut (impl BufRead + Seek)) -> Result<Header, DecodeError> {
    reader.seek(SeekFrom::Start(2)).map_err(from_io)?;
    let mut orientation = 1;
    loop {
        reader.skip_until(0xFF).map_err(from_io)?;
        let mut marker = 0xFF;
        while marker == 0xFF {
            [marker] = read_array(reader)?;
        }
        let length = match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => continue,
            0xD9 | 0xDA => return Err(DecodeError::Damaged("the scan comes before the frame header".into())),
            _ => usize::from(u16::from_be_bytes(read_array(reader)?)).saturating_sub(2),
        };
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let [_, h1, h0, w1, w0, components] = read_array(reader)?;
                let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
                let color = match components {
                    1 => "grey",
                    3 => "RGB",
                    4 => "CMYK",
                    _ => "unusual",
                };
                let (width, height) = (width.into(), height.into());
                return Ok(Header { format: ImageFormat::Jpeg, width, height, color, orientation });
            }
            0xE1 => {
                let mut segment = vec![0; length];
                reader.read_exact(&mut segment).map_err(from_io)?;
                if let Some(found) = segment.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk) {
                    orientation = found.to_exif();
                }
            }
            _ => {
                // Seeking past the end succeeds; the next read then fails.
                reader.seek_relative(length as i64).map_err(from_io)?;
            }
        }
    }
}

fn read_array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], DecodeError> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(from_io)?;
    Ok(bytes)
}

/// Returns an EXIF block that contains only an orientation.
pub(crate) fn exif(orientation: u8) -> Vec<u8> {
    // Big-endian TIFF with one directory of one entry: tag 0x0112, type short, count 1.
    let mut block = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0]);
    block
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageEncoder, RgbImage};

    use super::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn size_and_color_are_read_from_every_format() {
        let rgb = DynamicImage::ImageRgb8(RgbImage::new(7, 5));
        let cases = [
            (ImageFormat::Jpeg, rgb.clone(), "RGB"),
            (ImageFormat::Jpeg, rgb.to_luma8().into(), "grey"),
            (ImageFormat::Png, rgb.to_rgba16().into(), "RGB with alpha, 16 bits"),
            (ImageFormat::Png, rgb.to_luma_alpha8().into(), "grey with alpha"),
            (ImageFormat::Bmp, rgb.clone(), "RGB"),
            (ImageFormat::WebP, rgb.clone(), "RGB"),
            (ImageFormat::Tiff, rgb.to_luma16().into(), "grey, 16 bits"),
            (ImageFormat::Pnm, rgb.clone(), "RGB"),
            (ImageFormat::Qoi, rgb.clone(), "RGB"),
        ];
        for (format, image, color) in cases {
            let bytes = encoded(&image, format);
            let header = read(&mut Cursor::new(&bytes)).unwrap();
            assert_eq!(header, Header { format, width: 7, height: 5, color, orientation: 1 });
            for length in 0..bytes.len().min(40) {
                // Truncated headers give an error, not a panic.
                let _ = read(&mut Cursor::new(&bytes[..length]));
            }
        }
    }

    #[test]
    fn exif_orientation_is_found() {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
        encoder.set_exif_metadata(exif(6)).unwrap();
        encoder.encode(&[0; 6 * 4 * 3], 6, 4, image::ExtendedColorType::Rgb8).unwrap();
        let header = read(&mut Cursor::new(&bytes)).unwrap();
        assert_eq!((header.width, header.height, header.orientation), (6, 4, 6));
    }

    #[test]
    fn files_that_are_not_images_give_errors() {
        assert!(matches!(read(&mut Cursor::new(b"")), Err(DecodeError::UnknownFormat)));
        assert!(matches!(read(&mut Cursor::new(b"text")), Err(DecodeError::UnknownFormat)));
        assert!(matches!(read(&mut Cursor::new(b"\xFF\xD8\xFF\xE0\x00\x10JF")), Err(DecodeError::Truncated)));
        assert!(matches!(read(&mut Cursor::new(b"\xFF\xD8\xFF\xDA")), Err(DecodeError::Damaged(_))));
    }
}
