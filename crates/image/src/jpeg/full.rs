//! Decoder for whole JPEG files, bit-identical to libjpeg-turbo: baseline, extended and
//! progressive, Huffman- and arithmetic-coded, interleaved or not, with all subsampling factors
//! that libjpeg supports.
//!
//! The common case, one undamaged Huffman-coded scan of all components, is transformed block by
//! block while reading. For other files, and for damaged ones, all coefficients are read first, as
//! by libjpeg.

use image::metadata::Orientation;
use mbconv_kernels::multiversion::{Work, run};

use mbconv_kernels::image_ops::RgbPixels;

use crate::decoding::check_size;
use crate::error::DecodeError;
use crate::jpeg::arithmetic::Arithmetic;
use crate::jpeg::color::{Plane, Space, to_rgb};
use crate::jpeg::entropy::{Band, Entropy, Progressive, Sequential};
use crate::jpeg::header::{Component, Frame, Member, Reader, Scan, Table};
use crate::jpeg::huffman::{Bits, Huffman, unstuff};
use crate::jpeg::smooth::{self, Accuracy};
use crate::jpeg::standard;
use crate::jpeg::stream::{Codes, Stream};
use crate::jpeg::transform::inverse;

/// Maximum number of scans per file; progressive files have about ten.
const MAX_SCANS: usize = 1000;

/// Maximum number of bits of a DC difference.
const LONGEST_MEAN: u8 = 15;

/// Blocks of a component in row-major order.
type Coefficients = Vec<[i16; 64]>;

/// Decodes a file of at most `max_pixels` pixels.
///
/// # Errors
/// See [`DecodeError`].
pub(crate) fn decode(bytes: &[u8], max_pixels: usize) -> Result<(RgbPixels, Orientation), DecodeError> {
    read_image(Reader::new(bytes)?, None, max_pixels)
}

/// Returns width and height from the header.
///
/// # Errors
/// See [`DecodeError`].
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(usize, usize), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    reader.next_scan()?;
    let frame = reader.frame.ok_or_else(|| DecodeError::Damaged("it has no frame header".into()))?;
    Ok((frame.width, frame.height))
}

/// Decodes like [`decode`], but overrides the file's color space by `space` if the number of
/// components matches.
///
/// # Errors
/// See [`DecodeError`].
pub(crate) fn decode_as(bytes: &[u8], space: Space, max_pixels: usize) -> Result<RgbPixels, DecodeError> {
    read_image(Reader::new(bytes)?, Some(space), max_pixels).map(|(image, _)| image)
}

fn read_image(
    mut reader: Reader,
    space: Option<Space>,
    max_pixels: usize,
) -> Result<(RgbPixels, Orientation), DecodeError> {
    let scan = reader.next_scan()?;
    let (Some(scan), Some(frame)) = (scan, &reader.frame) else {
        return Err(DecodeError::Damaged("it has no scan".into()));
    };
    let (width, height) = (frame.width, frame.height);
    check_size(width, height, max_pixels)?;
    // Every block takes at least one bit. This keeps memory proportional to the file size.
    let blocks = frame.components.iter().map(|component| component.columns * component.rows).min();
    if !frame.arithmetic && blocks.unwrap_or(0) / 8 > reader.stream.rest().len() {
        return Err(DecodeError::Truncated);
    }
    let planes = match quick(&reader, frame, &scan) {
        Some(planes) => planes,
        None => {
            let coefficients = careful(&mut reader, scan)?;
            let frame = reader.frame.as_ref().ok_or(DecodeError::Truncated)?;
            run(Transform { frame, coefficients })
        }
    };
    let frame = reader.frame.as_ref().ok_or(DecodeError::Truncated)?;
    let space = space.filter(|space| space.components() == frame.components.len());
    let space = space.unwrap_or_else(|| reader.space(frame));
    let data = run(ToRgb { planes: &planes, space, width, height });
    Ok((RgbPixels { width, height, data }, reader.orientation.unwrap_or(Orientation::NoTransforms)))
}

impl Component {
    fn plane(&self) -> Plane {
        let &Component { width, height, columns, rows, expand, .. } = self;
        Plane { data: vec![0; columns * rows * 64], stride: columns * 8, width, height, expand }
    }
}

struct ToRgb<'a> {
    planes: &'a [Plane],
    space: Space,
    width: usize,
    height: usize,
}

impl Work for ToRgb<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run(self) -> Vec<u8> {
        to_rgb(self.planes, self.space, self.width, self.height)
    }
}

/// Inverse DCT of all coefficients.
struct Transform<'a> {
    frame: &'a Frame,
    coefficients: Vec<Coefficients>,
}

