//! Metrics of multi-label classification, computed from the probabilities of all images.

use rayon::prelude::*;

use super::ranking::Ranking;

/// Threshold of the probability above which a class is predicted, unless thresholds were chosen.
pub const DEFAULT_THRESHOLD: f32 = 0.5;

/// Returns the sigmoid probabilities.
pub fn sigmoid(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|&logit| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32).collect()
}

/// Returns the binary cross-entropy of a logit: `ln(1 + e^-z)` for a true class, otherwise
/// `ln(1 + e^z)`.
pub fn binary_cross_entropy(logit: f64, truth: bool) -> f64 {
    let z = if truth { -logit } else { logit };
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// Probabilities and true classes of images.
#[derive(Clone, Debug)]
pub struct MultiLabelScores {
    classes: usize,
    /// `[N, classes]`.
    probabilities: Vec<f32>,
    /// `[N, classes]`.
    truths: Vec<bool>,
    /// Sum of the images' losses.
    loss: f64,
}

/// Ranking metrics of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassRanking {
    /// Average precision. `None` without images of the class.
    pub average_precision: Option<f64>,
    /// AUROC. `None` without images of the class, or without others.
    pub auroc: Option<f64>,
}

/// Numbers of predictions of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Predicted and true.
    pub hits: usize,
    /// Predicted.
    pub predicted: usize,
    /// True.
    pub images: usize,
}

impl Outcomes {
    /// Returns the share of the predictions that are true; 0 without predictions.
    pub fn precision(self) -> f64 {
        ratio(self.hits, self.predicted)
    }

    /// Returns the share of the true images that are predicted; 0 without images.
    pub fn recall(self) -> f64 {
        ratio(self.hits, self.images)
    }

    /// Returns the harmonic mean of precision and recall; 0 without hits.
    pub fn f1(self) -> f64 {
        ratio(2 * self.hits, self.predicted + self.images)
    }

    /// Returns the sums over classes.
    pub fn sum(all: &[Self]) -> Self {
        let add = |a: Self, b: &Self| Self {
            hits: a.hits + b.hits,
            predicted: a.predicted + b.predicted,
            images: a.images + b.images,
        };
        all.iter().fold(Self::default(), add)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns the mean, or 0 of no values.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1);
    values.sum::<f64>() / count as f64
}

/// Returns the mean over classes.
pub fn macro_mean(outcomes: &[Outcomes], metric: fn(Outcomes) -> f64) -> f64 {
    mean(outcomes.iter().map(|&outcomes| metric(outcomes)))
}

impl MultiLabelScores {
    /// Creates an empty collection.
    pub fn new(classes: usize) -> Self {
        Self { classes, probabilities: Vec::new(), truths: Vec::new(), loss: 0.0 }
    }

