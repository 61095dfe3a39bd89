//! TIFF and BigTIFF, as read by Pillow's `TiffImagePlugin`: the first page, with its orientation
//! applied.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use image::ImageFormat;
use image::metadata::Orientation;
use weezl::BitOrder;

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::check_size;
use crate::decoding::{Gray16, turn};
use crate::error::DecodeError;
use crate::formats::convert::{Described, Palette, decode_other, repeat};
use crate::jpeg;

/// Tag numbers.
mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const ORIENTATION: u16 = 274;
    pub const SAMPLES: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_LENGTHS: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const PREDICTOR: u16 = 317;
    pub const COLOR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_LENGTHS: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
}

fn damaged<T>(why: &str) -> Result<T, DecodeError> {
    Err(DecodeError::Damaged(why.into()))
}

fn unsupported<T>(kind: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Unsupported(kind.into()))
}

/// Detects from the signature whether the file is little-endian and whether it is a BigTIFF.
fn layout(bytes: &[u8]) -> Option<(bool, bool)> {
    match bytes.first_chunk()? {
        b"II*\0" => Some((true, false)),
        b"MM\0*" => Some((false, false)),
        b"II+\0" => Some((true, true)),
        b"MM\0+" => Some((false, true)),
        _ => None,
    }
}

pub(crate) fn is_tiff(bytes: &[u8]) -> bool {
    layout(bytes).is_some()
}

/// The first image file directory.
struct Directory<'a> {
    bytes: &'a [u8],
    little: bool,
    big: bool,
    /// Tag, type, number of values, and offset of the values or of their offset.
    entries: Vec<(u16, u16, usize, usize)>,
}

impl<'a> Directory<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((little, big)) = layout(bytes) else { return Err(DecodeError::UnknownFormat) };
        let mut directory = Directory { bytes, little, big, entries: Vec::new() };
        let (at, size) = if big { (directory.number(8, 8)?, 8) } else { (directory.number(4, 4)?, 2) };
        let count = directory.number(at, size)?;
        let length = if big { 20 } else { 12 };
        let start = at.saturating_add(size);
        if bytes.len().saturating_sub(start) / length < count {
            return Err(DecodeError::Truncated);
        }
        for at in (start..).step_by(length).take(count) {
            let (tag, kind) = (directory.number(at, 2)?, directory.number(at + 2, 2)?);
            let values = directory.number(at + 4, if big { 8 } else { 4 })?;
            directory.entries.push((tag as u16, kind as u16, values, at + if big { 12 } else { 8 }));
        }
        Ok(directory)
    }

    /// Reads an unsigned number of `size` bytes.
    fn number(&self, at: usize, size: usize) -> Result<usize, DecodeError> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.get(..size)).ok_or(DecodeError::Truncated)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        let number = if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) };
        usize::try_from(number).map_err(|_| DecodeError::Truncated)
    }

    /// Returns offset, size and number of a tag's values; the number is 0 if the tag is missing.
    fn find(&self, tag: u16) -> Result<(usize, usize, usize), DecodeError> {
        let Some(&(_, kind, count, at)) = self.entries.iter().find(|entry| entry.0 == tag) else {
            return Ok((0, 1, 0));
        };
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 | 17 | 18 => 8,
            _ => return damaged("a tag has an unknown type"),
        };
        let word = if self.big { 8 } else { 4 };
        let length = count.checked_mul(size).ok_or(DecodeError::Truncated)?;
        let at = if length <= word { at } else { self.number(at, word)? };
        if self.bytes.get(at..).is_none_or(|rest| rest.len() < length) {
            return Err(DecodeError::Truncated);
        }
        Ok((at, size, count))
    }

    fn values(&self, tag: u16) -> Result<Vec<usize>, DecodeError> {
        let (at, size, count) = self.find(tag)?;
        (0..count).map(|i| self.number(at + i * size, size)).collect()
    }

    fn value(&self, tag: u16, missing: usize) -> Result<usize, DecodeError> {
        let (at, size, count) = self.find(tag)?;
        if count == 0 { Ok(missing) } else { self.number(at, size) }
    }

    fn raw(&self, tag: u16) -> Result<&'a [u8], DecodeError> {
        let (at, size, count) = self.find(tag)?;
        Ok(&self.bytes[at..][..size * count])
    }
}

