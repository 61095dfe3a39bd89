//! Writes Hugging Face's Parquet shards, with the columns that `datasets` uses for images.
//!
//! Only a simple part of the format (<https://github.com/apache/parquet-format>) is used: version-1
//! pages with plain values, without compression because images do not compress, and metadata in
//! Thrift's compact protocol.

use std::io::{self, Write};

use serde_json::json;

use crate::formats::parquet::thrift::{Fields, string, unsigned, zigzag};
use crate::tools::pack::writer::{Hashed, Packed, Writer};

/// Rows per row group. `datasets` uses the same value for images, so that readers load little data
/// to reach a single row.
const GROUP: usize = 100;

/// Maximum size of a page in bytes before the next one starts.
const PAGE: usize = 1 << 20;

const MAGIC: &[u8; 4] = b"PAR1";

// Constants of the Parquet format.
const INT64: i32 = 2;
const BYTE_ARRAY: i32 = 6;
const OPTIONAL: i32 = 1;
const UTF8: i32 = 0;
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const UNCOMPRESSED: i32 = 0;
const DATA_PAGE: i32 = 0;

/// A column: its path in the schema, type, number of optional levels, and an encoder of its values.
struct Column {
    path: &'static [&'static str],
    kind: i32,
    optional: u8,
    value: fn(&Packed, &mut Vec<u8>),
}

const COLUMNS: [Column; 3] = [
    Column { path: &["image", "bytes"], kind: BYTE_ARRAY, optional: 2, value: |row, out| text(&row.bytes, out) },
    Column {
        path: &["image", "path"],
        kind: BYTE_ARRAY,
        optional: 2,
        value: |row, out| text(row.name.as_bytes(), out),
    },
    Column {
        path: &["label"],
        kind: INT64,
        optional: 1,
        value: |row, out| out.extend((row.label as i64).to_le_bytes()),
    },
];

/// Appends a byte string in plain encoding.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Writer of a Parquet file.
pub(crate) struct Parquet {
    out: Hashed,
    /// Metadata in which `datasets` looks for the features.
    info: String,
    /// Rows of the current, unwritten group.
    rows: Vec<Packed>,
    /// Metadata of the written groups.
    groups: Vec<Vec<u8>>,
    written: i64,
}

impl Parquet {
    /// Creates a writer. The class names are stored in the metadata for `datasets`.
    pub(crate) fn new(mut out: Hashed, classes: &[String]) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let features = json!({ "image": { "_type": "Image" }, "label": { "names": classes, "_type": "ClassLabel" } });
        let info = json!({ "info": { "features": features } }).to_string();
        Ok(Self { out, info, rows: Vec::new(), groups: Vec::new(), written: 0 })
    }

    /// Writes the collected rows as a row group.
    fn write_group(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let start = self.out.bytes;
        let columns = COLUMNS.iter().map(|column| self.write_column(column, &rows)).collect::<io::Result<Vec<_>>>()?;
        let count = rows.len() as i64;
        let bytes = (self.out.bytes - start) as i64;
        self.groups.push(Fields::new().structs(1, columns).i64(2, bytes).i64(3, count).end());
        self.written += count;
        Ok(())
    }

    /// Writes a column of a group and returns its metadata.
    fn write_column(&mut self, column: &Column, rows: &[Packed]) -> io::Result<Vec<u8>> {
        let start = self.out.bytes as i64;
        let (mut values, mut count) = (Vec::new(), 0);
        for (place, row) in rows.iter().enumerate() {
            (column.value)(row, &mut values);
            count += 1;
            if values.len() >= PAGE || place + 1 == rows.len() {
                self.write_page(column, &values, count)?;
                values.clear();
                count = 0;
            }
        }
        let bytes = self.out.bytes as i64 - start;
        let encodings = [PLAIN, RLE].map(|encoding| unsigned(zigzag(encoding.into())));
        let names = column.path.iter().map(|name| string(name));
        let description = Fields::new()
            .i32(1, column.kind)
            .list(2, Fields::I32, encodings)
            .list(3, Fields::BINARY, names)
            .i32(4, UNCOMPRESSED)
            .i64(5, rows.len() as i64)
            .i64(6, bytes)
            .i64(7, bytes)
            .i64(9, start);
        Ok(Fields::new().i64(2, start).inner(3, description).end())
    }

    /// Writes a data page of `count` values.
    fn write_page(&mut self, column: &Column, values: &[u8], count: usize) -> io::Result<()> {
        // No value is null: one run of the maximum definition level.
        let mut levels = unsigned((count as u64) << 1);
        levels.push(column.optional);
        let size = 4 + levels.len() + values.len();
        let size = i32::try_from(size).map_err(|_| io::Error::other("an image is larger than 2 GiB"))?;
        let data = Fields::new().i32(1, count as i32).i32(2, PLAIN).i32(3, RLE).i32(4, RLE);
        let header = Fields::new().i32(1, DATA_PAGE).i32(2, size).i32(3, size).inner(5, data).end();
        self.out.write_all(&header)?;
        self.out.write_all(&(levels.len() as u32).to_le_bytes())?;
        self.out.write_all(&levels)?;
        self.out.write_all(values)
    }
}

impl Writer for Parquet {
    fn add(&mut self, image: Packed) -> io::Result<()> {
        self.rows.push(image);
        if self.rows.len() == GROUP { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<Hashed> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        let element = |name: &str, kind: Option<i32>, children: i32| {
            let fields = Fields::new();
            let fields = if let Some(kind) = kind { fields.i32(1, kind) } else { fields };
            let fields = if name == "schema" { fields } else { fields.i32(3, OPTIONAL) };
            let fields = fields.text(4, name);
            let fields = if children > 0 { fields.i32(5, children) } else { fields };
            if name == "path" { fields.i32(6, UTF8).end() } else { fields.end() }
        };
        let schema = [
            element("schema", None, 2),
            element("image", None, 2),
            element("bytes", Some(BYTE_ARRAY), 0),
            element("path", Some(BYTE_ARRAY), 0),
            element("label", Some(INT64), 0),
        ];
        let note = Fields::new().text(1, "huggingface").text(2, &self.info).end();
        let description = Fields::new()
            .i32(1, 1)
            .structs(2, schema)
            .i64(3, self.written)
            .structs(4, std::mem::take(&mut self.groups))
            .structs(5, [note])
            .text(6, concat!("mbconv version ", env!("CARGO_PKG_VERSION")))
            .end();
        self.out.write_all(&description)?;
        self.out.write_all(&(description.len() as u32).to_le_bytes())?;
        self.out.write_all(MAGIC)?;
        Ok(self.out)
    }
}
