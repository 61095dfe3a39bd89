//! A Parquet file's description: its columns and groups of rows, and the bytes of any of them.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mbconv_files::read_exact_at;

use crate::error::DataError;
use crate::formats::parquet::PART;
use crate::formats::parquet::page::{Column, Decoder, Header, Kind, PageKind, Values, most_decompressed};
use crate::formats::parquet::thrift::Value;

/// Where the values of a group of rows lie, of one column.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub column: Column,
    pub bytes: Range<u64>,
    pub rows: usize,
    /// Bytes, decompressed.
    pub size: usize,
}

/// Neighbouring pages of a chunk, with its dictionary: what is decoded at a time.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub column: Column,
    /// The dictionary, if any, then the pages.
    pub bytes: Vec<Range<u64>>,
    pub rows: usize,
    pub size: usize,
}

/// A column, by the names above it and its own.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub path: Vec<Arc<str>>,
    /// Parquet's number of the type.
    kind: i64,
    /// What the numbers or bytes mean, if not themselves.
    meaning: Option<&'static str>,
    optional: u32,
    /// Lists that the column lies in.
    pub repeated: u32,
}

impl Leaf {
    /// The type of its values, if they are read.
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

    /// What messages call the type.
    pub fn type_name(&self) -> String {
        const NAMES: [&str; 8] =
            ["bool", "int32", "int64", "int96", "float", "double", "binary", "fixed-length binary"];
        let name = usize::try_from(self.kind).ok().and_then(|kind| NAMES.get(kind)).copied();
        let name = self.meaning.or(name).unwrap_or("an unknown type");
        (0..self.repeated).fold(name.to_string(), |name, _| format!("list of {name}"))
    }
}

/// What numbers or bytes mean according to the schema, if they are neither labels nor images as
/// they are.
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

/// A file's description.
pub(crate) struct Description {
    pub leaves: Vec<Leaf>,
    /// A chunk for each group of rows, by column.
    groups: Vec<Vec<Chunk>>,
    /// What its writer noted under this name, if anything.
    pub huggingface: Option<String>,
}

/// The most bytes that a description may have.
const MOST: u64 = 512 << 20;

/// The most rows that a file of this length may have. A row with an image takes a byte or more,
/// except in a small file of equal images; rows without values take none, and a description could
/// claim any number of them.
fn most_rows(length: u64) -> u64 {
    length.saturating_add(1 << 16)
}

impl Description {
    /// Reads the description at the file's end.
    ///
    /// # Errors
    /// A file that cannot be read, is no Parquet or breaks off.
    pub fn read(path: &Path, file: &File) -> Result<Description, DataError> {
        let malformed = |why: &str| DataError::Malformed { path: path.into(), why: why.into() };
        let failed = |source| DataError::io(path, source);
        let length = file.metadata().map_err(failed)?.len();
        let mut magic = [0; 4];
        let mut tail = [0; 8];
        if length < 12 {
            return Err(malformed("it is no Parquet file: it has less than 12 bytes"));
        }
        read_exact_at(file, &mut magic, 0).map_err(failed)?;
        read_exact_at(file, &mut tail, length - 8).map_err(failed)?;
        match (&magic, &tail[4..]) {
            (b"PAR1", b"PAR1") => {}
            (b"PAR1", b"PARE") | (b"PARE", _) => return Err(malformed("it is encrypted")),
            (b"PAR1", _) => {
                return Err(malformed("it breaks off: Parquet's description stands at the end; fetch it again"));
            }
            _ => return Err(malformed("it is no Parquet file")),
        }
        let size = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        let start = (length - 8).checked_sub(size).filter(|_| size <= MOST);
        let start = start.ok_or_else(|| malformed("its description is longer than itself"))?;
        let mut bytes = vec![0; size as usize];
        read_exact_at(file, &mut bytes, start).map_err(failed)?;
        let value = Value::read(&mut &bytes[..]).ok_or_else(|| malformed("its description is damaged"))?;
        let description = Self::of(&value, length).ok_or_else(|| malformed("its description contradicts itself"))?;
        let rows =
            description.groups.iter().filter_map(|group| group.first()).map(|chunk| chunk.rows as u128).sum::<u128>();
        if rows > most_rows(length).into() {
            return Err(malformed(&format!(
                "its description claims {rows} rows, more than its {length} bytes can hold"
            )));
        }
        Ok(description)
    }

