//! Parquet metadata: columns, row groups, and the byte ranges of their pages.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mbconv_files::read_exact_at;

use crate::error::DataError;
use crate::formats::parquet::PART;
use crate::formats::parquet::page::{Column, Decoder, Header, Kind, PageKind, Values, most_decompressed};
use crate::formats::parquet::thrift::Value;

/// A column chunk: the values of one column in one row group.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub column: Column,
    pub bytes: Range<u64>,
    pub rows: usize,
    /// Decompressed size in bytes.
    pub size: usize,
}

/// Consecutive pages of a chunk with its dictionary: the unit of decoding.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub column: Column,
    /// The dictionary, if any, then the pages.
    pub bytes: Vec<Range<u64>>,
    pub rows: usize,
    pub size: usize,
}

/// A leaf column of the schema, with its path.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub path: Vec<Arc<str>>,
    /// Parquet's physical type.
    kind: i64,
    /// Logical type, if values are not plain numbers or bytes.
    meaning: Option<&'static str>,
    optional: u32,
    /// Number of lists that contain the column.
    pub repeated: u32,
}

impl Leaf {
    /// Returns the type of the values, if it is supported.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind {
            _ if self.repeated > 1 || self.meaning.is_some() => None,
            0 => Some(Kind::Bool),
            1 => Some(Kind::Int32),
            2 => Some(Kind::Int64),
            4 => Some(Kind::Float),
            5 => Some(Kind::Double),
            6 => Some(Kind::Bytes),
            _ => None,
        }
    }

    /// Returns the type name for messages.
    pub fn type_name(&self) -> String {
        const NAMES: [&str; 8] =
            ["bool", "int32", "int64", "int96", "float", "double", "binary", "fixed-length binary"];
        let name = usize::try_from(self.kind).ok().and_then(|kind| NAMES.get(kind)).copied();
        let name = self.meaning.or(name).unwrap_or("an unknown type");
        (0..self.repeated).fold(name.to_string(), |name, _| format!("list of {name}"))
    }
}

/// Returns the logical type, if values are not plain numbers or bytes.
fn meaning(element: &Value) -> Option<&'static str> {
    const CONVERTED: [(i64, &str); 8] = [
        (1, "map"),
        (5, "decimal"),
        (6, "date"),
        (7, "time"),
        (8, "time"),
        (9, "timestamp"),
        (10, "timestamp"),
        (21, "interval"),
    ];
    const LOGICAL: [(i64, &str); 6] =
        [(5, "decimal"), (6, "date"), (7, "time"), (8, "timestamp"), (14, "uuid"), (15, "float16")];
    let converted = element.number(6);
    let logical = |number: i64| element.field(10).is_some_and(|logical| logical.field(number).is_some());
    let by_number = CONVERTED.iter().find(|(number, _)| Some(*number) == converted);
    by_number.or_else(|| LOGICAL.iter().find(|(number, _)| logical(*number))).map(|(_, name)| *name)
}

/// Metadata of a file.
pub(crate) struct Description {
    pub leaves: Vec<Leaf>,
    /// Chunks by row group and column.
    groups: Vec<Vec<Chunk>>,
    /// The value of the metadata key `huggingface`, if present.
    pub huggingface: Option<String>,
}

/// Maximum size of the metadata in bytes.
const MAX_METADATA: u64 = 512 << 20;

/// Returns the maximum number of rows of a file of this length. A row with an image takes at least
/// a byte, except in a small file of equal images. Rows without values take none, so the metadata
/// could claim any number of them.
fn most_rows(length: u64) -> u64 {
    length.saturating_add(1 << 16)
}

