//! Training steps on a GPU. After a few steps, a step is recorded and from then on replayed with
//! other inputs in the same memory. Queueing each kernel of a small batch takes the CPU longer than
//! the GPU needs to run it.

use std::fmt::Display;
use std::mem;
use std::path::Path;

use burn::backend::DispatchTensor;
use burn::tensor::{Device, Tensor};
use mbconv_kernels::graph_capture::{CapturedGraph, GraphCapture};
use mbconv_kernels::optimizer_step::{self, overwrite};

use super::error::TrainError;
use super::event::Run;
use super::learner::Learner;
use super::step::{
    StepInputs, StepOutcome, StepRequest, StepResult, TrainStep, apply_update, dropout_from, forward_backward,
};
use crate::checkpoint;
use crate::config::optimizer::OptimizerName;
use crate::config::{OnNan, Recipe};
use crate::criterion::{Criterion, Prepared};
use crate::device::is_on_gpus;
use crate::loss::Targets;
use crate::normalize::Normalizer;
use crate::optimizer::clip::Clipping;
use crate::running_metrics::RunningMetrics;
use mbconv_data::{Batch, DataError, Preprocess};

/// Number of steps of the same kind before one is recorded. They tune kernels, and end shared
/// references to the learner's memory.
const WARM_UP: usize = 4;

/// Runs optimizer steps with one batch each, and replays them once one is recorded.
pub(super) struct GraphStep<'a> {
    recipe: &'a Recipe,
    criterion: &'a Criterion<'a>,
    normalizer: Normalizer,
    clipping: Clipping,
    /// Device with autodiff.
    device: Device,
    /// True if steps may be recorded.
    records: bool,
    /// Kind of the last step. `count` is the number of consecutive steps of this kind.
    kind: Option<Kind>,
    count: usize,
    recorded: Option<Recorded>,
}

/// A step that was run or replayed.
struct Done {
    learner: Learner,
    /// Result of [`Criterion::batch_metrics`].
    metrics: Tensor<1>,
    /// Message for the user.
    line: Option<String>,
}

/// Properties that must be equal for a recorded step to be replayed.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    /// Shape of the pixels.
    shape: [usize; 4],
    /// Number of classes if the targets are soft.
    shares: Option<usize>,
    /// True if only the classifier is trained.
    head_only: bool,
}

/// A recorded step with its input and output memory.
struct Recorded {
    recording: CapturedGraph,
    buffers: InputBuffers,
    /// Result of [`Criterion::batch_metrics`] in the recorded step.
    metrics: Tensor<1>,
}

/// Memory of the inputs of a step: pixels, labels, soft targets if any, and scalars, each as a
/// vector of f32.
struct InputBuffers {
    rows: Vec<DispatchTensor>,
    kind: Kind,
}

impl<'a> GraphStep<'a> {
    /// Creates the steps of a run that can be replayed: on a GPU, in a single process, without
    /// gradient accumulation, skipping of non-finite updates and quantization. Returns `None` for
    /// other runs. `device` must have autodiff enabled.
    pub(super) fn new(
        run: Run<'a>,
        criterion: &'a Criterion<'a>,
        preprocess: &Preprocess,
        device: &Device,
    ) -> Option<Self> {
        let recipe = run.recipe;
        let is_simple = run.group.size() == 1 && recipe.accumulate == 1 && recipe.on_nan == OnNan::Stop;
        // The CPU computes the ranges of the activations.
        let is_simple = is_simple && recipe.quantization.is_none();
        if !is_on_gpus(run.device) || !is_simple {
            return None;
        }
        // Kernels of Burn's own optimizers contain the learning rate as a constant.
        let ours = [OptimizerName::Sgd, OptimizerName::RmspropTf, OptimizerName::AdamW];
        let records = recipe.record_steps && ours.contains(&recipe.optimizer.name);
        Some(Self {
            recipe,
            criterion,
            normalizer: Normalizer::new(preprocess, device),
            clipping: recipe.optimizer.clipping(),
            device: device.clone(),
            records,
            kind: None,
            count: 0,
            recorded: None,
        })
    }

