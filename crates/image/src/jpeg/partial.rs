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

use super::huffman::{Bits, Huffman, ZIGZAG, unstuff};
use crate::resize::Region;

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
    quantization: [Option<[u16; 64]>; 4],
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
    quantization: usize,
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
/// `size` samples for `pixels`, at `scale` full-size samples per pixel; each across and down.
fn block_side(pixels: [usize; 2], scale: [f64; 2], size: [usize; 2]) -> usize {
    let enough = |side: &usize| (0..2).all(|i| pixels[i] as f64 * scale[i] * *side as f64 / 8.0 >= size[i] as f64);
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
            quantization: [None; 4],
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
                0xDB => jpeg.read_quantization(content)?,
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

    fn read_quantization(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = content.split_first() {
            let (wide, table) = (head >> 4, self.quantization.get_mut(usize::from(head & 15))?);
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
            .map(|&[id, sampling, quantization]| {
                // With a single component, every block is an MCU.
                let (across, down) = if count == 1 { (1, 1) } else { (sampling >> 4, sampling & 15) };
                let (across, down, quantization) = (across.into(), down.into(), quantization.into());
                Component { id, across, down, quantization, dc: 0, ac: 0 }
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
            let quantised = self.quantization.get(component.quantization)?.is_some();
            if component.id != id || !exists || !quantised {
                return None;
            }
        }
        Some(())
    }

    /// Decodes the part of a scan needed to resize `region` to `size`, width and height, into
    /// `scratch.planes`. Returns the number of planes.
    ///
    /// Returns `None` if the scan is damaged, truncated or not the last. `region` must lie inside
    /// the image.
    #[inline(always)]
    pub(crate) fn decode(&self, region: Region, size: (usize, usize), scratch: &mut Scratch) -> Option<usize> {
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
                let mut bits = Bits::new(data, begin);
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
                                    bits.skip(dc, ac, &mut task.prediction)?;
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

    fn prepare(&self, component: &Component, region: Region, size: (usize, usize), plane: &mut Plane) -> Option<Task> {
        let luma = &self.components[0];
        let ratio = |own: usize, most: usize| own as f64 / most as f64;
        let scale = [ratio(component.across, luma.across), ratio(component.down, luma.down)];
        let side = block_side([region.width, region.height], scale, size.into());
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
        let table = self.quantization[component.quantization].as_ref()?;
        let mut factors = [0.0; 64];
        for (&place, &step) in ZIGZAG.iter().zip(table) {
            let place = usize::from(place);
            let own = if side == 8 { AAN[place / 8] * AAN[place % 8] / 8.0 } else { 1.0 };
            factors[place] = f32::from(step) * own;
        }
        Some(Task { side, columns, rows, factors, prediction: 0 })
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
