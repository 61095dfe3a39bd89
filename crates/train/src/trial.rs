//! Runs of searches, which continue where they stopped.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_data::DataSet;
use mbconv_interop::model_file::Results;

use crate::config::Recipe;
use crate::distributed::Group;
use crate::engine::error::TrainError;
use crate::engine::event::{Event, Outcome, Run};
use crate::engine::train_until;
use crate::run_dir::holds_run;

/// The parts that all runs of a search share.
pub(crate) struct Trials<'a> {
    /// Data with a validation split.
    pub(crate) data: &'a DataSet,
    /// Device for training.
    pub(crate) device: &'a Device,
    /// If set, the run ends after the current step.
    pub(crate) stop: &'a AtomicBool,
}

impl Trials<'_> {
    /// Trains `recipe` in the folder `out` until the end of epoch `until`. Continues a run that
    /// stopped there earlier, and returns the result of one that is already complete.
    pub(crate) fn train(
        &self,
        recipe: &Recipe,
        out: &Path,
        until: usize,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Outcome, TrainError> {
        let group = Group::alone();
        let run = Run {
            recipe,
            data: self.data,
            out,
            device: self.device,
            group: &group,
            resume: holds_run(out),
            settings: None,
            lock: None,
            stop: self.stop,
        };
        Ok(match train_until(run, until, observer)? {
            Outcome::Finished { best } => Outcome::Finished { best: best.map(rounded) },
            Outcome::Interrupted => Outcome::Interrupted,
        })
    }
}

/// Rounds numbers to twelve digits. JSON, in which runs and studies store them, preserves these
/// exactly, so a search has the same results whether it was interrupted or not.
pub(crate) fn rounded(results: Results) -> Results {
    let mut json = serde_json::json!(results);
    for value in json.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
        let number = value.as_f64().filter(|_| value.is_f64()).map(|number| format!("{number:.11e}").parse::<f64>());
        if let Some(Ok(number)) = number {
            *value = number.into();
        }
    }
    serde_json::from_value(json).unwrap_or(results)
}
