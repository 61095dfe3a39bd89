//! Parts of the output of `mbconv eval` that all kinds of models share.

use mbconv_train::classifier::Tta;
use mbconv_train::predict::{Table, TableError};
use serde_json::Value;

use super::labelled_data::LabelledData;
use crate::error::CliError;
use crate::output::print_json;
use crate::units::count;

/// The circumstances of an evaluation.
pub struct Circumstances<'a> {
    /// Path of the data.
    pub path: &'a str,
    pub data: &'a LabelledData,
    pub tta: Tta,
    /// Temperature of the model, if it is calibrated.
    pub temperature: Option<f64>,
    pub seconds: f64,
}

impl Circumstances<'_> {
    fn images_per_second(&self) -> f64 {
        self.data.loader.len() as f64 / self.seconds
    }

    /// Prints the evaluation and its circumstances as a JSON document.
    pub fn print_json(&self, mut evaluation: Value) -> Result<(), CliError> {
        evaluation["split"] = self.data.split.into();
        evaluation["data"] = self.path.into();
        evaluation["seconds"] = self.seconds.into();
        evaluation["images_per_second"] = self.images_per_second().into();
        evaluation["views"] = self.tta.views().into();
        evaluation["temperature"] = self.temperature.into();
        print_json(&evaluation)
    }

    /// Returns the first lines of the output: the images, the time, and an empty line.
    pub fn heading(&self, images: usize, skipped: usize) -> String {
        let skipped = if skipped == 0 { "none".to_string() } else { skipped.to_string() };
        let views = if self.tta == Tta::None { String::new() } else { format!(", {} views of each", self.tta.views()) };
        format!(
            "{images} images of {}, {skipped} skipped{views}\n{:.2} s, {:.0} images per second\n\n",
            self.data.split_name(),
            self.seconds,
            self.images_per_second()
        )
    }
}

/// Completes the table of `--predictions` after `rows` rows. If the evaluation or the table failed,
/// returns the error and leaves the partial file.
pub fn finish_table<E: Into<CliError>>(
    table: Option<Table>,
    rows: usize,
    evaluated: Result<(), E>,
    table_error: Option<TableError>,
) -> Result<(), CliError> {
    if let (Err(_), Some(table)) = (&evaluated, &table) {
        eprintln!("{} contains the first {} rows", table.part().display(), count(rows));
    }
    evaluated.map_err(Into::into)?;
    match (table_error, table) {
        (Some(error), _) => return Err(error.into()),
        (None, Some(table)) => eprintln!("wrote {} ({} rows)", table.finish()?.display(), count(rows)),
        (None, None) => {}
    }
    Ok(())
}
