//! Pages of a column: decompressed and decoded, as far as columns of images and labels need it.
//!
//! Format: <https://parquet.apache.org/docs/file-format/data-pages/>. Values are plain or in a dictionary, of columns that
//! repeat nothing; that is what pyarrow, and so Hugging Face's `datasets`, writes. The crate `parquet` reads more, but one
//! column at a time in order, while training wants rows anywhere; and it would change the features that Burn is built with.

use std::io::Read;
use std::ops::Range;

use super::thrift::{Value, varint};

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Bytes,
}

/// What decoding a column needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub kind: Kind,
    /// How many of the column and what it lies in may be absent.
    pub optional: u32,
    /// Parquet's number of the compression.
    pub codec: i64,
}

/// Values of rows, of which some may be absent.
pub(super) enum Values {
    Numbers(Vec<Option<i64>>),
    /// Ranges of `data`.
    Bytes {
        data: Vec<u8>,
        ranges: Vec<Option<Range<usize>>>,
    },
}

/// A page's header: what the page is, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: PageKind,
    /// Rows, of a data page.
    pub rows: usize,
    encoding: i64,
    /// Bytes as stored, and decompressed.
    pub stored: usize,
    pub size: usize,
    /// Bytes of levels at the beginning that are not compressed, in version 2.
    levels: usize,
    /// Whether the values are compressed.
    compressed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    Data,
    Data2,
    Dictionary,
    Other,
}

/// The most bytes that a page may have, decompressed.
const MOST: usize = 2 << 30;

impl Header {
    /// Reads a header and takes it off the bytes; none if it breaks off or is none.
    pub fn read(bytes: &mut &[u8]) -> Option<Header> {
        let value = Value::read(bytes)?;
        let (size, stored) = (value.size(2)?, value.size(3)?);
        let (kind, rows, encoding, levels, compressed) = match value.number(1)? {
            0 => {
                let page = value.field(5)?;
                (PageKind::Data, page.size(1)?, page.number(2)?, 0, true)
            }
            2 => (PageKind::Dictionary, value.field(7)?.size(1)?, value.field(7)?.number(2)?, 0, true),
            3 => {
                let page = value.field(8)?;
                let levels = page.size(5)?.checked_add(page.size(6)?)?;
                (PageKind::Data2, page.size(1)?, page.number(4)?, levels, page.field(7) != Some(&Value::Bool(false)))
            }
            _ => (PageKind::Other, 0, 0, 0, false),
        };
        (size <= MOST && stored <= MOST).then_some(Header { kind, rows, encoding, stored, size, levels, compressed })
    }
}

/// Decodes pages of a column one after another.
pub(super) struct Decoder {
    column: Column,
    dictionary: Option<Values>,
    /// What was decoded.
    values: Values,
}

type Decoded<T> = Result<T, String>;

const TRUNCATED: &str = "a page breaks off, or is damaged";

impl Decoder {
    pub fn new(column: Column) -> Self {
        Self { column, dictionary: None, values: Values::none(column.kind) }
    }

    pub fn finish(self) -> Values {
        self.values
    }

    /// Adds a page's values.
    pub fn page(&mut self, header: Header, stored: &[u8]) -> Decoded<()> {
        if header.kind == PageKind::Other {
            return Ok(());
        }
        let (levels, packed) = stored.split_at_checked(header.levels).ok_or(TRUNCATED)?;
        let size = header.size.checked_sub(header.levels).ok_or(TRUNCATED)?;
        let data = if header.compressed { decompress(packed, size, self.column.codec)? } else { packed.to_vec() };
        if header.kind == PageKind::Dictionary {
            let mut dictionary = Values::none(self.column.kind);
            plain(&mut dictionary, self.column.kind, data, 0, &vec![true; header.rows.min(MOST / 64)])?;
            self.dictionary = Some(dictionary);
            return Ok(());
        }
        // Whether each row has a value: written before the values unless all must have one.
        let (present, start) = match (self.column.optional, header.kind) {
            (0, _) => (vec![true; self.rows(header, data.len())?], 0),
            (_, PageKind::Data2) => (self.present(levels, header.rows)?, 0),
            _ => {
                let length: [u8; 4] = data.get(..4).and_then(|bytes| bytes.try_into().ok()).ok_or(TRUNCATED)?;
                let end = 4 + u32::from_le_bytes(length) as usize;
                (self.present(data.get(4..end).ok_or(TRUNCATED)?, header.rows)?, end)
            }
        };
        match header.encoding {
            0 => plain(&mut self.values, self.column.kind, data, start, &present),
            2 | 8 => {
                let dictionary = self.dictionary.as_ref().ok_or("a page refers to a dictionary that is not there")?;
                look_up(&mut self.values, dictionary, &data[start..], &present)
            }
            encoding => {
                Err(format!("its values are in Parquet's encoding {encoding}: write them plain, or in a dictionary"))
            }
        }
    }

