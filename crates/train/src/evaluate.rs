//! Evaluation of a network on a split.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use mbconv_nets::Inference;

use crate::device::is_host;
use crate::loss::cross_entropy;
use mbconv_data::{Batch, DataError, DataSet, Loader, Preprocess};
pub use mbconv_report::{ClassScores, Evaluation, Predicted};

use crate::metrics::{Scores, Tally, target_ranks, wilson_interval};
use crate::normalize::{images, targets};

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
            Self::Interrupted => None,
        }
    }
}

/// Images to evaluate, with the mapping of their labels to the model's classes.
pub struct Labelled<'a> {
    /// The images.
    pub loader: &'a Loader,
    /// Class index of the model for each label of the data.
    pub labels: Vec<usize>,
}

impl<'a> Labelled<'a> {
    /// Finds the classes of the data among the model's by name or alias. The data may contain only
    /// some of the model's classes.
    ///
    /// # Errors
    /// Returns an error if the model does not have a class of the data.
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

/// The network's results for a batch, on the device.
struct BatchOutput {
    batch: Batch,
    ranks: Tensor<1, Int>,
    losses: Tensor<1>,
    probabilities: Tensor<2>,
    chosen: Tensor<2, Int>,
}

impl BatchOutput {
    /// Evaluates a batch, padded to `size` with black images. A GPU would compile and tune kernels
    /// again for another batch size.
    fn new(network: &Inference, mut batch: Batch, size: usize, preprocess: &Preprocess, device: &Device) -> Self {
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

    /// Returns rank of the target, loss, predicted class and its probability for each image.
    /// Synchronizes with the device.
    #[allow(clippy::type_complexity)]
    fn read(self) -> (Batch, Vec<usize>, Vec<f64>, Vec<(usize, f64)>) {
        let count = self.batch.labels.len();
        let floats = |data: TensorData| data.iter::<f64>().take(count).collect::<Vec<_>>();
        let certain = to_usize(self.chosen.into_data()).into_iter().zip(floats(self.probabilities.into_data()));
        let certain = certain.collect();
        (self.batch, to_usize(self.ranks.into_data()), floats(self.losses.into_data()), certain)
    }
}

/// Evaluates `network`, which is on `device`, on all images in `data`. Calls `progress` with the
/// number of images done.
///
/// # Errors
/// Returns an error if an image cannot be read and the loader does not skip such images, if the
/// network does not accept images, or if `stop` is set.
pub fn evaluate(
    network: &Inference,
    data: &Labelled,
    preprocess: &Preprocess,
    class_names: &[String],
    device: &Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation, EvaluateError> {
    preprocess.takes_pictures().map_err(DataError::from)?;
    let mut tallies = vec![Tally::default(); class_names.len()];
    let mut total = Tally::default();
    let mut predictions = Vec::with_capacity(data.loader.len());
    let mut count = |output: BatchOutput| {
        let (batch, ranks, losses, certain) = output.read();
        let samples = batch.indices.iter().zip(&batch.labels).zip(ranks).zip(losses).zip(certain);
        for ((((&index, &label), rank), loss), (chosen, probability)) in samples {
            total.add(&[rank], loss);
            tallies[label].add(&[rank], loss);
            let target_probability = (-loss).exp();
            predictions.push(Predicted { index, label, chosen, probability, target_probability, loss });
        }
        progress(total.images);
    };
    // A GPU computes a batch while the results of the previous one are read.
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
        let output = BatchOutput::new(network, batch, size, preprocess, device);
        last.replace(output).map(&mut count);
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
