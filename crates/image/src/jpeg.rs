//! Partial decoder for baseline JPEG: decodes only the part of a file that a crop needs, at the
//! resolution that it needs.
//!
//! Every Huffman code of a JPEG must be read to find the next, but the inverse DCT, two thirds of
//! the work, is only needed for blocks that the crop touches. Below the crop nothing is read. If
//! the crop is downscaled by two or more, a block is transformed directly to 4×4, 2×2 or 1 sample
//! from its low frequencies, as in libjpeg's scaled decoding. Color planes are kept separate and at
//! their own resolution, and columns are contiguous in memory, as the resize needs them.
//!
//! Unusual files (progressive, arithmetic, 12 bits, CMYK, RGB, several scans, any damage) are
//! rejected and left to the full decoder.
// Loops by index over arrays of equal length are vectorized. Iterator closures would be compiled as
// separate functions for the baseline processor.
#![allow(clippy::needless_range_loop)]

mod arithmetic;
mod color;
mod entropy;
mod full;
mod header;
mod smooth;
mod standard;
mod stream;
mod transform;

use crate::resize::Region;
pub(crate) use color::{Space, ink_to_rgb, ycc_to_rgb};
pub(crate) use full::{decode, decode_as, dimensions};

/// Bits of the first lookup of a Huffman code. Most codes fit, often together with their number.
const LOOKUP: u32 = 10;

/// Flag of an entry: the number follows; the upper half of the entry is its number of bits.
const NUMBER_FOLLOWS: u32 = 0x80;
/// Flag of an entry: the code is longer than the lookup.
const LONG: u32 = 0x40;
/// Run value of the end-of-block code.
const END_OF_BLOCK: usize = 127;

/// Position in the row-major block of each coefficient in zigzag order.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The header of a file, and the data of its only scan.
pub struct Jpeg<'a> {
    /// Width in pixels, at least 1.
    pub width: usize,
    /// Height in pixels, at least 1.
    pub height: usize,
    /// True if there are EXIF data, which may contain an orientation.
    pub has_exif: bool,
    /// Gray only, or luma and two chroma components.
    components: Vec<Component>,
    quantisation: [Option<[u16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart_interval: usize,
    scan: &'a [u8],
}

#[derive(Clone, Copy)]
struct Component {
    id: u8,
    /// Blocks per minimum coded unit (MCU), horizontally and vertically.
    across: usize,
    down: usize,
    quantisation: usize,
    dc: usize,
    ac: usize,
}

/// Alignment of lines in bytes.
pub(crate) const LINE: usize = 32;

/// Buffers reused from image to image.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The scan without stuffed bytes, and the end of each restart interval.
    data: Vec<u8>,
    ends: Vec<usize>,
    /// Decoded planes.
    pub planes: [Plane; 3],
}

/// Samples of one component in and around a crop.
#[derive(Default)]
pub(crate) struct Plane {
    /// `[columns, stride]`: each column from top to bottom.
    pub data: Vec<u8>,
    /// Distance between columns in samples, a multiple of [`LINE`](LINE).
    pub stride: usize,
    /// The crop's horizontal extent in samples of this plane.
    pub across: Window,
    /// The crop's vertical extent in samples of this plane.
    pub down: Window,
}

/// A range of samples; its bounds are fractional, because pixels rarely start at a sample.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(crate) struct Window {
    /// Start in samples.
    pub start: f64,
    /// Length in samples.
    pub length: f64,
    /// First sample that it touches.
    pub from: usize,
    /// One past the last sample that it touches.
    pub to: usize,
}

impl Window {
    /// Converts pixels `start..start + length` at `scale` samples per pixel; the line has `samples`
    /// samples.
    fn new(start: usize, length: usize, scale: f64, samples: usize) -> Self {
        let (start, length) = (start as f64 * scale, length as f64 * scale);
        let from = (start as usize).min(samples - 1);
        Window { start, length, from, to: ((start + length).ceil() as usize).clamp(from + 1, samples) }
    }

