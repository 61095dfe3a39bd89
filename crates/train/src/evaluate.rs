//! Accuracy of a network on a split.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use mbconv_nets::Inference;
use serde::Serialize;

use crate::batch::{images, targets};
use crate::data::{Batch, DataError, DataSet, Loader, Preprocess};
use crate::device::is_host;
use crate::loss::cross_entropy;
use crate::metrics::{Scores, Tally, target_ranks, wilson_interval};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Top-1, top-5 and mean cross-entropy, without label smoothing.
    #[serde(flatten)]
    pub scores: Scores,
    /// 95 % interval of top-1 (Wilson).
    pub top1_interval: [f64; 2],
    /// 95 % interval of top-5 (Wilson).
    pub top5_interval: [f64; 2],
    /// Images counted.
    pub images: usize,
    /// Results of every class, by index.
    pub classes: Vec<ClassScores>,
    /// What was said of each image, in order.
    #[serde(skip)]
    pub predictions: Vec<Predicted>,
    /// Images that could not be read, and why; empty unless they were allowed to be passed over.
    pub skipped: Vec<(String, String)>,
}

/// What was said of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Which sample of the source it is.
    pub index: usize,
    /// Its class, as the model counts them.
    pub label: usize,
    /// The likeliest class.
    pub chosen: usize,
    /// Softmax probability of that.
    pub probability: f64,
    /// Softmax probability of its class.
    pub target_probability: f64,
    /// Cross-entropy.
    pub loss: f64,
}

/// Results of one class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassScores {
    /// Name of the class.
    pub label: String,
    /// Images of it.
    pub images: usize,
    /// Share of them that is recognised.
    pub top1: f64,
    /// Share of them with the class among the first five.
    pub top5: f64,
}

/// Why an evaluation ended early.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// An image that could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The data has a class that the model does not know.
    #[error("the data has a class `{class}`, which is not among the model's {known} classes")]
    UnknownClass {
        /// Name of the class.
        class: String,
        /// How many the model has.
        known: usize,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl EvaluateError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(DataError::Image { .. }) => {
                Some("remove or replace the file, or pass over such images with --skip-bad-images".into())
            }
            Self::Data(error) => error.hint(),
            Self::UnknownClass { .. } => {
                Some("`mbconv info MODEL` shows the model's classes; class folders must have the same names".into())
            }
            Self::Interrupted => None,
        }
    }
}

/// What to evaluate on: images, and which of the model's classes each of their labels means.
pub struct Labelled<'a> {
    /// The images.
    pub loader: &'a Loader,
    /// The model's class index of each of the data's labels.
    pub labels: Vec<usize>,
}

impl<'a> Labelled<'a> {
    /// Finds the data's classes among the model's by name, or by another name of theirs, so that a data set without some of
    /// them shifts none.
    ///
    /// # Errors
    /// A class that the model does not have.
    pub fn by_name(loader: &'a Loader, data: &DataSet, model: &[String]) -> Result<Self, EvaluateError> {
        let known: HashMap<&str, usize> = model.iter().map(String::as_str).zip(0..).collect();
        let find = |(label, class): (usize, &String)| {
            let unknown = || EvaluateError::UnknownClass { class: class.clone(), known: model.len() };
            let aliases = data.aliases.get(label).map(Vec::as_slice).unwrap_or_default();
            [class].into_iter().chain(aliases).find_map(|name| known.get(name.as_str()).copied()).ok_or_else(unknown)
        };
        Ok(Self { loader, labels: data.classes.iter().enumerate().map(find).collect::<Result<_, _>>()? })
    }
}

/// What the network says of a batch, where it computes.
struct Said {
    batch: Batch,
    ranks: Tensor<1, Int>,
    losses: Tensor<1>,
    probabilities: Tensor<2>,
    chosen: Tensor<2, Int>,
}

impl Said {
    /// Of a batch filled up to `size` with black images: a shape of its own for the last few would be compiled and tuned anew.
    fn of(network: &Inference, mut batch: Batch, size: usize, preprocess: &Preprocess, device: &Device) -> Self {
        let count = batch.labels.len();
        batch.images.resize(size * batch.height * batch.width * 3, 0);
        batch.labels.resize(size, 0);
        let logits = network.forward_channels_last(images(&mut batch, preprocess, device));
        let targets = targets(&batch, device);
        batch.labels.truncate(count);
        let ranks = target_ranks(logits.clone(), targets.clone());
        let losses = cross_entropy(logits.clone(), targets, 0.0);
        let (probabilities, chosen) = softmax(logits, 1).max_dim_with_indices(1);
        Self { batch, ranks, losses, probabilities, chosen }
    }

    /// Rank of the target, loss, likeliest class and its probability of every image. Waits for the device.
    #[allow(clippy::type_complexity)]
    fn read(self) -> (Batch, Vec<usize>, Vec<f64>, Vec<(usize, f64)>) {
        let count = self.batch.labels.len();
        let floats = |data: TensorData| data.iter::<f64>().take(count).collect::<Vec<_>>();
        let certain = to_usize(self.chosen.into_data()).into_iter().zip(floats(self.probabilities.into_data()));
        let certain = certain.collect();
        (self.batch, to_usize(self.ranks.into_data()), floats(self.losses.into_data()), certain)
    }
}

/// Evaluates `network`, which is on `device`, on everything that `data` holds, telling `progress` how many images are done.
///
/// # Errors
/// An image that cannot be read, unless the loader passes over those; a network that takes no pictures; a set `stop`.
pub fn evaluate(
    network: &Inference,
    data: &Labelled,
    preprocess: &Preprocess,
    class_names: &[String],
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvaluateError> {
    preprocess.takes_pictures()?;
    let mut tallies = vec![Tally::default(); class_names.len()];
    let mut total = Tally::default();
    let mut predictions = Vec::with_capacity(data.loader.len());
    let mut count = |said: Said| {
        let (batch, ranks, losses, certain) = said.read();
        let samples = batch.indices.iter().zip(&batch.labels).zip(ranks).zip(losses).zip(certain);
        for ((((&index, &label), rank), loss), (chosen, probability)) in samples {
            total.add(&[rank], loss);
            tallies[label].add(&[rank], loss);
            let target_probability = (-loss).exp();
            predictions.push(Predicted { index, label, chosen, probability, target_probability, loss });
        }
        progress(total.images);
    };
    // A device that runs behind computes one batch while the one before is read.
    let mut last = None;
    let mut largest = 0;
    for batch in data.loader.epoch(0) {
        if stop.load(Ordering::Relaxed) {
            return Err(EvaluateError::Interrupted);
        }
        let mut batch = batch?;
        batch.labels.iter_mut().for_each(|label| *label = data.labels[*label]);
        largest = largest.max(batch.labels.len());
        let size = if is_host(device) { batch.labels.len() } else { largest };
        let said = Said::of(network, batch, size, preprocess, device);
        last.replace(said).map(&mut count);
    }
    last.map(&mut count);
    let classes = class_names.iter().zip(&tallies).map(|(name, tally)| {
        let Scores { top1, top5, .. } = tally.scores();
        ClassScores { label: name.clone(), images: tally.images, top1, top5 }
    });
    Ok(Evaluation {
        scores: total.scores(),
        top1_interval: wilson_interval(total.top1, total.images),
        top5_interval: wilson_interval(total.top5, total.images),
        images: total.images,
        classes: classes.collect(),
        predictions,
        skipped: data.loader.skipped(),
    })
}

fn to_usize(data: TensorData) -> Vec<usize> {
    data.iter::<i64>().map(|value| value as usize).collect()
}
