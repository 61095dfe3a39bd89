//! The training step, shared by training, the learning-rate finder and the benchmark.

use burn::backend::DispatchTensor;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use mbconv_kernels::dropout::{SEED_LEN, SeedGuard, encode_seed, use_seed};
use mbconv_kernels::optimizer_step::StepScalars;
use mbconv_nets::Network;

use super::error::TrainError;
use super::learner::Learner;
use crate::checkpoint::Progress;
use crate::ema;
use crate::optimizer::clip::Clipping;
use crate::optimizer::multi_tensor::NetworkOptimizer;
use crate::running_metrics::RunningMetrics;
use mbconv_data::{Batch, DataError};

/// Positions in the scalars of a step: those of the moving average follow the seed, and those of
/// the optimizer come last.
const EMA_START: usize = SEED_LEN;
const OPTIMIZER_START: usize = EMA_START + 2;

/// Settings that change from step to step.
#[derive(Clone, Copy, Default)]
pub(crate) struct StepInputs {
    pub(crate) learning_rate: f64,
    /// Decay of the moving average.
    pub(crate) ema_decay: f64,
    /// Random seed on the device.
    pub(crate) seed: u64,
}

/// Logits `[N, C]` and losses `[N]` of a batch.
pub(crate) struct Forward {
    pub(crate) logits: Tensor<2>,
    pub(crate) losses: Tensor<1>,
}

/// Runs the forward and the backward pass of a batch. Returns the gradients of the mean loss times
/// `weight`.
///
/// `images` are normalized and in the training precision. `criterion` computes one loss per image
/// from the logits. `dropout` contains the seed of the dropout masks; without it, Burn's random
/// numbers are used.
pub(crate) fn forward_backward(
    network: &Network,
    images: Tensor<4>,
    dropout: Option<SeedGuard>,
    weight: f64,
    criterion: impl FnOnce(Tensor<2>) -> Tensor<1>,
) -> (Forward, GradientsParams) {
    let logits = network.forward_channels_last(images);
    drop(dropout);
    let losses = criterion(logits.clone());
    let loss = losses.clone().mean();
    let loss = if weight == 1.0 { loss } else { loss.mul_scalar(weight) };
    let gradients = GradientsParams::from_grads(loss.backward(), network);
    (Forward { logits, losses }, gradients)
}

/// Clips the gradients, runs an optimizer step and updates the moving average. With `scalars`, the
/// result of [`StepInputs::scalars`], these operations read their constants from the device's
/// memory, so that they can be replayed with other values.
pub(crate) fn apply_update(
    learner: Learner,
    mut gradients: GradientsParams,
    clipping: Clipping,
    inputs: StepInputs,
    scalars: Option<&DispatchTensor>,
) -> Learner {
    let Learner { mut network, mut optimizer, mut average } = learner;
    let from = |start| scalars.map(|all| StepScalars { all: all.clone(), start });
    clipping.apply(&network, &mut gradients);
    network = optimizer.step_from(inputs.learning_rate, network, gradients, from(OPTIMIZER_START));
    average = average.map(|average| ema::update_from(average, &network, inputs.ema_decay, from(EMA_START)));
    Learner { network, optimizer, average }
}

impl StepInputs {
    /// Returns the constants of the optimizer's next step in the memory of `device`.
    pub(crate) fn scalars(self, optimizer: &NetworkOptimizer, device: &Device) -> Tensor<1> {
        let shares = [self.ema_decay, 1.0 - self.ema_decay].map(|share| share as f32);
        let all = [&encode_seed(self.seed)[..], &shares, &optimizer.scalars(self.learning_rate)].concat();
        Tensor::from_floats(all.as_slice(), &device.clone().inner())
    }

    /// Returns only the seed, in the memory of `device`.
    pub(crate) fn seed_scalars(self, device: &Device) -> Tensor<1> {
        Tensor::from_floats(encode_seed(self.seed), &device.clone().inner())
    }
}

/// Draws the dropout masks of networks on the device from `scalars`, which start with a seed, until
/// the result is dropped.
pub(crate) fn dropout_from(scalars: &DispatchTensor) -> SeedGuard {
    use_seed(scalars.clone())
}

/// An optimizer step that is to be run.
pub(crate) struct StepRequest<'a> {
    /// Epoch, counted from 0.
    pub(crate) epoch: usize,
    /// Number of batches before this step in the epoch, and since the start of the run.
    pub(crate) step: usize,
    pub(crate) steps_done: usize,
    /// Number of batches whose gradients are averaged.
    pub(crate) batches: usize,
    pub(crate) inputs: StepInputs,
    /// Requests of this process.
    pub(crate) requests: Requests,
    /// State of the run before the step.
    pub(crate) progress: &'a Progress,
}

/// Requests to the training loop.
#[derive(Clone, Copy)]
pub(crate) struct Requests {
    /// End the run.
    pub(crate) stop: bool,
    /// Write a checkpoint.
    pub(crate) checkpoint: bool,
}

/// Result of an optimizer step.
pub(crate) struct StepResult {
    pub(crate) learner: Learner,
    /// Number of batches used.
    pub(crate) batches: usize,
    pub(crate) outcome: StepOutcome,
    /// Requests of all processes.
    pub(crate) requests: Requests,
    /// Message for the user.
    pub(crate) line: Option<String>,
}

/// Outcome of an optimizer step.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum StepOutcome {
    /// The weights were updated.
    Updated,
    /// The update was skipped because the loss or a gradient is not finite.
    Skipped,
    /// The epoch has no images left.
    NoImages,
}

/// Runs optimizer steps.
pub(crate) trait TrainStep {
    /// Runs a step with the next batches of an epoch, and adds their losses and ranks to `metrics`.
    ///
    /// # Errors
    /// Returns an error if a batch cannot be read, if the loss is not finite, or if another process
    /// failed.
    fn step(
        &mut self,
        learner: Learner,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        request: &StepRequest,
        metrics: &mut RunningMetrics,
    ) -> Result<StepResult, TrainError>;
}

/// Returns the random seed of dropout and stochastic depth in a step, counted from the start of the
/// run.
pub(crate) fn step_seed(seed: u64, step: usize) -> u64 {
    // One round of SplitMix64, so that the seeds of neighboring steps and runs are unrelated.
    let mut z = seed.wrapping_add((step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
