//! Classification of image files.

mod decoders;
mod inputs;
mod result;
mod table;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use mbconv_nets::Inference;

pub use inputs::Inputs;
pub use result::{Candidate, Prediction, Unread};
pub use table::{Table, TableError, TableFormat};

use mbconv_data::{Batch, DataError};
use mbconv_interop::model_file::ModelCard;

use crate::device::is_host;
use crate::normalize::images;
use decoders::{Decoded, Decoders};

/// Number of images per batch.
const BATCH: usize = 32;

/// Number of batches decoded in advance, in addition to the files that threads are decoding.
const BATCHES_AHEAD: usize = 2;

/// Maximum wait for the next path before an incomplete batch is run. Only lists on standard input
/// are that slow.
const PATIENCE: Duration = Duration::from_millis(100);

/// Options of [`predict`].
#[derive(Clone, Copy, Debug)]
pub struct PredictOptions {
    /// Maximum number of classes per image.
    pub top_k: usize,
    /// Also return the logits.
    pub logits: bool,
    /// Number of decoding threads.
    pub workers: usize,
}

/// Classifies image files with `network`, the network of the model `card`, which also defines the
/// preprocessing. Calls `each` with the results of one batch after the other, in the order of the
/// files. A file that cannot be read or decoded gives an error result. Ends early if `each` breaks
/// or `stop` is set.
///
/// Memory use does not depend on the number of files.
///
/// # Errors
/// Returns an error if the network does not accept images or threads cannot be started.
pub fn predict(
    network: &Inference,
    card: &ModelCard,
    files: impl Iterator<Item = Result<PathBuf, Unread>> + Send + 'static,
    options: &PredictOptions,
    device: &Device,
    stop: &AtomicBool,
    each: &mut dyn FnMut(Vec<Result<Prediction, Unread>>) -> ControlFlow<()>,
) -> Result<(), DataError> {
    card.preprocess.takes_pictures().map_err(DataError::from)?;
    let decoders = Decoders::start(files, &card.preprocess, options.workers, BATCHES_AHEAD * BATCH)?;
    let classifier = Classifier { network, card, options, device };
    // A GPU computes a batch while the results of the previous one are read.
    let mut computing: Option<Computing> = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut next = || -> ControlFlow<()> {
        let outcome = decoders.next(PATIENCE);
        let ended = matches!(outcome, Err(RecvTimeoutError::Disconnected));
        let waited = outcome.is_err();
        batch.extend(outcome.ok());
        if batch.len() == BATCH || waited && !batch.is_empty() {
            let started = classifier.start(std::mem::take(&mut batch));
            if let Some(before) = computing.replace(started) {
                each(classifier.read(before))?;
            }
        }
        if (waited || is_host(device))
            && let Some(last) = computing.take()
        {
            each(classifier.read(last))?;
        }
        if ended || stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while next().is_continue() {}
    Ok(())
}

/// A batch that is being computed.
struct Computing {
    /// The files, in order.
    files: Vec<Result<PathBuf, Unread>>,
    /// Logits of the files that could be read.
    logits: Option<Tensor<2>>,
}

struct Classifier<'a> {
    network: &'a Inference,
    card: &'a ModelCard,
    options: &'a PredictOptions,
    device: &'a Device,
}

impl Classifier<'_> {
    /// Starts the computation of a batch.
    fn start(&self, decoded: Vec<Result<Decoded, Unread>>) -> Computing {
        let preprocess = &self.card.preprocess;
        let side = preprocess.crop;
        let mut batch = Batch {
            images: Vec::with_capacity(BATCH * side * side * 3),
            labels: Vec::new(),
            height: side,
            width: side,
            indices: Vec::new(),
            plans: Vec::new(),
        };
        let mut count = 0;
        let files = decoded.into_iter().map(|outcome| {
            let Decoded { path, pixels } = outcome?;
            batch.images.extend_from_slice(&pixels.data);
            count += 1;
            Ok(path)
        });
        let files = files.collect();
        if count == 0 {
            return Computing { files, logits: None };
        }
        // GPU kernels are compiled and tuned for each shape, so the last batch is padded with black
        // images.
        let size = if is_host(self.device) { count } else { BATCH };
        batch.images.resize(size * side * side * 3, 0);
        batch.labels = vec![0; size];
        let logits = self.network.forward_channels_last(images(&mut batch, preprocess, self.device));
        Computing { files, logits: Some(logits) }
    }

    /// Returns the results of a batch. Synchronizes with the device.
    fn read(&self, Computing { files, logits }: Computing) -> Vec<Result<Prediction, Unread>> {
        let classes = self.card.classes.len();
        let (probabilities, logits): (Vec<f32>, Vec<f32>) = match logits {
            Some(logits) => {
                (softmax(logits.clone(), 1).into_data().iter().collect(), logits.into_data().iter().collect())
            }
            None => Default::default(),
        };
        let mut outputs = probabilities.chunks(classes).zip(logits.chunks(classes));
        let predictions = files.into_iter().map(|file| {
            let path = file?;
            let Some((probabilities, logits)) = outputs.next() else {
                return Err(Unread::new(&path, "the network gave no result"));
            };
            Ok(self.prediction(&path, probabilities, logits))
        });
        predictions.collect()
    }

    fn prediction(&self, path: &Path, probabilities: &[f32], logits: &[f32]) -> Prediction {
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        let candidates = order.into_iter().take(self.options.top_k).map(|index| Candidate {
            label: self.card.classes[index].clone(),
            index,
            probability: probabilities[index],
        });
        Prediction {
            path: path.display().to_string(),
            predictions: candidates.collect(),
            logits: self.options.logits.then(|| logits.to_vec()),
        }
    }
}
