//! Batch-norm with activation: statistics, forward pass and gradients.
//!
//! A feature map [N, H, W, C] is one long sequence of periods of C elements. Short periods are
//! joined into longer ones, so that even few channels fill wide vectors, and the sequence is cut
//! into chunks of whole periods that stay in a core's cache. The cut depends only on the shape, and
//! chunks are combined in order and in double precision, so that results are bit-identical for any
//! number of threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{
    activation::{self, ActivationFn, WithActivation},
    buffer::filled,
    simd::{self, Loop, Machine, multiply_add},
};
use crate::synchronize;
use crate::types::normalization::{Normalization, Statistics};

/// Minimum number of elements in a period.
const PERIOD: usize = 128;
/// Minimum number of elements in a chunk; a few streams of this length fit into the L2 cache.
const CHUNK: usize = 1 << 15;

/// Cut of a feature map into chunks.
#[derive(Clone, Copy)]
struct Cut {
    channels: usize,
    /// A multiple of `channels`.
    period: usize,
    /// A multiple of `period`.
    chunk: usize,
}

impl Cut {
    fn new(channels: usize) -> Self {
        let channels = channels.max(1);
        let period = channels * PERIOD.div_ceil(channels);
        Self { channels, period, chunk: period * CHUNK.div_ceil(period) }
    }

    /// Repeats a vector over the channels through a period.
    fn repeat(self, vector: impl ExactSizeIterator<Item = f32> + Clone) -> Vec<f32> {
        if vector.len() == 0 { Vec::new() } else { vector.cycle().take(self.period).collect() }
    }

    /// Adds the elements of a period to the sums of their channels.
    fn fold(self, period: &[f32], sums: &mut [f64]) {
        for channels in period.chunks_exact(self.channels) {
            sums.iter_mut().zip(channels).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
}

/// Returns the mean and the biased variance of each of `channels` channels; zeros if there are no
/// pixels.
///
/// # Panics
/// If the length of `x` is not a multiple of `channels`.
pub fn statistics(x: &[f32], channels: usize) -> (Vec<f32>, Vec<f32>) {
    assert!(x.len().is_multiple_of(channels), "{} elements with {channels} channels", x.len());
    let cut = Cut::new(channels);
    let moments: Vec<Moments> = x.par_chunks(cut.chunk).map(|chunk| Moments::of(chunk, cut)).collect();
    let total = moments.into_iter().reduce(Moments::join).unwrap_or_else(|| Moments::of(&[], cut)).synchronize();
    let mean = total.mean.iter().map(|mean| *mean as f32);
    let variance = total.deviations.iter().map(|squares| (*squares / total.count.max(1.0)) as f32);
    // `Moments` has at least one channel.
    (mean.take(channels).collect(), variance.take(channels).collect())
}

/// Mean of each channel, and sum of squared deviations from it.
struct Moments {
    count: f64,
    mean: Vec<f64>,
    deviations: Vec<f64>,
}

impl Moments {
    /// Uses two passes; in the second the chunk is in the cache.
    fn of(chunk: &[f32], cut: Cut) -> Self {
        let count = (chunk.len() / cut.channels) as f64;
        let zeros = vec![0.0; cut.period];
        let mut mean = vec![0.0; cut.channels];
        cut.fold(&simd::run(Sums::<false> { chunk, center: &zeros }), &mut mean);
        mean.iter_mut().for_each(|mean| *mean /= count.max(1.0));
        let rounded: Vec<f32> = mean.iter().map(|mean| *mean as f32).collect();
        let center = cut.repeat(rounded.iter().copied());
        let mut deviations = vec![0.0; cut.channels];
        cut.fold(&simd::run(Sums::<true> { chunk, center: &center }), &mut deviations);
        // The deviations are measured from the rounded mean.
        for ((deviation, mean), rounded) in deviations.iter_mut().zip(&mean).zip(&rounded) {
            let error = mean - f64::from(*rounded);
            *deviation = (*deviation - count * error * error).max(0.0);
        }
        Self { count, mean, deviations }
    }

    /// Combines two measurements by Chan's formula.
    fn join(mut self, other: Self) -> Self {
        let count = self.count + other.count;
        let share = other.count / count;
        for channel in 0..self.mean.len() {
            let apart = other.mean[channel] - self.mean[channel];
            self.mean[channel] += apart * share;
            self.deviations[channel] += other.deviations[channel] + apart * apart * self.count * share;
        }
        self.count = count;
        self
    }

    /// Returns the moments over all processes.
    fn synchronize(mut self) -> Self {
        if !synchronize::is_on() {
            return self;
        }
        let mut sums: Vec<f64> = std::iter::once(self.count).chain(self.mean.iter().map(|m| m * self.count)).collect();
        synchronize::sum(&mut sums);
        let (count, mean) = (sums[0], &mut sums[1..]);
        mean.iter_mut().for_each(|mean| *mean /= count.max(1.0));
        for ((deviation, here), all) in self.deviations.iter_mut().zip(&self.mean).zip(&*mean) {
            *deviation += (here - all) * (here - all) * self.count;
        }
        synchronize::sum(&mut self.deviations);
        Self { count, mean: mean.to_vec(), deviations: self.deviations }
    }
}

/// For each element of a period, sums `x - center`, or its square, over the chunk.
struct Sums<'a, const SQUARE: bool> {
    chunk: &'a [f32],
    center: &'a [f32],
}

impl<const SQUARE: bool> Loop for Sums<'_, SQUARE> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<M: Machine>(self, _: M) -> Vec<f32> {
        let mut sums = vec![0.0; self.center.len()];
        for x in self.chunk.chunks(self.center.len()) {
            let (center, sums) = (&self.center[..x.len()], &mut sums[..x.len()]);
            for i in 0..x.len() {
                let apart = x[i] - center[i];
                sums[i] = if SQUARE { multiply_add::<M>(apart, apart, sums[i]) } else { sums[i] + apart };
            }
        }
        sums
    }
}

