//! Options for opening data sets, and names of data sets as users give them: a path or pattern,
//! with options after a question mark.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Location of images and labels, if it cannot be detected from names and contents.
///
/// Columns are given by name, in any case, or by number from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// The column of image paths or ids; in Parquet files, of images.
    pub image: Option<String>,
    /// The column of labels; several one-hot columns are separated by commas.
    pub label: Option<String>,
    /// The column of split names, or of fold numbers.
    pub split: Option<String>,
    /// The fold that is the validation split.
    pub fold: Option<String>,
    /// The folder of the table's images, relative to the table or to the working directory.
    pub images: Option<String>,
    /// The character between the classes in a label, which makes the data multi-label; `none` if
    /// labels are no lists.
    pub separator: Option<String>,
    /// Labels to use in a folder with both class folders and a table.
    pub form: LabelSource,
}

/// Labels to use in a folder with both class folders and a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelSource {
    /// The table's labels if the folders are clearly not classes; the folder names if the table
    /// agrees with them; otherwise an error.
    #[default]
    Auto,
    /// The folder names.
    Folders,
    /// The table's labels.
    Table,
}

impl TableOptions {
    /// Splits `DATA?key=value&key=value` into the path and its options, which override those in
    /// `self`.
    ///
    /// A question mark in an existing path or in a pattern is kept.
    ///
    /// # Errors
    /// [`DataError::Option`] for an unknown key or value.
    pub(crate) fn with_options_of<'a>(&self, data: &'a str) -> Result<(&'a str, TableOptions), DataError> {
        let mut options = self.clone();
        let path = path_of(data);
        for pair in data[path.len()..].trim_start_matches('?').split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match key {
                "image" => &mut options.image,
                "label" => &mut options.label,
                "split" => &mut options.split,
                "fold" => &mut options.fold,
                "images" => &mut options.images,
                "separator" => &mut options.separator,
                "form" => {
                    options.form = match value {
                        "auto" => LabelSource::Auto,
                        "folders" => LabelSource::Folders,
                        "table" => LabelSource::Table,
                        _ => return Err(DataError::Option { option: pair.into() }),
                    };
                    continue;
                }
                _ => return Err(DataError::Option { option: pair.into() }),
            };
            *field = Some(value).filter(|value| !value.is_empty()).map(str::to_string);
        }
        Ok((path, options))
    }
}

/// Returns the path or pattern in the name of a data set, without options.
pub fn path_of(data: &str) -> &str {
    let Some((path, options)) = data.rsplit_once('?') else { return data };
    let options_only = !options.is_empty() && options.split('&').all(|pair| pair.contains('='));
    if options_only && !Path::new(data).exists() { path } else { data }
}

/// Options for opening a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// Fraction of each class to hold out for validation, in `[0, 1)`; 0 disables the validation
    /// split.
    pub val_fraction: f64,
    /// Seed that selects the held-out samples.
    pub seed: u64,
    /// Allows splits with different classes, otherwise an error. Labels are the same in all
    /// splits; a class that is missing from a split has no images there.
    pub classes_may_differ: bool,
    /// Columns and folders of tables, if not detected; overridden by options after the path.
    pub table: TableOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { val_fraction: 0.2, seed: 0, classes_may_differ: false, table: TableOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_after_a_question_mark_are_parsed() {
        let given = TableOptions { split: Some("set".into()), label: Some("y".into()), ..TableOptions::default() };
        let (path, options) = given.with_options_of("a b.csv?label=dx&images=part_1&form=table").unwrap();
        assert_eq!(path, "a b.csv");
        let expected = TableOptions {
            label: Some("dx".into()),
            images: Some("part_1".into()),
            form: LabelSource::Table,
            ..given.clone()
        };
        assert_eq!(options, expected);
        assert_eq!(given.with_options_of("train-?.tar").unwrap(), ("train-?.tar", given.clone()));
        assert_eq!(path_of("train-?.tar?label=cls"), "train-?.tar");
        for wrong in ["a.csv?labels=dx", "a.csv?form=zip", "a.csv?label=dx&where=here"] {
            assert!(matches!(given.with_options_of(wrong), Err(DataError::Option { .. })), "{wrong}");
        }
    }
}
