//! Training steps on a GPU. After a few steps, a step is recorded and from then on replayed with
//! other inputs in the same memory. Queueing each kernel of a small batch takes the CPU longer than
//! the GPU needs to run it.

use std::fmt::Display;
use std::mem;
use std::path::Path;

use burn::backend::DispatchTensor;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mbconv_kernels::dropout::{SEED_LEN, SeedGuard, encode_seed, use_seed};
use mbconv_kernels::graph_capture::{CapturedGraph, GraphCapture};
use mbconv_kernels::optimizer_step::{self, StepScalars, overwrite};

use crate::batch::Normaliser;
use crate::checkpoint::{self, Learner, Progress};
use crate::data::Preprocess;
use crate::device::is_on_gpus;
use crate::ema;
use crate::engine::TrainError;
use crate::group::Group;
use crate::loss::Targets;
use crate::objective::{Objective, Prepared};
use crate::optimizer::{Clipping, OptimizerName};
use crate::recipe::{OnNan, Recipe};
use crate::running::counted;

/// Number of steps of the same kind before one is recorded. They tune kernels, and end shared
/// references to the learner's memory.
const FIRST: usize = 4;
/// Positions in the constants of a step: those of the moving average follow the seed and are
/// followed by those of the optimizer.
const AVERAGE: usize = SEED_LEN;
const RULES: usize = AVERAGE + 2;

/// Settings that change from step to step.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Learning rate.
    pub(crate) rate: f64,
    /// Decay of the moving average.
    pub(crate) decay: f64,
    /// Random seed on the device.
    pub(crate) seed: u64,
}

/// Runs the training steps of a run, each an optimizer step with one batch.
pub(crate) struct Stepper<'a> {
    recipe: &'a Recipe,
    objective: &'a Objective<'a>,
    normaliser: Normaliser,
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

/// Result of a step.
pub(crate) struct Step {
    pub(crate) learner: Learner,
    /// Result of [`counted`].
    pub(crate) counted: Tensor<1>,
    /// Message to print.
    pub(crate) line: Option<String>,
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
    inputs: Inputs,
    /// Result of [`counted`] in the recorded step.
    counted: Tensor<1>,
}

/// Inputs of a step: pixels, labels, soft targets if any, and constants, each as a vector of f32.
struct Inputs {
    rows: Vec<DispatchTensor>,
    kind: Kind,
}

impl<'a> Stepper<'a> {
    /// Creates a stepper for a run that can be replayed: on a GPU, in a single process, without
    /// gradient accumulation and without skipping of non-finite steps. Returns `None` for other
    /// runs. `device` must have autodiff enabled.
    pub(crate) fn new(
        recipe: &'a Recipe,
        objective: &'a Objective<'a>,
        preprocess: &Preprocess,
        device: &Device,
        group: &Group,
    ) -> Option<Self> {
        let alike = group.size() == 1 && recipe.accumulate == 1 && recipe.on_nan == OnNan::Stop;
        if !is_on_gpus(&device.clone().inner()) || !alike {
            return None;
        }
        // Kernels of Burn's own optimizers contain the learning rate as a constant.
        let ours = [OptimizerName::Sgd, OptimizerName::RmspropTf, OptimizerName::AdamW];
        let records = recipe.record_steps && ours.contains(&recipe.optimizer.name);
        Some(Self {
            recipe,
            objective,
            normaliser: Normaliser::new(preprocess, device),
            clipping: recipe.optimizer.clipping(),
            device: device.clone(),
            records,
            kind: None,
            count: 0,
            recorded: None,
        })
    }

    /// Runs a training step with one batch. `progress` is the position of the run.
    ///
    /// # Errors
    /// Returns an error if a recorded step cannot be replayed.
    pub(crate) fn step(
        &mut self,
        learner: Learner,
        (pixels, prepared): (Tensor<4>, Prepared),
        pace: Pace,
        progress: &Progress,
    ) -> Result<Step, TrainError> {
        let head_epochs = self.recipe.finetune.as_ref().map_or(0, |finetune| finetune.head_epochs);
        let kind = Kind {
            shape: pixels.dims(),
            shares: prepared.targets.shares.as_ref().map(|shares| shares.dims()[1]),
            head_only: progress.epoch < head_epochs,
        };
        if self.kind.replace(kind) != Some(kind) {
            (self.count, self.recorded) = (0, None);
        }
        self.count += 1;
        if let Some(recorded) = &mut self.recorded {
            let numbers = numbers(&learner, pace, &self.device);
            recorded.inputs.write(rows(pixels, &prepared.targets, numbers));
            learner.optimizer.count_step();
            recorded.recording.replay().map_err(TrainError::Repeat)?;
            // Copies the result, because the next step overwrites its memory.
            let counted = recorded.counted.clone().mul_scalar(1.0);
            return Ok(Step { learner, counted, line: None });
        }
        if !self.records || self.count <= FIRST {
            let seed = seed_row(pace.seed, &self.device);
            let (learner, counted) = self.update(learner, pixels, &prepared, pace, seed, false);
            return Ok(Step { learner, counted, line: None });
        }
        let numbers = numbers(&learner, pace, &self.device);
        let inputs = Inputs::new(rows(pixels, &prepared.targets, numbers), kind);
        self.record(learner, inputs, pace, progress)
    }

