//! The learning-rate range test (Smith 2017): a few updates at rates that grow from too low to too high.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::optim::GradientsParams;
use burn::tensor::Device;
use serde::Serialize;

use crate::batch::normalised;
use crate::data::{DataSet, Loader, LoaderConfig, OnBadImage, Transform, keep};
use crate::engine::TrainError;
use crate::finetune::load_body;
use crate::freeze;
use crate::objective::Objective;
use crate::optimizer::fresh_network;
use crate::recipe::Recipe;
use crate::report::{Chart, Scale, Series};

/// The test ends where the loss has grown to this many times its least.
const DIVERGED: f64 = 4.0;
/// Weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// How the rate grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sweep {
    /// Number of updates.
    pub steps: usize,
    /// First learning rate.
    pub from: f64,
    /// Last learning rate.
    pub to: f64,
}

/// One update.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Its learning rate.
    pub learning_rate: f64,
    /// Loss of its batch, before the update.
    pub loss: f64,
    /// Mean of the losses so far, recent ones counting more.
    pub smoothed: f64,
}

/// What the test found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateCurve {
    /// The rate to try, `optimizer.learning_rate` of the recipe: within the longest fall of the loss (fastai's `valley`).
    pub suggestion: Option<f64>,
    /// The rate at which the loss fell fastest.
    pub steepest: Option<f64>,
    /// The rate with the least loss.
    pub minimum: Option<f64>,
    /// All updates.
    pub points: Vec<Point>,
}

/// Runs the test with the recipe's network, data, augmentation, loss and optimizer; nothing is kept.
///
/// Gradients are not accumulated, so the rates are those of a batch of `batch_size`; where the recipe scales its rate with
/// the batch, they are given as the recipe writes them.
///
/// # Errors
/// As training; a set `stop` ends it early, with what was found.
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
    let source = data.split("train")?;
    let transform = Transform::Train(recipe.train_transform_for(device));
    let device = recipe.autodiff(device);
    let objective = Objective::new(recipe, &data.classes, &*source, &device)?;
    let config = LoaderConfig {
        batch_size: recipe.batch_size,
        workers: recipe.workers(),
        prefetch: recipe.data.prefetch,
        seed: recipe.seed,
        shuffle: true,
        sampling: recipe.sampling,
        drop_last: true,
        on_bad_image: OnBadImage::Skip,
        part: 0..usize::MAX,
    };
    let train_images = source.len();
    let decoding = recipe.data.decoding(true);
    let source = keep(&source, recipe.data.cache, decoding).map_or(source, |(kept, _)| kept);
    let loader = Loader::new(source, transform, config).with_decoding(decoding);
    if loader.batches() == 0 {
        return Err(TrainError::TooFewImages { images: train_images, batch_size: recipe.batch_size });
    }
    let preprocess = recipe.preprocess();
    let architecture = recipe.architecture(data.classes.len())?;
    let finetune = recipe.finetune.clone().unwrap_or_default();
    let mut network = fresh_network(&architecture, recipe.seed, &device);
    if let Some(weights) = &finetune.weights {
        (network, _) = load_body(network, &recipe.model.name, &data.classes, weights)?;
    }
    // As after the classifier's own epochs.
    network = freeze::apply(network, &finetune, finetune.head_epochs);
    let mut optimizer = recipe.optimizer.init(&architecture);
    let clipping = recipe.optimizer.clipping();
    let written = recipe.optimizer.learning_rate_for(recipe.batch_size) / recipe.optimizer.learning_rate;

    let mut points: Vec<Point> = Vec::with_capacity(sweep.steps);
    let mut average = 0.0;
    let mut least = f64::INFINITY;
    let batches =
        (0..).flat_map(|epoch| loader.epoch(epoch).enumerate().map(move |(step, batch)| (epoch, step, batch)));
    for (index, (epoch, step, batch)) in batches.take(sweep.steps).enumerate() {
        let (pixels, prepared) = objective.prepare(batch?, epoch, step);
        let along = index as f64 / (sweep.steps - 1).max(1) as f64;
        let learning_rate = sweep.from * (sweep.to / sweep.from).powf(along);
        let logits = network.forward_channels_last(recipe.precision.of(normalised(pixels, &preprocess)));
        let mean = objective.losses(logits, &prepared).mean();
        let loss: f64 = mean.clone().into_data().iter().next().unwrap_or(f64::NAN);
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
        let smoothed = average / (1.0 - SMOOTHING.powi(index as i32 + 1));
        if !loss.is_finite() || smoothed > DIVERGED * least {
            break;
        }
        least = least.min(smoothed);
        let point = Point { learning_rate, loss, smoothed };
        progress(point);
        points.push(point);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut gradients = GradientsParams::from_grads(mean.backward(), &network);
        clipping.apply(&network, &mut gradients);
        network = optimizer.step(learning_rate * written, network, gradients);
    }
    Ok(RateCurve::of(points))
}

