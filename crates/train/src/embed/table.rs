//! Files of features.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mbconv_files::text::cell;

use super::parquet::Parquet;
use crate::predict::create_part;

/// Length of the header of a `.npy` file, which leaves room for any number of rows.
const HEADER: usize = 128;

/// Errors of writing features.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file extension is none of `.npy`, `.csv` and `.parquet`.
    #[error("{} cannot be written: features are written as .npy, .csv or .parquet", path.display())]
    Extension {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file exists that is not the list of a `.npy` file's rows.
    #[error("{} exists already, and the rows of the .npy file would be listed there", path.display())]
    Occupied {
        /// Path of the list.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// A file of features, written row by row.
///
/// - `.npy`: NumPy's array format, float32 `[images, features]`. A CSV file of the same name lists
///   the paths and labels of the rows.
/// - `.csv`: the columns `path`, `label`, `f0`, `f1` and so on.
/// - `.parquet`: the columns `path`, `label` (null without a label) and `embedding`, a list of
///   float32.
///
/// Rows are written to files with `.part` appended to their names, which are renamed when they are
/// complete and removed otherwise.
pub struct FeatureTable(Form);

enum Form {
    Npy { matrix: Matrix, list: Part<csv::Writer<File>> },
    Csv(Part<csv::Writer<File>>),
    Parquet(Part<Parquet<BufWriter<File>>>),
}

impl FeatureTable {
    /// Creates a file for rows of `width` features.
    ///
    /// # Errors
    /// Returns an error if the extension is unknown, the path exists and is not a regular file, a
    /// file cannot be created, or the list of a new `.npy` file's rows would replace another file.
    pub fn create(path: &Path, width: usize) -> Result<Self, FeatureError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let list = path.with_extension("csv");
        Ok(Self(match extension.as_deref() {
            Some("npy") if list.exists() && !path.exists() => return Err(FeatureError::Occupied { path: list }),
            Some("npy") => Form::Npy { matrix: Matrix::create(path, width)?, list: create_csv(&list, 0)? },
            Some("csv") => Form::Csv(create_csv(path, width)?),
            Some("parquet") => Form::Parquet(Part::create(path, |file| Parquet::new(BufWriter::new(file)))?),
            _ => return Err(FeatureError::Extension { path: path.into() }),
        }))
    }

    /// Appends a row. An unlabeled image has the label "".
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&mut self, path: &str, label: &str, features: &[f32]) -> Result<(), FeatureError> {
        let record = || vec![cell(path).into_owned(), cell(label).into_owned()];
        match &mut self.0 {
            Form::Npy { matrix, list } => {
                matrix.write(features)?;
                list.write(|out| Ok(out.write_record(record())?))
            }
            Form::Csv(table) => {
                let values = features.iter().map(f32::to_string);
                table.write(|out| Ok(out.write_record(record().into_iter().chain(values))?))
            }
            Form::Parquet(file) => file.write(|out| out.add(path, label, features)),
        }
    }

    /// Completes the files and returns their paths.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or renamed.
    pub fn finish(self) -> Result<Vec<PathBuf>, FeatureError> {
        Ok(match self.0 {
            Form::Npy { matrix, list } => vec![matrix.finish()?, list.finish(csv::Writer::flush)?],
            Form::Csv(table) => vec![table.finish(csv::Writer::flush)?],
            Form::Parquet(file) => vec![file.finish(Parquet::finish)?],
        })
    }
}

/// Creates a CSV file with the columns `path`, `label` and `width` features.
fn create_csv(path: &Path, width: usize) -> Result<Part<csv::Writer<File>>, FeatureError> {
    let mut table = Part::create(path, |file| Ok(csv::Writer::from_writer(file)))?;
    let names = (0..width).map(|index| format!("f{index}"));
    let header = ["path", "label"].into_iter().map(String::from).chain(names);
    table.write(|out| Ok(out.write_record(header)?))?;
    Ok(table)
}

/// A `.npy` file.
struct Matrix {
    width: usize,
    rows: u64,
    file: Part<BufWriter<File>>,
}

impl Matrix {
    fn create(path: &Path, width: usize) -> Result<Self, FeatureError> {
        let mut this = Self { width, rows: 0, file: Part::create(path, |file| Ok(BufWriter::new(file)))? };
        this.write_header()?;
        Ok(this)
    }

