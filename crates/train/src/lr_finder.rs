//! The learning-rate range test (Smith 2017): a few optimizer steps with a learning rate that grows
//! from too low to too high.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use serde::Serialize;

use crate::config::Recipe;
use crate::criterion::Criterion;
use crate::device::is_host;
use crate::engine::error::TrainError;
use crate::engine::learner::Learner;
use crate::engine::step::{StepInputs, apply_update, forward_backward};
use crate::finetune::load_body;
use crate::normalize::Normalizer;
use crate::optimizer::param_ids::fresh_network;
use crate::report::{Chart, Scale, Series};
use crate::{freeze, memory};
use mbconv_data::{DataSet, Loader, LoaderConfig, OnBadImage, Transform, keep};

/// A sweep ends when the smoothed loss exceeds its minimum by this factor, as in fastai,
const DIVERGED: f64 = 4.0;
/// or exceeds the initial loss by this fraction.
const RISEN: f64 = 0.5;
/// Decay factor of the smoothed loss.
const SMOOTHING: f64 = 0.95;
/// Fraction of the steps whose learning rate is too low to have an effect. They give the initial
/// loss.
const START: f64 = 0.1;
/// Distance, as a fraction of the steps, over which the slope of the smoothed loss is computed on
/// both sides.
const REACH: f64 = 0.08;
/// Thresholds of a clear decrease: a fraction of the initial loss, and a number of standard errors
/// of the smoothed loss.
const LEAST_FALL: f64 = 0.02;
const LEAST_ERRORS: f64 = 6.0;
/// The range ends where the smoothed loss has regained this fraction of a clear decrease: beyond,
/// small networks with batch-norm may learn once more from weights that have diverged.
const REGAINED: f64 = 0.5;

/// Settings of the range test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// Number of optimizer steps.
    pub steps: usize,
    /// First learning rate.
    pub from: f64,
    /// Last learning rate.
    pub to: f64,
    /// Number of sweeps, each with newly initialized weights.
    pub sweeps: usize,
}

/// An optimizer step of the range test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Loss of the batch before the step, averaged over all sweeps.
    pub loss: f64,
    /// Exponential moving average of the losses up to this step.
    pub smoothed: f64,
}

/// Result of the range test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateCurve {
    /// Suggested value of the recipe's `optimizer.learning_rate`: the learning rate with the
    /// steepest decrease, if the loss decreased clearly.
    pub suggestion: Option<f64>,
    /// Learning rate at which the smoothed loss decreased fastest.
    pub steepest: Option<f64>,
    /// Learning rate with the smallest smoothed loss.
    pub minimum: Option<f64>,
    /// Decrease of the smoothed loss as a fraction of the initial loss.
    pub fall: f64,
    /// Suggestion of each sweep. Their spread shows the uncertainty of the suggestion.
    pub sweeps: Vec<Option<f64>>,
    /// The steps, averaged over all sweeps.
    pub points: Vec<Point>,
}

/// Runs the range test with the recipe's network, data, augmentation, loss and optimizer. The
/// trained weights are discarded.
///
/// Gradients are not accumulated, so the learning rates are those of a batch of `batch_size`
/// images. If the recipe scales its learning rate with the batch size, they are unscaled, as in the
/// recipe. Each sweep has its own seed, and therefore other initial weights and another order of
/// the images.
///
/// # Errors
/// Returns the errors of training. Setting `stop` ends the test early and returns the result so
/// far.
pub fn find_lr(
    recipe: &Recipe,
    data: &DataSet,
    device: &Device,
    sweep: Sweep,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Point),
) -> Result<RateCurve, TrainError> {
    recipe.precision.check(device)?;
    data.check_trainable()?;
    let recipe = &recipe.for_data(data.label_sets().is_some())?;
    let source = data.split("train")?;
    let autodiff = recipe.autodiff(device);
    let criterion = Criterion::new(recipe, &data.classes, &*source, &autodiff)?;
    if source.len() < recipe.batch_size {
        return Err(TrainError::TooFewImages { images: source.len(), batch_size: recipe.batch_size });
    }
    if is_host(device) {
        let architecture = recipe.architecture(data.classes.len())?;
        memory::check_training(recipe, &architecture, 1, memory::available())?;
    }
    let decoding = recipe.data.decoding(true);
    let source = keep(&source, recipe.data.cache, decoding).map_or(source, |(kept, _)| kept);
    let mut curves = Vec::new();
    for number in 0..sweep.sweeps.max(1) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let seed = recipe.seed.wrapping_add(number as u64);
        let config = LoaderConfig {
            batch_size: recipe.batch_size,
            workers: recipe.workers(),
            prefetch: recipe.data.prefetch,
            seed,
            shuffle: true,
            sampling: recipe.sampling,
            drop_last: true,
            on_bad_image: OnBadImage::Skip,
            part: 0..usize::MAX,
        };
        let transform = Transform::Train(recipe.train_transform_for(device));
        let loader = Loader::new(source.clone(), transform, config).with_decoding(decoding);
        let learner = new_learner(recipe, data, seed, &autodiff)?;
        curves.push(run_sweep(recipe, &criterion, &loader, learner, sweep, stop, progress)?);
    }
    Ok(RateCurve::of(&curves, sweep))
}

