//! Decodes pages of a column, as far as image and label columns need it.
//!
//! Format: <https://parquet.apache.org/docs/file-format/data-pages/>. Values are plain or in a
//! dictionary, and lists have one value; pyarrow, and therefore Hugging Face's `datasets`, writes
//! this. The crate `parquet` supports more, but without a page index it reads pages only in order,
//! allocates the size claimed by page headers, and takes minutes to build.
//!
//! Memory is bounded by the file size: rows by its length, decompressed bytes by
//! [`most_decompressed`].

use std::io::Read;
use std::ops::Range;

use crate::formats::parquet::PART;
use crate::formats::parquet::thrift::{Value, varint};

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
}

impl Kind {
    /// Returns the size of a number in bytes.
    fn width(self) -> usize {
        match self {
            Kind::Int32 | Kind::Float => 4,
            _ => 8,
        }
    }
}

/// The properties of a column needed for decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    pub kind: Kind,
    /// Number of optional levels.
    pub optional: u32,
    /// True if the values are in lists.
    pub repeated: bool,
    /// Parquet's compression codec.
    pub codec: i64,
}

impl Column {
    /// Checks that a page has at most `left` rows, the remaining rows of its column. Lists may have
    /// more values than rows.
    ///
    /// # Errors
    /// More rows, or too many values.
    pub fn check_rows(&self, header: Header, left: usize) -> Decoded<()> {
        let most = if self.repeated { MAX_LIST_VALUES } else { left };
        match header.rows <= most {
            true => Ok(()),
            false if self.repeated => Err(format!("a page has {} values, more than {most}", header.rows)),
            false => Err("the number of rows in its pages differs from its metadata".into()),
        }
    }
}

/// Values of rows; `None` for null.
pub(crate) enum Values {
    /// Integers, and Boolean values as 0 and 1.
    Numbers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    /// Byte strings as ranges of `data`.
    Bytes {
        data: Vec<u8>,
        ranges: Vec<Option<Range<usize>>>,
    },
}

/// A page header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: PageKind,
    /// Number of rows of a data page; in a column of lists, of values.
    pub rows: usize,
    encoding: i64,
    /// Size in bytes as stored, and decompressed.
    pub stored: usize,
    pub size: usize,
    /// In version 2: size in bytes of the uncompressed levels at the beginning.
    levels: usize,
    /// In version 2: size of the repetition levels, which are part of `levels`.
    repetitions: usize,
    /// True if the values are compressed.
    compressed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Data,
    Data2,
    Dictionary,
    Other,
}

/// Maximum decompressed size of a page in bytes.
const MAX_PAGE: usize = 2 << 30;

/// Returns the maximum number of bytes that `stored` bytes may decompress to: deflate's maximum
/// ratio, which is used for all codecs because zstd's is unlimited.
pub(crate) fn most_decompressed(stored: u64) -> u64 {
    stored.saturating_mul(1032).max(PART as u64)
}

impl Header {
    /// Reads a header and removes it from `bytes`; returns `None` if it is truncated or invalid.
    pub fn read(bytes: &mut &[u8]) -> Option<Header> {
        let value = Value::read(bytes)?;
        let (size, stored) = (value.size(2)?, value.size(3)?);
        let plain = Header {
            kind: PageKind::Other,
            rows: 0,
            encoding: 0,
            stored,
            size,
            levels: 0,
            repetitions: 0,
            compressed: true,
        };
        let header = match value.number(1)? {
            0 => {
                let page = value.field(5)?;
                Header { kind: PageKind::Data, rows: page.size(1)?, encoding: page.number(2)?, ..plain }
            }
            2 => {
                let page = value.field(7)?;
                Header { kind: PageKind::Dictionary, rows: page.size(1)?, encoding: page.number(2)?, ..plain }
            }
            3 => {
                let page = value.field(8)?;
                let repetitions = page.size(6)?;
                Header {
                    kind: PageKind::Data2,
                    rows: page.size(1)?,
                    encoding: page.number(4)?,
                    levels: page.size(5)?.checked_add(repetitions)?,
                    repetitions,
                    compressed: page.field(7) != Some(&Value::Bool(false)),
                    ..plain
                }
            }
            _ => plain,
        };
        (size <= MAX_PAGE && stored <= MAX_PAGE && size as u64 <= most_decompressed(stored as u64)).then_some(header)
    }
}

/// Decodes the pages of a column in order.
pub(crate) struct Decoder {
    column: Column,
    /// Dictionary values; byte strings are ranges of the data in `values`.
    dictionary: Option<Values>,
    /// The decoded values.
    values: Values,
    /// Index of the first value of each list, in a column of lists.
    starts: Vec<usize>,
    /// Number of bytes that the remaining data pages may decompress to.
    left: usize,
}

type Decoded<T> = Result<T, String>;

const TRUNCATED: &str = "a page is truncated or damaged";

/// Maximum number of list values in a page.
const MAX_LIST_VALUES: usize = 1 << 24;

