//! Looking after data sets: what is in one ([`inspect`], [`sheet`]), what is wrong with it
//! ([`verify`]), moving that aside ([`quarantine`]), other forms of it ([`pack`]), and dividing it
//! ([`split`]).
//!
//! All of it goes through [`Source`], so it works on every form that can be opened. Samples are
//! worked on in windows: all threads share one, and its results are taken in the samples' order
//! before the next begins. So memory is bounded by the window, and results do not depend on the
//! number of threads.

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

/// Why a data set could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum CurateError {
    /// The data set, or a sample of it, could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file could not be written, moved or read back.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried: `write`, `move`, `read`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The folder to write to holds something.
    #[error("{} is there already; nothing is overwritten", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds shards of something else.
    #[error("{} holds shards that were packed otherwise: {difference}", path.display())]
    OtherShards {
        /// The folder.
        path: PathBuf,
        /// What differs, with both values.
        difference: String,
    },
    /// Log or manifest does not have the expected form.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A request that the data set cannot fulfil.
    #[error("{message}")]
    Request {
        /// What was asked for, and why it cannot be.
        message: String,
        /// What to ask for instead.
        hint: String,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl CurateError {
    /// What would mend it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(DataError::Image { .. }) => {
                Some("`mbconv data verify DATA --fix` finds all bad images and moves them aside".into())
            }
            Self::Data(error) => error.hint(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::CrossesDevices => {
                Some("hard links cannot lead to another file system: use --copy".into())
            }
            Self::Exists { .. } => Some("give a folder that does not exist yet, or an empty one".into()),
            Self::OtherShards { .. } => Some("give another folder, or remove this one".into()),
            Self::Request { hint, .. } => Some(hint.clone()),
            _ => None,
        }
    }

    /// The variant of an error of the operating system.
    fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, path: path.into(), source }
    }
}

/// What long work is told, and tells.
pub struct Work<'a> {
    /// Ends the work when set.
    pub stop: &'a AtomicBool,
    /// Called now and then with the number of samples done so far.
    pub progress: &'a mut dyn FnMut(usize),
}

/// Samples worked on between two reports; what bounds the memory.
const WINDOW: usize = 256;

impl Work<'_> {
    /// Applies `each` to every index on all threads and hands the results to `take` in order;
    /// `done` samples came before.
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

/// The splits there are, with what to call them.
pub fn splits(data: &DataSet) -> Vec<(&'static str, Arc<dyn Source>)> {
    [("train", &data.train), ("val", &data.val), ("test", &data.test)]
        .into_iter()
        .filter_map(|(name, split)| split.clone().map(|split| (name, split)))
        .collect()
}

/// Number of images in all splits.
pub fn images(data: &DataSet) -> usize {
    splits(data).iter().map(|(_, split)| split.len()).sum()
}

/// Checks that every image file lies in the data set's folders, all links followed. `or_follow` is
/// whether the command can take others on request.
fn check_inside(data: &DataSet, extent: &Extent, or_follow: bool) -> Result<(), CurateError> {
    let outside: Vec<PathBuf> = splits(data)
        .iter()
        .flat_map(|(_, source)| {
            let is_outside = |path: &PathBuf| path.exists() && !extent.holds(path);
            let paths = (0..source.len()).into_par_iter().filter_map(|index| source.path(index));
            paths.filter(is_outside).collect::<Vec<_>>()
        })
        .collect();
    let Some(first) = outside.first() else { return Ok(()) };
    let target = std::fs::canonicalize(first).unwrap_or_else(|_| first.clone());
    let leads = match std::path::absolute(first).is_ok_and(|path| path == target) {
        true => format!("{} lies outside of the data set", first.display()),
        false => format!("{} leads out of the data set, to {}", first.display(), target.display()),
    };
    let others = match outside.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    let hint = match or_follow {
        true => "if these images are meant, --follow-links takes them",
        false => "files of other folders are not moved; --copy --follow-links copies them",
    };
    Err(CurateError::Request { message: leads + &others, hint: hint.into() })
}
