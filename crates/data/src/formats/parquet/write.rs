//! Writes Parquet files column by column, one row group after another.
//!
//! Only a simple part of the format (<https://github.com/apache/parquet-format>) is used: version-1
//! pages with plain values, without compression, and metadata in Thrift's compact protocol. Memory
//! holds one page and the metadata of the row groups.

use std::io::{self, Write};

use crate::formats::parquet::thrift::{Fields, string, unsigned, zigzag};

const MAGIC: &[u8; 4] = b"PAR1";

// Constants of the Parquet format.
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const UNCOMPRESSED: i32 = 0;
const DATA_PAGE: i32 = 0;

/// The physical type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Physical {
    /// Integers of 64 bits, little-endian.
    Int64 = 2,
    /// Numbers of 32 bits, little-endian.
    Float = 4,
    /// Byte strings, each after its length as a 32-bit number (see [`append_bytes`]).
    ByteArray = 6,
}

/// Number of values of an element of the schema in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Exactly one.
    Required = 0,
    /// None (null) or one.
    Optional = 1,
    /// Any number.
    Repeated = 2,
}

/// The meaning of an element's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Text in UTF-8.
    Utf8 = 0,
    /// A list, whose only child is repeated.
    List = 3,
}

/// An element of the schema: a column, or a group of the elements that follow it.
#[derive(Clone, Copy, Debug)]
pub struct Element {
    /// Name.
    pub name: &'static str,
    /// Number of values in the parent.
    pub repetition: Repetition,
    /// Type of a column's values; `None` for a group.
    pub physical: Option<Physical>,
    /// Meaning, if values are not plain numbers or bytes.
    pub meaning: Option<Meaning>,
    /// Number of direct children of a group.
    pub children: i32,
}

impl Element {
    /// A column of the given type.
    pub const fn column(name: &'static str, repetition: Repetition, physical: Physical) -> Self {
        Self { name, repetition, physical: Some(physical), meaning: None, children: 0 }
    }

    /// A group of the next `children` elements.
    pub const fn group(name: &'static str, repetition: Repetition, children: i32) -> Self {
        Self { name, repetition, physical: None, meaning: None, children }
    }

    /// Sets the meaning.
    pub const fn with(self, meaning: Meaning) -> Self {
        Self { meaning: Some(meaning), ..self }
    }

    fn encode(&self) -> Vec<u8> {
        let fields = Fields::new();
        let fields = if let Some(physical) = self.physical { fields.i32(1, physical as i32) } else { fields };
        let fields = fields.i32(3, self.repetition as i32).text(4, self.name);
        let fields = if self.children > 0 { fields.i32(5, self.children) } else { fields };
        if let Some(meaning) = self.meaning { fields.i32(6, meaning as i32).end() } else { fields.end() }
    }
}

/// A column: its path in the schema, and the type of its values.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// Names of the groups that contain the column, then its own.
    pub path: &'static [&'static str],
    /// Type of the values.
    pub physical: Physical,
}

/// Levels of values, 0 or more, as runs of equal levels.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    runs: Vec<(u8, u64)>,
    count: u64,
}

impl Levels {
    /// Appends `count` equal levels.
    pub fn push(&mut self, level: u8, count: usize) {
        self.count += count as u64;
        match self.runs.last_mut() {
            _ if count == 0 => {}
            Some((last, length)) if *last == level => *length += count as u64,
            _ => self.runs.push((level, count as u64)),
        }
    }

    /// Returns the levels, preceded by their size in bytes; nothing if there are none.
    fn encode(&self) -> Vec<u8> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut runs = Vec::new();
        for &(level, count) in &self.runs {
            runs.extend(unsigned(count << 1));
            runs.push(level);
        }
        [&(runs.len() as u32).to_le_bytes()[..], &runs].concat()
    }
}

/// Values of consecutive rows of a column.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Number of values, including null.
    pub count: usize,
    /// Repetition levels of all values, empty for a column outside of lists: 0 for the first value
    /// of a row, 1 for the others.
    pub repetition: Levels,
    /// Definition levels of all values, empty if neither the column nor a group is optional or
    /// repeated: the number of optional and repeated elements of the path that are present.
    pub definition: Levels,
    /// Values that are not null, in plain encoding.
    pub values: Vec<u8>,
}

