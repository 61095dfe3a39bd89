//! The arguments, events and outcome of a run.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use mbconv_data::DataSet;
use mbconv_interop::model_file::Results;

use crate::config::Recipe;
use crate::distributed::Group;
use crate::history::EpochRow;
use crate::metrics::Scores;
use crate::run_lock::RunLock;

/// Arguments of [`train`](crate::train).
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The data.
    pub data: &'a DataSet,
    /// Folder of the run.
    pub out: &'a Path,
    /// Device to train on.
    pub device: &'a Device,
    /// The processes that train together.
    pub group: &'a Group,
    /// Continue the run in the folder instead of starting one.
    pub resume: bool,
    /// Recipe keys set on the command line, which are stored with the run. With `Some`, a resumed
    /// run may change the keys in [`RESUMABLE`](crate::config::RESUMABLE); with `None` it needs the
    /// recipe that it was started with.
    pub settings: Option<&'a [String]>,
    /// The lock on `out`, if the caller holds it. With `None`, the run locks its folder itself.
    pub lock: Option<&'a RunLock>,
    /// If set, the run ends with a checkpoint after the current step.
    pub stop: &'a AtomicBool,
}

/// An event of a run, for display and logging.
#[derive(Debug)]
pub enum Event<'a> {
    /// A line for the user and the log.
    Line(&'a str),
    /// Training starts or continues.
    Start {
        /// Number of completed epochs.
        epoch: usize,
        /// Total number of epochs.
        epochs: usize,
        /// Number of completed steps.
        step: u64,
        /// Number of classes.
        classes: usize,
        /// True if the data are multi-label.
        multi_label: bool,
    },
    /// Some steps of an epoch are done.
    Train {
        /// Epoch, counted from 1.
        epoch: usize,
        /// Number of images done in this epoch.
        images: usize,
        /// Number of images in an epoch.
        total: usize,
        /// Means over this epoch so far.
        scores: Scores,
        /// Learning rate of the last step.
        learning_rate: f64,
        /// Number of steps since the run started.
        step: u64,
    },
    /// Some validation images are done.
    Validate {
        /// Number of images done.
        images: usize,
        /// Total number of images.
        total: usize,
    },
    /// An epoch is complete and saved.
    Epoch(&'a EpochRow),
}

/// The way in which a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished {
        /// Best validation results, if there is a validation split.
        best: Option<Results>,
    },
    /// The user stopped the run. It can be resumed.
    Interrupted,
}