/// Meaning of a pixel's samples.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pixels {
    /// Gray of 1 to 8 bits; `inverted` if 0 is white.
    Gray {
        inverted: bool,
    },
    /// Gray of more than 8 bits, converted by [`Gray16`]; so are the next three.
    Unsigned16,
    Signed16,
    Signed32,
    Float32,
    Palette,
    Rgb,
    /// RGB premultiplied by alpha.
    Premultiplied,
    Cmyk,
    /// Converted to RGB by the JPEG decoder.
    YCbCr,
}

/// Properties of the stored image.
struct Image<'a> {
    directory: Directory<'a>,
    width: usize,
    height: usize,
    /// Bits per sample.
    bits: usize,
    /// Samples per pixel.
    samples: usize,
    compression: usize,
    pixels: Pixels,
    orientation: Orientation,
}

impl<'a> Image<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let directory = Directory::read(bytes)?;
        let photometric = directory.value(tag::PHOTOMETRIC, 0)?;
        let samples = directory.value(tag::SAMPLES, 1)?;
        let all_bits = directory.values(tag::BITS)?;
        let bits = all_bits.first().copied().unwrap_or(1);
        let formats = directory.values(tag::SAMPLE_FORMAT)?;
        let format = formats.first().copied().unwrap_or(1);
        if all_bits.iter().any(|&other| other != bits) || formats.iter().any(|&other| other != format) {
            return unsupported("TIFF with samples of different types");
        }
        let extra = directory.values(tag::EXTRA_SAMPLES)?;
        let alpha = extra.first().copied();
        let pixels = match (photometric, samples, bits, format) {
            (0 | 1, 1, 1 | 2 | 4 | 8, 1) | (1, 1, 8, 2) | (6, 1, 8, 1) => Pixels::Gray { inverted: photometric == 0 },
            (0 | 1, 1, 16, 1) => Pixels::Unsigned16,
            (1, 1, 16, 2) => Pixels::Signed16,
            (1, 1, 32, 1 | 2) => Pixels::Signed32,
            (0 | 1, 1, 32, 3) => Pixels::Float32,
            (1, 2, 8, 1) => Pixels::Gray { inverted: false },
            (2, 4..=6, 8 | 16, 1) if alpha == Some(1) => Pixels::Premultiplied,
            (2, 3..=6, 8 | 16, 1) => Pixels::Rgb,
            (3, 1, 1 | 2 | 4 | 8, 1) | (3, 2, 8, 1) => Pixels::Palette,
            (5, 4..=6, 8 | 16, 1) => Pixels::Cmyk,
            (6, 3, 8, 1) => Pixels::YCbCr,
            (8..=10, ..) => return unsupported("TIFF in CIELAB colors"),
            _ => {
                let kind = ["", "unsigned ", "signed ", "floating-point "].get(format).copied().unwrap_or("complex ");
                return unsupported(format!(
                    "TIFF with {samples} {kind}sample(s) of {bits} bits (photometric interpretation {photometric})"
                ));
            }
        };
        let (width, height) = (directory.value(tag::WIDTH, 0)?, directory.value(tag::HEIGHT, 0)?);
        let compression = directory.value(tag::COMPRESSION, 1)?;
        let orientation = directory.value(tag::ORIENTATION, 1)?;
        let orientation = u8::try_from(orientation).ok().and_then(Orientation::from_exif);
        let orientation = orientation.unwrap_or(Orientation::NoTransforms);
        Ok(Image { directory, width, height, bits, samples, compression, pixels, orientation })
    }

    /// Returns the number of bytes of a row with `width` pixels of `samples` samples.
    fn row(&self, width: usize, samples: usize) -> usize {
        (width * samples * self.bits).div_ceil(8)
    }
}