    fn write(&mut self, features: &[f32]) -> Result<(), FeatureError> {
        self.rows += 1;
        let bytes: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write(|out| out.write_all(&bytes))
    }

    /// Writes the header with the current number of rows.
    fn write_header(&mut self) -> Result<(), FeatureError> {
        let header = npy_header(self.rows, self.width);
        self.file.write(|out| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&header)
        })
    }

    fn finish(mut self) -> Result<PathBuf, FeatureError> {
        self.write_header()?;
        self.file.finish(Write::flush)
    }
}

/// Returns the header of NumPy's format 1.0
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn npy_header(rows: u64, width: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    let length = HEADER - MAGIC.len() - 2;
    let description = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let mut header = [MAGIC, &(length as u16).to_le_bytes()].concat();
    header.extend(format!("{description:<0$}\n", length - 1).bytes());
    header
}

/// A file that is renamed when it is complete, and removed otherwise.
struct Part<W> {
    out: W,
    path: PathBuf,
    part: PathBuf,
}

impl<W> Part<W> {
    fn create(path: &Path, writer: impl FnOnce(File) -> io::Result<W>) -> Result<Self, FeatureError> {
        let created = create_part(path).and_then(|(part, file)| Ok((part, writer(file)?)));
        let (part, out) = created.map_err(|source| FeatureError::Write { path: path.into(), source })?;
        Ok(Self { out, path: path.into(), part })
    }

    fn write(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), FeatureError> {
        write(&mut self.out).map_err(|source| FeatureError::Write { path: self.path.clone(), source })
    }

    /// Completes the file with `flush` and renames it.
    fn finish(mut self, flush: impl FnOnce(&mut W) -> io::Result<()>) -> Result<PathBuf, FeatureError> {
        self.write(flush)?;
        let path = self.path.clone();
        fs::rename(&self.part, &path).map_err(|source| FeatureError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}

impl<W> Drop for Part<W> {
    fn drop(&mut self) {
        // It no longer exists if it was renamed.
        let _ = fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_files_have_their_rows_and_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.npy");
        let mut table = FeatureTable::create(&path, 3).unwrap();
        table.write("a.jpg", "cat", &[1.0, -2.5, 0.0]).unwrap();
        table.write("b,c.jpg", "", &[0.5, 4.0, 1e-9]).unwrap();
        assert_eq!(table.finish().unwrap(), [path.clone(), folder.path().join("e.csv")]);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 2 * 3 * 4);
        // Written by numpy.save for the same array, except for spaces.
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(std::str::from_utf8(&bytes[10..128]).unwrap().trim_end_matches([' ', '\n']), text);
        assert_eq!(bytes[127], b'\n');
        let values: Vec<f32> = bytes[128..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        assert_eq!(values, [1.0, -2.5, 0.0, 0.5, 4.0, 1e-9]);
        let rows = fs::read_to_string(folder.path().join("e.csv")).unwrap();
        assert_eq!(rows, "path,label\na.jpg,cat\n\"b,c.jpg\",\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_list_of_rows_replaces_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let [path, list] = ["photos.npy", "photos.csv"].map(|name| folder.path().join(name));
        fs::write(&list, "a table").unwrap();
        assert!(matches!(FeatureTable::create(&path, 1), Err(FeatureError::Occupied { .. })));
        assert_eq!(fs::read_to_string(&list).unwrap(), "a table");
        // A second run replaces both files of the first.
        fs::write(&path, "features").unwrap();
        FeatureTable::create(&path, 1).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), "path,label\n");
    }

    #[test]
    fn csv_files_contain_the_features() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.csv");
        let mut table = FeatureTable::create(&path, 2).unwrap();
        table.write("a.jpg", "cat", &[1.0, 0.1]).unwrap();
        table.finish().unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "path,label,f0,f1\na.jpg,cat,1,0.1\n");
    }

    #[test]
    fn incomplete_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.npy");
        fs::write(&path, "before").unwrap();
        let mut table = FeatureTable::create(&path, 1).unwrap();
        table.write("a.jpg", "", &[1.0]).unwrap();
        drop(table);
        assert_eq!(fs::read_to_string(path).unwrap(), "before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for name in ["e.feather", "e", "missing/e.npy", "missing/e.parquet"] {
            assert!(FeatureTable::create(&folder.path().join(name), 1).is_err(), "{name}");
        }
    }
}
