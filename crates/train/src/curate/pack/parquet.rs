//! Hugging Face's shards: Parquet files with the columns that `datasets` writes for images.

use std::io;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::{Hashed, Packed, Writer};

/// As `datasets` lays an image and a label out.
const SCHEMA: &str = "message schema {
    OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
    OPTIONAL INT64 label;
}";

/// Rows a group: `datasets`' number for images, so that a reader need not take in more to reach one.
const GROUP: usize = 100;

pub(super) struct Parquet {
    file: SerializedFileWriter<Hashed>,
    rows: Vec<Packed>,
}

impl Parquet {
    /// The names of the classes go into the file's metadata, where `datasets` looks for them.
    pub(super) fn new(out: Hashed, classes: &[String]) -> io::Result<Self> {
        let features = json!({ "image": { "_type": "Image" }, "label": { "names": classes, "_type": "ClassLabel" } });
        let info = json!({ "info": { "features": features } }).to_string();
        let properties = WriterProperties::builder()
            .set_created_by(concat!("mbconv version ", env!("CARGO_PKG_VERSION")).into())
            .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".into(), info)]))
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let schema = parse_message_type(SCHEMA).map_err(from_parquet)?;
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(from_parquet)?;
        Ok(Self { file, rows: Vec::new() })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.rows);
        let count = rows.len();
        let labels: Vec<i64> = rows.iter().map(|row| row.label as i64).collect();
        let (images, paths): (Vec<ByteArray>, Vec<ByteArray>) =
            rows.into_iter().map(|row| (ByteArray::from(row.bytes), ByteArray::from(row.name.into_bytes()))).unzip();
        let mut texts = [images, paths].into_iter();
        let mut group = self.file.next_row_group()?;
        while let Some(mut column) = group.next_column()? {
            match column.untyped() {
                // No value is null: all definition levels are the highest.
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    let values = texts.next().unwrap_or_default();
                    writer.write_batch(&values, Some(&vec![2; count]), None)?;
                }
                ColumnWriter::Int64ColumnWriter(writer) => {
                    writer.write_batch(&labels, Some(&vec![1; count]), None)?;
                }
                _ => return Err(ParquetError::General("a column of another type".into())),
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }
}

impl Writer for Parquet {
    fn add(&mut self, image: Packed) -> io::Result<()> {
        self.rows.push(image);
        if self.rows.len() == GROUP { self.write_group().map_err(from_parquet) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<Hashed> {
        if !self.rows.is_empty() {
            self.write_group().map_err(from_parquet)?;
        }
        self.file.into_inner().map_err(from_parquet)
    }
}

fn from_parquet(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