/// Creates the network and the optimizer for a sweep.
fn new_learner(recipe: &Recipe, data: &DataSet, seed: u64, device: &Device) -> Result<Learner, TrainError> {
    let architecture = recipe.architecture(data.classes.len())?;
    let finetune = recipe.finetune.clone().unwrap_or_default();
    let mut network = fresh_network(&architecture, seed, device);
    if let Some(weights) = &finetune.weights {
        (network, _) = load_body(network, &recipe.model.name, &data.classes, weights, finetune.prefix.as_deref())?;
    }
    // The state after the epochs that train only the classifier.
    network = freeze::apply(network, &finetune, finetune.head_epochs);
    Ok(Learner { network, optimizer: recipe.optimizer.init(&architecture), average: None })
}

/// Returns the losses of the batches, each before its optimizer step.
fn run_sweep(
    recipe: &Recipe,
    criterion: &Criterion,
    loader: &Loader,
    mut learner: Learner,
    sweep: Sweep,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Point),
) -> Result<Vec<f64>, TrainError> {
    let normalizer = Normalizer::new(&recipe.preprocess(), &learner.network.classifier.weight.val().device());
    let clipping = recipe.optimizer.clipping();
    // Ratio of the scaled learning rate to that in the recipe.
    let scaling = recipe.optimizer.learning_rate_for(recipe.batch_size) / recipe.optimizer.learning_rate;
    let mut losses: Vec<f64> = Vec::with_capacity(sweep.steps);
    let mut average = Average::default();
    let mut detector = DivergenceDetector::new(sweep.steps);
    let batches =
        (0..).flat_map(|epoch| loader.epoch(epoch).enumerate().map(move |(step, batch)| (epoch, step, batch)));
    for (index, (epoch, step, batch)) in batches.take(sweep.steps).enumerate() {
        let (pixels, prepared) = criterion.prepare(batch?, epoch, step);
        let learning_rate = sweep.rate(index);
        let images = recipe.precision.of(normalizer.apply(pixels));
        let loss_of = |logits| criterion.losses(logits, &prepared);
        let (forward, gradients) = forward_backward(&learner.network, images, None, 1.0, loss_of);
        let loss: f64 = forward.losses.mean().into_data().iter().next().unwrap_or(f64::NAN);
        let smoothed = average.add(loss);
        if !loss.is_finite() || detector.diverged(loss, smoothed) {
            break;
        }
        progress(Point { learning_rate, loss, smoothed });
        losses.push(loss);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let inputs = StepInputs { learning_rate: learning_rate * scaling, ..StepInputs::default() };
        learner = apply_update(learner, gradients, clipping, inputs, None);
    }
    Ok(losses)
}

impl Sweep {
    /// Returns the learning rate of a step.
    fn rate(&self, index: usize) -> f64 {
        let along = index as f64 / (self.steps - 1).max(1) as f64;
        self.from * (self.to / self.from).powf(along)
    }
}

/// An exponential moving average with bias correction.
#[derive(Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64) -> f64 {
        self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * value;
        self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        self.sum / self.weight
    }
}

/// Detects the divergence of a sweep.
struct DivergenceDetector {
    /// Number of steps that give the initial loss.
    first: usize,
    seen: usize,
    start: f64,
    least: f64,
}

impl DivergenceDetector {
    fn new(steps: usize) -> Self {
        Self { first: first(steps), seen: 0, start: 0.0, least: f64::INFINITY }
    }

    fn diverged(&mut self, loss: f64, smoothed: f64) -> bool {
        self.seen += 1;
        if self.seen <= self.first {
            self.start += loss / self.first as f64;
            return false;
        }
        self.least = self.least.min(smoothed);
        // The constant terms allow for noise of a low loss, for example of a trained network.
        smoothed > DIVERGED * self.least.max(0.0) + RISEN * 0.1 || smoothed > self.start + RISEN * self.start.max(1.0)
    }
}