impl Work for Transform<'_> {
    type Output = Vec<Plane>;

    #[inline(always)]
    fn run(self) -> Vec<Plane> {
        let mut planes = Vec::with_capacity(4);
        for (component, blocks) in self.frame.components.iter().zip(self.coefficients) {
            let mut plane = component.plane();
            // A component without a scan has no table, and all its coefficients are zero.
            let table = component.table.unwrap_or([0; 64]);
            for (number, block) in blocks.iter().enumerate() {
                let (x, y) = (number % component.columns, number / component.columns);
                let others = block[1..].iter().fold(0, |all, &value| all | value) != 0;
                let samples = &mut plane.data[y * 8 * plane.stride + x * 8..];
                inverse(block, others.into(), &table, samples, plane.stride);
            }
            planes.push(plane);
        }
        planes
    }
}

/// Decodes a single undamaged Huffman-coded scan of all components; returns `None` for other files.
fn quick(reader: &Reader, frame: &Frame, scan: &Scan) -> Option<Vec<Plane>> {
    if frame.arithmetic || !frame.is_whole(scan) {
        return None;
    }
    let mut tables = Vec::with_capacity(4);
    for member in &scan.members {
        let build = |table: Option<Table>, runs| table.and_then(|t| Huffman::new(t.lengths, t.symbols, runs));
        let (dc, ac) = huffman_tables(reader, member);
        tables.push((build(dc, false)?, build(ac, true)?));
    }
    run(Quick { data: reader.stream.rest(), restart_interval: reader.restart_interval, frame, scan, tables })
}

struct Quick<'a> {
    data: &'a [u8],
    restart_interval: usize,
    frame: &'a Frame,
    scan: &'a Scan,
    tables: Vec<(Huffman, Huffman)>,
}

impl Work for Quick<'_> {
    type Output = Option<Vec<Plane>>;

    #[inline(always)]
    fn run(self) -> Option<Vec<Plane>> {
        let Quick { data: scanned, restart_interval, frame, scan, tables } = self;
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        unstuff(scanned, &mut data, &mut ends)?;
        let mut planes: Vec<Plane> = frame.components.iter().map(Component::plane).collect();
        // A scan of a single component has no MCUs.
        let alone = scan.members.len() == 1;
        let (across, down) = if alone { frame.components[0].blocks() } else { frame.units };
        let units = across * down;
        let interval = if restart_interval == 0 { units } else { restart_interval };
        let mut begin = 0;
        let mut coefficients = [0i16; 64];
        let (mut x, mut y) = (0, 0);
        for (number, unit) in (0..units).step_by(interval).enumerate() {
            let end = *ends.get(number)?;
            let mut bits = Bits::new(&data, begin);
            let mut means = [0; 4];
            for _ in unit..(unit + interval).min(units) {
                for ((member, (dc, ac)), mean) in scan.members.iter().zip(&tables).zip(&mut means) {
                    let (component, plane) = (&frame.components[member.component], &mut planes[member.component]);
                    let table = component.table.as_ref()?;
                    let (wide, high) = if alone { (1, 1) } else { (component.across, component.down) };
                    for row in y * high..(y + 1) * high {
                        for column in x * wide..(x + 1) * wide {
                            let last = bits.block(dc, ac, mean, &mut coefficients)?;
                            let samples = &mut plane.data[row * 8 * plane.stride + column * 8..];
                            inverse(&coefficients, last, table, samples, plane.stride);
                            coefficients = [0; 64];
                        }
                    }
                }
                x += 1;
                if x == across {
                    (x, y) = (0, y + 1);
                }
            }
            if !bits.ended_at(end) {
                return None;
            }
            begin = end;
        }
        Some(planes)
    }
}

/// Returns the Huffman tables of a component. If the file does not define them, as in Motion JPEG,
/// these are the standard's.
fn huffman_tables<'a>(reader: &Reader<'a>, member: &Member) -> (Option<Table<'a>>, Option<Table<'a>>) {
    let dc = reader.dc.get(member.dc).copied().flatten();
    let ac = reader.ac.get(member.ac).copied().flatten();
    (dc.or_else(|| standard::DC.get(member.dc).copied()), ac.or_else(|| standard::AC.get(member.ac).copied()))
}

/// Reads the coefficients of all scans, as libjpeg does.
fn careful(reader: &mut Reader, first: Scan) -> Result<Vec<Coefficients>, DecodeError> {
    let blocks = |frame: &Frame| {
        frame.components.iter().map(|component| vec![[0; 64]; component.columns * component.rows]).collect()
    };
    let mut coefficients: Vec<Coefficients> = reader.frame.as_ref().map(blocks).unwrap_or_default();
    let mut accuracies = vec![Accuracy::NONE; coefficients.len()];
    let mut cut_off = 0;
    let mut next = Some(first);
    for number in 0..MAX_SCANS {
        let Some(scan) = next else {
            if let Some(frame) = &reader.frame
                && frame.progressive
                && smooth::is_useful(&frame.components, &accuracies)
            {
                for ((blocks, component), accuracy) in coefficients.iter_mut().zip(&frame.components).zip(&accuracies) {
                    smooth::smooth(blocks, component, accuracy, frame.units.1, cut_off, number < 2);
                }
            }
            return Ok(coefficients);
        };
        for member in &scan.members {
            accuracies[member.component].note(scan.band, number == 0);
        }
        reader.stream.begin();
        let whole = read_scan(reader, &scan, &mut coefficients, &mut cut_off)?;
        if whole {
            // Later scans are ignored, but a file without an end is truncated.
            return if reader.stream.reaches_end() { Ok(coefficients) } else { Err(DecodeError::Truncated) };
        }
        next = reader.next_scan()?;
    }
    Err(DecodeError::Damaged(format!("it has more than {MAX_SCANS} scans")))
}