    /// Runs a step with these inputs and records another.
    fn record(
        &mut self,
        learner: Learner,
        inputs: Inputs,
        pace: Pace,
        progress: &Progress,
    ) -> Result<Step, TrainError> {
        let step = |learner| {
            let (pixels, targets, numbers) = inputs.tensors(&self.device);
            let (pixels, prepared) = self.objective.prepared(pixels, targets);
            self.update(learner, pixels, &prepared, pace, numbers, true)
        };
        let capture = GraphCapture::prepare(&self.device);
        let (learner, counted) = step(learner);
        // If recording fails, memory that the recorded step would have changed cannot be read, so
        // the state is saved first.
        let place = Path::new("the memory");
        let saved = checkpoint::to_bytes(place, &learner, progress);
        let copies = optimizer_step::copies();
        let capture = capture.and_then(|capture| capture.start().map(|()| capture));
        let (capture, saved) = match (capture, saved) {
            (Ok(capture), Ok(saved)) => (capture, saved),
            // Saving fails if weights are not finite, which the training loop reports.
            (_, Err(_)) => return Ok(Step { learner, counted, line: None }),
            (Err(error), _) => return Ok(self.without(learner, counted, &error)),
        };
        let (learner, next_counted) = step(learner);
        let recording = capture.finish().map_err(|error| error.to_string()).and_then(|recording| {
            let moved = optimizer_step::copies() > copies;
            if moved { Err("the learner's memory is shared".into()) } else { Ok(recording) }
        });
        match recording {
            Ok(recording) => {
                learner.optimizer.uncount_step();
                let [images, height, width, _] = inputs.kind.shape;
                let line = format!(
                    "device: from here on, steps of {images} images of {width}×{height} pixels are recorded and repeated (record_steps)"
                );
                self.recorded = Some(Recorded { recording, inputs, counted: next_counted });
                Ok(Step { learner, counted, line: Some(line) })
            }
            Err(error) => {
                let (learner, _) = checkpoint::from_bytes(place, &saved, learner)?;
                Ok(self.without(learner, counted, &error))
            }
        }
    }

    /// Continues without recording.
    fn without(&mut self, learner: Learner, counted: Tensor<1>, error: &dyn Display) -> Step {
        self.records = false;
        let error = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        let line = format!("device: steps are queued kernel by kernel, since recording one failed: {error}");
        Step { learner, counted, line: Some(line) }
    }

    /// Runs a step and returns the updated learner and the result of [`counted`]. The step reads
    /// its seed from `numbers`, and the other constants too if `reads` is set.
    fn update(
        &self,
        learner: Learner,
        pixels: Tensor<4>,
        prepared: &Prepared,
        pace: Pace,
        numbers: Tensor<1>,
        reads: bool,
    ) -> (Learner, Tensor<1>) {
        let Learner { mut network, mut optimizer, mut average } = learner;
        let numbers = numbers.into_dispatch();
        let from = |start| reads.then(|| StepScalars { all: numbers.clone(), start });
        let drawing = use_seed(numbers.clone());
        let images = self.recipe.precision.of(self.normaliser.apply(pixels));
        let logits = network.forward_channels_last(images);
        drop(drawing);
        let losses = self.objective.losses(logits.clone(), prepared);
        let counted = counted(&logits, &prepared.targets.labels, &losses);
        let mut gradients = GradientsParams::from_grads(losses.mean().backward(), &network);
        self.clipping.apply(&network, &mut gradients);
        network = optimizer.step_by(pace.rate, network, gradients, from(RULES));
        average = average.map(|average| ema::update_by(average, &network, pace.decay, from(AVERAGE)));
        (Learner { network, optimizer, average }, counted)
    }
}

impl Inputs {
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

    /// Returns pixels, targets and constants that are read from the vectors when the step runs.
    /// Pixels and targets are on `device`, which has autodiff enabled.
    fn tensors(&self, device: &Device) -> (Tensor<4>, Targets, Tensor<1>) {
        let mut rows = self.rows.iter().map(|row| Tensor::<1>::from_dispatch(row.clone()));
        let mut next = || rows.next().expect("as many as were written");
        let pixels = next().reshape(self.kind.shape).to_device(device);
        let labels = next().int().to_device(device);
        let shares = self.kind.shares.map(|classes| next().reshape([self.kind.shape[0], classes]).to_device(device));
        (pixels, Targets { labels, shares }, next())
    }
}

/// Uses `seed` for the random values of a network in training on the device, until the result is
/// dropped.
pub(crate) fn draw(seed: u64, device: &Device) -> SeedGuard {
    use_seed(seed_row(seed, device).into_dispatch())
}

fn seed_row(seed: u64, device: &Device) -> Tensor<1> {
    Tensor::from_floats(encode_seed(seed), &device.clone().inner())
}

/// Returns the inputs of a step as vectors.
fn rows(pixels: Tensor<4>, targets: &Targets, numbers: Tensor<1>) -> Vec<DispatchTensor> {
    let row = |tensor: Tensor<1>| tensor.into_dispatch();
    let pixels = row(pixels.inner().flatten(0, 3));
    // Class indices are below 2²⁴, so that f32 represents them exactly.
    let labels = row(targets.labels.clone().inner().float());
    let shares = targets.shares.clone().map(|shares| row(shares.inner().flatten(0, 1)));
    [Some(pixels), Some(labels), shares, Some(row(numbers))].into_iter().flatten().collect()
}

/// Returns the constants of the learner's next step.
fn numbers(learner: &Learner, pace: Pace, device: &Device) -> Tensor<1> {
    let shares = [pace.decay, 1.0 - pace.decay].map(|share| share as f32);
    let rules = learner.optimizer.numbers(pace.rate);
    let all = [&encode_seed(pace.seed)[..], &shares, &rules].concat();
    Tensor::from_floats(all.as_slice(), &device.clone().inner())
}