impl RateCurve {
    /// What a curve tells.
    fn of(points: Vec<Point>) -> Self {
        let rate = |index: usize| points[index].learning_rate;
        let minimum = (0..points.len()).min_by(|&a, &b| points[a].smoothed.total_cmp(&points[b].smoothed));
        // The mean slope over a few neighbours, by the logarithm of the rate.
        let slope = |&i: &usize| points[i + 2].smoothed - points[i - 2].smoothed;
        let steepest = (2..points.len().saturating_sub(2)).min_by(|a, b| slope(a).total_cmp(&slope(b)));
        let steepest = steepest.filter(|i| slope(i) < 0.0);
        let suggestion = valley(&points).map(rate);
        Self { suggestion, steepest: steepest.map(rate), minimum: minimum.map(rate), points }
    }

    /// The curve as an SVG file.
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
            // Beyond this it only diverges.
            y_most: Some(1.6 * first),
            mark,
            ..Chart::default()
        };
        chart.to_svg_file()
    }
}

/// fastai's `valley`: the longest falling subsequence of the losses, of which it takes the point half-way into the middle
/// third.
fn valley(points: &[Point]) -> Option<usize> {
    if points.len() < 5 {
        return None;
    }
    let mut lengths = vec![1usize; points.len()];
    let mut end = 0;
    for i in 1..points.len() {
        for j in 0..i {
            if points[i].smoothed < points[j].smoothed && lengths[i] < lengths[j] + 1 {
                lengths[i] = lengths[j] + 1;
            }
        }
        if lengths[i] > lengths[end] {
            end = i;
        }
    }
    let start = end + 1 - lengths[end].min(end + 1);
    let third = (end - start) as f64 / 3.0;
    (end > start).then_some(start + third as usize + (third / 2.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: impl Iterator<Item = f64>) -> RateCurve {
        let points = losses.enumerate().map(|(i, loss)| Point {
            learning_rate: 10f64.powf(i as f64 / 10.0 - 6.0),
            loss,
            smoothed: loss,
        });
        RateCurve::of(points.collect())
    }

    #[test]
    fn the_suggestion_lies_in_the_fall() {
        // Flat, falling from 20 to 49, rising.
        let losses = (0..70).map(|i| match i {
            0..20 => 2.0,
            20..50 => 2.0 - 0.05 * f64::from(i - 19),
            _ => 0.5 + 0.2 * f64::from(i - 49),
        });
        let found = curve(losses);
        let exponent = |rate: Option<f64>| (rate.unwrap().log10() + 6.0) * 10.0;
        assert!((20.0..45.0).contains(&exponent(found.suggestion)), "{:?}", found.suggestion);
        assert!((exponent(found.minimum) - 49.0).abs() < 1e-6);
        assert!((20.0..50.0).contains(&exponent(found.steepest)));
        let svg = found.to_svg().unwrap();
        assert!(svg.starts_with("<svg xmlns=") && svg.contains("suggested"));
    }

    #[test]
    fn too_little_suggests_nothing() {
        assert_eq!(curve([1.0, 0.5].into_iter()).suggestion, None);
        assert_eq!(curve((0..50).map(f64::from)).suggestion, None);
        assert!(curve(std::iter::empty()).to_svg().is_none());
    }
}
