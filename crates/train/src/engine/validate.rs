//! Validation after an epoch.

use std::ops::ControlFlow;

use burn::module::Module;
use mbconv_nets::{Inference, Network};

use super::error::TrainError;
use super::event::{Event, Run};
use super::learner::Learner;
use super::setup::Setup;
use crate::classifier::{Classifier, Tta};
use crate::config::checkpoint::Metric;
use crate::distributed::Group;
use crate::evaluate::{Classified, EvaluateError, Labelled, classify};
use crate::metrics::{
    self, ClassCounts, DEFAULT_THRESHOLD, MultiLabelScores, Outcomes, Scores, Tally, argmax, cross_entropy, macro_mean,
    mean_average_precision, rank,
};
use mbconv_data::{DataError, LabelSets, Loader, MOST_UNREADABLE};
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
    let Run { recipe, data, group, .. } = setup.run;
    let classes = data.classes.len();
    if let Some(sets) = loader.source().label_sets() {
        return multi_label_results(setup, (loader, sets), network, epoch, observer);
    }
    let labelled = Labelled { loader, labels: (0..classes).collect() };
    let (mut tally, mut counts) = (Tally::default(), ClassCounts::new(classes));
    let each = &mut |&Classified { label, logits, .. }: &Classified| {
        tally.add(&[rank(logits, label)], cross_entropy(logits, label));
        counts.add(label, argmax(logits));
    };
    if !classify_all(setup, &labelled, network, observer, each)? {
        return Ok(None);
    }
    let tally = group.sum_tally(tally);
    let mut results = metrics::results(epoch + 1, tally.scores(), tally.images);
    let metric = recipe.checkpoint.metric;
    if metric.needs_classes() {
        let counts = counts.summed(|values| group.sum_f64(values));
        results.macro_f1 = (metric == Metric::MacroF1).then(|| counts.macro_f1());
        results.balanced_accuracy = (metric == Metric::BalancedAccuracy).then(|| counts.balanced_accuracy());
    }
    Ok(Some(results))
}

/// Returns the results of a network on multi-label data, or `None` if the user interrupted a
/// process. Every process computes the metrics from the logits of all images.
fn multi_label_results(
    setup: &Setup,
    (loader, sets): (&Loader, &LabelSets),
    network: &Network,
    epoch: usize,
    observer: &mut dyn FnMut(Event),
) -> Result<Option<Results>, TrainError> {
    let Run { data, group, .. } = setup.run;
    let (classes, total) = (data.classes.len(), loader.len());
    let (mut all, mut seen) = (vec![0.0; total * classes], vec![0.0; total]);
    let each = &mut |&Classified { index, logits, .. }: &Classified| {
        let row = all[index * classes..].iter_mut().zip(logits);
        row.for_each(|(value, &logit)| *value = f64::from(logit));
        seen[index] = 1.0;
    };
    if !classify_all(setup, &Labelled::in_sets(loader, sets), network, observer, each)? {
        return Ok(None);
    }
    group.sum_f64(&mut all);
    group.sum_f64(&mut seen);
    let (mut scores, mut tally) = (MultiLabelScores::new(classes), Tally::default());
    for (index, logits) in all.chunks_exact(classes).enumerate().filter(|(index, _)| seen[*index] > 0.0) {
        let logits: Vec<f32> = logits.iter().map(|&logit| logit as f32).collect();
        let truths = sets.classes(loader.source().label(index));
        scores.add(&logits, truths);
        let best = truths.iter().map(|&class| rank(&logits, class)).min();
        tally.add(&[best.unwrap_or(classes)], 0.0);
    }
    let mut results = metrics::results(epoch + 1, Scores { loss: scores.loss(), ..tally.scores() }, scores.len());
    results.map = mean_average_precision(&scores.rankings());
    results.macro_f1 = Some(macro_mean(&scores.outcomes(&vec![DEFAULT_THRESHOLD; classes]), Outcomes::f1));
    Ok(Some(results))
}

/// Classifies all images of this process. Returns false if the user interrupted a process.
fn classify_all(
    setup: &Setup,
    labelled: &Labelled,
    network: &Network,
    observer: &mut dyn FnMut(Event),
    each: &mut dyn FnMut(&Classified),
) -> Result<bool, TrainError> {
    let Run { device, group, stop, .. } = setup.run;
    let total = labelled.loader.len();
    let network = Inference::new(network);
    let classifier =
        Classifier { network: &network, preprocess: &setup.preprocess, device, tta: Tta::None, multi_label: false };
    let mut done = 0;
    let classified = classify(&classifier, labelled, stop, &mut |images| {
        images.iter().for_each(&mut *each);
        done += images.len();
        observer(Event::Validate { images: total.min(done * group.size()), total });
        ControlFlow::Continue(())
    });
    let interrupted = match classified {
        Ok(()) => false,
        Err(EvaluateError::Interrupted) => true,
        Err(EvaluateError::Data(error)) => return Err(error.into()),
        Err(_) => unreachable!("labels are mapped to themselves"),
    };
    Ok(!group.any(interrupted))
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