/// Scale, shift, mean and variance of each channel.
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Mean.
    pub mean: &'a [f32],
    /// Variance.
    pub variance: &'a [f32],
}

/// [`Vectors`], repeated through a period, with the inverse standard deviation instead of the
/// variance.
struct Periods {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Vectors<'_> {
    /// Returns the number of channels of `x`.
    ///
    /// # Panics
    /// If the length of `x` is not a multiple of the channels, or the vectors differ in length.
    fn channels_of(self, x: &[f32]) -> usize {
        let Self { gamma, beta, mean, variance } = self;
        let channels = gamma.len();
        assert!(x.len().is_multiple_of(channels), "{} elements with {channels} channels", x.len());
        let alike = [beta, mean, variance].iter().all(|vector| vector.len() == channels);
        assert!(alike, "a normalization needs one number for each channel");
        channels
    }
}

impl Periods {
    fn new(vectors: Vectors, epsilon: f64, cut: Cut) -> Self {
        let inverse = |variance: &f32| (1.0 / (f64::from(*variance) + epsilon).sqrt()) as f32;
        Self {
            gamma: cut.repeat(vectors.gamma.iter().copied()),
            beta: cut.repeat(vectors.beta.iter().copied()),
            mean: cut.repeat(vectors.mean.iter().copied()),
            inverse: cut.repeat(vectors.variance.iter().map(inverse)),
        }
    }
}

/// Destination of a result: new memory, or the memory of the operand.
pub enum Place<'a> {
    /// A new buffer, initialized from this operand.
    New(&'a [f32]),
    /// The operand's own memory.
    Over(&'a mut [f32]),
}

impl Place<'_> {
    fn operand(&self) -> &[f32] {
        match self {
            Self::New(data) => data,
            Self::Over(data) => data,
        }
    }

    /// Runs `body` on every chunk of the operand, with the chunk's index. Chunks of a new buffer
    /// are copied right before, so that `body` finds them in the cache.
    fn for_each_chunk(self, length: usize, body: impl Fn(usize, &mut [f32]) + Sync) -> Option<Vec<f32>> {
        match self {
            Self::Over(data) => {
                data.par_chunks_mut(length).enumerate().for_each(|(index, chunk)| body(index, chunk));
                None
            }
            Self::New(source) => {
                let fill = |data: &mut [MaybeUninit<f32>]| {
                    let chunks = data.par_chunks_mut(length).zip(source.par_chunks(length)).enumerate();
                    chunks.for_each(|(index, (chunk, source))| body(index, chunk.write_copy_of_slice(source)));
                };
                // SAFETY: the buffer is as long as the source, and every chunk of it is copied.
                Some(unsafe { filled(source.len(), fill) })
            }
        }
    }
}

