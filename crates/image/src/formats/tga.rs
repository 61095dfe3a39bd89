//! Truevision TGA, as read by Pillow's `TgaImagePlugin`.

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::check_size;
use crate::error::DecodeError;
use crate::formats::convert::{Described, Palette, from_555};

const HEADER: usize = 18;

struct Tga {
    width: usize,
    height: usize,
    /// 1: palette; 2: color; 3: gray.
    kind: u8,
    run_lengths: bool,
    /// Bits per pixel.
    depth: u8,
    palette: Option<Palette>,
    /// True if the first pixel is at the top, or at the right.
    from_top: bool,
    from_right: bool,
    /// Offset of the pixels.
    start: usize,
}

impl Tga {
    fn new(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [id, has_palette, kind, ..] = *header;
        let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let (width, height, depth) = (word(12), word(14), header[16]);
        let depths: &[u8] = match kind & 7 {
            1 => &[8],
            2 => &[16, 24, 32],
            3 => &[1, 8, 16],
            _ => return None,
        };
        let run_lengths = kind & 8 != 0;
        let plausible = has_palette < 2 && kind & !11 == 0 && width > 0 && height > 0 && depths.contains(&depth);
        if !plausible || run_lengths && depth == 1 {
            return None;
        }
        let mut start = HEADER + usize::from(id);
        let mut palette = None;
        if has_palette == 1 {
            let width = match header[7] {
                16 => 2,
                24 => 3,
                32 => 4,
                _ => return None,
            };
            let (first, count) = (word(3), word(5));
            let entries = bytes.get(start..)?;
            let entries =
                entries.get(..entries.len().min(count * width))?.chunks_exact(width).map(|entry| match *entry {
                    [low, high] => from_555(u16::from_le_bytes([low, high])),
                    [b, g, r, ..] => [r, g, b],
                    _ => [0; 3],
                });
            palette = Some(Palette::new(std::iter::repeat_n([0; 3], first).chain(entries)));
            start += count * width;
        }
        let (from_top, from_right) = (header[17] & 0x20 != 0, header[17] & 0x10 != 0);
        Some(Tga { width, height, kind: kind & 7, run_lengths, depth, palette, from_top, from_right, start })
    }

    /// Returns the number of bytes per row.
    fn row(&self) -> usize {
        (self.width * usize::from(self.depth)).div_ceil(8)
    }
}

pub(crate) fn is_tga(bytes: &[u8]) -> bool {
    Tga::new(bytes).is_some()
}

fn open(bytes: &[u8]) -> Result<Tga, DecodeError> {
    Tga::new(bytes).ok_or_else(|| DecodeError::Damaged("its header is not a TGA header".into()))
}

pub(crate) fn describe(bytes: &[u8]) -> Result<Described, DecodeError> {
    let tga = open(bytes)?;
    let color = match (tga.kind, tga.depth) {
        (1, _) if tga.palette.is_some() => "RGB",
        (2, 24) => "RGB",
        (2, _) => "RGB with alpha",
        (3, 16) => "grey with alpha",
        _ => "grey",
    };
    Ok(Described { width: tga.width, height: tga.height, color })
}

pub(crate) fn decode(bytes: &[u8], max_pixels: usize) -> Result<RgbPixels, DecodeError> {
    let tga = open(bytes)?;
    let &Tga { width, height, kind, depth, .. } = &tga;
    check_size(width, height, max_pixels)?;
    let source = bytes.get(tga.start..).unwrap_or_default();
    let expanded;
    let pixels = if tga.run_lengths {
        expanded = expand(source, usize::from(depth / 8), tga.row() * height)?;
        expanded.as_slice()
    } else {
        source.get(..tga.row() * height).ok_or(DecodeError::Truncated)?
    };
    let mut data = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let y = if tga.from_top { y } else { height - 1 - y };
        let row = &pixels[y * tga.row()..][..tga.row()];
        for x in 0..width {
            let x = if tga.from_right { width - 1 - x } else { x };
            let bytes = &row[x * usize::from(depth) / 8..];
            data.extend(match (kind, depth, &tga.palette) {
                (1, _, Some(palette)) => palette.color(bytes[0]),
                (2, 16, _) => from_555(u16::from_le_bytes([bytes[0], bytes[1]])),
                (2, ..) => [bytes[2], bytes[1], bytes[0]],
                (3, 1, _) => [if bytes[0] & 0x80 >> (x % 8) == 0 { 0 } else { 255 }; 3],
                _ => [bytes[0]; 3],
            });
        }
    }
    Ok(RgbPixels { width, height, data })
}

/// Expands run-length packets of pixels of `size` bytes to `length` bytes.
fn expand(mut source: &[u8], size: usize, length: usize) -> Result<Vec<u8>, DecodeError> {
    // A packet of 1 + size bytes gives at most 128 pixels.
    let mut out = Vec::with_capacity(length.min(source.len().saturating_mul(128)));
    while out.len() < length {
        let (&head, rest) = source.split_first().ok_or(DecodeError::Truncated)?;
        let count = usize::from(head & 0x7F) + 1;
        let taken = if head & 0x80 == 0 { count * size } else { size };
        let (pixels, rest) = rest.split_at_checked(taken).ok_or(DecodeError::Truncated)?;
        for _ in 0..if head & 0x80 == 0 { 1 } else { count } {
            out.extend_from_slice(pixels);
        }
        source = rest;
    }
    out.truncate(length);
    Ok(out)
}
