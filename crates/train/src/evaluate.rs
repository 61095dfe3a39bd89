//! Evaluation of a network on a split.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Tensor;

use mbconv_data::{DataError, DataSet, LabelSets, Loader};
pub use mbconv_report::{ClassScores, Evaluation, MAX_MATRIX, Predicted};

use crate::classifier::Classifier;
use crate::device::is_host;
use crate::metrics::{
    ClassCounts, Ranking, Reliability, Scores, Tally, argmax, cross_entropy, one_vs_rest, rank, softmax,
    wilson_interval,
};

/// Errors of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// An image could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data contains a class that the model does not have.
    #[error("the data has a class `{class}`, which is not among the model's {known} classes")]
    UnknownClass {
        /// Class name.
        class: String,
        /// Number of classes of the model.
        known: usize,
    },
    /// The model has one class per image, but the data are multi-label.
    #[error("the data are multi-label, but the model chooses one class per image")]
    MultiLabelData,
    /// The model is multi-label, but the data have one class per image.
    #[error("the model is multi-label, but every image of the data has exactly one class")]
    SingleLabelData,
    /// The user interrupted the evaluation.
    #[error("interrupted")]
    Interrupted,
}

impl EvaluateError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(DataError::Image { .. }) => {
                Some("remove or replace the file, or skip such images with --skip-bad-images".into())
            }
            Self::Data(error) => error.hint(),
            Self::UnknownClass { .. } => {
                Some("`mbconv info MODEL` shows the model's classes; class folders must have the same names".into())
            }
            Self::MultiLabelData => Some(
                "train a model on multi-label data; if the labels are no lists, add ?separator=none to the data".into(),
            ),
            Self::SingleLabelData => Some(
                "if its labels are lists, add ?separator=CHARACTER to the table, such as 'table.csv?separator=|'"
                    .into(),
            ),
            Self::Interrupted => None,
        }
    }
}

/// Images to evaluate, with the mapping of their labels to the model's classes.
pub struct Labelled<'a> {
    /// The images.
    pub loader: &'a Loader,
    /// Class index of the model for each label of the data; each label itself for multi-label data.
    pub labels: Vec<usize>,
}

/// Returns the model's index of each class of the data, found by name or alias.
///
/// # Errors
/// Returns an error if the model does not have a class of the data.
pub(crate) fn class_indices(data: &DataSet, model: &[String]) -> Result<Vec<usize>, EvaluateError> {
    let known: HashMap<&str, usize> = model.iter().map(String::as_str).zip(0..).collect();
    let find = |(label, class): (usize, &String)| {
        let unknown = || EvaluateError::UnknownClass { class: class.clone(), known: model.len() };
        let aliases = data.aliases.get(label).map(Vec::as_slice).unwrap_or_default();
        [class].into_iter().chain(aliases).find_map(|name| known.get(name.as_str()).copied()).ok_or_else(unknown)
    };
    data.classes.iter().enumerate().map(find).collect()
}

impl<'a> Labelled<'a> {
    /// Finds the classes of the data among the model's by name or alias. The data may contain only
    /// some of the model's classes.
    ///
    /// # Errors
    /// Returns an error if the data are multi-label or have a class that the model does not have.
    pub fn by_name(loader: &'a Loader, data: &DataSet, model: &[String]) -> Result<Self, EvaluateError> {
        if data.label_sets().is_some() {
            return Err(EvaluateError::MultiLabelData);
        }
        Ok(Self { loader, labels: class_indices(data, model)? })
    }

    /// Keeps the labels of the data, as for multi-label data with these sets of classes.
    pub fn in_sets(loader: &'a Loader, sets: &LabelSets) -> Self {
        Self { loader, labels: (0..sets.len()).collect() }
    }
}

/// An image with its logits.
#[derive(Clone, Copy, Debug)]
pub struct Classified<'a> {
    /// Index of the sample in the source.
    pub index: usize,
    /// Label as a class index of the model; for multi-label data, the label of the data.
    pub label: usize,
    /// Logits of all classes.
    pub logits: &'a [f32],
}