    /// The number of rows, if there can be as many.
    fn rows(&self, header: Header, bytes: usize) -> Decoded<usize> {
        // Of a dictionary, a value of many rows may take no space at all.
        (header.rows <= bytes.saturating_mul(8).max(1 << 24)).then_some(header.rows).ok_or_else(|| TRUNCATED.into())
    }

    fn present(&self, levels: &[u8], rows: usize) -> Decoded<Vec<bool>> {
        let width = u32::BITS - self.column.optional.leading_zeros();
        let most = u64::from(self.column.optional);
        Ok(hybrid(levels, width, rows)?.into_iter().map(|level| level == most).collect())
    }
}

impl Values {
    fn none(kind: Kind) -> Values {
        match kind {
            Kind::Int32 | Kind::Int64 => Values::Numbers(Vec::new()),
            Kind::Bytes => Values::Bytes { data: Vec::new(), ranges: Vec::new() },
        }
    }
}

fn decompress(packed: &[u8], size: usize, codec: i64) -> Decoded<Vec<u8>> {
    let read = |reader: &mut dyn Read| -> Decoded<Vec<u8>> {
        let mut data = Vec::with_capacity(size.min(packed.len().saturating_mul(64)));
        reader.take(size as u64).read_to_end(&mut data).map_err(|error| error.to_string())?;
        Ok(data)
    };
    let data = match codec {
        _ if size == 0 => Vec::new(),
        0 => packed.to_vec(),
        1 if snap::raw::decompress_len(packed) != Ok(size) => return Err(TRUNCATED.into()),
        1 => snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| error.to_string())?,
        2 => read(&mut flate2::read::MultiGzDecoder::new(packed))?,
        6 => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| error.to_string())?;
            read(&mut decoder)?
        }
        codec => {
            let name =
                ["", "", "", "LZO", "Brotli", "LZ4", "", "raw LZ4"].get(codec as usize).unwrap_or(&"an unknown codec");
            return Err(format!("it is compressed by {name}: write it with snappy, gzip, zstd or none"));
        }
    };
    if data.len() == size { Ok(data) } else { Err(TRUNCATED.into()) }
}

/// Reads values one after another from `start` in the data, one for each row that has one.
fn plain(into: &mut Values, kind: Kind, data: Vec<u8>, start: usize, present: &[bool]) -> Decoded<()> {
    let mut at = start;
    match into {
        Values::Numbers(numbers) => {
            for &present in present {
                let mut next = |width: usize| {
                    at += width;
                    data.get(at - width..at).ok_or(TRUNCATED)
                };
                numbers.push(match (present, kind) {
                    (false, _) => None,
                    (true, Kind::Int32) => next(4)?.try_into().ok().map(|bytes| i32::from_le_bytes(bytes).into()),
                    (true, _) => next(8)?.try_into().ok().map(i64::from_le_bytes),
                });
            }
        }
        Values::Bytes { data: all, ranges } => {
            let base = all.len();
            for &present in present {
                if !present {
                    ranges.push(None);
                    continue;
                }
                let length: [u8; 4] = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(TRUNCATED)?;
                let (from, to) = (at + 4, at + 4 + u32::from_le_bytes(length) as usize);
                if to > data.len() {
                    return Err(TRUNCATED.into());
                }
                ranges.push(Some(base + from..base + to));
                at = to;
            }
            if base == 0 { *all = data } else { all.extend(data) }
        }
    }
    Ok(())
}