    fn of(value: &Value, length: u64) -> Option<Description> {
        let mut elements = value.list(2).iter();
        let root = elements.next()?;
        let mut leaves = Vec::new();
        collect(&mut elements, root.size(5).unwrap_or(0), &Leaf::root(), &mut leaves, DEPTH)?;
        let group = |group: &Value| -> Option<Vec<Chunk>> {
            let rows = group.size(3)?;
            let chunk = |(leaf, chunk): (&Leaf, &Value)| {
                let meta = chunk.field(3)?;
                // The dictionary stands before the data.
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

    /// The chunks of a column, group by group.
    pub fn chunks(&self, leaf: usize) -> impl Iterator<Item = &Chunk> {
        self.groups.iter().map(move |group| &group[leaf])
    }
}

/// Structures within structures.
const DEPTH: usize = 16;

impl Leaf {
    fn root() -> Leaf {
        Leaf { path: Vec::new(), kind: -1, meaning: None, optional: 0, repeated: 0 }
    }
}

/// Collects the columns below an element of the schema, which lists each element before those in
/// it.
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
            // An empty list is another level of what may be absent.
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

/// The most bytes that a page's header is looked for in: it may hold the least and the greatest
/// value.
const HEADER: usize = 1 << 16;

impl Chunk {
    /// Its pages, put together to parts of about `wanted` bytes; one part if it is not much larger.
    ///
    /// # Errors
    /// Whatever the system says; pages that contradict the description.
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
            let header = Header::read(&mut rest).ok_or("a page's header is damaged")?;
            let end = at + (head.len() - rest.len()) as u64 + header.stored as u64;
            let page = at..end;
            at = end;
            if at > bytes.end {
                return Err("a page is longer than its column".into());
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
        if seen == rows { Ok(parts) } else { Err("its pages have other rows than its description says".into()) }
    }

    /// All its values.
    ///
    /// # Errors
    /// Whatever the system says; damage.
    pub fn read(&self, file: &File) -> Result<Values, String> {
        let Chunk { column, bytes, rows, size } = self.clone();
        Part { column, bytes: vec![bytes], rows, size }.read(file)
    }
}

impl Part {
    /// Its values.
    ///
    /// # Errors
    /// Whatever the system says; damage.
    pub fn read(&self, file: &File) -> Result<Values, String> {
        let stored = self.bytes.iter().map(|range| range.end - range.start).sum();
        if self.size as u64 > most_decompressed(stored) {
            return Err(format!("its description claims {} bytes, decompressed from {stored}", self.size));
        }
        let mut decoder = Decoder::new(self.column, self.size.max(PART));
        let mut rows = 0;
        for range in &self.bytes {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            read_exact_at(file, &mut bytes, range.start).map_err(|error| error.to_string())?;
            let mut rest = &bytes[..];
            while !rest.is_empty() && rows < self.rows {
                let header = Header::read(&mut rest).ok_or("a page's header is damaged")?;
                let (page, after) = rest.split_at_checked(header.stored).ok_or("a page breaks off")?;
                if matches!(header.kind, PageKind::Data | PageKind::Data2) {
                    self.column.check_rows(header, self.rows - rows)?;
                    rows += header.rows;
                }
                decoder.page(header, page)?;
                rest = after;
            }
        }
        let values = decoder.finish();
        let found = match &values {
            Values::Numbers(numbers) => numbers.len(),
            Values::Floats(numbers) => numbers.len(),
            Values::Bytes { ranges, .. } => ranges.len(),
        };
        if found == self.rows { Ok(values) } else { Err(format!("{found} rows where there should be {}", self.rows)) }
    }
}

/// A file that is opened when it is needed, anew each time: open files are limited, and reads are
/// large.
pub(crate) fn open(path: &PathBuf) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::io(path, source))
}
