//! Supported forms of data sets, each with a function that recognizes it.

pub(crate) mod archive;
pub(crate) mod cifar;
pub(crate) mod csv;
pub(crate) mod digits;
pub(crate) mod image_folder;
pub(crate) mod imagenet;
pub(crate) mod location;
pub mod parquet;
pub(crate) mod webdataset;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{Detected, Kind, Location};
use crate::options::{LabelSource, OpenOptions, TableOptions};

/// All formats except image folders, tried in this order, the most specific first. Detection
/// inspects names and at most the beginning of a file.
const FORMS: [fn(&Location) -> Detected; 6] =
    [cifar::detect, imagenet::detect, parquet::detect, webdataset::detect, csv::detect, archive::detect];

/// Opens the data set at a path; the files of a pattern such as `shards/train-{000..146}.tar`, or
/// of several patterns joined by `::`; or the embedded data set `digits`. [`TableOptions`] may
/// follow the path, as in `table.csv?label=species`.
///
/// # Errors
/// Any [`DataError`] about files, folders and class names; images are not decoded.
pub fn open(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(DataError::ValFraction(options.val_fraction));
    }
    if data == "digits" {
        return digits::open(options);
    }
    open_path(data, options)
}

/// Tries every form except image folders.
fn detect(location: &Location) -> Detected {
    let wanted = (location.options.form == LabelSource::Table).then_some(csv::detect as fn(&Location) -> Detected);
    for detect in wanted.into_iter().chain(FORMS) {
        if let Some(found) = detect(location)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Opens the data set at `data`, a path or a pattern.
fn open_path(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    let (path, table) = options.table.with_options_of(data)?;
    let options = OpenOptions { table, ..options.clone() };
    let location = Location { options: options.table.clone(), ..Location::find(path)? };
    let mut found = detect(&location)?;
    let mut notes = location.notes.take();
    // Search inside wrapping folders. Image folders handle wrapping folders themselves.
    let mut inner = if found.is_none() { location.wrapped()? } else { None };
    while let Some(location) = inner {
        found = detect(&location)?;
        notes.extend(location.notes.take());
        inner = if found.is_none() { location.wrapped()? } else { None };
    }
    let found = match found {
        None => image_folder::detect(&location)?,
        found => found,
    };
    if let Some(found) = found {
        let mut set = found.open(&options)?;
        set.notes.extend(notes);
        set.notes.extend(unused(&set, &options.table, data.len() > path.len(), path)?);
        return Ok(set);
    }
    Err(match location.kind {
        _ if location.compressed() => DataError::Compressed { path: location.path },
        Kind::File => DataError::NotAFolder { path: location.path },
        _ => DataError::UnknownForm { path: location.path, found: "the files have different formats".into() },
    })
}

/// Returns a note if columns are specified for a data set without columns, for example by a recipe.
///
/// # Errors
/// `given`: the name of the data set itself specifies columns.
fn unused(set: &DataSet, options: &TableOptions, given: bool, path: &str) -> Result<Option<String>, DataError> {
    let names = TableOptions { form: LabelSource::Auto, ..options.clone() } != TableOptions::default();
    if !names || matches!(set.form, Form::Table | Form::Parquet) {
        return Ok(None);
    }
    let why = format!("the data set is {}, which has no columns", set.form);
    if given {
        return Err(DataError::Columns { path: path.into(), why });
    }
    Ok(Some(format!("the columns in the recipe are ignored: {path}: {why}")))
}