    /// Returns the window relative to sample `origin`.
    fn counted_from(self, origin: usize) -> Self {
        let Window { start, length, from, to } = self;
        Window { start: start - origin as f64, length, from: from - origin, to: to - origin }
    }
}

/// Returns the reduced side of a block in samples (1, 2, 4 or 8): the smallest that gives at least
/// `size` samples for `pixels`, at `scale` full-size samples per pixel.
fn block_side(pixels: [usize; 2], scale: [f64; 2], size: usize) -> usize {
    let enough = |side: &usize| (0..2).all(|i| pixels[i] as f64 * scale[i] * *side as f64 / 8.0 >= size as f64);
    [1, 2, 4].into_iter().find(enough).unwrap_or(8)
}

/// The decoding parameters and state of a component.
struct Task {
    side: usize,
    /// The blocks to transform.
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
    /// Dequantization factors, including the scale factors of the DCT, row-major.
    factors: [f32; 64],
    prediction: i32,
}

impl<'a> Jpeg<'a> {
    /// Reads the header. Returns `None` for unsupported files.
    pub fn open(bytes: &'a [u8]) -> Option<Self> {
        let mut jpeg = Jpeg {
            width: 0,
            height: 0,
            has_exif: false,
            components: Vec::new(),
            quantisation: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart_interval: 0,
            scan: &[],
        };
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        loop {
            let [0xFF, marker, high, low, ..] = *rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let content = rest.get(4..2 + length)?;
            rest = &rest[2 + length..];
            match marker {
                0xDB => jpeg.read_quantisation(content)?,
                0xC0 | 0xC1 => jpeg.read_frame(content)?,
                0xC4 => jpeg.read_huffman(content)?,
                0xDD => jpeg.restart_interval = usize::from(u16::from_be_bytes(*content.first_chunk()?)),
                0xEE if content.starts_with(b"Adobe") && *content.get(11)? != 1 => return None,
                0xE1 if content.starts_with(b"Exif\0") => jpeg.has_exif = true,
                0xE0..=0xEF | 0xFE => {}
                0xDA => {
                    jpeg.read_scan(content)?;
                    jpeg.scan = rest;
                    return Some(jpeg);
                }
                _ => return None,
            }
        }
    }

