//! Headers of a JPEG file.

use image::metadata::Orientation;

use crate::error::DecodeError;
use crate::jpeg::arithmetic::Conditioning;
use crate::jpeg::color::Space;
use crate::jpeg::entropy::Band;
use crate::jpeg::huffman::ZIGZAG;
use crate::jpeg::stream::{END_OF_IMAGE, Stream};

/// A component of the frame.
pub(crate) struct Component {
    id: u8,
    /// Blocks per MCU, horizontally and vertically.
    pub across: usize,
    pub down: usize,
    /// Image pixels per sample, horizontally and vertically.
    pub expand: (usize, usize),
    /// Index of the quantization table.
    quantization: usize,
    /// The quantization table at the component's first scan, row-major.
    pub table: Option<[i16; 64]>,
    /// Size of the part that belongs to the image, in samples.
    pub width: usize,
    pub height: usize,
    /// Size in blocks, with all MCUs complete.
    pub columns: usize,
    pub rows: usize,
}

/// The frame header.
pub(crate) struct Frame {
    pub width: usize,
    pub height: usize,
    pub progressive: bool,
    pub arithmetic: bool,
    pub components: Vec<Component>,
    /// Number of MCUs, horizontally and vertically.
    pub units: (usize, usize),
}

/// A Huffman table: number of codes of each length, and their symbols.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub lengths: &'a [u8; 16],
    pub symbols: &'a [u8],
}

/// A component in a scan: its index in the frame, and the indices of its tables.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub component: usize,
    pub dc: usize,
    pub ac: usize,
}

/// The header of a scan.
pub(crate) struct Scan {
    pub members: Vec<Member>,
    pub band: Band,
}

/// Parser state of a file, up to the current scan.
pub(crate) struct Reader<'a> {
    pub stream: Stream<'a>,
    pub frame: Option<Frame>,
    quantization: [Option<[i16; 64]>; 4],
    pub dc: [Option<Table<'a>>; 4],
    pub ac: [Option<Table<'a>>; 4],
    pub conditioning: Conditioning,
    pub restart_interval: usize,
    pub orientation: Option<Orientation>,
    jfif: bool,
    adobe: Option<u8>,
}

fn damaged<T>(why: &str) -> Result<T, DecodeError> {
    Err(DecodeError::Damaged(why.into()))
}

fn unsupported<T>(kind: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Unsupported(kind.into()))
}

impl Frame {
    fn new(marker: u8, content: &[u8]) -> Result<Frame, DecodeError> {
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = content else {
            return damaged("its frame header is too short");
        };
        match marker {
            0xC3 | 0xCB => return unsupported("lossless JPEG"),
            0xC5..=0xC7 | 0xCD..=0xCF => return unsupported("hierarchical JPEG"),
            _ if precision != 8 => return unsupported(format!("JPEG with {precision} bits per sample")),
            _ if !matches!(count, 1 | 3 | 4) => return unsupported(format!("JPEG with {count} components")),
            _ => {}
        }
        let width = usize::from(u16::from_be_bytes([w1, w0]));
        let height = usize::from(u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 || rest.len() != 3 * usize::from(count) {
            return damaged("its frame header lacks the size or some components");
        }
        let fields = rest.as_chunks::<3>().0;
        let factors = |sampling: u8| (usize::from(sampling >> 4), usize::from(sampling & 15));
        let (mut most_across, mut most_down) = (1, 1);
        for &[_, sampling, _] in fields {
            let (across, down) = factors(sampling);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return damaged("its sampling factors are not 1 to 4");
            }
            (most_across, most_down) = (most_across.max(across), most_down.max(down));
        }
        let units = (width.div_ceil(8 * most_across), height.div_ceil(8 * most_down));
        let mut components = Vec::with_capacity(fields.len());
        for &[id, sampling, quantization] in fields {
            let (across, down) = factors(sampling);
            if most_across % across != 0 || most_down % down != 0 {
                return unsupported("JPEG with a fractional chroma subsampling");
            }
            components.push(Component {
                id,
                across,
                down,
                expand: (most_across / across, most_down / down),
                quantization: quantization.into(),
                table: None,
                width: (width * across).div_ceil(most_across),
                height: (height * down).div_ceil(most_down),
                columns: units.0 * across,
                rows: units.1 * down,
            });
        }
        let (progressive, arithmetic) = (matches!(marker, 0xC2 | 0xCA), marker >= 0xC9);
        Ok(Frame { width, height, progressive, arithmetic, components, units })
    }

    /// Returns whether a scan contains the whole image.
    pub fn is_whole(&self, scan: &Scan) -> bool {
        !self.progressive && scan.members.len() == self.components.len()
    }
}