pub(crate) fn describe(bytes: &[u8]) -> Result<Described, DecodeError> {
    let Image { width, height, bits, samples, pixels, orientation, .. } = Image::read(bytes)?;
    let color = match (pixels, bits) {
        (Pixels::Gray { .. }, _) if samples == 2 => "grey with alpha",
        (Pixels::Gray { .. }, _) => "grey",
        (Pixels::Unsigned16 | Pixels::Signed16, _) => "grey, 16 bits",
        (Pixels::Signed32, _) => "grey, 32 bits",
        (Pixels::Float32, _) => "grey, floating-point",
        (Pixels::Palette | Pixels::YCbCr, _) => "RGB",
        (Pixels::Cmyk, _) => "CMYK",
        (Pixels::Rgb, 8) if samples == 3 => "RGB",
        (Pixels::Rgb, _) if samples == 3 => "RGB, 16 bits",
        (_, 8) => "RGB with alpha",
        _ => "RGB with alpha, 16 bits",
    };
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    match orientation {
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => Ok(Described { width: height, height: width, color }),
        _ => Ok(Described { width, height, color }),
    }
}

pub(crate) fn decode(bytes: &[u8], max_pixels: usize, gray16: Gray16) -> Result<RgbPixels, DecodeError> {
    let image = Image::read(bytes)?;
    let (width, height) = (image.width, image.height);
    check_size(width, height, max_pixels)?;
    if image.compression == 4 {
        // CCITT group 4.
        if image.directory.value(tag::FILL_ORDER, 1)? != 1 {
            return unsupported("TIFF with CCITT compression and reversed bits");
        }
        let (pixels, _) = decode_other(bytes, ImageFormat::Tiff, max_pixels, gray16)?;
        return Ok(turn(pixels, image.orientation));
    }
    let data = if image.compression == 7 { image.read_jpeg(max_pixels)? } else { image.read_samples(gray16)? };
    Ok(turn(RgbPixels { width, height, data }, image.orientation))
}

/// A strip or tile.
struct Part<'a> {
    data: Cow<'a, [u8]>,
    plane: usize,
    /// Position and size within the image, cut off at its edges; then the full width and height.
    left: usize,
    top: usize,
    columns: usize,
    rows: usize,
    width: usize,
    height: usize,
}

