//! Statistics of feature maps [N, H, W, C], for calibration.

use rayon::prelude::*;

use crate::{
    multiversion::{self, Work},
    types::activation::{Activation, RELU6_MAX},
};

/// Approximate number of values per task.
const PART: usize = 1 << 16;

/// A loop compiled for the CPU's vectors.
struct Loop<F>(F);

impl<T, F: FnOnce() -> T> Work for Loop<F> {
    type Output = T;

    #[inline(always)]
    fn run(self) -> T {
        self.0()
    }
}

/// Changes parts of whole pixels, in parallel.
fn change(values: &mut [f32], channels: usize, change: impl Fn(&mut [f32]) + Sync) {
    let length = channels * (PART / channels).max(1);
    values.par_chunks_mut(length).for_each(|part| multiversion::run(Loop(|| change(part))));
}

/// Computes a value from each part of whole pixels, in parallel, and merges them in order, so that
/// sums do not depend on the number of threads.
fn combine<T: Send>(
    values: &[f32],
    channels: usize,
    compute: impl Fn(&[f32]) -> T + Sync,
    merge: impl Fn(T, T) -> T,
) -> Option<T> {
    let length = channels * (PART / channels).max(1);
    let parts = values.par_chunks(length).map(|part| multiversion::run(Loop(|| compute(part))));
    parts.collect::<Vec<T>>().into_iter().reduce(merge)
}

/// Merges two lists element by element.
fn merged<T: Copy>(mut a: Vec<T>, b: Vec<T>, merge: impl Fn(T, T) -> T) -> Vec<T> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = merge(*a, b));
    a
}

/// Adds a number to each channel.
pub fn shift(values: &mut [f32], shifts: &[f32]) {
    change(values, shifts.len(), |part| {
        for pixel in part.chunks_exact_mut(shifts.len()) {
            pixel.iter_mut().zip(shifts).for_each(|(value, shift)| *value += shift);
        }
    });
}

/// Applies an activation.
pub fn activate(values: &mut [f32], activation: Activation) {
    change(values, 1, |part| match activation {
        Activation::Identity => {}
        Activation::Relu => part.iter_mut().for_each(|value| *value = value.max(0.0)),
        Activation::Relu6 => part.iter_mut().for_each(|value| *value = value.clamp(0.0, RELU6_MAX as f32)),
        Activation::Silu => part.iter_mut().for_each(|value| *value /= 1.0 + (-*value).exp()),
    });
}

/// Returns the lowest and the highest value of each channel. NaN is ignored.
pub fn channel_ranges(values: &[f32], channels: usize) -> Vec<[f32; 2]> {
    let compute = |part: &[f32]| {
        let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels];
        for pixel in part.chunks_exact(channels) {
            for ([low, high], value) in ranges.iter_mut().zip(pixel) {
                (*low, *high) = (low.min(*value), high.max(*value));
            }
        }
        ranges
    };
    let wider = |[a, b]: [f32; 2], [c, d]: [f32; 2]| [a.min(c), b.max(d)];
    combine(values, channels, compute, |a, b| merged(a, b, wider)).unwrap_or_default()
}

/// Returns the mean of each channel.
pub fn channel_means(values: &[f32], channels: usize) -> Vec<f32> {
    let compute = |part: &[f32]| {
        let mut sums = vec![0.0f64; channels];
        for pixel in part.chunks_exact(channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums
    };
    let sums = combine(values, channels, compute, |a, b| merged(a, b, |a, b| a + b)).unwrap_or_default();
    let pixels = (values.len() / channels).max(1) as f64;
    sums.into_iter().map(|sum| (sum / pixels) as f32).collect()
}

/// Counts the nonzero values in `bins` bins of equal width that begin at `low`. Values outside
/// count in the first or last bin.
pub fn histogram(values: &[f32], low: f32, width: f32, bins: usize) -> Vec<u64> {
    let per_unit = 1.0 / width;
    let compute = |part: &[f32]| {
        let mut counts = vec![0u64; bins];
        for value in part.iter().filter(|value| **value != 0.0) {
            // A cast saturates.
            counts[(((value - low) * per_unit) as usize).min(bins - 1)] += 1;
        }
        counts
    };
    combine(values, 1, compute, |a, b| merged(a, b, |a, b| a + b)).unwrap_or_else(|| vec![0; bins])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_all_pixels() {
        // More than one part, with an incomplete last one.
        let channels = 3;
        let mut values: Vec<f32> = (0..channels * 70_000).map(|i| (i % 2000) as f32 - 500.0).collect();
        values[150_001] = 1e6;
        let ranges = channel_ranges(&values, channels);
        let means = channel_means(&values, channels);
        for channel in 0..channels {
            let own: Vec<f32> = values.iter().skip(channel).step_by(channels).copied().collect();
            let [low, high] = [own.iter().copied().fold(0.0, f32::min), own.iter().copied().fold(0.0, f32::max)];
            assert_eq!(ranges[channel], [low, high]);
            let mean = own.iter().map(|value| f64::from(*value)).sum::<f64>() / own.len() as f64;
            assert!((f64::from(means[channel]) - mean).abs() < 1e-3);
        }
        let counts = histogram(&values, -500.0, 1.0, 2000);
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        assert_eq!(counts.iter().sum::<u64>() as usize, values.len() - zeros);
        assert_eq!((counts[500], counts[1999]), (0, 106));
        shift(&mut values, &[1.0, 0.0, -1.0]);
        activate(&mut values, Activation::Relu6);
        assert_eq!((&values[501..505], values[507]), (&[2.0, 2.0, 2.0, 5.0][..], 6.0));
    }
}