/// Appends a byte string in plain encoding.
pub fn append_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Writer of a Parquet file.
///
/// For each row group, [`write_column`](Self::write_column) must be called once per column of the
/// schema, in order, then [`end_group`](Self::end_group).
pub struct FileWriter<W> {
    out: W,
    /// Bytes written so far.
    at: u64,
    schema: &'static [Element],
    /// Metadata of the columns of the current group, and its first byte.
    columns: Vec<Vec<u8>>,
    start: u64,
    /// Metadata of the written groups.
    groups: Vec<Vec<u8>>,
    rows: i64,
}

impl<W: Write> FileWriter<W> {
    /// Creates a writer. The first element of `schema` is the root, a group.
    ///
    /// # Errors
    /// I/O errors.
    pub fn new(out: W, schema: &'static [Element]) -> io::Result<Self> {
        let mut this = Self { out, at: 0, schema, columns: Vec::new(), start: 4, groups: Vec::new(), rows: 0 };
        this.write(MAGIC)?;
        Ok(this)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes the next column of the current group.
    ///
    /// # Errors
    /// I/O errors; a page of 2 GiB or more.
    pub fn write_column(&mut self, leaf: &Leaf, pages: impl IntoIterator<Item = Page>) -> io::Result<()> {
        let (start, mut count) = (self.at as i64, 0);
        for page in pages {
            self.write_page(&page)?;
            count += page.count as i64;
        }
        let bytes = self.at as i64 - start;
        let encodings = [PLAIN, RLE].map(|encoding| unsigned(zigzag(encoding.into())));
        let description = Fields::new()
            .i32(1, leaf.physical as i32)
            .list(2, Fields::I32, encodings)
            .list(3, Fields::BINARY, leaf.path.iter().map(|name| string(name)))
            .i32(4, UNCOMPRESSED)
            .i64(5, count)
            .i64(6, bytes)
            .i64(7, bytes)
            .i64(9, start);
        self.columns.push(Fields::new().i64(2, start).inner(3, description).end());
        Ok(())
    }

    fn write_page(&mut self, page: &Page) -> io::Result<()> {
        let levels = [page.repetition.encode(), page.definition.encode()].concat();
        let size = i32::try_from(levels.len() + page.values.len());
        let size = size.map_err(|_| io::Error::other("a value is larger than 2 GiB"))?;
        let data = Fields::new().i32(1, page.count as i32).i32(2, PLAIN).i32(3, RLE).i32(4, RLE);
        let header = Fields::new().i32(1, DATA_PAGE).i32(2, size).i32(3, size).inner(5, data).end();
        self.write(&header)?;
        self.write(&levels)?;
        self.write(&page.values)
    }

    /// Ends the current group of `rows` rows.
    pub fn end_group(&mut self, rows: usize) {
        let (columns, bytes) = (std::mem::take(&mut self.columns), (self.at - self.start) as i64);
        self.groups.push(Fields::new().structs(1, columns).i64(2, bytes).i64(3, rows as i64).end());
        self.rows += rows as i64;
        self.start = self.at;
    }

    /// Writes the metadata, with `notes` as names and values, and flushes the file.
    ///
    /// # Errors
    /// I/O errors.
    pub fn finish(&mut self, notes: &[(&str, &str)]) -> io::Result<()> {
        let description = Fields::new()
            .i32(1, 1)
            .structs(2, self.schema.iter().map(Element::encode))
            .i64(3, self.rows)
            .structs(4, std::mem::take(&mut self.groups));
        let notes: Vec<Vec<u8>> =
            notes.iter().map(|(name, value)| Fields::new().text(1, name).text(2, value).end()).collect();
        let description = if notes.is_empty() { description } else { description.structs(5, notes) };
        let description = description.text(6, concat!("mbconv version ", env!("CARGO_PKG_VERSION"))).end();
        self.write(&description)?;
        self.write(&(description.len() as u32).to_le_bytes())?;
        self.write(MAGIC)?;
        self.out.flush()
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_levels_are_one_run() {
        let mut levels = Levels::default();
        assert!(levels.encode().is_empty());
        [(0, 1), (1, 70), (1, 30), (0, 0), (1, 0)].iter().for_each(|&(level, count)| levels.push(level, count));
        // Length; one 0; one hundred 1s.
        assert_eq!(levels.encode(), [5, 0, 0, 0, 2, 0, 0xC8, 1, 1]);
    }
}