impl Image<'_> {
    /// Returns the strips or tiles in order.
    fn parts(&self, planes: usize) -> Result<Vec<Part<'_>>, DecodeError> {
        let tiled = self.directory.find(tag::TILE_OFFSETS)?.2 > 0;
        let [offsets, lengths] = match tiled {
            true => [tag::TILE_OFFSETS, tag::TILE_LENGTHS],
            false => [tag::STRIP_OFFSETS, tag::STRIP_LENGTHS],
        };
        let (offsets, lengths) = (self.directory.values(offsets)?, self.directory.values(lengths)?);
        let (width, height) = match tiled {
            true => (self.directory.value(tag::TILE_WIDTH, 0)?, self.directory.value(tag::TILE_HEIGHT, 0)?),
            false => (self.width, self.directory.value(tag::ROWS_PER_STRIP, self.height)?.min(self.height)),
        };
        if width == 0 || height == 0 || width > 1 << 16 || tiled && height > 1 << 16 {
            return damaged("its strips or tiles have size 0");
        }
        let (across, down) = (self.width.div_ceil(width), self.height.div_ceil(height));
        if offsets.len() < across * down * planes {
            return Err(DecodeError::Truncated);
        }
        let reversed = self.directory.value(tag::FILL_ORDER, 1)? == 2;
        let mut parts = Vec::with_capacity(across * down * planes);
        for (number, &offset) in offsets.iter().enumerate().take(across * down * planes) {
            let (plane, place) = (number / (across * down), number % (across * down));
            let (left, top) = (place % across * width, place / across * height);
            let rest = self.directory.bytes.get(offset..).ok_or(DecodeError::Truncated)?;
            // A strip's length may be missing.
            let length = lengths.get(number).copied().unwrap_or(rest.len());
            let data = rest.get(..length).unwrap_or(rest);
            let data = match reversed {
                true => Cow::Owned(data.iter().map(|byte| byte.reverse_bits()).collect()),
                false => Cow::Borrowed(data),
            };
            let (columns, rows) = (width.min(self.width - left), height.min(self.height - top));
            let height = if tiled { height } else { rows };
            parts.push(Part { data, plane, left, top, columns, rows, width, height });
        }
        Ok(parts)
    }

    /// Decodes strips or tiles that are JPEG streams with shared tables.
    fn read_jpeg(&self, max_pixels: usize) -> Result<Vec<u8>, DecodeError> {
        let space = match self.pixels {
            Pixels::YCbCr => jpeg::Space::YCbCr,
            Pixels::Rgb if self.samples == 3 => jpeg::Space::Rgb,
            Pixels::Gray { inverted: false } => jpeg::Space::Gray,
            _ => return unsupported("TIFF with JPEG compression of this pixel type"),
        };
        if self.directory.value(tag::PLANAR, 1)? != 1 {
            return unsupported("TIFF with JPEG compression of separate planes");
        }
        let tables = self.directory.raw(tag::JPEG_TABLES)?;
        let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
        let mut data = vec![0; self.width * self.height * 3];
        for part in self.parts(1)? {
            let file = match part.data.strip_prefix(b"\xFF\xD8") {
                Some(rest) if !tables.is_empty() => Cow::Owned([tables, rest].concat()),
                _ => part.data.clone(),
            };
            let pixels = jpeg::decode_as(&file, space, max_pixels)?;
            if pixels.width < part.columns || pixels.height < part.rows {
                return Err(DecodeError::Truncated);
            }
            for (y, row) in pixels.data.chunks_exact(pixels.width * 3).take(part.rows).enumerate() {
                let at = ((part.top + y) * self.width + part.left) * 3;
                data[at..][..part.columns * 3].copy_from_slice(&row[..part.columns * 3]);
            }
        }
        Ok(data)
    }

    fn read_samples(&self, gray16: Gray16) -> Result<Vec<u8>, DecodeError> {
        if self.pixels == Pixels::YCbCr {
            return unsupported("TIFF in YCbCr colors without JPEG compression");
        }
        let separate = self.directory.value(tag::PLANAR, 1)? == 2 && self.samples > 1;
        if separate && self.bits < 8 {
            return unsupported("TIFF with separate planes of less than 8 bits");
        }
        let (planes, together) = if separate { (self.samples, 1) } else { (1, self.samples) };
        let predictor = self.directory.value(tag::PREDICTOR, 1)?;
        let colors = self.palette()?;
        let bytes = self.bits.div_ceil(8);
        let mut data = vec![0; self.width * self.height * 3];
        // Samples of separate planes, and of gray that may be scaled, are collected first.
        let wide = matches!(self.pixels, Pixels::Unsigned16 | Pixels::Signed16 | Pixels::Signed32 | Pixels::Float32);
        let collect = separate || wide;
        let mut collected = if collect { vec![0; self.width * self.height * self.samples * bytes] } else { Vec::new() };
        for part in self.parts(planes)? {
            let stride = self.row(part.width, together);
            let mut raw = self.unpack(&part, stride)?;
            if predictor != 1 && self.compression != 1 && self.compression != 32773 {
                self.undo(&mut raw, predictor, stride, together)?;
            }
            for (y, row) in raw.chunks_exact(stride).take(part.rows).enumerate() {
                let at = (part.top + y) * self.width + part.left;
                if collect {
                    let pixels = collected[at * self.samples * bytes..].chunks_exact_mut(self.samples * bytes);
                    for (pixel, sample) in pixels.zip(row.chunks_exact(bytes)).take(part.columns) {
                        pixel[part.plane * bytes..][..bytes].copy_from_slice(sample);
                    }
                } else {
                    self.convert(row, &colors, &mut data[at * 3..][..part.columns * 3]);
                }
            }
        }
        if wide {
            return Ok(repeat(gray16.to_bytes(&self.gray(&collected))));
        }
        if separate {
            self.convert(&collected, &colors, &mut data);
        }
        Ok(data)
    }

    fn palette(&self) -> Result<Palette, DecodeError> {
        let map = if self.pixels == Pixels::Palette { self.directory.values(tag::COLOR_MAP)? } else { Vec::new() };
        let count = map.len() / 3;
        let high = |value: usize| (value >> 8).min(255) as u8;
        Ok(Palette::new((0..count).map(|i| [map[i], map[count + i], map[2 * count + i]].map(high))))
    }

    /// Decompresses a strip or tile into rows of `stride` bytes.
    fn unpack<'b>(&self, part: &'b Part, stride: usize) -> Result<Cow<'b, [u8]>, DecodeError> {
        let length = stride.checked_mul(part.height).ok_or(DecodeError::Truncated)?;
        let data = part.data.as_ref();
        // Limit the output to the needed length, however far the data would expand.
        let take = |reader: &mut dyn Read| {
            let mut out = Vec::new();
            match reader.take(length as u64).read_to_end(&mut out) {
                Ok(_) => Ok(out),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(DecodeError::Truncated),
                Err(error) => Err(DecodeError::Damaged(error.to_string())),
            }
        };
        let out: Cow<[u8]> = match self.compression {
            1 => Cow::Borrowed(data.get(..length.min(data.len())).unwrap_or_default()),
            5 => Cow::Owned(unpack_lzw(data, length)?),
            8 | 32946 => Cow::Owned(take(&mut flate2::read::ZlibDecoder::new(data))?),
            32773 => Cow::Owned(unpack_bits(data, length)),
            50000 => match ruzstd::decoding::StreamingDecoder::new(Cursor::new(data)) {
                Ok(mut reader) => Cow::Owned(take(&mut reader)?),
                Err(error) => return damaged(&error.to_string()),
            },
            2 | 3 => return unsupported("TIFF with CCITT group 3 compression"),
            6 => return unsupported("TIFF with old-style JPEG compression"),
            34925 => return unsupported("TIFF with LZMA compression"),
            50001 => return unsupported("TIFF with WebP compression"),
            other => return unsupported(format!("TIFF with compression {other}")),
        };
        // The last tiles and strips may lack rows below the image.
        if out.len() < stride * part.rows {
            return Err(DecodeError::Truncated);
        }
        Ok(out)
    }

    /// Reverses the predictor of a compression.
    fn undo(&self, raw: &mut Cow<[u8]>, predictor: usize, stride: usize, samples: usize) -> Result<(), DecodeError> {
        let little = self.directory.little;
        let rows = raw.to_mut().chunks_exact_mut(stride);
        match (predictor, self.bits) {
            (2, 8) => rows.for_each(|row| add_words::<1>(row, samples, little)),
            (2, 16) => rows.for_each(|row| add_words::<2>(row, samples, little)),
            (2, 32) => rows.for_each(|row| add_words::<4>(row, samples, little)),
            (3, 32) => rows.for_each(|row| {
                add_words::<1>(row, samples, little);
                // Bytes are grouped by significance, the highest first.
                let count = row.len() / 4;
                let ranks = row.to_vec();
                for (i, word) in row.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *word = std::array::from_fn(|k| ranks[if little { 3 - k } else { k } * count + i]);
                }
            }),
            _ => return unsupported(format!("TIFF with predictor {predictor} of {} bits", self.bits)),
        }
        Ok(())
    }

    /// Returns the values of gray with more than 8 bits.
    fn gray(&self, samples: &[u8]) -> Vec<f32> {
        let little = self.directory.little;
        let word = |bytes: &[u8; 2]| if little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) };
        let long = |bytes: &[u8; 4]| if little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) };
        let (words, longs) = (samples.as_chunks::<2>().0.iter().map(word), samples.as_chunks::<4>().0.iter().map(long));
        match self.pixels {
            Pixels::Signed16 => words.map(|value| f32::from(value as i16)).collect(),
            Pixels::Signed32 => longs.map(|value| value as i32 as f32).collect(),
            Pixels::Float32 => longs.map(f32::from_bits).collect(),
            _ => words.map(f32::from).collect(),
        }
    }

    /// Converts samples to RGB for each pixel of `out`.
    fn convert(&self, row: &[u8], palette: &Palette, out: &mut [u8]) {
        let out = out.as_chunks_mut::<3>().0;
        let (bits, samples) = (self.bits, self.samples);
        let little = self.directory.little;
        let pixels = row.chunks_exact((samples * bits / 8).max(1));
        // High byte of an 8- or 16-bit sample.
        let high = |pixel: &[u8], i: usize| if bits == 8 { pixel[i] } else { pixel[2 * i + usize::from(little)] };
        match self.pixels {
            Pixels::Gray { .. } | Pixels::Palette if bits < 8 => {
                let most = (1u8 << bits) - 1;
                for (x, out) in out.iter_mut().enumerate() {
                    let index = row[x * bits / 8] >> (8 - bits - x * bits % 8) & most;
                    *out = match self.pixels {
                        Pixels::Gray { inverted: true } => [255 - index * (255 / most); 3],
                        Pixels::Gray { .. } => [index * (255 / most); 3],
                        _ => palette.color(index),
                    };
                }
            }
            _ => {
                for (out, pixel) in out.iter_mut().zip(pixels) {
                    *out = match self.pixels {
                        Pixels::Gray { inverted: true } => [255 - pixel[0]; 3],
                        Pixels::Gray { .. } => [pixel[0]; 3],
                        Pixels::Palette => palette.color(pixel[0]),
                        Pixels::Rgb | Pixels::YCbCr => std::array::from_fn(|i| high(pixel, i)),
                        Pixels::Premultiplied => {
                            let alpha = u32::from(high(pixel, 3));
                            std::array::from_fn(|i| match alpha {
                                0 => 0,
                                alpha => (u32::from(high(pixel, i)) * 255 / alpha).min(255) as u8,
                            })
                        }
                        Pixels::Cmyk => {
                            jpeg::ink_to_rgb(std::array::from_fn(|i| 255 - high(pixel, i)), 255 - high(pixel, 3))
                        }
                        // Converted by `gray`.
                        Pixels::Unsigned16 | Pixels::Signed16 | Pixels::Signed32 | Pixels::Float32 => [0; 3],
                    };
                }
            }
        }
    }
}