impl Decoder {
    /// Creates a decoder for data pages of `most` decompressed bytes in total.
    pub fn new(column: Column, most: usize) -> Self {
        Self { column, dictionary: None, values: Values::none(column.kind), starts: Vec::new(), left: most }
    }

    /// Returns the decoded values, and the index of the first value of each list in a column of
    /// lists. Empty and missing lists have one value, null.
    pub fn finish(self) -> (Values, Option<Vec<usize>>) {
        (self.values, self.column.repeated.then_some(self.starts))
    }

    /// Returns the number of rows decoded.
    pub fn rows(&self) -> usize {
        if self.column.repeated { self.starts.len() } else { self.values.len() }
    }

    /// Decodes a page and appends its values.
    pub fn page(&mut self, header: Header, stored: &[u8]) -> Decoded<()> {
        if header.kind == PageKind::Other {
            return Ok(());
        }
        let (levels, packed) = stored.split_at_checked(header.levels).ok_or(TRUNCATED)?;
        let size = header.size.checked_sub(header.levels).ok_or(TRUNCATED)?;
        if header.kind != PageKind::Dictionary {
            self.left = self.left.checked_sub(header.size).ok_or("its pages are larger than its metadata says")?;
        }
        let data = if header.compressed { decompress(packed, size, self.column.codec)? } else { packed.to_vec() };
        if header.kind == PageKind::Dictionary {
            return self.read_dictionary(header, data);
        }
        // Before the values come the repetition levels, if the column contains lists, and the
        // definition levels, if values may be null.
        let mut start = 0;
        let mut levels = match header.kind {
            PageKind::Data2 => Levels::Sized { data: levels, first: header.repetitions },
            _ => Levels::Prefixed { data: &data, at: &mut start },
        };
        if self.column.repeated {
            let repeated = hybrid(levels.next()?, 1, header.rows)?;
            let first = self.values.len();
            self.starts.extend((first..).zip(repeated).filter(|(_, level)| *level == 0).map(|(index, _)| index));
            if self.starts.first() != Some(&0) {
                return Err(TRUNCATED.into());
            }
        } else if let Levels::Sized { data, first } = &mut levels {
            let rest = data.get(*first..).ok_or(TRUNCATED)?;
            (*data, *first) = (rest, rest.len());
        }
        let present = match self.column.optional {
            0 => vec![true; header.rows],
            _ => self.present(levels.next()?, header.rows)?,
        };
        match header.encoding {
            0 => plain(&mut self.values, self.column.kind, data, start, &present),
            3 if self.column.kind == Kind::Bool => truths(&mut self.values, &data[start..], &present),
            2 | 8 => {
                let dictionary = self.dictionary.as_ref().ok_or("a page refers to a missing dictionary")?;
                look_up(&mut self.values, dictionary, &data[start..], &present)
            }
            encoding => Err(format!(
                "its values use Parquet's encoding {encoding}: write them with plain or dictionary encoding"
            )),
        }
    }

    /// Decodes a dictionary page.
    fn read_dictionary(&mut self, header: Header, data: Vec<u8>) -> Decoded<()> {
        // Each dictionary value takes at least one byte.
        if header.rows > data.len() || self.dictionary.is_some() {
            return Err("its dictionary is damaged".into());
        }
        let mut dictionary = Values::none(self.column.kind);
        plain(&mut dictionary, self.column.kind, data, 0, &vec![true; header.rows])?;
        if let (Values::Bytes { data, ranges }, Values::Bytes { data: all, .. }) = (&mut dictionary, &mut self.values) {
            // Rows refer to the dictionary's bytes, which are stored once.
            for range in ranges.iter_mut().flatten() {
                *range = range.start + all.len()..range.end + all.len();
            }
            all.append(data);
        }
        self.dictionary = Some(dictionary);
        Ok(())
    }

    /// Decodes the definition levels: whether each row has a value.
    fn present(&self, levels: &[u8], rows: usize) -> Decoded<Vec<bool>> {
        let width = u32::BITS - self.column.optional.leading_zeros();
        let most = u64::from(self.column.optional);
        Ok(hybrid(levels, width, rows)?.into_iter().map(|level| level == most).collect())
    }
}

/// Reader of the repetition and definition levels before the values of a page.
enum Levels<'a> {
    /// Version 2: the first kind has `first` bytes, the second the rest.
    Sized { data: &'a [u8], first: usize },
    /// Version 1: each kind is preceded by its length.
    Prefixed { data: &'a [u8], at: &'a mut usize },
}

impl<'a> Levels<'a> {
    /// Returns the encoded levels of the next kind.
    fn next(&mut self) -> Decoded<&'a [u8]> {
        match self {
            Levels::Sized { data, first } => {
                let (next, rest) = data.split_at_checked(*first).ok_or(TRUNCATED)?;
                (*data, *first) = (rest, rest.len());
                Ok(next)
            }
            Levels::Prefixed { data, at } => {
                let length = data.get(**at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(TRUNCATED)?;
                let from = **at + 4;
                let to = from + u32::from_le_bytes(*length) as usize;
                **at = to;
                data.get(from..to).ok_or_else(|| TRUNCATED.into())
            }
        }
    }
}