impl Description {
    /// Reads the metadata at the end of a file.
    ///
    /// # Errors
    /// A file that cannot be read, is not Parquet or is truncated.
    pub fn read(path: &Path, file: &File) -> Result<Description, DataError> {
        let malformed = |why: &str| DataError::Malformed { path: path.into(), why: why.into() };
        let failed = |source| DataError::io(path, source);
        let length = file.metadata().map_err(failed)?.len();
        let mut magic = [0; 4];
        let mut tail = [0; 8];
        if length < 12 {
            return Err(malformed("it is not a Parquet file: it has less than 12 bytes"));
        }
        read_exact_at(file, &mut magic, 0).map_err(failed)?;
        read_exact_at(file, &mut tail, length - 8).map_err(failed)?;
        match (&magic, &tail[4..]) {
            (b"PAR1", b"PAR1") => {}
            (b"PAR1", b"PARE") | (b"PARE", _) => return Err(malformed("it is encrypted")),
            (b"PAR1", _) => {
                return Err(malformed("it is truncated: the metadata at the end is missing; download it again"));
            }
            _ => return Err(malformed("it is not a Parquet file")),
        }
        let size = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        let start = (length - 8).checked_sub(size).filter(|_| size <= MAX_METADATA);
        let start = start.ok_or_else(|| malformed("its metadata is longer than the file"))?;
        let mut bytes = vec![0; size as usize];
        read_exact_at(file, &mut bytes, start).map_err(failed)?;
        let value = Value::read(&mut &bytes[..]).ok_or_else(|| malformed("its metadata is damaged"))?;
        let description = Self::of(&value, length).ok_or_else(|| malformed("its metadata is inconsistent"))?;
        let rows =
            description.groups.iter().filter_map(|group| group.first()).map(|chunk| chunk.rows as u128).sum::<u128>();
        if rows > most_rows(length).into() {
            return Err(malformed(&format!("its metadata claims {rows} rows, more than {length} bytes can contain")));
        }
        Ok(description)
    }

    /// Converts the Thrift structure; returns `None` if it is inconsistent.
    fn of(value: &Value, length: u64) -> Option<Description> {
        let mut elements = value.list(2).iter();
        let root = elements.next()?;
        let mut leaves = Vec::new();
        collect(&mut elements, root.size(5).unwrap_or(0), &Leaf::root(), &mut leaves, DEPTH)?;
        let group = |group: &Value| -> Option<Vec<Chunk>> {
            let rows = group.size(3)?;
            let chunk = |(leaf, chunk): (&Leaf, &Value)| {
                let meta = chunk.field(3)?;
                // The dictionary comes before the data.
                let data = u64::try_from(meta.number(9)?).ok()?;
                let dictionary = meta.number(11).and_then(|at| u64::try_from(at).ok()).filter(|&at| at > 0);
                let start = dictionary.map_or(data, |dictionary| dictionary.min(data));
                let end = start.checked_add(u64::try_from(meta.number(7)?).ok()?)?;
                let kind = leaf.kind().unwrap_or(Kind::Bytes);
                let (optional, repeated) = (leaf.optional, leaf.repeated > 0);
                let column = Column { kind, optional, repeated, codec: meta.number(4)? };
                (end <= length).then_some(Chunk { column, bytes: start..end, rows, size: meta.size(6)? })
            };
            let columns = group.list(1);
            (columns.len() == leaves.len()).then(|| leaves.iter().zip(columns).map(chunk).collect())?
        };
        let groups = value.list(4).iter().map(group).collect::<Option<_>>()?;
        let noted = value.list(5).iter().find(|pair| pair.text(1) == Some("huggingface"));
        let huggingface = noted.and_then(|pair| pair.text(2)).map(str::to_string);
        Some(Description { leaves, groups, huggingface })
    }

    /// Returns the chunks of a column in the order of row groups.
    pub fn chunks(&self, leaf: usize) -> impl Iterator<Item = &Chunk> {
        self.groups.iter().map(move |group| &group[leaf])
    }
}

/// Maximum nesting of structures.
const DEPTH: usize = 16;

impl Leaf {
    fn root() -> Leaf {
        Leaf { path: Vec::new(), kind: -1, meaning: None, optional: 0, repeated: 0 }
    }
}

/// Collects the columns below an element of the schema, in which each element precedes its
/// children.
fn collect<'a>(
    elements: &mut impl Iterator<Item = &'a Value<'a>>,
    children: usize,
    above: &Leaf,
    leaves: &mut Vec<Leaf>,
    depth: usize,
) -> Option<()> {
    depth.checked_sub(1)?;
    for _ in 0..children {
        let element = elements.next()?;
        let mut leaf = above.clone();
        leaf.path.push(element.text(4)?.into());
        match element.number(3) {
            Some(1) => leaf.optional += 1,
            // Lists may be empty, which adds a definition level.
            Some(2) => (leaf.optional, leaf.repeated) = (leaf.optional + 1, leaf.repeated + 1),
            _ => {}
        }
        match element.size(5) {
            Some(children) if children > 0 => collect(elements, children, &leaf, leaves, depth - 1)?,
            _ => {
                leaf.kind = element.number(1)?;
                leaf.meaning = meaning(element);
                leaves.push(leaf);
            }
        }
    }
    Some(())
}