/// Adds to every `N`-byte number the number `samples` positions before it.
fn add_words<const N: usize>(row: &mut [u8], samples: usize, little: bool) {
    let words = row.as_chunks_mut::<N>().0;
    for i in samples..words.len() {
        let before = words[i - samples];
        let mut carry = 0;
        for k in 0..N {
            let k = if little { k } else { N - 1 - k };
            let sum = u16::from(words[i][k]) + u16::from(before[k]) + carry;
            words[i][k] = sum as u8;
            carry = sum >> 8;
        }
    }
}

/// Decompresses TIFF's variant of LZW.
fn unpack_lzw(data: &[u8], length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    // A code of at least 9 bits expands to at most 4096 bytes.
    let mut out = vec![0; length.min(data.len().saturating_mul(4096))];
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let result = decoder.decode_bytes(&data[read..], &mut out[written..]);
        read += result.consumed_in;
        written += result.consumed_out;
        match result.status {
            Ok(weezl::LzwStatus::Ok) => {}
            Ok(_) => break,
            Err(error) => return damaged(&error.to_string()),
        }
    }
    out.truncate(written);
    Ok(out)
}

/// Decompresses PackBits; truncated data give a shorter result.
fn unpack_bits(mut data: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length.min(data.len().saturating_mul(64)));
    while out.len() < length {
        let Some((&head, rest)) = data.split_first() else { break };
        let head = head as i8;
        let taken = match head {
            0.. => head as usize + 1,
            -128 => 0,
            _ => 1,
        };
        let Some((bytes, rest)) = rest.split_at_checked(taken) else { break };
        match head {
            0.. => out.extend_from_slice(bytes),
            -128 => {}
            _ => out.extend(std::iter::repeat_n(bytes[0], usize::from(head.unsigned_abs()) + 1)),
        }
        data = rest;
    }
    out.truncate(length);
    out
}