impl Values {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            Values::Numbers(numbers) => numbers.len(),
            Values::Floats(numbers) => numbers.len(),
            Values::Bytes { ranges, .. } => ranges.len(),
        }
    }

    /// Returns an empty list of values of this type.
    fn none(kind: Kind) -> Values {
        match kind {
            Kind::Bool | Kind::Int32 | Kind::Int64 => Values::Numbers(Vec::new()),
            Kind::Float | Kind::Double => Values::Floats(Vec::new()),
            Kind::Bytes => Values::Bytes { data: Vec::new(), ranges: Vec::new() },
        }
    }
}

/// Decompresses a page to exactly `size` bytes.
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
            return Err(format!(
                "it is compressed with {name}: write it with snappy, gzip, zstd or without compression"
            ));
        }
    };
    if data.len() == size { Ok(data) } else { Err(TRUNCATED.into()) }
}

/// Decodes plain values from `start` in the data, one for each row that is not null.
fn plain(into: &mut Values, kind: Kind, data: Vec<u8>, start: usize, present: &[bool]) -> Decoded<()> {
    let mut at = start;
    let mut next = |width: usize| {
        at += width;
        data.get(at - width..at).ok_or(TRUNCATED)
    };
    match into {
        Values::Numbers(numbers) if kind == Kind::Bool => {
            let mut bits = data[start.min(data.len())..].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
            for &present in present {
                let bit = if present { Some(bits.next().ok_or(TRUNCATED)?) } else { None };
                numbers.push(bit.map(i64::from));
            }
        }
        Values::Numbers(numbers) => {
            for &present in present {
                let bytes = if present { Some(next(kind.width())?) } else { None };
                numbers.push(match kind {
                    Kind::Int32 => bytes.and_then(|bytes| Some(i32::from_le_bytes(bytes.try_into().ok()?).into())),
                    _ => bytes.and_then(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?))),
                });
            }
        }
        Values::Floats(numbers) => {
            for &present in present {
                let bytes = if present { Some(next(kind.width())?) } else { None };
                numbers.push(match kind {
                    Kind::Float => bytes.and_then(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?).into())),
                    _ => bytes.and_then(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?))),
                });
            }
        }
        Values::Bytes { data: all, ranges } => {
            let base = all.len();
            let mut at = start;
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

/// Decodes Boolean values in runs, preceded by their total length.
fn truths(into: &mut Values, data: &[u8], present: &[bool]) -> Decoded<()> {
    let count = present.iter().filter(|present| **present).count();
    let mut bits = hybrid(data.get(4..).ok_or(TRUNCATED)?, 1, count)?.into_iter();
    if let Values::Numbers(numbers) = into {
        numbers.extend(present.iter().map(|&present| if present { bits.next().map(|bit| bit as i64) } else { None }));
    }
    Ok(())
}

/// Decodes dictionary indices.
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
            (Values::Floats(into), Values::Floats(known)) => {
                into.push(place.map(|place| known.get(place).copied().flatten().ok_or(TRUNCATED)).transpose()?);
            }
            (Values::Bytes { ranges: into, .. }, Values::Bytes { ranges: known, .. }) => {
                into.push(place.map(|place| known.get(place).cloned().flatten().ok_or(TRUNCATED)).transpose()?);
            }
            _ => return Err(TRUNCATED.into()),
        }
    }
    Ok(())
}

/// Decodes Parquet's hybrid of run-length encoding and bit-packing, with numbers of `width` bits.
fn hybrid(mut data: &[u8], width: u32, count: usize) -> Decoded<Vec<u64>> {
    if width > 32 {
        return Err(TRUNCATED.into());
    }
    let mut numbers = Vec::with_capacity(count);
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
    fn hybrid_encoding_is_decoded() {
        // Example from the specification: 0 to 7 with three bits.
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
            for kind in [Kind::Bool, Kind::Int64, Kind::Float, Kind::Bytes] {
                for (page, optional, repeated) in
                    [(PageKind::Data, 0, false), (PageKind::Data, 2, true), (PageKind::Data2, 1, true)]
                {
                    let mut decoder = Decoder::new(Column { kind, optional, repeated, codec: 0 }, PART);
                    let size = bytes.len();
                    let (levels, repetitions) = (size / 3, size / 6);
                    let header = Header {
                        kind: page, rows, encoding, stored: size, size, levels, repetitions, compressed: true,
                    };
                    let dictionary = Header { kind: PageKind::Dictionary, rows: 2, levels: 0, ..header };
                    let _ = decoder.page(dictionary, &bytes);
                    let _ = decoder.page(header, &bytes);
                    let _ = Header::read(&mut &bytes[..]);
                }
            }
        }
    }
}