    /// Runs, records or replays a step.
    fn run_or_replay(
        &mut self,
        mut learner: Learner,
        (pixels, prepared): (Tensor<4>, Prepared),
        request: &StepRequest,
    ) -> Result<Done, TrainError> {
        let head_epochs = self.recipe.finetune.as_ref().map_or(0, |finetune| finetune.head_epochs);
        let kind = Kind {
            shape: pixels.dims(),
            shares: prepared.targets.shares.as_ref().map(|shares| shares.dims()[1]),
            head_only: request.epoch < head_epochs,
        };
        if self.kind.replace(kind) != Some(kind) {
            (self.count, self.recorded) = (0, None);
        }
        self.count += 1;
        let inputs = request.inputs;
        if let Some(recorded) = &mut self.recorded {
            let scalars = inputs.scalars(&learner.optimizer, &self.device);
            recorded.buffers.write(rows(pixels, &prepared.targets, scalars));
            learner.optimizer.count_step();
            recorded.recording.replay().map_err(TrainError::Replay)?;
            // Copies the result, because the next step overwrites its memory.
            let metrics = recorded.metrics.clone().mul_scalar(1.0);
            return Ok(Done { learner, metrics, line: None });
        }
        if !self.records || self.count <= WARM_UP {
            let seed = inputs.seed_scalars(&self.device);
            let (learner, metrics) = self.update(learner, pixels, &prepared, inputs, seed, false);
            return Ok(Done { learner, metrics, line: None });
        }
        let scalars = inputs.scalars(&learner.optimizer, &self.device);
        let buffers = InputBuffers::new(rows(pixels, &prepared.targets, scalars), kind);
        self.record(learner, buffers, request)
    }

    /// Runs a step with these inputs and records another.
    fn record(&mut self, learner: Learner, buffers: InputBuffers, request: &StepRequest) -> Result<Done, TrainError> {
        let step = |learner| {
            let (pixels, targets, scalars) = buffers.tensors(&self.device);
            let (pixels, prepared) = self.criterion.prepared(pixels, targets);
            self.update(learner, pixels, &prepared, request.inputs, scalars, true)
        };
        let capture = GraphCapture::prepare(&self.device);
        let (learner, metrics) = step(learner);
        // If recording fails, memory that the recorded step would have changed cannot be read, so
        // the state is saved first.
        let place = Path::new("the memory");
        let saved = checkpoint::to_bytes(place, &learner, request.progress);
        let copies = optimizer_step::copies();
        let capture = capture.and_then(|capture| capture.start().map(|()| capture));
        let (capture, saved) = match (capture, saved) {
            (Ok(capture), Ok(saved)) => (capture, saved),
            // Saving fails if weights are not finite, which the training loop reports.
            (_, Err(_)) => return Ok(Done { learner, metrics, line: None }),
            (Err(error), _) => return Ok(self.without_recording(learner, metrics, &error)),
        };
        let (mut learner, recorded_metrics) = step(learner);
        let recording = capture.finish().map_err(|error| error.to_string()).and_then(|recording| {
            let has_copied = optimizer_step::copies() > copies;
            if has_copied { Err("the learner's memory is shared".into()) } else { Ok(recording) }
        });
        match recording {
            Ok(recording) => {
                learner.optimizer.uncount_step();
                let [images, height, width, _] = buffers.kind.shape;
                let line = format!(
                    "device: steps of {images} images of {width}×{height} pixels are recorded and replayed from here on (record_steps)"
                );
                self.recorded = Some(Recorded { recording, buffers, metrics: recorded_metrics });
                Ok(Done { learner, metrics, line: Some(line) })
            }
            Err(error) => {
                let (learner, _) = checkpoint::from_bytes(place, &saved, learner)?;
                Ok(self.without_recording(learner, metrics, &error))
            }
        }
    }

