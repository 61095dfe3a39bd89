//! Tables of predictions in files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use mbconv_files::text::cell;

use super::result::{Prediction, Truth};

/// Format of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    JsonLines,
}

impl TableFormat {
    /// Returns the format for a file's extension.
    ///
    /// # Errors
    /// Returns [`TableError::Extension`] for other extensions.
    pub fn of(path: &Path) -> Result<Self, TableError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            _ => Err(TableError::Extension { path: path.into() }),
        }
    }
}

/// Errors of writing a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file extension is not that of a table format.
    #[error("{} is no table by its name: .csv and .jsonl can be written", path.display())]
    Extension {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// A table of predictions. Rows are written to a file with `.part` appended to its name, which is
/// renamed when the table is complete.
///
/// Columns of CSV files: `path`; if the labels are known, `true_label`, `true_index` and `correct`;
/// then `label`, `index` and `probability` of the most probable class, then `label_2`, `index_2`,
/// `probability_2` and so on. Tables of multi-label models have `path`; if the labels are known,
/// `true_labels`; then `labels`, both with classes separated by `|`, and the probability of each
/// class in a column with its name. Text that a spreadsheet would interpret as a formula is
/// prefixed with `'`.
pub struct Table {
    path: PathBuf,
    part: PathBuf,
    rows: Rows,
}

enum Rows {
    Csv(Box<csv::Writer<File>>),
    JsonLines(BufWriter<File>),
}

impl Table {
    /// Creates a table with `top_k` classes per image. If `labelled`, each [`Prediction`] contains
    /// its label.
    ///
    /// # Errors
    /// Returns an error if the extension is unknown, the path exists and is not a regular file, or
    /// the file cannot be created.
    pub fn create(path: &Path, top_k: usize, labelled: bool) -> Result<Self, TableError> {
        Self::with_header(path, header(top_k, labelled))
    }

    /// Creates a table of a multi-label model with these classes. Each [`Prediction`] contains the
    /// probabilities of all classes and, if `labelled`, its labels.
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn create_multi_label(path: &Path, classes: &[String], labelled: bool) -> Result<Self, TableError> {
        let truth = labelled.then(|| "true_labels".to_string());
        let classes = classes.iter().map(|class| cell(class).into_owned());
        Self::with_header(
            path,
            ["path".into()].into_iter().chain(truth).chain(["labels".into()]).chain(classes).collect(),
        )
    }

    fn with_header(path: &Path, header: Vec<String>) -> Result<Self, TableError> {
        let format = TableFormat::of(path)?;
        let failed = |source| TableError::Write { path: path.into(), source };
        let (part, file) = create_part(path).map_err(failed)?;
        let rows = match format {
            TableFormat::Csv => {
                let mut writer = csv::Writer::from_writer(file);
                writer.write_record(header).map_err(|error| failed(error.into()))?;
                Rows::Csv(Box::new(writer))
            }
            TableFormat::JsonLines => Rows::JsonLines(BufWriter::new(file)),
        };
        Ok(Self { path: path.into(), part, rows })
    }

    /// Returns whether the rows are JSON objects.
    pub fn is_json(&self) -> bool {
        matches!(self.rows, Rows::JsonLines(_))
    }

    /// Writes a row.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&mut self, prediction: &Prediction) -> Result<(), TableError> {
        let written = match &mut self.rows {
            Rows::Csv(writer) => writer.write_record(row(prediction)).map_err(io::Error::from),
            Rows::JsonLines(writer) => {
                serde_json::to_value(prediction).map_err(io::Error::from).and_then(|value| writeln!(writer, "{value}"))
            }
        };
        written.map_err(|source| self.failed(source))
    }

    /// Flushes the rows written so far to the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn flush(&mut self) -> Result<(), TableError> {
        let flushed = match &mut self.rows {
            Rows::Csv(writer) => writer.flush(),
            Rows::JsonLines(writer) => writer.flush(),
        };
        flushed.map_err(|source| self.failed(source))
    }

    /// Completes the table, renames the file and returns its path.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or renamed.
    pub fn finish(mut self) -> Result<PathBuf, TableError> {
        self.flush()?;
        fs::rename(&self.part, &self.path).map_err(|source| self.failed(source))?;
        Ok(self.path)
    }

    /// Returns the path of the file before it is renamed.
    pub fn part(&self) -> &Path {
        &self.part
    }

    fn failed(&self, source: io::Error) -> TableError {
        TableError::Write { path: self.path.clone(), source }
    }
}

/// Creates the file that becomes `path` when it is renamed. Returns its path, with `.part` appended.
pub(crate) fn create_part(path: &Path) -> io::Result<(PathBuf, File)> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it exists and is not a regular file"));
    }
    let mut part = path.as_os_str().to_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part)?;
    Ok((part, file))
}

fn header(top_k: usize, labelled: bool) -> Vec<String> {
    let columns = (1..=top_k).flat_map(|rank| {
        let suffix = if rank == 1 { String::new() } else { format!("_{rank}") };
        ["label", "index", "probability"].map(|name| format!("{name}{suffix}"))
    });
    let truth = labelled.then_some(["true_label", "true_index", "correct"]).into_iter().flatten();
    std::iter::once("path").chain(truth).map(String::from).chain(columns).collect()
}