    /// Adds an image, given its logits and its classes. Returns the probabilities.
    pub fn add(&mut self, logits: &[f32], classes: &[usize]) -> &[f32] {
        let start = self.probabilities.len();
        self.probabilities.extend(sigmoid(logits));
        self.truths.resize(start + self.classes, false);
        let truths = &mut self.truths[start..];
        classes.iter().for_each(|&class| truths[class] = true);
        let losses = logits.iter().zip(&*truths).map(|(&logit, &truth)| binary_cross_entropy(logit.into(), truth));
        self.loss += losses.sum::<f64>() / self.classes.max(1) as f64;
        &self.probabilities[start..]
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.probabilities.len() / self.classes.max(1)
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the mean binary cross-entropy over images and classes.
    pub fn loss(&self) -> f64 {
        self.loss / self.len().max(1) as f64
    }

    /// Returns the probability and the truth of each image for a class.
    fn of_class(&self, class: usize) -> Vec<(f32, bool)> {
        let rows = self.probabilities.chunks_exact(self.classes).zip(self.truths.chunks_exact(self.classes));
        rows.map(|(probabilities, truths)| (probabilities[class], truths[class])).collect()
    }

    /// Ranks the images by their probability for each class.
    pub fn rankings(&self) -> Vec<ClassRanking> {
        let of_class = |class: usize| {
            let images = self.of_class(class);
            let all_true = !images.is_empty() && images.iter().all(|image| image.1);
            let ranking = Ranking::new(images);
            let average_precision = ranking.map(|ranking| ranking.average_precision).or(all_true.then_some(1.0));
            ClassRanking { average_precision, auroc: ranking.map(|ranking| ranking.auroc) }
        };
        (0..self.classes).into_par_iter().map(of_class).collect()
    }

    /// Counts the predictions of each class. A class is predicted if its probability is at least
    /// its threshold.
    pub fn outcomes(&self, thresholds: &[f32]) -> Vec<Outcomes> {
        let mut all = vec![Outcomes::default(); self.classes];
        let rows = self.probabilities.chunks_exact(self.classes).zip(self.truths.chunks_exact(self.classes));
        for (probabilities, truths) in rows {
            for (class, outcomes) in all.iter_mut().enumerate() {
                let (predicted, truth) = (probabilities[class] >= thresholds[class], truths[class]);
                outcomes.hits += usize::from(predicted && truth);
                outcomes.predicted += usize::from(predicted);
                outcomes.images += usize::from(truth);
            }
        }
        all
    }

    /// Returns the share of images whose predicted classes are exactly their classes.
    pub fn exact_match(&self, thresholds: &[f32]) -> f64 {
        let rows = self.probabilities.chunks_exact(self.classes).zip(self.truths.chunks_exact(self.classes));
        let matches = |(probabilities, truths): &(&[f32], &[bool])| {
            let predicted =
                probabilities.iter().zip(thresholds).map(|(probability, threshold)| probability >= threshold);
            predicted.eq(truths.iter().copied())
        };
        ratio(rows.filter(matches).count(), self.len())
    }

    /// Returns the threshold of each class with the highest F1 on these images. Classes without
    /// images have [`DEFAULT_THRESHOLD`].
    pub fn best_thresholds(&self) -> Vec<f32> {
        (0..self.classes).into_par_iter().map(|class| best_threshold(self.of_class(class))).collect()
    }
}

/// Returns the mean average precision: the mean over the classes with images. `None` if no class
/// has images.
pub fn mean_average_precision(rankings: &[ClassRanking]) -> Option<f64> {
    let values: Vec<f64> = rankings.iter().filter_map(|ranking| ranking.average_precision).collect();
    (!values.is_empty()).then(|| mean(values.into_iter()))
}

/// Returns the threshold with the highest F1: halfway between the lowest predicted probability and
/// the next lower one. Of equal F1, the highest threshold wins.
fn best_threshold(mut images: Vec<(f32, bool)>) -> f32 {
    let positives = images.iter().filter(|image| image.1).count();
    images.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut predicted, mut hits, mut best, mut threshold) = (0, 0, 0.0, DEFAULT_THRESHOLD);
    let groups: Vec<&[(f32, bool)]> = images.chunk_by(|a, b| a.0 == b.0).collect();
    for (index, group) in groups.iter().enumerate() {
        predicted += group.len();
        hits += group.iter().filter(|image| image.1).count();
        let f1 = Outcomes { hits, predicted, images: positives }.f1();
        if f1 > best {
            let (low, lower) = (group[0].0, groups.get(index + 1).map_or(0.0, |next| next[0].0));
            let middle = 0.5 * (low + lower);
            // Neighboring numbers have none between them.
            (best, threshold) = (f1, if middle > lower { middle } else { low });
        }
    }
    threshold
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn probabilities_and_losses_do_not_overflow() {
        assert_eq!(sigmoid(&[0.0, 1000.0, -1000.0]), [0.5, 1.0, 0.0]);
        assert_eq!(binary_cross_entropy(1000.0, false), 1000.0);
        assert_eq!(binary_cross_entropy(1000.0, true), 0.0);
        assert!((binary_cross_entropy(0.0, true) - 2.0f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn classes_without_images_have_no_ranking() {
        let mut scores = MultiLabelScores::new(3);
        scores.add(&[2.0, -1.0, 0.0], &[0]);
        scores.add(&[1.0, -2.0, 0.5], &[0, 1]);
        let rankings = scores.rankings();
        assert_eq!(rankings[0], ClassRanking { average_precision: Some(1.0), auroc: None });
        assert_eq!(rankings[1], ClassRanking { average_precision: Some(0.5), auroc: Some(0.0) });
        assert_eq!(rankings[2], ClassRanking { average_precision: None, auroc: None });
        assert_eq!(mean_average_precision(&rankings), Some(0.75));
        assert_eq!(MultiLabelScores::new(2).best_thresholds(), [0.5, 0.5]);
        assert_eq!(scores.exact_match(&[0.5, 0.5, 0.9]), 0.5);
    }

    #[test]
    fn thresholds_separate_the_classes() {
        assert_eq!(best_threshold(vec![(0.2, true), (0.1, false), (0.4, true)]), 0.15);
        assert_eq!(best_threshold(vec![(0.9, false), (0.1, true)]), 0.05);
        assert_eq!(best_threshold(vec![(0.9, false)]), 0.5);
        let [low, high] = [0.5f32, 0.5f32.next_up()];
        assert_eq!(best_threshold(vec![(low, false), (high, true)]), high);
    }

    proptest! {
        #[test]
        fn no_threshold_has_a_higher_f1(images in prop::collection::vec((0u8..20, any::<bool>()), 1..40)) {
            let images: Vec<(f32, bool)> = images.into_iter().map(|(score, truth)| (f32::from(score) / 20.0, truth)).collect();
            let f1 = |threshold: f32| {
                let positives = images.iter().filter(|image| image.1).count();
                let predicted: Vec<_> = images.iter().filter(|image| image.0 >= threshold).collect();
                let hits = predicted.iter().filter(|image| image.1).count();
                Outcomes { hits, predicted: predicted.len(), images: positives }.f1()
            };
            let best = f1(best_threshold(images.clone()));
            if images.iter().any(|image| image.1) {
                for step in 0..=40 {
                    prop_assert!(best >= f1(step as f32 / 40.0) - 1e-12);
                }
            }
        }
    }
}
