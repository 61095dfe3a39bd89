//! Calibration: how well probabilities agree with accuracy.

use mbconv_report::{Calibration, ReliabilityBin};

/// Number of bins of the expected calibration error, as in Guo et al. 2017.
const BINS: usize = 15;

/// Accumulates the expected calibration error (ECE) of Guo et al. 2017
/// (<https://arxiv.org/abs/1706.04599>): images are binned by the probability of the predicted class
/// into 15 bins of equal width, `(low, high]`.
#[derive(Clone, Debug, Default)]
pub struct Reliability {
    bins: [Sums; BINS],
    brier: f64,
}

/// Sums over the images of a bin.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    images: usize,
    hits: usize,
    confidence: f64,
}

impl Reliability {
    /// Adds an image with its softmax `probabilities`, label and predicted class.
    pub fn add(&mut self, probabilities: &[f32], label: usize, chosen: usize) {
        let confidence = f64::from(probabilities[chosen]);
        let bin = &mut self.bins[((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        bin.images += 1;
        bin.hits += usize::from(label == chosen);
        bin.confidence += confidence;
        let squares: f64 = probabilities.iter().map(|&p| f64::from(p).powi(2)).sum();
        self.brier += squares + 1.0 - 2.0 * f64::from(probabilities[label]);
    }

    /// Returns the calibration of all images.
    pub fn calibration(&self) -> Calibration {
        let total = self.bins.iter().map(|bin| bin.images).sum::<usize>().max(1) as f64;
        let bins = self.bins.iter().enumerate().map(|(index, bin)| {
            let mean = |sum: f64| (bin.images > 0).then(|| sum / bin.images as f64);
            ReliabilityBin {
                low: index as f64 / BINS as f64,
                high: (index + 1) as f64 / BINS as f64,
                images: bin.images,
                confidence: mean(bin.confidence),
                accuracy: mean(bin.hits as f64),
            }
        });
        let gaps = self.bins.iter().map(|bin| (bin.confidence - bin.hits as f64).abs());
        Calibration { ece: gaps.sum::<f64>() / total, brier: self.brier / total, reliability: bins.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn confidence_equal_to_accuracy_has_no_error() {
        let mut reliability = Reliability::default();
        for label in [0, 0, 0, 1] {
            reliability.add(&[0.75, 0.25], label, 0);
        }
        let Calibration { ece, brier, reliability } = reliability.calibration();
        assert_eq!((ece, brier), (0.0, (3.0 * 0.125 + 1.125) / 4.0));
        let filled = reliability.iter().filter(|bin| bin.images > 0);
        let filled: Vec<_> = filled.map(|bin| (bin.images, bin.confidence, bin.accuracy)).collect();
        assert_eq!(filled, [(4, Some(0.75), Some(0.75))]);
    }

    #[test]
    fn bins_contain_their_upper_edge() {
        let bin_of = |p: f32| {
            let mut reliability = Reliability::default();
            reliability.add(&[p], 0, 0);
            reliability.calibration().reliability.iter().position(|bin| bin.images > 0).unwrap()
        };
        assert_eq!([0.0, 0.5, 0.6, 0.61, 1.0, f32::NAN].map(bin_of), [0, 7, 9, 9, 14, 0]);
    }

    proptest! {
        #[test]
        fn errors_are_in_range(images in prop::collection::vec((0.0f32..=1.0, any::<bool>()), 1..60)) {
            let mut reliability = Reliability::default();
            for &(p, hit) in &images {
                let chosen = usize::from(p < 0.5);
                reliability.add(&[p, 1.0 - p], if hit { chosen } else { 1 - chosen }, chosen);
            }
            let Calibration { ece, brier, .. } = reliability.calibration();
            prop_assert!((0.0..=1.0).contains(&ece) && (0.0..=2.0).contains(&brier), "{ece} {brier}");
        }
    }
}