/// Classifies all images in `data`, whose loader applies
/// [`Tta::transform`](crate::classifier::Tta), and calls `each` with them in order, batch by batch.
/// Ends early if `each` breaks.
///
/// # Errors
/// Returns an error if an image cannot be read and the loader does not skip such images, if the
/// network does not accept images, or if `stop` is set.
pub fn classify(
    classifier: &Classifier,
    data: &Labelled,
    stop: &AtomicBool,
    each: &mut dyn FnMut(&[Classified]) -> ControlFlow<()>,
) -> Result<(), EvaluateError> {
    classifier.preprocess.takes_pictures().map_err(DataError::from)?;
    // A GPU computes a batch while the results of the previous one are read.
    let mut last: Option<Pending> = None;
    let mut largest = 0;
    for batch in data.loader.epoch(0) {
        if stop.load(Ordering::Relaxed) {
            return Err(EvaluateError::Interrupted);
        }
        let batch = batch?;
        let (indices, count) = (batch.indices.clone(), batch.labels.len());
        let labels = batch.labels.iter().map(|label| data.labels[*label]).collect();
        largest = largest.max(count);
        let size = if is_host(classifier.device) { count } else { largest };
        let pending = Pending { indices, labels, logits: classifier.logits(batch, size) };
        if last.replace(pending).is_some_and(|before| before.read(each).is_break()) {
            return Ok(());
        }
    }
    let _ = last.map(|last| last.read(each));
    Ok(())
}

/// A batch that is being computed.
struct Pending {
    indices: Vec<usize>,
    labels: Vec<usize>,
    logits: Tensor<2>,
}

impl Pending {
    /// Passes the images on. Synchronizes with the device.
    fn read(self, each: &mut dyn FnMut(&[Classified]) -> ControlFlow<()>) -> ControlFlow<()> {
        let classes = self.logits.dims()[1];
        let logits: Vec<f32> = self.logits.into_data().iter().collect();
        let images = self.indices.into_iter().zip(self.labels).zip(logits.chunks(classes));
        each(&images.map(|((index, label), logits)| Classified { index, label, logits }).collect::<Vec<_>>())
    }
}

/// Maximum number of probabilities that an [`Evaluator`] stores for AUROC and average precision:
/// 1 GiB.
const MAX_PROBABILITIES: usize = 1 << 28;

/// Computes the metrics of classified images.
///
/// AUROC and average precision are exact, which requires the probabilities of all images: 200 MB
/// for ImageNet's 50 000 validation images. Above 1 GiB they are left out.
pub struct Evaluator {
    classes: Vec<String>,
    total: Tally,
    tallies: Vec<Tally>,
    counts: ClassCounts,
    reliability: Reliability,
    predictions: Vec<Predicted>,
    /// Number of images whose label is among the first k, by k.
    top_k: BTreeMap<usize, usize>,
    /// Probabilities, `[N, classes]`, if they are few enough.
    probabilities: Option<Vec<f32>>,
}

impl Evaluator {
    /// Creates an evaluator for about `images` images of a model with these classes, with top-k
    /// accuracies for each k in `top_k`.
    pub fn new(classes: &[String], images: usize, top_k: &[usize]) -> Self {
        let values = images.saturating_mul(classes.len());
        Self {
            classes: classes.to_vec(),
            total: Tally::default(),
            tallies: vec![Tally::default(); classes.len()],
            counts: ClassCounts::new(classes.len()),
            reliability: Reliability::default(),
            predictions: Vec::with_capacity(images),
            top_k: top_k.iter().map(|&k| (k, 0)).collect(),
            probabilities: (values <= MAX_PROBABILITIES).then(|| Vec::with_capacity(values)),
        }
    }

