//! Comparison of a quantized network with the original.

use std::time::{Duration, Instant};

use mbconv_data::Batch;

use crate::classifier::Classifier;
use crate::metrics::{argmax, rank};

/// Results of two classifiers on the same images: the original and the quantized one.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Number of images.
    pub images: usize,
    /// Number of images for which both choose the same class.
    pub agreeing: usize,
    /// Sums of the squares of the differences of the logits, and of the original logits'
    /// differences from the mean of each image.
    squares: [f64; 2],
    /// Number of images whose label is first.
    pub top1: [usize; 2],
    /// Number of images whose label is among the first five.
    pub top5: [usize; 2],
    /// Time for all images, without reading them.
    pub time: [Duration; 2],
}

impl Comparison {
    /// Adds a batch. `labels` are the model's classes of the images, if they are known.
    pub fn add(&mut self, classifiers: [&Classifier; 2], batch: Batch, labels: Option<&[usize]>) {
        let count = batch.labels.len();
        let mut logits = [Vec::new(), Vec::new()];
        for (index, classifier) in classifiers.into_iter().enumerate() {
            let batch = batch.clone();
            let started = Instant::now();
            logits[index] = classifier.logits(batch, count).into_data().iter().collect::<Vec<f32>>();
            self.time[index] += started.elapsed();
        }
        self.images += count;
        let classes = logits[0].len() / count.max(1);
        let [original, quantized] = logits.each_ref().map(|logits| logits.chunks(classes.max(1)));
        for (original, quantized) in original.clone().zip(quantized.clone()) {
            let mean = original.iter().sum::<f32>() / classes as f32;
            for (original, quantized) in original.iter().zip(quantized) {
                self.squares[0] += f64::from(quantized - original).powi(2);
                self.squares[1] += f64::from(original - mean).powi(2);
            }
        }
        self.agreeing += original.zip(quantized).filter(|(a, b)| argmax(a) == argmax(b)).count();
        for (index, logits) in logits.iter().enumerate() {
            for (logits, label) in logits.chunks(classes.max(1)).zip(labels.into_iter().flatten()) {
                let rank = rank(logits, *label);
                self.top1[index] += usize::from(rank < 1);
                self.top5[index] += usize::from(rank < 5);
            }
        }
    }

    /// Returns the root mean square error of the logits, relative to their standard deviation.
    pub fn error(&self) -> f64 {
        (self.squares[0] / self.squares[1].max(f64::MIN_POSITIVE)).sqrt()
    }
}
