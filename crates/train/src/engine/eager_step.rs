//! Optimizer steps whose operations are queued one by one: on the CPU, in several processes, with
//! gradient accumulation, skipping of non-finite updates or quantization.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use mbconv_nets::Network;

use super::error::TrainError;
use super::event::Run;
use super::learner::Learner;
use super::step::{
    Requests, StepInputs, StepOutcome, StepRequest, StepResult, TrainStep, apply_update, dropout_from,
    forward_backward, step_seed,
};
use crate::config::OnNan;
use crate::criterion::Criterion;
use crate::device::{is_host, is_on_gpus};
use crate::normalize::Normalizer;
use crate::optimizer::clip::{Clipping, global_norm, scale};
use crate::params::{untrained, with_untrained};
use crate::running_metrics::RunningMetrics;
use mbconv_data::{Batch, DataError, Preprocess};

/// Runs optimizer steps operation by operation.
pub(super) struct EagerStep<'a> {
    run: Run<'a>,
    criterion: &'a Criterion<'a>,
    normalizer: Normalizer,
    clipping: Clipping,
    /// Device with autodiff.
    device: Device,
    /// True if batch-norms use the statistics of all processes.
    synchronized: bool,
}

/// Sums over all processes.
struct AllProcesses {
    images: usize,
    requests: Requests,
    is_bad: bool,
}

impl<'a> EagerStep<'a> {
    /// Creates the steps of a run. `device` must have autodiff enabled.
    pub(super) fn new(run: Run<'a>, criterion: &'a Criterion<'a>, preprocess: &Preprocess, device: &Device) -> Self {
        Self {
            run,
            criterion,
            normalizer: Normalizer::new(preprocess, device),
            clipping: run.recipe.optimizer.clipping(),
            device: device.clone(),
            synchronized: run.recipe.sync_batch_norm && run.group.size() > 1,
        }
    }

    /// Runs the forward and the backward pass of a batch and returns its gradients. The loss is
    /// divided by the number of images in a whole step, `expected`, instead of those in the batch.
    fn forward_backward(
        &self,
        network: &Network,
        batch: Batch,
        request: &StepRequest,
        index: usize,
        metrics: &mut RunningMetrics,
    ) -> (usize, GradientsParams) {
        let Run { recipe, group, device, .. } = self.run;
        let step = request.step + index;
        let (pixels, prepared) = self.criterion.prepare(batch, request.epoch, step);
        let seed = step_seed(recipe.seed.wrapping_add(group.rank() as u64), request.steps_done + index);
        self.device.seed(seed);
        let seed = StepInputs { seed, ..request.inputs };
        let dropout = is_on_gpus(device).then(|| dropout_from(&seed.seed_scalars(device).into_dispatch()));
        let synchronization = self.synchronized.then(|| group.synchronize());
        let images = recipe.precision.of(self.normalizer.apply(pixels));
        let weight = prepared.images as f64 / (request.batches * recipe.batch_size) as f64;
        let losses = |logits| self.criterion.losses(logits, &prepared);
        let (forward, gradients) = forward_backward(network, images, dropout, weight, losses);
        drop(synchronization);
        metrics.add(step + 1, self.criterion.batch_metrics(&forward.logits, &forward.losses, &prepared));
        (prepared.images, gradients)
    }

    /// Exchanges what all processes must know, in one message.
    fn exchange(&self, images: usize, requests: Requests, is_bad: bool) -> AllProcesses {
        let [stop, checkpoint, is_bad] =
            [requests.stop, requests.checkpoint, is_bad].map(|flag| f64::from(u8::from(flag)));
        let mut sums = [images as f64, stop, checkpoint, is_bad];
        self.run.group.sum_f64(&mut sums);
        let [stop, checkpoint, is_bad] = [sums[1], sums[2], sums[3]].map(|count| count > 0.0);
        AllProcesses { images: sums[0] as usize, requests: Requests { stop, checkpoint }, is_bad }
    }
}

impl TrainStep for EagerStep<'_> {
    fn step(
        &mut self,
        mut learner: Learner,
        batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
        request: &StepRequest,
        metrics: &mut RunningMetrics,
    ) -> Result<StepResult, TrainError> {
        let Run { recipe, group, device, .. } = self.run;
        let network = &learner.network;
        let before =
            (recipe.on_nan == OnNan::Skip).then(|| (untrained(network), network.activation_ranges(), metrics.len()));
        let mut accumulator = GradientsAccumulator::new();
        let (mut count, mut images) = (0, 0);
        for batch in batches.take(request.batches) {
            let (batch_images, gradients) = self.forward_backward(&learner.network, batch?, request, count, metrics);
            accumulator.accumulate(&learner.network, gradients);
            images += batch_images;
            count += 1;
        }
        // Reads the losses where that is cheap or necessary.
        let is_bad = (is_host(device) || before.is_some()) && metrics.first_bad().is_some();
        let AllProcesses { images, requests, is_bad } = self.exchange(images, request.requests, is_bad);
        let result = |learner, outcome| Ok(StepResult { learner, batches: count, outcome, requests, line: None });
        if images == 0 {
            return result(learner, StepOutcome::NoImages);
        }
        let mut gradients = accumulator.grads();
        group.sum_gradients(&learner.network, &mut gradients);
        let expected = request.batches * recipe.batch_size;
        if images < expected {
            scale(&learner.network, &mut gradients, expected as f64 / images as f64);
        }
        if let Some((statistics, ranges, counted)) = before
            && (is_bad || !global_norm(&learner.network, &gradients).is_finite())
        {
            metrics.truncate(counted);
            learner.network = with_untrained(learner.network, statistics);
            learner.network.set_activation_ranges(&ranges);
            return result(learner, StepOutcome::Skipped);
        }
        if is_bad {
            group.all_ok(metrics.check(request.epoch))?;
        }
        result(apply_update(learner, gradients, self.clipping, request.inputs, None), StepOutcome::Updated)
    }
}
