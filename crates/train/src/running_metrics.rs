//! Metrics of the training batches of an epoch.

use burn::tensor::Tensor;

use crate::checkpoint::PartialEpoch;
use crate::distributed::Group;
use crate::engine::error::TrainError;
use crate::metrics::Tally;

/// Ranks and losses of batches. They stay on the device until needed, so that training steps do not
/// synchronize.
#[derive(Default)]
pub(crate) struct RunningMetrics {
    batches: Vec<BatchMetrics>,
}

struct BatchMetrics {
    /// Step in the epoch, counted from 1.
    step: usize,
    /// Losses followed by ranks, before they are fetched.
    on_device: Option<Tensor<1>>,
    /// Losses followed by ranks, after they are fetched.
    fetched: Vec<f64>,
}

impl RunningMetrics {
    /// Adds the result of [`batch_metrics`](crate::batch_metrics::batch_metrics) for the batch of
    /// step `step` of the epoch, counted from 1.
    pub(crate) fn add(&mut self, step: usize, metrics: Tensor<1>) {
        self.batches.push(BatchMetrics { step, on_device: Some(metrics), fetched: Vec::new() });
    }

    /// Returns the number of batches since the last [`take`](Self::take).
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Copies all values from the device in one transfer. Synchronizes with the device.
    fn fetch(&mut self) {
        let mut unread: Vec<&mut BatchMetrics> =
            self.batches.iter_mut().filter(|batch| batch.on_device.is_some()).collect();
        let tensors: Vec<Tensor<1>> = unread.iter_mut().filter_map(|batch| batch.on_device.take()).collect();
        if tensors.is_empty() {
            return;
        }
        let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
        let mut values = Tensor::cat(tensors, 0).into_data().iter::<f64>().collect::<Vec<_>>().into_iter();
        for (batch, length) in unread.into_iter().zip(lengths) {
            batch.fetched = values.by_ref().take(length).collect();
        }
    }

    /// Returns step, losses and ranks of all batches. Synchronizes with the device.
    fn read(&mut self) -> impl Iterator<Item = (usize, &[f64], &[f64])> {
        self.fetch();
        self.batches.iter().map(|batch| {
            let (losses, ranks) = batch.fetched.split_at(batch.fetched.len() / 2);
            (batch.step, losses, ranks)
        })
    }

    /// Returns the first step with a loss that is not finite, and that loss. Synchronizes with the
    /// device.
    pub(crate) fn first_bad(&mut self) -> Option<(usize, f64)> {
        let bad = |losses: &[f64]| losses.iter().copied().find(|loss| !loss.is_finite());
        self.read().find_map(|(step, losses, _)| Some((step, bad(losses)?)))
    }

    /// Returns an error if a loss is not finite. `epoch` is counted from 0. Synchronizes with the
    /// device.
    pub(crate) fn check(&mut self, epoch: usize) -> Result<(), TrainError> {
        match self.first_bad() {
            Some((step, loss)) => Err(TrainError::Diverged { loss, epoch: epoch + 1, step }),
            None => Ok(()),
        }
    }

    /// Returns the mean loss of the first batch since the last [`take`](Self::take). Synchronizes
    /// with the device.
    pub(crate) fn first_loss(&mut self) -> Option<f64> {
        self.read().next().map(|(_, losses, _)| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Removes all batches after the first `kept`.
    pub(crate) fn truncate(&mut self, kept: usize) {
        self.batches.truncate(kept);
    }

    /// Adds all batches to `tally` and removes them.
    pub(crate) fn take(&mut self, mut tally: Tally) -> Tally {
        for (_, losses, ranks) in self.read() {
            let ranks: Vec<usize> = ranks.iter().map(|&rank| rank as usize).collect();
            tally.add(&ranks, losses.iter().sum());
        }
        self.batches.clear();
        tally
    }
}

impl PartialEpoch {
    /// Adds the batches of all processes.
    pub(crate) fn count(&mut self, metrics: &mut RunningMetrics, group: &Group) {
        // A single process adds batch by batch, independently of how often this is called, so that
        // a resumed run is bit-identical.
        let before = self.tally();
        let Tally { images, top1, top5, loss } = match group.size() {
            1 => metrics.take(before),
            _ => before + group.sum_tally(metrics.take(Tally::default())),
        };
        *self = Self { images, top1, top5, loss, seconds: self.seconds };
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { images: self.images, top1: self.top1, top5: self.top5, loss: self.loss }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;
    use crate::batch_metrics::batch_metrics;

    #[test]
    fn first_non_finite_loss_is_reported_with_its_step() {
        let device = Device::default();
        let mut metrics = RunningMetrics::default();
        let logits = Tensor::<2>::zeros([2, 3], &device);
        let targets = Tensor::<1, Int>::zeros([2], &device);
        for (step, loss) in [(7, 1.0), (8, 2.0), (9, f32::INFINITY), (10, f32::NAN)] {
            metrics.add(step, batch_metrics(&logits, &targets, &Tensor::from_floats([1.0, loss], &device)));
        }
        assert_eq!(metrics.first_bad(), Some((9, f64::INFINITY)));
        metrics.truncate(2);
        assert_eq!(metrics.first_bad(), None);
        let tally = metrics.take(Tally::default());
        assert_eq!((tally.images, tally.loss, metrics.len()), (4, 5.0, 0));
    }
}