/// Maximum size of a page header in bytes; it may contain the minimum and maximum values.
const HEADER: usize = 1 << 16;

impl Chunk {
    /// Groups the pages into parts of about `wanted` bytes; returns one part if the chunk is not
    /// much larger.
    ///
    /// # Errors
    /// I/O errors; pages that contradict the metadata.
    pub fn parts(&self, file: &File, wanted: usize) -> Result<Vec<Part>, String> {
        let Chunk { column, bytes, rows, size } = self.clone();
        if size <= wanted {
            return Ok(vec![Part { column, bytes: vec![bytes], rows, size }]);
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut dictionary = None;
        let mut at = bytes.start;
        let mut seen = 0;
        while seen < rows && at < bytes.end {
            let mut head = vec![0; HEADER.min((bytes.end - at) as usize)];
            read_exact_at(file, &mut head, at).map_err(|error| error.to_string())?;
            let mut rest = &head[..];
            let header = Header::read(&mut rest).ok_or("a page header is damaged")?;
            let end = at + (head.len() - rest.len()) as u64 + header.stored as u64;
            let page = at..end;
            at = end;
            if at > bytes.end {
                return Err("a page is longer than its column chunk".into());
            }
            match header.kind {
                PageKind::Dictionary => dictionary = Some(page),
                PageKind::Other => {}
                PageKind::Data | PageKind::Data2 => {
                    self.column.check_rows(header, rows - seen)?;
                    seen += header.rows;
                    match parts.last_mut().filter(|part| part.size + header.size <= wanted) {
                        Some(part) => {
                            part.rows += header.rows;
                            part.size += header.size;
                            part.bytes.push(page);
                        }
                        None => {
                            let bytes = dictionary.iter().cloned().chain([page]).collect();
                            parts.push(Part { column, bytes, rows: header.rows, size: header.size });
                        }
                    }
                }
            }
        }
        if seen == rows { Ok(parts) } else { Err("the number of rows in its pages differs from its metadata".into()) }
    }

    /// Decodes all values. Also returns the index of the first value of each list in a column of
    /// lists; empty and missing lists have one value, null.
    ///
    /// # Errors
    /// I/O errors; damaged pages.
    pub fn read(&self, file: &File) -> Result<(Values, Option<Vec<usize>>), String> {
        let Chunk { column, bytes, rows, size } = self.clone();
        Part { column, bytes: vec![bytes], rows, size }.decode(file)
    }
}

impl Part {
    /// Decodes the values.
    ///
    /// # Errors
    /// I/O errors; damaged pages.
    pub fn read(&self, file: &File) -> Result<Values, String> {
        Ok(self.decode(file)?.0)
    }

    fn decode(&self, file: &File) -> Result<(Values, Option<Vec<usize>>), String> {
        let stored = self.bytes.iter().map(|range| range.end - range.start).sum();
        if self.size as u64 > most_decompressed(stored) {
            return Err(format!("its metadata claims {} bytes decompressed from {stored}", self.size));
        }
        let mut decoder = Decoder::new(self.column, self.size.max(PART));
        for range in &self.bytes {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            read_exact_at(file, &mut bytes, range.start).map_err(|error| error.to_string())?;
            let mut rest = &bytes[..];
            // The last list may continue on the next page.
            while !rest.is_empty() && (decoder.rows() < self.rows || self.column.repeated) {
                let header = Header::read(&mut rest).ok_or("a page header is damaged")?;
                let (page, after) = rest.split_at_checked(header.stored).ok_or("a page is truncated")?;
                if matches!(header.kind, PageKind::Data | PageKind::Data2) {
                    self.column.check_rows(header, self.rows.saturating_sub(decoder.rows()))?;
                }
                decoder.page(header, page)?;
                rest = after;
            }
        }
        match decoder.rows() {
            found if found == self.rows => Ok(decoder.finish()),
            found => Err(format!("found {found} rows instead of {}", self.rows)),
        }
    }
}

/// Opens a file for each read: open files are limited, and reads are large.
pub(crate) fn open(path: &PathBuf) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::io(path, source))
}
