//! Data-set tools: statistics ([`inspect`]), contact sheets ([`sheet`], drawn on a [`canvas`]),
//! checks ([`verify`]), moving bad files to another folder ([`quarantine`]), conversion to shards
//! ([`pack`]) and division into splits ([`split`]).
//!
//! All tools read samples through [`Source`], so they support every form of data set. Samples are
//! processed in windows: all threads share one window, and its results are consumed in sample order
//! before the next window starts. This limits memory use, and results do not depend on the number
//! of threads.

pub mod canvas;
pub mod header;
pub mod inspect;
pub mod pack;
pub mod perceptual;
pub mod quarantine;
pub mod sheet;
pub mod split;
pub mod verify;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::extent::Extent;
use crate::source::Source;

/// An error of a data-set tool.
#[derive(Debug, thiserror::Error)]
pub enum CurateError {
    /// Reading the data set or a sample failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Writing, moving or reading a file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// The failed operation: `write`, `move`, `read`, `create` or `resolve`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The output folder is not empty.
    #[error("{} already exists and is not empty; existing files are not overwritten", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder contains shards packed with other options or from other data.
    #[error("{} contains shards with different options: {difference}", path.display())]
    OtherShards {
        /// The folder.
        path: PathBuf,
        /// The difference, with both values.
        difference: String,
    },
    /// A log or manifest has invalid contents.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The request cannot be fulfilled for this data set.
    #[error("{message}")]
    Request {
        /// The reason.
        message: String,
        /// Advice on how to change the request.
        hint: String,
    },
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted,
}

impl CurateError {
    /// Returns advice on how to fix the error, if there is more than the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(DataError::Image { .. }) => {
                Some("run `mbconv data verify DATA --fix` to move all bad images to another folder".into())
            }
            Self::Data(error) => error.hint(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::CrossesDevices => {
                Some("hard links cannot cross file systems: use --copy".into())
            }
            Self::Exists { .. } => Some("choose a new or an empty folder".into()),
            Self::OtherShards { .. } => Some("choose another folder, or delete this one".into()),
            Self::Request { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }

    /// Returns a function that converts an I/O error at `path` into [`CurateError::File`].
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.into(), source }
    }
}

/// Stop flag and progress callback of a long operation.
pub struct Work<'a> {
    /// If set, the operation stops with [`CurateError::Interrupted`].
    pub stop: &'a AtomicBool,
    /// Called regularly with the number of samples processed so far.
    pub progress: &'a mut dyn FnMut(usize),
}

/// Number of samples per window, which limits memory use.
const WINDOW: usize = 256;

impl Work<'_> {
    /// Applies `each` to every index on all threads and passes the results to `take` in order.
    /// `done` is the number of samples processed before, for the progress callback.
    fn map<T: Send>(
        &mut self,
        indices: Range<usize>,
        done: usize,
        each: impl Fn(usize) -> T + Sync,
        mut take: impl FnMut(usize, T) -> Result<(), CurateError>,
    ) -> Result<(), CurateError> {
        let start = indices.start;
        for first in indices.clone().step_by(WINDOW) {
            let window = first..(first + WINDOW).min(indices.end);
            let results: Vec<T> = window
                .clone()
                .into_par_iter()
                .map(|index| (!self.stop.load(Ordering::Relaxed)).then(|| each(index)))
                .collect::<Option<_>>()
                .ok_or(CurateError::Interrupted)?;
            for (index, result) in window.clone().zip(results) {
                take(index, result)?;
            }
            (self.progress)(done + window.end - start);
        }
        Ok(())
    }
}

/// Returns the existing splits with their names.
pub fn splits(data: &DataSet) -> Vec<(&'static str, Arc<dyn Source>)> {
    [("train", &data.train), ("val", &data.val), ("test", &data.test)]
        .into_iter()
        .filter_map(|(name, split)| split.clone().map(|split| (name, split)))
        .collect()
}

/// Returns the number of images in all splits.
pub fn images(data: &DataSet) -> usize {
    splits(data).iter().map(|(_, split)| split.len()).sum()
}

/// Checks that every image file is in the data set's folders after resolving links. `can_follow` is
/// true if the command has the option `--follow-links`.
fn check_inside(data: &DataSet, extent: &Extent, can_follow: bool) -> Result<(), CurateError> {
    let outside: Vec<PathBuf> = splits(data)
        .iter()
        .flat_map(|(_, source)| {
            let is_outside = |path: &PathBuf| path.exists() && !extent.contains_file(path);
            let paths = (0..source.len()).into_par_iter().filter_map(|index| source.path(index));
            paths.filter(is_outside).collect::<Vec<_>>()
        })
        .collect();
    let Some(first) = outside.first() else { return Ok(()) };
    let target = std::fs::canonicalize(first).unwrap_or_else(|_| first.clone());
    let leads = match std::path::absolute(first).is_ok_and(|path| path == target) {
        true => format!("{} is outside the data set", first.display()),
        false => format!("{} is a link to {}, outside the data set", first.display(), target.display()),
    };
    let others = match outside.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    let hint = match can_follow {
        true => "use --follow-links to include these images",
        false => "files in other folders cannot be moved: use --copy --follow-links to copy them",
    };
    Err(CurateError::Request { message: leads + &others, hint: hint.into() })
}