/// Normalizes and activates `x`. Returns a new buffer for `Place::New`.
///
/// # Panics
/// If the lengths do not match.
pub fn forward(x: Place, vectors: Vectors, normalization: Normalization) -> Option<Vec<f32>> {
    struct Body<'a>(Place<'a>, Vectors<'a>, f64);
    impl WithActivation for Body<'_> {
        type Output = Option<Vec<f32>>;
        fn with<A: ActivationFn>(self, activation: A) -> Self::Output {
            let Self(x, vectors, epsilon) = self;
            let cut = Cut::new(vectors.channels_of(x.operand()));
            let Periods { gamma, beta, mean, inverse } = Periods::new(vectors, epsilon, cut);
            let scale: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
            x.for_each_chunk(cut.chunk, |_, data| {
                simd::run(Forward { data, mean: &mean, scale: &scale, shift: &beta, activation });
            })
        }
    }
    activation::with(normalization.activation, Body(x, vectors, normalization.epsilon))
}

struct Forward<'a, A> {
    data: &'a mut [f32],
    mean: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    activation: A,
}

impl<A: ActivationFn> Loop for Forward<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let activation = self.activation;
        for data in self.data.chunks_mut(self.mean.len()) {
            let length = data.len();
            let (mean, scale, shift) = (&self.mean[..length], &self.scale[..length], &self.shift[..length]);
            for i in 0..length {
                data[i] = activation.value::<M>(multiply_add::<M>(data[i] - mean[i], scale[i], shift[i]));
            }
        }
    }
}

/// The gradients of a batch-norm.
pub struct Gradients {
    /// Gradient of the feature map, unless it replaced the gradient of the output.
    pub x: Option<Vec<f32>>,
    /// Gradient of the scale.
    pub gamma: Vec<f32>,
    /// Gradient of the shift.
    pub beta: Vec<f32>,
}

/// Returns the gradients of feature map, scale and shift, from the `gradient` of the output.
///
/// # Panics
/// If the lengths do not match.
pub fn gradients(x: &[f32], gradient: Place, vectors: Vectors, normalization: Normalization) -> Gradients {
    struct Body<'a>(&'a [f32], Place<'a>, Vectors<'a>, Normalization);
    impl WithActivation for Body<'_> {
        type Output = Gradients;
        fn with<A: ActivationFn>(self, activation: A) -> Gradients {
            gradients_with(activation, self.0, self.1, self.2, self.3)
        }
    }
    activation::with(normalization.activation, Body(x, gradient, vectors, normalization))
}