/// Returns the number of steps that give the initial loss.
fn first(steps: usize) -> usize {
    ((START * steps as f64) as usize).max(2)
}

/// Averages the losses of several sweeps, up to the step at which half of them have ended. A sweep
/// that has ended contributes its last loss.
fn mean_of(curves: &[Vec<f64>]) -> Vec<f64> {
    let mut lengths: Vec<usize> = curves.iter().map(Vec::len).collect();
    lengths.sort_unstable();
    let length = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let at = |curve: &Vec<f64>, index: usize| curve.get(index).or(curve.last()).copied();
    let mean = |index: usize| {
        let losses: Vec<f64> = curves.iter().filter_map(|curve| at(curve, index)).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    (0..length).map(mean).collect()
}

impl RateCurve {
    /// Evaluates the losses of the sweeps.
    fn of(curves: &[Vec<f64>], sweep: Sweep) -> Self {
        let sweeps = match curves {
            [_] => Vec::new(),
            _ => curves.iter().map(|curve| Self::of(std::slice::from_ref(curve), sweep).suggestion).collect(),
        };
        let mut average = Average::default();
        let points: Vec<Point> = mean_of(curves)
            .into_iter()
            .enumerate()
            .map(|(i, loss)| Point { learning_rate: sweep.rate(i), loss, smoothed: average.add(loss) })
            .collect();
        let rate = |index: usize| points[index].learning_rate;
        let first = first(sweep.steps);
        let start = points.iter().take(first).map(|point| point.loss).sum::<f64>() / first as f64;
        let clear =
            |fall: f64, points: &[Point]| fall > LEAST_FALL * start && fall > LEAST_ERRORS * standard_error(points);
        let mut later = first..points.len();
        let mut least = f64::INFINITY;
        let regained = later.clone().find(|&i| {
            least = least.min(points[i].smoothed);
            points[i].smoothed > least + REGAINED * (start - least) && clear(start - least, &points[..=i])
        });
        later.end = regained.unwrap_or(points.len());
        let minimum = later.clone().min_by(|&a, &b| points[a].smoothed.total_cmp(&points[b].smoothed));
        let Some(minimum) = minimum else {
            return Self { suggestion: None, steepest: None, minimum: None, fall: 0.0, sweeps, points };
        };
        // Slope of a linear fit to the smoothed losses nearby, over the logarithm of the learning
        // rate.
        let reach = ((REACH * sweep.steps as f64) as usize).max(1);
        let slope = |&i: &usize| -> f64 {
            (1..=reach).map(|d| d as f64 * (points[i + d].smoothed - points[i - d].smoothed)).sum()
        };
        let falling = first.max(reach)..(minimum + 1).min(points.len().saturating_sub(reach));
        let steepest = falling.min_by(|a, b| slope(a).total_cmp(&slope(b))).filter(|i| slope(i) < 0.0);
        let fall = start - points[minimum].smoothed;
        Self {
            suggestion: steepest.filter(|_| clear(fall, &points[..=minimum])).map(rate),
            steepest: steepest.map(rate),
            minimum: Some(rate(minimum)),
            fall: fall / start,
            sweeps,
            points,
        }
    }

    /// Returns the smallest and the largest suggestion of the sweeps, if there are several sweeps
    /// and each has a suggestion.
    pub fn range(&self) -> Option<(f64, f64)> {
        let all: Vec<f64> = self.sweeps.iter().copied().collect::<Option<_>>()?;
        let least = all.iter().copied().min_by(f64::total_cmp)?;
        Some((least, all.iter().copied().max_by(f64::total_cmp)?))
    }

    /// Returns the curve as an SVG file.
    pub fn to_svg(&self) -> Option<String> {
        let series = |name, value: fn(&Point) -> f64| Series {
            name,
            points: self.points.iter().map(|point| (point.learning_rate, value(point))).collect(),
        };
        let first = self.points.first()?.smoothed;
        let at = |rate: f64| self.points.iter().find(|point| point.learning_rate >= rate);
        let mark = self.suggestion.and_then(at).map(|point| {
            let name = format!("suggested {:.2e}", point.learning_rate);
            ((point.learning_rate, point.smoothed), name)
        });
        let chart = Chart {
            title: "Learning-rate range test: loss",
            x_label: "learning rate",
            series: vec![series("smoothed", |point| point.smoothed), series("batch", |point| point.loss)],
            x_scale: Scale::Log,
            // Cuts off the divergence.
            y_most: Some(1.6 * first),
            mark,
            ..Chart::default()
        };
        chart.to_svg_file()
    }
}

/// Returns the standard error of the smoothed losses, computed from differences of neighboring
/// losses, which a trend hardly affects.
fn standard_error(points: &[Point]) -> f64 {
    let squares = points.windows(2).map(|pair| (pair[1].loss - pair[0].loss).powi(2));
    let variance = squares.sum::<f64>() / (2 * points.len().saturating_sub(1)).max(1) as f64;
    (variance * (1.0 - SMOOTHING) / (1.0 + SMOOTHING)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEEP: Sweep = Sweep { steps: 300, from: 1e-5, to: 10.0, sweeps: 3 };

    /// Returns noisy losses that stay at 2.3 up to a learning rate of 1e-3, decrease by `fall` per
    /// decade up to 3e-2 and then increase.
    fn losses(seed: u64, noise: f64, fall: f64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let loss = |exponent: f64| match exponent {
            ..-3.0 => 2.3,
            -3.0..-1.5 => 2.3 - fall * (exponent + 3.0),
            _ => 2.3 - 1.5 * fall + 6.0 * (exponent + 1.5),
        };
        let mut losses: Vec<f64> = (0..SWEEP.steps).map(|i| loss(SWEEP.rate(i).log10()) + noise * random()).collect();
        let (mut average, mut detector) = (Average::default(), DivergenceDetector::new(SWEEP.steps));
        let end = losses.iter().position(|&loss| detector.diverged(loss, average.add(loss)));
        losses.truncate(end.unwrap_or(losses.len()));
        losses
    }

    #[test]
    fn suggestion_is_where_the_loss_decreases() {
        for seed in 0..20 {
            let curves: Vec<Vec<f64>> = (0..3).map(|sweep| losses(3 * seed + sweep + 1, 0.4, 0.8)).collect();
            let found = RateCurve::of(&curves, SWEEP);
            let suggestion = found.suggestion.unwrap();
            assert!((1e-3..4e-2).contains(&suggestion), "{suggestion}");
            assert!((1e-2..6e-2).contains(&found.minimum.unwrap()), "{:?}", found.minimum);
            assert_eq!((found.sweeps.len(), found.suggestion), (3, found.steepest));
            // The sweep ends before its last learning rate.
            assert!(found.points.len() < 280);
            let svg = found.to_svg().unwrap();
            assert!(svg.starts_with("<svg xmlns=") && svg.contains("suggested"));
        }
    }

    #[test]
    fn second_decrease_after_a_rise_is_ignored() {
        // Falls from 2.3 to 1.2 at 0.05, returns to 2.3 at 0.2 and falls to 1.0 at 1.
        let loss = |rate: f64| match rate.log10() {
            ..-3.0 => 2.3,
            at @ -3.0..-1.3 => 2.3 - 1.1 * (at + 3.0) / 1.7,
            at @ -1.3..-0.7 => 1.2 + 1.1 * (at + 1.3) / 0.6,
            at @ -0.7..0.0 => 2.3 - 1.3 * (at + 0.7) / 0.7,
            at => 1.0 + 4.0 * at,
        };
        let losses: Vec<f64> = (0..SWEEP.steps).map(|i| loss(SWEEP.rate(i))).collect();
        let found = RateCurve::of(&[losses], SWEEP);
        assert!((1e-3..5e-2).contains(&found.suggestion.unwrap()), "{:?}", found.suggestion);
        assert!((3e-2..1.5e-1).contains(&found.minimum.unwrap()), "{:?}", found.minimum);
    }

    #[test]
    fn no_suggestion_without_a_clear_decrease() {
        for seed in 0..50 {
            let curves: Vec<Vec<f64>> = (0..3).map(|sweep| losses(3 * seed + sweep + 1, 0.4, 0.0)).collect();
            assert_eq!(RateCurve::of(&curves, SWEEP).suggestion, None, "{seed}");
        }
        assert_eq!(RateCurve::of(&[vec![1.0, 0.5]], SWEEP).suggestion, None);
        assert_eq!(RateCurve::of(&[(0..50).map(f64::from).collect()], SWEEP).suggestion, None);
        assert!(RateCurve::of(&[Vec::new()], SWEEP).to_svg().is_none());
        assert!(RateCurve::of(&[], SWEEP).to_svg().is_none());
    }

    #[test]
    fn sweeps_with_few_steps_do_not_panic() {
        for steps in 1..40 {
            let sweep = Sweep { steps, ..SWEEP };
            RateCurve::of(&[vec![1.0; steps]], sweep);
        }
    }
}