/// Reads places in a dictionary.
fn look_up(into: &mut Values, dictionary: &Values, data: &[u8], present: &[bool]) -> Decoded<()> {
    let count = present.iter().filter(|present| **present).count();
    let (&width, data) = data.split_first().unwrap_or((&0, &[]));
    let mut places = hybrid(data, width.into(), count)?.into_iter();
    for &present in present {
        let place = if present { Some(places.next().ok_or(TRUNCATED)? as usize) } else { None };
        match (&mut *into, dictionary) {
            (Values::Numbers(into), Values::Numbers(known)) => {
                into.push(place.map(|place| known.get(place).copied().flatten().ok_or(TRUNCATED)).transpose()?);
            }
            (Values::Bytes { data, ranges }, Values::Bytes { data: known, ranges: places }) => {
                let range = place.map(|place| places.get(place).cloned().flatten().ok_or(TRUNCATED)).transpose()?;
                ranges.push(range.map(|range| {
                    let start = data.len();
                    data.extend_from_slice(&known[range]);
                    start..data.len()
                }));
            }
            _ => return Err(TRUNCATED.into()),
        }
    }
    Ok(())
}

/// Parquet's mixture of runs of equal numbers and packed numbers of `width` bits.
fn hybrid(mut data: &[u8], width: u32, count: usize) -> Decoded<Vec<u64>> {
    if width > 32 {
        return Err(TRUNCATED.into());
    }
    let mut numbers = Vec::with_capacity(count.min(1 << 20));
    while numbers.len() < count {
        if width == 0 && data.is_empty() {
            numbers.resize(count, 0);
            break;
        }
        let head = varint(&mut data).ok_or(TRUNCATED)?;
        let wanted = count - numbers.len();
        if head & 1 == 0 {
            let bytes = width.div_ceil(8) as usize;
            let (value, rest) = data.split_at_checked(bytes).ok_or(TRUNCATED)?;
            data = rest;
            let value = value.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
            let repeated = (head >> 1).min(wanted as u64) as usize;
            if repeated == 0 {
                return Err(TRUNCATED.into());
            }
            numbers.resize(numbers.len() + repeated, value);
        } else {
            // Groups of eight numbers, the lowest bits first.
            let groups = usize::try_from(head >> 1).map_err(|_| TRUNCATED)?;
            let bytes = groups.checked_mul(width as usize).ok_or(TRUNCATED)?.min(data.len());
            let (packed, rest) = data.split_at(bytes);
            data = rest;
            let available = if width == 0 { wanted } else { packed.len() * 8 / width as usize };
            let taken = available.min(wanted).min(groups.saturating_mul(8));
            if taken == 0 {
                return Err(TRUNCATED.into());
            }
            numbers.extend((0..taken).map(|index| {
                let first = index * width as usize;
                (0..width as usize).fold(0, |number, bit| {
                    let at = first + bit;
                    number | u64::from(packed[at / 8] >> (at % 8) & 1) << bit
                })
            }));
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_and_packed_numbers() {
        // The specification's example: 0 to 7 in three bits.
        assert_eq!(hybrid(&[3, 0b1000_1000, 0b1100_0110, 0b1111_1010], 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hybrid(&[6, 9, 2, 1], 4, 4).unwrap(), [9, 9, 9, 1]);
        assert_eq!(hybrid(&[4, 0x34, 0x12], 13, 2).unwrap(), [0x1234; 2]);
        assert_eq!(hybrid(&[], 0, 3).unwrap(), [0; 3]);
        assert!(hybrid(&[3, 1], 3, 8).is_err());
        assert!(hybrid(&[0, 1], 3, 8).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), rows in 0usize..300, encoding in 0i64..9) {
            for kind in [Kind::Int64, Kind::Bytes] {
                for (page, optional) in [(PageKind::Data, 0), (PageKind::Data, 2), (PageKind::Data2, 1)] {
                    let mut decoder = Decoder::new(Column { kind, optional, codec: 0 });
                    let size = bytes.len();
                    let header =
                        Header { kind: page, rows, encoding, stored: size, size, levels: size / 3, compressed: true };
                    let dictionary = Header { kind: PageKind::Dictionary, rows: 2, levels: 0, ..header };
                    let _ = decoder.page(dictionary, &bytes);
                    let _ = decoder.page(header, &bytes);
                    let _ = Header::read(&mut &bytes[..]);
                }
            }
        }
    }
}