fn row(prediction: &Prediction) -> Vec<String> {
    // Multi-label tables have a column for each class.
    if let (None, Some(probabilities)) = (&prediction.truth, &prediction.probabilities) {
        let joined = |labels: Vec<&str>| cell(&labels.join("|")).into_owned();
        let truth = prediction.true_labels.as_ref().map(|labels| joined(labels.iter().map(|label| &**label).collect()));
        let labels = joined(prediction.predictions.iter().map(|candidate| &*candidate.label).collect());
        let path = cell(&prediction.path).into_owned();
        return [path]
            .into_iter()
            .chain(truth)
            .chain([labels])
            .chain(probabilities.iter().map(f32::to_string))
            .collect();
    }
    let truth = prediction.truth.iter().flat_map(|Truth { true_label, true_index, correct }| {
        [cell(true_label).into_owned(), true_index.to_string(), correct.to_string()]
    });
    let columns = prediction.predictions.iter().flat_map(|candidate| {
        [cell(&candidate.label).into_owned(), candidate.index.to_string(), candidate.probability.to_string()]
    });
    std::iter::once(cell(&prediction.path).into_owned()).chain(truth).chain(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::super::result::Candidate;
    use super::*;

    fn prediction() -> Prediction {
        let candidate = |label: &str, index, probability| Candidate { label: label.into(), index, probability };
        Prediction {
            path: "a, \"b\".jpg".into(),
            truth: None,
            true_labels: None,
            predictions: vec![candidate("cat, tabby", 1, 0.75), candidate("dog", 0, 0.25)],
            logits: None,
            probabilities: None,
        }
    }

    #[test]
    fn rows_are_quoted_and_the_file_is_renamed_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let csv = "path,label,index,probability,label_2,index_2,probability_2\n\
                   \"a, \"\"b\"\".jpg\",\"cat, tabby\",1,0.75,dog,0,0.25\n";
        let json = "{\"path\":\"a, \\\"b\\\".jpg\",\"predictions\":[{\"label\":\"cat, tabby\",\"index\":1,\
                    \"probability\":0.75},{\"label\":\"dog\",\"index\":0,\"probability\":0.25}]}\n";
        for (name, expected) in [("t.CSV", csv), ("t.jsonl", json)] {
            let path = folder.path().join(name);
            fs::write(&path, "before").unwrap();
            let mut table = Table::create(&path, 2, false).unwrap();
            table.write(&prediction()).unwrap();
            table.flush().unwrap();
            assert_eq!(fs::read_to_string(table.part()).unwrap(), expected);
            assert_eq!(fs::read_to_string(&path).unwrap(), "before");
            table.finish().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn labels_precede_the_predicted_classes() {
        let truth = Some(Truth { true_label: "dog".into(), true_index: 0, correct: false });
        let labelled = Prediction { truth, ..prediction() };
        assert_eq!(header(1, true), ["path", "true_label", "true_index", "correct", "label", "index", "probability"]);
        assert_eq!(row(&labelled)[1..5], ["dog", "0", "false", "cat, tabby"]);
        let json = serde_json::to_value(&labelled).unwrap();
        assert_eq!((&json["true_label"], &json["correct"]), (&"dog".into(), &false.into()));
    }

    #[test]
    fn multi_label_rows_have_every_class() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let classes = ["dog", "cat, tabby", "eel"].map(String::from);
        let mut table = Table::create_multi_label(&path, &classes, true).unwrap();
        let labels = Some(vec!["dog".to_string(), "eel".into()]);
        let several = Prediction { true_labels: labels, probabilities: Some(vec![0.25, 0.75, 0.0]), ..prediction() };
        table.write(&several).unwrap();
        table.write(&Prediction { true_labels: Some(vec![]), predictions: vec![], ..several.clone() }).unwrap();
        table.finish().unwrap();
        let expected = "path,true_labels,labels,dog,\"cat, tabby\",eel\n\
                        \"a, \"\"b\"\".jpg\",dog|eel,\"cat, tabby|dog\",0.25,0.75,0\n\
                        \"a, \"\"b\"\".jpg\",,,0.25,0.75,0\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        let json = serde_json::to_value(&several).unwrap();
        assert_eq!((&json["true_labels"][1], &json["probabilities"][1]), (&"eel".into(), &0.75.into()));
    }

    #[test]
    fn csv_cells_cannot_be_formulas() {
        let mut evil = prediction();
        evil.path = "=HYPERLINK(\"http://x\").jpg".into();
        evil.predictions[1].label = "@SUM(A1)".into();
        let row = row(&evil);
        assert_eq!((&*row[0], &*row[1], &*row[4]), ("'=HYPERLINK(\"http://x\").jpg", "cat, tabby", "'@SUM(A1)"));
    }

    #[test]
    fn unsupported_extensions_and_paths_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["t.xlsx", "t.json", "t", ".csv"] {
            let path = folder.path().join(name);
            assert!(matches!(Table::create(&path, 1, false), Err(TableError::Extension { .. })), "{name}");
        }
        fs::create_dir(folder.path().join("d.csv")).unwrap();
        for name in ["d.csv", "missing/t.csv"] {
            assert!(
                matches!(Table::create(&folder.path().join(name), 1, false), Err(TableError::Write { .. })),
                "{name}"
            );
        }
    }
}