impl Component {
    /// Returns the number of blocks, horizontally and vertically, in a scan of this component
    /// alone.
    pub fn blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(8), self.height.div_ceil(8))
    }
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut stream = Stream::new(bytes);
        if (stream.byte(), stream.byte()) != (Some(0xFF), Some(0xD8)) {
            return Err(DecodeError::UnknownFormat);
        }
        Ok(Reader {
            stream,
            frame: None,
            quantization: [None; 4],
            dc: [None; 4],
            ac: [None; 4],
            conditioning: Conditioning::default(),
            restart_interval: 0,
            orientation: None,
            jfif: false,
            adobe: None,
        })
    }

    /// Advances to the data of the next scan. Returns `None` at the end of the image.
    pub fn next_scan(&mut self) -> Result<Option<Scan>, DecodeError> {
        loop {
            let marker = self.stream.next_marker();
            if self.stream.truncated {
                return Err(DecodeError::Truncated);
            }
            self.stream.marker = 0;
            match marker {
                END_OF_IMAGE => return Ok(None),
                // Markers without a segment.
                0x01 | 0xD0..=0xD7 => continue,
                0xD8 => return damaged("it contains the start of a second image"),
                _ => {}
            }
            let content = self.stream.segment().ok_or(DecodeError::Truncated)?;
            let read = match marker {
                0xC4 => self.read_huffman(content),
                0xCC => self.read_conditioning(content),
                0xDB => self.read_quantization(content),
                0xDD => content.first_chunk().map(|&bytes| self.restart_interval = u16::from_be_bytes(bytes).into()),
                0xC0..=0xCF if marker != 0xC8 && self.frame.is_none() => {
                    self.frame = Some(Frame::new(marker, content)?);
                    Some(())
                }
                0xDA => match self.read_scan(content) {
                    Some(scan) => return Ok(Some(scan)),
                    None => None,
                },
                0xE0..=0xEF => {
                    self.read_application(marker, content);
                    Some(())
                }
                0xDC | 0xFE => Some(()),
                _ => None,
            };
            if read.is_none() {
                return damaged(&format!("the segment with marker FF{marker:02X} is invalid"));
            }
        }
    }

    fn read_quantization(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = content.split_first() {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let (bytes, rest) = rest.split_at_checked(64 * width)?;
            let mut table = [0; 64];
            for (&place, bytes) in ZIGZAG.iter().zip(bytes.chunks_exact(width)) {
                let value = bytes.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
                table[usize::from(place)] = value as i16;
            }
            *self.quantization.get_mut(usize::from(head & 15))? = Some(table);
            content = rest;
        }
        Some(())
    }

    fn read_huffman(&mut self, mut content: &'a [u8]) -> Option<()> {
        while let Some((&head, rest)) = content.split_first() {
            let (lengths, rest) = rest.split_first_chunk::<16>()?;
            let (symbols, rest) = rest.split_at_checked(lengths.iter().map(|&count| usize::from(count)).sum())?;
            let tables = if head & 0x10 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & !0x10))? = Some(Table { lengths, symbols });
            content = rest;
        }
        Some(())
    }

    fn read_conditioning(&mut self, content: &[u8]) -> Option<()> {
        for &[table, value] in content.as_chunks::<2>().0 {
            self.conditioning.set(table.into(), value)?;
        }
        Some(())
    }

    fn read_application(&mut self, marker: u8, content: &[u8]) {
        match marker {
            0xE0 if content.len() >= 14 && content.starts_with(b"JFIF\0") => self.jfif = true,
            0xE1 if self.orientation.is_none() => {
                self.orientation = content.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk);
            }
            0xEE if content.starts_with(b"Adobe") => self.adobe = content.get(11).copied().or(self.adobe),
            _ => {}
        }
    }

    fn read_scan(&mut self, content: &[u8]) -> Option<Scan> {
        let components = &mut self.frame.as_mut()?.components;
        let (&count, rest) = content.split_first()?;
        let (fields, &[first, last, bits]) = rest.split_at_checked(2 * usize::from(count))? else { return None };
        let mut members: Vec<Member> = Vec::with_capacity(4);
        for &[id, tables] in fields.as_chunks::<2>().0 {
            // Components with equal ids are used in order.
            let component = (members.len()..components.len()).find(|&number| components[number].id == id);
            let component = component.or_else(|| components.iter().position(|component| component.id == id))?;
            if members.iter().any(|member| member.component == component) {
                return None;
            }
            members.push(Member { component, dc: (tables >> 4).into(), ac: (tables & 15).into() });
        }
        let blocks: usize =
            members.iter().map(|member| components[member.component].across * components[member.component].down).sum();
        if members.is_empty() || members.len() > 1 && blocks > 10 {
            return None;
        }
        for member in &members {
            let component = &mut components[member.component];
            if component.table.is_none() {
                component.table = Some((*self.quantization.get(component.quantization)?)?);
            }
        }
        let band = Band { first: first.into(), last: last.into(), high: (bits >> 4).into(), low: (bits & 15).into() };
        Some(Scan { members, band })
    }

    /// Returns the color space, by libjpeg's rules.
    pub fn space(&self, frame: &Frame) -> Space {
        match (frame.components.as_slice(), self.adobe) {
            ([_], _) => Space::Gray,
            ([_, _, _], _) if self.jfif => Space::YCbCr,
            ([_, _, _], Some(0)) => Space::Rgb,
            ([_, _, _], Some(_)) => Space::YCbCr,
            ([a, b, c], None) if [a.id, b.id, c.id] == *b"RGB" => Space::Rgb,
            ([_, _, _], None) => Space::YCbCr,
            (_, Some(0) | None) => Space::Cmyk,
            (_, Some(_)) => Space::Ycck,
        }
    }
}