    /// Returns whether AUROC and average precision are left out, because there are too many images.
    pub fn omits_rankings(&self) -> bool {
        self.probabilities.is_none()
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.total.images
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an image, and returns its probabilities.
    pub fn add(&mut self, image: &Classified) -> Vec<f32> {
        let Classified { index, label, logits } = *image;
        let probabilities = softmax(logits);
        let (rank, loss, chosen) = (rank(logits, label), cross_entropy(logits, label), argmax(logits));
        self.total.add(&[rank], loss);
        self.tallies[label].add(&[rank], loss);
        self.counts.add(label, chosen);
        self.reliability.add(&probabilities, label, chosen);
        self.top_k.iter_mut().for_each(|(&k, hits)| *hits += usize::from(rank < k));
        let (probability, target_probability) = (f64::from(probabilities[chosen]), (-loss).exp());
        self.predictions.push(Predicted { index, label, chosen, probability, target_probability, loss });
        if let Some(stored) = &mut self.probabilities {
            stored.extend(&probabilities);
        }
        probabilities
    }

    /// Returns the results. `skipped` are the images that could not be read.
    pub fn finish(self, skipped: Vec<(String, String)>) -> Evaluation {
        let Self { total, predictions, .. } = &self;
        let classes = self.classes.len();
        let rankings = match &self.probabilities {
            Some(probabilities) => {
                let labels: Vec<usize> = predictions.iter().map(|prediction| prediction.label).collect();
                one_vs_rest(probabilities, &labels, classes)
            }
            None => vec![None; classes],
        };
        let mean = |value: fn(&Ranking) -> f64| {
            let values: Vec<f64> = rankings.iter().flatten().map(value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let mut averages = self.counts.averages();
        averages.macro_auroc = mean(|ranking| ranking.auroc);
        averages.macro_average_precision = mean(|ranking| ranking.average_precision);
        let share = |hits: usize| hits as f64 / total.images.max(1) as f64;
        Evaluation {
            scores: total.scores(),
            top1_interval: wilson_interval(total.top1, total.images),
            top5_interval: wilson_interval(total.top5, total.images),
            top_k: self.top_k.iter().map(|(&k, &hits)| (k, share(hits))).collect(),
            images: total.images,
            averages,
            calibration: self.reliability.calibration(),
            classes: (0..classes).map(|class| self.class_scores(class, rankings[class])).collect(),
            confusion_matrix: (classes <= MAX_MATRIX).then(|| confusion_matrix(predictions, classes)),
            predictions: self.predictions,
            skipped,
        }
    }

    fn class_scores(&self, class: usize, ranking: Option<Ranking>) -> ClassScores {
        let Scores { top1, top5, .. } = self.tallies[class].scores();
        ClassScores {
            label: self.classes[class].clone(),
            images: self.counts.images(class),
            top1,
            top5,
            precision: self.counts.precision(class),
            recall: self.counts.recall(class),
            f1: self.counts.f1(class),
            auroc: ranking.map(|ranking| ranking.auroc),
            average_precision: ranking.map(|ranking| ranking.average_precision),
        }
    }
}

/// Counts images by label and predicted class, `[label][chosen]`.
fn confusion_matrix(predictions: &[Predicted], classes: usize) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; classes]; classes];
    predictions.iter().for_each(|prediction| counts[prediction.label][prediction.chosen] += 1);
    counts
}

/// Evaluates a classifier with these classes on all images in `data`. Calls `progress` with the
/// number of images done.
///
/// # Errors
/// See [`classify`].
pub fn evaluate(
    classifier: &Classifier,
    data: &Labelled,
    classes: &[String],
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvaluateError> {
    let mut evaluator = Evaluator::new(classes, data.loader.len(), &[]);
    classify(classifier, data, stop, &mut |images| {
        images.iter().for_each(|image| drop(evaluator.add(image)));
        progress(evaluator.len());
        ControlFlow::Continue(())
    })?;
    Ok(evaluator.finish(data.loader.skipped()))
}
