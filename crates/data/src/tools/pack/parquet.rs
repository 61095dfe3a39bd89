//! Writes Hugging Face's Parquet shards, with the columns that `datasets` uses for images. They are
//! not compressed, because images do not compress.

use std::io;

use serde_json::json;

use crate::formats::parquet::write::Physical::{ByteArray, Int64};
use crate::formats::parquet::write::Repetition::{Optional, Required};
use crate::formats::parquet::write::{Element, FileWriter, Leaf, Meaning, Page, append_bytes};
use crate::tools::pack::writer::{Hashed, Packed, Writer};

/// Rows per row group. `datasets` uses the same value for images, so that readers load little data
/// to reach a single row.
const GROUP: usize = 100;

/// Maximum size of a page in bytes before the next one starts.
const PAGE: usize = 1 << 20;

const SCHEMA: [Element; 5] = [
    Element::group("schema", Required, 2),
    Element::group("image", Optional, 2),
    Element::column("bytes", Optional, ByteArray),
    Element::column("path", Optional, ByteArray).with(Meaning::Utf8),
    Element::column("label", Optional, Int64),
];

/// A column, the number of its optional levels, and an encoder of its values.
struct Column {
    leaf: Leaf,
    optional: u8,
    value: fn(&Packed, &mut Vec<u8>),
}

const COLUMNS: [Column; 3] = [
    Column {
        leaf: Leaf { path: &["image", "bytes"], physical: ByteArray },
        optional: 2,
        value: |row, out| append_bytes(&row.bytes, out),
    },
    Column {
        leaf: Leaf { path: &["image", "path"], physical: ByteArray },
        optional: 2,
        value: |row, out| append_bytes(row.name.as_bytes(), out),
    },
    Column {
        leaf: Leaf { path: &["label"], physical: Int64 },
        optional: 1,
        value: |row, out| out.extend((row.label as i64).to_le_bytes()),
    },
];

impl Column {
    /// Returns the next page, and removes its rows from `rows`.
    fn page(&self, rows: &mut std::slice::Iter<Packed>) -> Option<Page> {
        let mut page = Page::default();
        while page.values.len() < PAGE
            && let Some(row) = rows.next()
        {
            (self.value)(row, &mut page.values);
            page.count += 1;
        }
        // No value is null.
        page.definition.push(self.optional, page.count);
        (page.count > 0).then_some(page)
    }
}

/// Writer of a Parquet file.
pub(crate) struct Parquet {
    file: FileWriter<Hashed>,
    /// Metadata in which `datasets` looks for the features.
    info: String,
    /// Rows of the current, unwritten group.
    rows: Vec<Packed>,
}

impl Parquet {
    /// Creates a writer. The class names are stored in the metadata for `datasets`.
    pub(crate) fn new(out: Hashed, classes: &[String]) -> io::Result<Self> {
        let features = json!({ "image": { "_type": "Image" }, "label": { "names": classes, "_type": "ClassLabel" } });
        let info = json!({ "info": { "features": features } }).to_string();
        Ok(Self { file: FileWriter::new(out, &SCHEMA)?, info, rows: Vec::new() })
    }

    /// Writes the collected rows as a row group.
    fn write_group(&mut self) -> io::Result<()> {
        for column in &COLUMNS {
            let mut rows = self.rows.iter();
            self.file.write_column(&column.leaf, std::iter::from_fn(|| column.page(&mut rows)))?;
        }
        self.file.end_group(self.rows.len());
        self.rows.clear();
        Ok(())
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
        self.file.finish(&[("huggingface", &self.info)])?;
        Ok(self.file.into_inner())
    }
}