    /// Continues without recording.
    fn without_recording(&mut self, learner: Learner, metrics: Tensor<1>, error: &dyn Display) -> Done {
        self.records = false;
        let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("device: steps are queued kernel by kernel, since recording one failed: {error}");
        Done { learner, metrics, line: Some(line) }
    }

    /// Runs a step and returns the updated learner and the result of
    /// [`Criterion::batch_metrics`]. The dropout masks depend on the seed in `scalars`. If
    /// `replayable`, the update reads its constants from there too.
    fn update(
        &self,
        learner: Learner,
        pixels: Tensor<4>,
        prepared: &Prepared,
        inputs: StepInputs,
        scalars: Tensor<1>,
        replayable: bool,
    ) -> (Learner, Tensor<1>) {
        let scalars = scalars.into_dispatch();
        let dropout = dropout_from(&scalars);
        let images = self.recipe.precision.of(self.normalizer.apply(pixels));
        let losses = |logits| self.criterion.losses(logits, prepared);
        let (forward, gradients) = forward_backward(&learner.network, images, Some(dropout), 1.0, losses);
        let metrics = self.criterion.batch_metrics(&forward.logits, &forward.losses, prepared);
        drop(forward);
        (apply_update(learner, gradients, self.clipping, inputs, replayable.then_some(&scalars)), metrics)
    }
}

impl TrainStep for GraphStep<'_> {
    fn step(
        &mut self,
        learner: Learner,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        request: &StepRequest,
        metrics: &mut RunningMetrics,
    ) -> Result<StepResult, TrainError> {
        let requests = request.requests;
        let Some(batch) = batches.next() else {
            return Ok(StepResult { learner, batches: 0, outcome: StepOutcome::NoImages, requests, line: None });
        };
        let prepared = self.criterion.prepare(batch?, request.epoch, request.step);
        let done = self.run_or_replay(learner, prepared, request)?;
        metrics.add(request.step + 1, done.metrics);
        let Done { learner, line, .. } = done;
        Ok(StepResult { learner, batches: 1, outcome: StepOutcome::Updated, requests, line })
    }
}

impl InputBuffers {
    fn new(rows: Vec<DispatchTensor>, kind: Kind) -> Self {
        // Memory that nothing else refers to.
        let own = rows.iter().map(|row| {
            let row = Tensor::<1>::from_dispatch(row.clone());
            Tensor::<1>::zeros(row.dims(), &row.device()).into_dispatch()
        });
        let mut inputs = Self { rows: own.collect(), kind };
        inputs.write(rows);
        inputs
    }

    fn write(&mut self, rows: Vec<DispatchTensor>) {
        self.rows = overwrite(mem::take(&mut self.rows), rows);
    }

    /// Returns pixels, targets and scalars that are read from the vectors when the step runs.
    /// Pixels and targets are on `device`, which has autodiff enabled.
    fn tensors(&self, device: &Device) -> (Tensor<4>, Targets, Tensor<1>) {
        let mut rows = self.rows.iter().map(|row| Tensor::<1>::from_dispatch(row.clone()));
        let mut next = || rows.next().expect("one row per input");
        let pixels = next().reshape(self.kind.shape).to_device(device);
        let labels = next().int().to_device(device);
        let shares = self.kind.shares.map(|classes| next().reshape([self.kind.shape[0], classes]).to_device(device));
        (pixels, Targets { labels, shares }, next())
    }
}

/// Returns the inputs of a step as vectors.
fn rows(pixels: Tensor<4>, targets: &Targets, scalars: Tensor<1>) -> Vec<DispatchTensor> {
    let row = |tensor: Tensor<1>| tensor.into_dispatch();
    let pixels = row(pixels.inner().flatten(0, 3));
    // Class indices are below 2²⁴, so that f32 represents them exactly.
    let labels = row(targets.labels.clone().inner().float());
    let shares = targets.shares.clone().map(|shares| row(shares.inner().flatten(0, 1)));
    [Some(pixels), Some(labels), shares, Some(row(scalars))].into_iter().flatten().collect()
}
