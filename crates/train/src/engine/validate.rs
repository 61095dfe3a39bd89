//! Validation after an epoch.

use burn::module::Module;
use mbconv_nets::{Inference, Network};

use super::error::TrainError;
use super::event::{Event, Run};
use super::learner::Learner;
use super::setup::Setup;
use crate::distributed::Group;
use crate::evaluate::{EvaluateError, Labelled, evaluate};
use crate::metrics::{self, Tally};
use mbconv_data::{DataError, Loader, MOST_UNREADABLE};
use mbconv_interop::model_file::Results;

/// Validation of the network and of its moving average. Both are absent without a validation split.
pub(super) struct Validation {
    pub(super) val: Option<Results>,
    pub(super) ema: Option<Results>,
}

/// Evaluates the network and its moving average on the validation split after `epoch`, counted from
/// 0. Returns `None` if the user interrupted the run.
pub(super) fn validate(
    setup: &Setup,
    learner: &Learner,
    epoch: usize,
    observer: &mut dyn FnMut(Event),
) -> Result<Option<Validation>, TrainError> {
    let Some(loader) = &setup.val_loader else { return Ok(Some(Validation { val: None, ema: None })) };
    let mut results = |network: &Network| results(setup, loader, network, epoch, observer);
    let Some(val) = results(&learner.network.valid())? else { return Ok(None) };
    let ema = match &learner.average {
        Some(average) => match results(average)? {
            Some(ema) => Some(ema),
            None => return Ok(None),
        },
        None => None,
    };
    Ok(Some(Validation { val: Some(val), ema }))
}

/// Returns the results of a network over all processes, or `None` if the user interrupted one.
fn results(
    setup: &Setup,
    loader: &Loader,
    network: &Network,
    epoch: usize,
    observer: &mut dyn FnMut(Event),
) -> Result<Option<Results>, TrainError> {
    let Run { data, device, group, stop, .. } = setup.run;
    let (classes, total) = (&data.classes, loader.len());
    let labelled = Labelled { loader, labels: (0..classes.len()).collect() };
    let mut progress = |images: usize| observer(Event::Validate { images: total.min(images * group.size()), total });
    let network = Inference::new(network);
    let evaluation = match evaluate(&network, &labelled, &setup.preprocess, classes, device, stop, &mut progress) {
        Ok(evaluation) => Some(evaluation),
        Err(EvaluateError::Interrupted) => None,
        Err(EvaluateError::Data(error)) => return Err(error.into()),
        Err(EvaluateError::UnknownClass { .. }) => unreachable!("labels are mapped to themselves"),
    };
    if group.any(evaluation.is_none()) {
        return Ok(None);
    }
    let tally = evaluation.map_or(Tally::default(), |evaluation| Tally::of(evaluation.scores, evaluation.images));
    let tally = group.sum_tally(tally);
    Ok(Some(metrics::results(epoch + 1, tally.scores(), tally.images)))
}

/// Checks that at most [`MOST_UNREADABLE`] of the validation images were unreadable. Otherwise, the
/// validation must not select the best model.
pub(super) fn check_readable(loader: Option<&Loader>, group: &Group) -> Result<(), TrainError> {
    let Some(loader) = loader else { return Ok(()) };
    let skipped = loader.skipped();
    let mut unreadable = [skipped.len() as f64];
    group.sum_f64(&mut unreadable);
    let [unreadable] = unreadable;
    if unreadable <= MOST_UNREADABLE * loader.len() as f64 {
        return Ok(());
    }
    let first = skipped.first().map(|(name, why)| format!(": {name}: {why}")).unwrap_or_default();
    let (unreadable, images) = (unreadable as usize, loader.len());
    group.all_ok(Err(DataError::TooManyUnreadable { split: "validation", unreadable, images, first }.into()))
}