fn gradients_with<A: ActivationFn>(
    activation: A,
    x: &[f32],
    gradient: Place,
    vectors: Vectors,
    normalization: Normalization,
) -> Gradients {
    let channels = vectors.channels_of(x);
    let cut = Cut::new(channels);
    let periods = Periods::new(vectors, normalization.epsilon, cut);
    let incoming = gradient.operand();
    assert_eq!(x.len(), incoming.len(), "a map and its gradient");
    let partials: Vec<[Vec<f32>; 2]> = x
        .par_chunks(cut.chunk)
        .zip(incoming.par_chunks(cut.chunk))
        .map(|(x, gradient)| simd::run(GradientSums { x, gradient, periods: &periods, activation }))
        .collect();
    let mut sums = [vec![0.0f64; channels], vec![0.0f64; channels]];
    for partial in &partials {
        sums.iter_mut().zip(partial).for_each(|(sums, partial)| cut.fold(partial, sums));
    }
    let [gamma, beta] = sums;

    // For batch statistics, the part of the gradient that flows through the mean and the variance
    // of the input: the gradient's mean, and its slope over the normalized input.
    let mut owed = vec![0.0; 2 * channels];
    if normalization.statistics == Statistics::Batch {
        let count = (x.len() / channels.max(1)) as f64;
        let mut sums: Vec<f64> = beta.iter().chain(&gamma).copied().chain([count]).collect();
        synchronize::sum(&mut sums);
        let count = sums[2 * channels].max(1.0);
        owed.iter_mut().zip(sums).for_each(|(owed, sum)| *owed = sum / count);
    }
    let offset = cut.repeat(owed[..channels].iter().map(|owed| *owed as f32));
    let tilt = cut.repeat(owed[channels..].iter().map(|owed| *owed as f32));
    let x = gradient.for_each_chunk(cut.chunk, |index, gradient| {
        let x = &x[index * cut.chunk..][..gradient.len()];
        simd::run(InputGradient { x, gradient, periods: &periods, offset: &offset, tilt: &tilt, activation });
    });
    let narrow = |vector: Vec<f64>| vector.into_iter().map(|value| value as f32).collect();
    Gradients { x, gamma: narrow(gamma), beta: narrow(beta) }
}

/// For each element of a period, sums the gradients of scale and shift over a chunk.
struct GradientSums<'a, A> {
    x: &'a [f32],
    gradient: &'a [f32],
    periods: &'a Periods,
    activation: A,
}

impl<A: ActivationFn> Loop for GradientSums<'_, A> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    fn run<M: Machine>(self, _: M) -> [Vec<f32>; 2] {
        let period = self.periods.mean.len();
        let activation = self.activation;
        let (mut scales, mut shifts) = (vec![0.0; period], vec![0.0; period]);
        for (x, gradient) in self.x.chunks(period).zip(self.gradient.chunks(period)) {
            let length = x.len();
            let (mean, inverse) = (&self.periods.mean[..length], &self.periods.inverse[..length]);
            let (gamma, beta) = (&self.periods.gamma[..length], &self.periods.beta[..length]);
            let (scales, shifts) = (&mut scales[..length], &mut shifts[..length]);
            let gradient = &gradient[..length];
            for i in 0..length {
                let normalized = (x[i] - mean[i]) * inverse[i];
                let z = multiply_add::<M>(normalized, gamma[i], beta[i]);
                let g = gradient[i] * activation.derivative::<M>(z);
                scales[i] = multiply_add::<M>(g, normalized, scales[i]);
                shifts[i] += g;
            }
        }
        [scales, shifts]
    }
}

/// Replaces the gradient of the output by the gradient of the input.
struct InputGradient<'a, A> {
    x: &'a [f32],
    gradient: &'a mut [f32],
    periods: &'a Periods,
    offset: &'a [f32],
    tilt: &'a [f32],
    activation: A,
}

impl<A: ActivationFn> Loop for InputGradient<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self, _: M) {
        let activation = self.activation;
        let period = self.periods.mean.len();
        for (x, gradient) in self.x.chunks(period).zip(self.gradient.chunks_mut(period)) {
            let length = x.len();
            let (mean, inverse) = (&self.periods.mean[..length], &self.periods.inverse[..length]);
            let (gamma, beta) = (&self.periods.gamma[..length], &self.periods.beta[..length]);
            let (offset, tilt) = (&self.offset[..length], &self.tilt[..length]);
            let gradient = &mut gradient[..length];
            for i in 0..length {
                let normalized = (x[i] - mean[i]) * inverse[i];
                let z = multiply_add::<M>(normalized, gamma[i], beta[i]);
                let g = multiply_add::<M>(gradient[i], activation.derivative::<M>(z), -offset[i]);
                gradient[i] = multiply_add::<M>(-tilt[i], normalized, g) * (gamma[i] * inverse[i]);
            }
        }
    }
}