/// Reads a scan's blocks. Returns whether the scan contains the whole image. `cut_off` is set to
/// the MCU row after the last one with data.
fn read_scan(
    reader: &mut Reader,
    scan: &Scan,
    coefficients: &mut [Coefficients],
    cut_off: &mut usize,
) -> Result<bool, DecodeError> {
    let Some(frame) = &reader.frame else { return Err(DecodeError::Truncated) };
    let Band { first, last, high, low } = scan.band;
    let sound = low <= 13
        && (high == 0 || high == low + 1)
        && if first == 0 { last == 0 } else { first <= last && last < 64 && scan.members.len() == 1 };
    if frame.progressive && !sound {
        return Err(DecodeError::Damaged("a progressive scan has invalid parameters".into()));
    }
    let (dc, ac): (Vec<_>, Vec<_>) = scan.members.iter().map(|member| huffman_tables(reader, member)).unzip();
    let blocks = Blocks { frame, scan, interval: reader.restart_interval, coefficients, cut_off };
    let stream = &mut reader.stream;
    let means = [0; 4];
    if frame.arithmetic {
        let tables = scan.members.iter().map(|member| (member.dc, member.ac)).collect();
        let band = frame.progressive.then_some(scan.band);
        let entropy = Arithmetic::new(reader.conditioning, tables, band);
        run(Read { blocks, entropy, stream });
    } else if !frame.progressive {
        let entropy = Sequential { dc: codes(&dc, LONGEST_MEAN)?, ac: codes(&ac, u8::MAX)?, means };
        run(Read { blocks, entropy, stream });
    } else {
        let codes = match (first, high) {
            (0, 0) => codes(&dc, LONGEST_MEAN)?,
            // Refinement of DC coefficients is not Huffman-coded.
            (0, _) => Vec::new(),
            _ => codes(&ac, u8::MAX)?,
        };
        let entropy = Progressive { band: scan.band, codes, means, blank: 0 };
        run(Read { blocks, entropy, stream });
    }
    if stream.truncated { Err(DecodeError::Truncated) } else { Ok(frame.is_whole(scan)) }
}

/// Builds Huffman codes; symbols must not exceed `most`.
fn codes(tables: &[Option<Table>], most: u8) -> Result<Vec<Codes>, DecodeError> {
    let build = |table: &Option<Table>| {
        let table = table.filter(|table| table.symbols.iter().all(|&symbol| symbol <= most))?;
        Codes::new(table.lengths, table.symbols)
    };
    let invalid = || DecodeError::Damaged("a Huffman table is missing or invalid".into());
    tables.iter().map(|table| build(table).ok_or_else(invalid)).collect()
}

/// The blocks of a scan.
struct Blocks<'a> {
    frame: &'a Frame,
    scan: &'a Scan,
    /// Restart interval in MCUs, or 0.
    interval: usize,
    coefficients: &'a mut [Coefficients],
    cut_off: &'a mut usize,
}

/// Reads blocks until the end of the data.
struct Read<'a, 'b, E> {
    blocks: Blocks<'a>,
    entropy: E,
    stream: &'a mut Stream<'b>,
}

impl<E: Entropy> Work for Read<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Read { blocks: Blocks { frame, scan, interval, coefficients, cut_off }, mut entropy, stream } = self;
        let members = scan.members.as_slice();
        let alone = match members {
            [member] => Some(frame.components[member.component].blocks()),
            _ => None,
        };
        let (across, down) = alone.unwrap_or(frame.units);
        let rows_of_unit = if alone.is_some() { frame.components[members[0].component].down } else { 1 };
        let mut left = interval;
        for y in 0..down {
            for x in 0..across {
                if interval > 0 {
                    if left == 0 {
                        stream.pass_restart();
                        entropy.restart();
                        left = interval;
                    }
                    left -= 1;
                }
                if stream.is_exhausted(interval > 0) {
                    return;
                }
                if entropy.is_over(stream) {
                    continue;
                }
                *cut_off = y / rows_of_unit + 1;
                for (number, member) in members.iter().enumerate() {
                    let component = &frame.components[member.component];
                    let blocks = &mut coefficients[member.component];
                    let (wide, high) = if alone.is_some() { (1, 1) } else { (component.across, component.down) };
                    for row in y * high..(y + 1) * high {
                        for column in x * wide..(x + 1) * wide {
                            entropy.block(stream, number, &mut blocks[row * component.columns + column]);
                        }
                    }
                }
            }
        }
    }
}
