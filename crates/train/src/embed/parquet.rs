//! Features as a Parquet file.

use std::io::{self, Write};

use mbconv_data::parquet::write::Physical::{ByteArray, Float};
use mbconv_data::parquet::write::Repetition::{Optional, Repeated, Required};
use mbconv_data::parquet::write::{Element, FileWriter, Leaf, Meaning, Page, append_bytes};

/// Size of the features in a row group, and in a page, in bytes.
const GROUP: usize = 16 << 20;
const PAGE: usize = 1 << 20;

const SCHEMA: [Element; 6] = [
    Element::group("schema", Required, 3),
    Element::column("path", Required, ByteArray).with(Meaning::Utf8),
    Element::column("label", Optional, ByteArray).with(Meaning::Utf8),
    Element::group("embedding", Required, 1).with(Meaning::List),
    Element::group("list", Repeated, 1),
    Element::column("element", Required, Float),
];

const PATH: Leaf = Leaf { path: &["path"], physical: ByteArray };
const LABEL: Leaf = Leaf { path: &["label"], physical: ByteArray };
const EMBEDDING: Leaf = Leaf { path: &["embedding", "list", "element"], physical: Float };

/// Writer of a Parquet file with the columns `path`, `label` (null if empty) and `embedding`, a
/// list of float32. Memory holds one row group.
pub(super) struct Parquet<W> {
    file: FileWriter<W>,
    rows: usize,
    paths: Page,
    labels: Page,
    embeddings: Vec<Page>,
}

impl<W: Write> Parquet<W> {
    /// Creates a writer.
    pub(super) fn new(out: W) -> io::Result<Self> {
        let file = FileWriter::new(out, &SCHEMA)?;
        let (paths, labels) = Default::default();
        Ok(Self { file, rows: 0, paths, labels, embeddings: Vec::new() })
    }

    /// Appends a row.
    pub(super) fn add(&mut self, path: &str, label: &str, features: &[f32]) -> io::Result<()> {
        self.rows += 1;
        self.paths.count += 1;
        append_bytes(path.as_bytes(), &mut self.paths.values);
        self.labels.count += 1;
        self.labels.definition.push(u8::from(!label.is_empty()), 1);
        if !label.is_empty() {
            append_bytes(label.as_bytes(), &mut self.labels.values);
        }
        if self.embeddings.last().is_none_or(|page| page.values.len() >= PAGE) {
            self.embeddings.push(Page::default());
        }
        if let Some(page) = self.embeddings.last_mut() {
            page.count += features.len();
            page.repetition.push(0, features.len().min(1));
            page.repetition.push(1, features.len().saturating_sub(1));
            page.definition.push(1, features.len());
            page.values.extend(features.iter().flat_map(|value| value.to_le_bytes()));
        }
        if self.rows * size_of_val(features) >= GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> io::Result<()> {
        self.file.write_column(&PATH, [std::mem::take(&mut self.paths)])?;
        self.file.write_column(&LABEL, [std::mem::take(&mut self.labels)])?;
        self.file.write_column(&EMBEDDING, self.embeddings.drain(..))?;
        self.file.end_group(std::mem::take(&mut self.rows));
        Ok(())
    }

    /// Completes the file.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.file.finish(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_tables_have_several_groups_of_whole_rows() {
        let width = GROUP / 4 / 10;
        let mut file = Parquet::new(Vec::new()).unwrap();
        for row in 0..15 {
            file.add(&format!("{row}.jpg"), if row % 2 == 0 { "cat" } else { "" }, &vec![row as f32; width]).unwrap();
            assert!(file.rows < 11 && file.embeddings.len() < 11);
        }
        assert_eq!(file.rows, 4);
        file.finish().unwrap();
        let bytes = file.file.into_inner();
        // Features are stored uncompressed, each row in one piece.
        for row in [0, 7, 14] {
            let values = (row as f32).to_le_bytes().repeat(width);
            let at = bytes.windows(4).position(|window| window == &values[..4]).unwrap();
            assert!(row == 0 || bytes[at..].starts_with(&values), "{row}");
        }
        let names = bytes.windows(5).filter(|window| window == b"0.jpg").count();
        assert_eq!((names, &bytes[..4], &bytes[bytes.len() - 4..]), (2, &b"PAR1"[..], &b"PAR1"[..]));
    }
}