    fn read_quantisation(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = content.split_first() {
            let (wide, table) = (head >> 4, self.quantisation.get_mut(usize::from(head & 15))?);
            let mut values = [0; 64];
            let bytes = rest.get(..64 << wide.min(1))?;
            for (i, value) in values.iter_mut().enumerate() {
                *value = match wide {
                    0 => u16::from(bytes[i]),
                    1 => u16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]]),
                    _ => return None,
                };
            }
            *table = Some(values);
            content = &rest[bytes.len()..];
        }
        Some(())
    }

    fn read_frame(&mut self, content: &[u8]) -> Option<()> {
        let &[8, a, b, c, d, count, ref rest @ ..] = content else { return None };
        (self.height, self.width) = (u16::from_be_bytes([a, b]).into(), u16::from_be_bytes([c, d]).into());
        let sound = self.components.is_empty() && self.width > 0 && self.height > 0 && matches!(count, 1 | 3);
        if !sound || rest.len() != 3 * usize::from(count) {
            return None;
        }
        self.components = rest
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[id, sampling, quantisation]| {
                // With a single component, every block is an MCU.
                let (across, down) = if count == 1 { (1, 1) } else { (sampling >> 4, sampling & 15) };
                let (across, down, quantisation) = (across.into(), down.into(), quantisation.into());
                Component { id, across, down, quantisation, dc: 0, ac: 0 }
            })
            .collect();
        let [luma, chroma @ ..] = self.components.as_slice() else { return None };
        // Only chroma that divides luma evenly, as written by all cameras and programs.
        let even = (1..=2).contains(&luma.across) && (1..=2).contains(&luma.down);
        let plain = even && chroma.iter().all(|c| c.across == 1 && c.down == 1);
        let rgb = self.components.iter().map(|c| c.id).eq(*b"RGB");
        (plain && !rgb).then_some(())
    }

    fn read_huffman(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = content.split_first() {
            let (lengths, rest) = rest.split_first_chunk::<16>()?;
            let codes = lengths.iter().map(|&n| usize::from(n)).sum();
            let symbols = rest.get(..codes)?;
            let tables = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(head & 15))? = Some(Huffman::new(lengths, symbols, head >> 4 == 1)?);
            content = &rest[codes..];
        }
        Some(())
    }

    fn read_scan(&mut self, content: &[u8]) -> Option<()> {
        let count = self.components.len();
        let (&[first, ref rest @ ..], true) = (content, count > 0) else { return None };
        if usize::from(first) != count || rest.len() != 2 * count + 3 || rest[2 * count..] != [0, 63, 0] {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(rest.as_chunks::<2>().0) {
            (component.dc, component.ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            let exists = self.dc.get(component.dc)?.is_some() && self.ac.get(component.ac)?.is_some();
            let quantised = self.quantisation.get(component.quantisation)?.is_some();
            if component.id != id || !exists || !quantised {
                return None;
            }
        }
        Some(())
    }

    /// Decodes the part of a scan needed to resize `region` to `size`×`size` into `scratch.planes`.
    /// Returns the number of planes.
    ///
    /// Returns `None` if the scan is damaged, truncated or not the last. `region` must lie inside
    /// the image.
    #[inline(always)]
    pub(crate) fn decode(&self, region: Region, size: usize, scratch: &mut Scratch) -> Option<usize> {
        let Scratch { data, ends, planes } = scratch;
        unstuff(self.scan, data, ends)?;
        let (most_across, most_down) = (self.components[0].across, self.components[0].down);
        let units_across = self.width.div_ceil(8 * most_across);
        let units_down = self.height.div_ceil(8 * most_down);
        let mut tasks: Vec<Task> = Vec::with_capacity(3);
        for (component, plane) in self.components.iter().zip(planes.iter_mut()) {
            tasks.push(self.prepare(component, region, size, plane)?);
        }
        // Skip MCU rows below the crop, and restart intervals above it.
        let rows = |pick: fn(&Task) -> usize| tasks.iter().zip(&self.components).map(move |(t, c)| pick(t) / c.down);
        let first_row = rows(|task| task.rows.start).min()?;
        let last_row = rows(|task| task.rows.end - 1).max()?;
        let units = (last_row + 1).min(units_down) * units_across;
        let interval = if self.restart_interval == 0 { units } else { self.restart_interval };
        let mut begin = 0;
        let mut coefficients = [0i16; 64];
        for (number, unit) in (0..units).step_by(interval).enumerate() {
            let end = *ends.get(number)?;
            let beyond = (unit + interval).min(units);
            if beyond > first_row * units_across {
                let mut bits = Bits { data, at: begin, bits: 0, count: 0, sound: true };
                tasks.iter_mut().for_each(|task| task.prediction = 0);
                let (mut x, mut y) = (unit % units_across, unit / units_across);
                for _ in unit..beyond {
                    for ((component, task), plane) in self.components.iter().zip(&mut tasks).zip(planes.iter_mut()) {
                        let (dc, ac) = (self.dc[component.dc].as_ref()?, self.ac[component.ac].as_ref()?);
                        for row in y * component.down..(y + 1) * component.down {
                            let row_wanted = task.rows.contains(&row);
                            for column in x * component.across..(x + 1) * component.across {
                                if row_wanted && task.columns.contains(&column) {
                                    let last = bits.block(dc, ac, &mut task.prediction, &mut coefficients)?;
                                    let place = (column - task.columns.start, row - task.rows.start);
                                    task.transform(&mut coefficients, last, plane, place);
                                } else {
                                    bits.skip(dc, ac, task)?;
                                }
                            }
                        }
                    }
                    x += 1;
                    if x == units_across {
                        (x, y) = (0, y + 1);
                    }
                }
                if !bits.ended_at(end) {
                    return None;
                }
            }
            begin = end;
        }
        Some(self.components.len())
    }

    fn prepare(&self, component: &Component, region: Region, size: usize, plane: &mut Plane) -> Option<Task> {
        let luma = &self.components[0];
        let ratio = |own: usize, most: usize| own as f64 / most as f64;
        let scale = [ratio(component.across, luma.across), ratio(component.down, luma.down)];
        let side = block_side([region.width, region.height], scale, size);
        let samples = |pixels: usize, own: usize, most: usize| ((pixels * own).div_ceil(most) * side).div_ceil(8);
        let window = |start, length, pixels, own, most| {
            Window::new(start, length, ratio(own, most) * side as f64 / 8.0, samples(pixels, own, most))
        };
        let across = window(region.left, region.width, self.width, component.across, luma.across);
        let down = window(region.top, region.height, self.height, component.down, luma.down);
        let blocks = |window: Window| window.from / side..window.to.div_ceil(side);
        let (columns, rows) = (blocks(across), blocks(down));
        plane.across = across.counted_from(columns.start * side);
        plane.down = down.counted_from(rows.start * side);
        plane.stride = (rows.len() * side).next_multiple_of(LINE);
        plane.data.resize(columns.len() * side * plane.stride, 0);
        let table = self.quantisation[component.quantisation].as_ref()?;
        let mut factors = [0.0; 64];
        for (&place, &step) in ZIGZAG.iter().zip(table) {
            let place = usize::from(place);
            let own = if side == 8 { AAN[place / 8] * AAN[place % 8] / 8.0 } else { 1.0 };
            factors[place] = f32::from(step) * own;
        }
        Some(Task { side, columns, rows, factors, prediction: 0 })
    }
}

/// Copies the scan without stuffed zero bytes and without restart markers; `ends` receives the end
/// of each restart interval.
///
/// Returns `None` if the scan is not followed by the end-of-image marker.
#[inline(always)]
fn unstuff(scan: &[u8], data: &mut Vec<u8>, ends: &mut Vec<usize>) -> Option<()> {
    const STEP: usize = 32;
    data.clear();
    ends.clear();
    data.reserve(scan.len() + 64);
    let mut rest = scan;
    loop {
        // Copy whole steps without 0xFF.
        while let Some(step) = rest.first_chunk::<STEP>() {
            let mut found = 0;
            for &byte in step {
                found |= u8::from(byte == 0xFF);
            }
            if found > 0 {
                break;
            }
            data.extend_from_slice(step);
            rest = &rest[STEP..];
        }
        let plain = rest.iter().position(|&byte| byte == 0xFF)?;
        data.extend_from_slice(&rest[..plain]);
        rest = &rest[plain + 1..];
        match *rest.first()? {
            0x00 => data.push(0xFF),
            marker @ 0xD0..=0xD7 if usize::from(marker & 7) == ends.len() % 8 => ends.push(data.len()),
            // A fill byte; the next byte belongs to a marker.
            0xFF => continue,
            0xD9 => {
                ends.push(data.len());
                // Padding, because codes are read ahead.
                data.extend([0; 16]);
                return Some(());
            }
            _ => return None,
        }
        rest = &rest[1..];
    }
}

/// A Huffman table.
struct Huffman {
    /// Indexed by the next [`LOOKUP`] bits: length of the code, including the number if it fits;
    /// the run of zeros before; the number or its length.
    entries: Box<[u32; 1 << LOOKUP]>,
    /// For each length, the upper bound of its codes, left-aligned in 16 bits, and the offset from
    /// code to symbol index.
    limits: [u32; 17],
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Huffman {
    /// Builds a table from the number of codes of each length and their symbols. Returns `None` for
    /// invalid tables.
    fn new(lengths: &[u8; 16], symbols: &[u8], runs: bool) -> Option<Self> {
        let mut table =
            Huffman { entries: Box::new([LONG; 1 << LOOKUP]), limits: [0; 17], offsets: [0; 17], symbols: [0; 256] };
        table.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        // A number has at most 10 bits, a DC difference 11, so that a refill is enough for two
        // codes with numbers.
        let most = if runs { 10 } else { 11 };
        if symbols.iter().any(|symbol| if runs { symbol & 15 > most } else { *symbol > most }) {
            return None;
        }
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..=16).zip(lengths) {
            let count = usize::from(count);
            table.offsets[length as usize] = index as i32 - code as i32;
            for &symbol in &symbols[index..index + count] {
                // The all-ones code is reserved.
                if code + 1 >= 1 << length {
                    return None;
                }
                if length <= LOOKUP {
                    table.enter(code, length, symbol, runs);
                }
                code += 1;
            }
            index += count;
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Returns the run of zeros and the number's length encoded by a symbol.
    #[inline(always)]
    fn meaning(symbol: u8, runs: bool) -> (u32, u32) {
        match symbol {
            _ if !runs => (0, symbol.into()),
            0xF0 => (15, 0),
            // Encoders only write run 0, but libjpeg accepts any run as end of block.
            _ if symbol & 15 == 0 => (END_OF_BLOCK as u32, 0),
            _ => (u32::from(symbol >> 4), u32::from(symbol & 15)),
        }
    }

    /// Enters a code at all lookup indices that begin with it.
    fn enter(&mut self, code: u32, length: u32, symbol: u8, runs: bool) {
        let (run, size) = Self::meaning(symbol, runs);
        let spare = LOOKUP - length;
        let places = &mut self.entries[(code << spare) as usize..][..1 << spare];
        if size > spare {
            places.fill(size << 16 | run << 8 | NUMBER_FOLLOWS | (length + size));
            return;
        }
        for (follows, place) in places.iter_mut().enumerate() {
            let number = number(follows as u64 >> (spare - size), size);
            *place = (number as u32) << 16 | run << 8 | (length + size);
        }
    }

    /// Returns the symbol and length of a code longer than the lookup, or `None` for an invalid
    /// code.
    #[cold]
    fn long(&self, bits: u64) -> Option<(u8, u32)> {
        let code = (bits >> 48) as u32;
        let length = (LOOKUP + 1..=16).find(|&length| code < self.limits[length as usize])?;
        let index = (code >> (16 - length)) as i32 + self.offsets[length as usize];
        Some((self.symbols[index as usize & 255], length))
    }
}

/// Decodes a JPEG number of `size` bits; the lower half of the range encodes negative numbers.
#[inline(always)]
fn number(bits: u64, size: u32) -> i32 {
    let bits = bits as i32;
    if size > 0 && bits >> (size - 1) == 0 { bits - (1 << size) + 1 } else { bits }
}

/// Bit reader of the scan.
struct Bits<'a> {
    data: &'a [u8],
    /// Index of the next byte to load.
    at: usize,
    /// Buffered bits, the next one topmost.
    bits: u64,
    /// Number of valid bits in the buffer.
    count: u32,
    /// True if all codes so far were valid.
    sound: bool,
}

impl Bits<'_> {
    /// Returns whether all codes were valid and within `end`.
    #[inline(always)]
    fn ended_at(&self, end: usize) -> bool {
        self.sound && self.at - (self.count / 8) as usize <= end
    }

    /// Refills the buffer to at least 56 bits, with zeros past the end.
    #[inline(always)]
    fn refill(&mut self) {
        let word =
            self.data.get(self.at..).and_then(|rest| rest.first_chunk()).map_or(0, |&word| u64::from_be_bytes(word));
        self.bits |= word >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        self.bits <<= count;
        self.count -= count;
    }

    /// Returns run and number of the next code.
    #[inline(always)]
    fn code(&mut self, table: &Huffman, runs: bool) -> (usize, i32) {
        let entry = table.entries[(self.bits >> (64 - LOOKUP)) as usize];
        if entry & (LONG | NUMBER_FOLLOWS) == 0 {
            self.consume(entry & 0x3F);
            return ((entry >> 8 & 0xFF) as usize, entry as i32 >> 16);
        }
        let (run, size, length) = if entry & LONG == 0 {
            (entry >> 8 & 0xFF, entry >> 16, (entry & 0x3F) - (entry >> 16))
        } else {
            let (symbol, length) = table.long(self.bits).unwrap_or_else(|| {
                self.sound = false;
                (0, 16)
            });
            let (run, size) = Huffman::meaning(symbol, runs);
            (run, size, length)
        };
        self.consume(length);
        let value = number((self.bits >> 32) >> (32 - size), size);
        self.consume(size);
        (run as usize, value)
    }

    /// Reads a block's coefficients; returns the zigzag index of the last one.
    #[inline(always)]
    fn block(&mut self, dc: &Huffman, ac: &Huffman, mean: &mut i32, coefficients: &mut [i16; 64]) -> Option<usize> {
        let mut bits = Bits { ..*self };
        bits.refill();
        *mean = mean.wrapping_add(bits.code(dc, false).1);
        coefficients[0] = *mean as i16;
        let (mut place, mut last) = (1, 0);
        // The DC code used one of the two codes that a refill allows.
        let mut spare = true;
        let sound = loop {
            if !spare {
                bits.refill();
            }
            spare = !spare;
            let (run, value) = bits.code(ac, true);
            place += run;
            if place > 63 {
                break run == END_OF_BLOCK;
            }
            coefficients[usize::from(ZIGZAG[place])] = value as i16;
            last = place;
            place += 1;
            if place == 64 {
                break true;
            }
        };
        *self = bits;
        sound.then_some(last)
    }

    /// Skips a block, updating the DC prediction.
    #[inline(always)]
    fn skip(&mut self, dc: &Huffman, ac: &Huffman, task: &mut Task) -> Option<()> {
        let mut bits = Bits { ..*self };
        bits.refill();
        task.prediction = task.prediction.wrapping_add(bits.code(dc, false).1);
        let mut place = 1;
        let mut spare = true;
        let sound = loop {
            if !spare {
                bits.refill();
            }
            spare = !spare;
            let entry = ac.entries[(bits.bits >> (64 - LOOKUP)) as usize];
            let run = if entry & LONG == 0 {
                bits.consume(entry & 0x3F);
                (entry >> 8 & 0xFF) as usize
            } else {
                bits.code(ac, true).0
            };
            place += run + 1;
            if place > 63 {
                break place == 64 || run == END_OF_BLOCK;
            }
        };
        *self = bits;
        sound.then_some(())
    }
}

/// Input scale factors of the AAN transform (Arai, Agui and Nakajima): √2·cos(kπ/16).
const AAN: [f32; 8] = [1.0, 1.387_039_8, 1.306_563, 1.175_875_6, 1.0, 0.785_694_96, 0.541_196_1, 0.275_899_38];

type Lines = [[f32; 8]; 8];

/// Inverse DCT across 8 lines, elementwise, after Arai, Agui and Nakajima (libjpeg's `jidctflt.c`).
#[inline(always)]
fn inverse(lines: &Lines, out: &mut Lines) {
    for i in 0..8 {
        let (a, b, c, d) = (lines[0][i], lines[1][i], lines[2][i], lines[3][i]);
        let (e, f, g, h) = (lines[4][i], lines[5][i], lines[6][i], lines[7][i]);
        let inner = c + g;
        let outer = (c - g) * std::f32::consts::SQRT_2 - inner;
        let (p, s) = (a + e + inner, a + e - inner);
        let (q, r) = (a - e + outer, a - e - outer);

        let (z13, z10, z11, z12) = (f + d, f - d, b + h, b - h);
        let t7 = z11 + z13;
        let z5 = (z10 + z12) * 1.847_759_1;
        let t6 = z5 - z10 * 2.613_126 - t7;
        let t5 = (z11 - z13) * std::f32::consts::SQRT_2 - t6;
        let t4 = z5 - z12 * 1.082_392_2 - t5;
        out[0][i] = p + t7;
        out[1][i] = q + t6;
        out[2][i] = r + t5;
        out[3][i] = s + t4;
        out[4][i] = s - t4;
        out[5][i] = r - t5;
        out[6][i] = q - t6;
        out[7][i] = p - t7;
    }
}

#[inline(always)]
fn transpose(lines: &Lines, out: &mut Lines) {
    for x in 0..8 {
        for y in 0..8 {
            out[x][y] = lines[y][x];
        }
    }
}

/// Adds the level shift and rounds to the nearest byte.
#[inline(always)]
fn to_byte(value: f32) -> u8 {
    // At this magnitude the spacing of floats is 1, so the low bits are the integer.
    const SHIFT: f32 = 12_582_912.0;
    let level = ((value + SHIFT).to_bits() as i32) - (SHIFT.to_bits() as i32) + 128;
    level.clamp(0, 255) as u8
}

impl Task {
    /// Transforms a block to samples of the plane and clears it; `last` is the index of its last
    /// coefficient.
    #[inline(always)]
    fn transform(&self, block: &mut [i16; 64], last: usize, plane: &mut Plane, (x, y): (usize, usize)) {
        let side = self.side;
        let samples = &mut plane.data[x * side * plane.stride + y * side..];
        if last == 0 || side == 1 {
            let mean = f32::from(block[0]) * self.factors[0] * if side == 8 { 1.0 } else { 0.125 };
            for column in 0..side {
                samples[column * plane.stride..][..side].fill(to_byte(mean));
            }
        } else if side == 8 {
            let mut rows = [[0.0; 8]; 8];
            for row in 0..8 {
                for i in 0..8 {
                    rows[row][i] = f32::from(block[row * 8 + i]) * self.factors[row * 8 + i];
                }
            }
            let mut columns = [[0.0; 8]; 8];
            inverse(&rows, &mut columns);
            transpose(&columns, &mut rows);
            inverse(&rows, &mut columns);
            for (number, line) in columns.iter().enumerate() {
                let mut bytes = [0; 8];
                for i in 0..8 {
                    bytes[i] = to_byte(line[i]);
                }
                samples[number * plane.stride..][..8].copy_from_slice(&bytes);
            }
        } else if side == 4 {
            self.shrink::<4>(block, samples, plane.stride);
        } else {
            self.shrink::<2>(block, samples, plane.stride);
        }
        *block = [0; 64];
    }

    /// Transforms the lowest `N`×`N` frequencies to `N`×`N` samples.
    fn shrink<const N: usize>(&self, block: &[i16; 64], samples: &mut [u8], stride: usize) {
        // Sample `x` of frequency `k`, normalized so that the mean is kept.
        let basis: [[f32; N]; N] = std::array::from_fn(|x| {
            std::array::from_fn(|k| match k {
                0 => std::f32::consts::FRAC_1_SQRT_2 / 2.0,
                _ => HALF_COSINES[(2 * x + 1) * k * (16 / N) % 64],
            })
        });
        let along: [[f32; N]; N] = std::array::from_fn(|row| {
            let value = |k: usize| f32::from(block[row * 8 + k]) * self.factors[row * 8 + k];
            std::array::from_fn(|x| (0..N).map(|k| basis[x][k] * value(k)).sum())
        });
        for (x, column) in samples.chunks_mut(stride).take(N).enumerate() {
            for (y, sample) in column[..N].iter_mut().enumerate() {
                *sample = to_byte((0..N).map(|k| basis[y][k] * along[k][x]).sum());
            }
        }
    }
}

/// cos(kπ/32) / 2.
const HALF_COSINES: [f32; 64] = half_cosines();

const fn half_cosines() -> [f32; 64] {
    // Chebyshev recurrence in f64, because `cos` is not const.
    const FIRST: f64 = 0.995_184_726_672_196_9;
    let mut cosines = [0.0f32; 64];
    let (mut before, mut now) = (FIRST, 1.0f64);
    let mut k = 0;
    while k < 64 {
        cosines[k] = (now / 2.0) as f32;
        (before, now) = (now, 2.0 * FIRST * now - before);
        k += 1;
    }
    cosines
}
