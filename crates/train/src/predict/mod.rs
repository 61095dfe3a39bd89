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

use burn::tensor::Tensor;

pub use inputs::Inputs;
pub use result::{Candidate, Prediction, Truth, Unread, candidates, from_thresholds};
pub(crate) use table::create_part;
pub use table::{Table, TableError, TableFormat};

pub(crate) use decoders::read_file;

use mbconv_data::{Batch, DataError};

use crate::classifier::Classifier;
use crate::device::is_host;
use crate::metrics::{sigmoid, softmax};
use decoders::{Decoded, Decoders};

/// Number of images per batch.
const BATCH: usize = 32;

/// Number of batches decoded in advance, in addition to the files that threads are decoding.
const BATCHES_AHEAD: usize = 2;

/// Maximum wait for the next path before an incomplete batch is run. Only lists on standard input
/// are that slow.
const PATIENCE: Duration = Duration::from_millis(100);

/// Options of [`predict`].
#[derive(Clone, Debug)]
pub struct PredictOptions {
    /// Number of classes per image, unless there are `thresholds`.
    pub top_k: usize,
    /// Probability of each class from which a multi-label model predicts it.
    pub thresholds: Option<Vec<f32>>,
    /// Also return the probabilities of all classes.
    pub probabilities: bool,
    /// Also return the logits.
    pub logits: bool,
    /// Number of decoding threads.
    pub workers: usize,
}

/// Classifies image files with `classifier`, whose classes have these names. Calls `each` with the
/// results of one batch after the other, in the order of the files. A file that cannot be read or
/// decoded gives an error result. Ends early if `each` breaks or `stop` is set.
///
/// Memory use does not depend on the number of files.
///
/// # Errors
/// Returns an error if the network does not accept images or threads cannot be started.
pub fn predict(
    classifier: &Classifier,
    classes: &[String],
    files: impl Iterator<Item = Result<PathBuf, Unread>> + Send + 'static,
    options: &PredictOptions,
    stop: &AtomicBool,
    each: &mut dyn FnMut(Vec<Result<Prediction, Unread>>) -> ControlFlow<()>,
) -> Result<(), DataError> {
    classifier.preprocess.takes_pictures().map_err(DataError::from)?;
    let decoders =
        Decoders::start(files, classifier.preprocess, classifier.tta, options.workers, BATCHES_AHEAD * BATCH)?;
    let predictor = Predictor { classifier, classes, options };
    // A GPU computes a batch while the results of the previous one are read.
    let mut computing: Option<Computing> = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut next = || -> ControlFlow<()> {
        let outcome = decoders.next(PATIENCE);
        let ended = matches!(outcome, Err(RecvTimeoutError::Disconnected));
        let waited = outcome.is_err();
        batch.extend(outcome.ok());
        if batch.len() == BATCH || waited && !batch.is_empty() {
            let started = predictor.start(std::mem::take(&mut batch));
            if let Some(before) = computing.replace(started) {
                each(predictor.read(before))?;
            }
        }
        if (waited || is_host(classifier.device))
            && let Some(last) = computing.take()
        {
            each(predictor.read(last))?;
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

struct Predictor<'a> {
    classifier: &'a Classifier<'a>,
    classes: &'a [String],
    options: &'a PredictOptions,
}

impl Predictor<'_> {
    /// Starts the computation of a batch.
    fn start(&self, decoded: Vec<Result<Decoded, Unread>>) -> Computing {
        let (mut width, mut height) = (0, 0);
        let mut images = Vec::new();
        let mut count = 0;
        let files = decoded.into_iter().map(|outcome| {
            let Decoded { path, pixels } = outcome?;
            (width, height) = (pixels.width, pixels.height);
            images.extend(pixels.data);
            count += 1;
            Ok(path)
        });
        let files = files.collect();
        if count == 0 {
            return Computing { files, logits: None };
        }
        let batch = Batch { images, labels: vec![0; count], height, width, indices: Vec::new(), plans: Vec::new() };
        // GPU kernels are compiled and tuned for each shape, so the last batch is padded.
        let size = if is_host(self.classifier.device) { count } else { BATCH };
        Computing { files, logits: Some(self.classifier.logits(batch, size)) }
    }

    /// Returns the results of a batch. Synchronizes with the device.
    fn read(&self, Computing { files, logits }: Computing) -> Vec<Result<Prediction, Unread>> {
        let logits: Vec<f32> = logits.map_or_else(Vec::new, |logits| logits.into_data().iter().collect());
        let mut outputs = logits.chunks(self.classes.len());
        let predictions = files.into_iter().map(|file| {
            let path = file?;
            let logits = outputs.next().ok_or_else(|| Unread::new(&path, "the network gave no result"))?;
            Ok(self.prediction(&path, logits))
        });
        predictions.collect()
    }

    fn prediction(&self, path: &Path, logits: &[f32]) -> Prediction {
        let PredictOptions { top_k, thresholds, .. } = self.options;
        let probabilities = if self.classifier.multi_label { sigmoid(logits) } else { softmax(logits) };
        let predictions = match thresholds {
            Some(thresholds) => from_thresholds(&probabilities, self.classes, thresholds),
            None => candidates(&probabilities, self.classes, *top_k),
        };
        Prediction {
            path: path.display().to_string(),
            truth: None,
            true_labels: None,
            predictions,
            logits: self.options.logits.then(|| logits.to_vec()),
            probabilities: self.options.probabilities.then_some(probabilities),
        }
    }
}
