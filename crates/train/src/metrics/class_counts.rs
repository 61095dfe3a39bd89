//! Precision, recall and F1.

use mbconv_report::Averages;

/// Counts of labels, predictions and hits of each class, as in scikit-learn's
/// `precision_recall_fscore_support` with `zero_division=0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounts {
    /// Correctly predicted images of each class.
    hits: Vec<usize>,
    /// Images predicted as each class.
    predicted: Vec<usize>,
    /// Images of each class.
    actual: Vec<usize>,
}

impl ClassCounts {
    /// Creates zero counts for `classes` classes.
    pub fn new(classes: usize) -> Self {
        let zeros = vec![0; classes];
        Self { hits: zeros.clone(), predicted: zeros.clone(), actual: zeros }
    }

    /// Counts an image of the class `label` that is predicted as `chosen`.
    pub fn add(&mut self, label: usize, chosen: usize) {
        self.actual[label] += 1;
        self.predicted[chosen] += 1;
        self.hits[label] += usize::from(label == chosen);
    }

    /// Returns the number of images of a class (its support).
    pub fn images(&self, class: usize) -> usize {
        self.actual[class]
    }

    /// Returns the share of a class's predictions that are correct; 0 without predictions.
    pub fn precision(&self, class: usize) -> f64 {
        share(self.hits[class], self.predicted[class])
    }

    /// Returns the share of a class's images that are predicted correctly; 0 without images.
    pub fn recall(&self, class: usize) -> f64 {
        share(self.hits[class], self.actual[class])
    }

    /// Returns the harmonic mean of precision and recall; 0 without hits.
    pub fn f1(&self, class: usize) -> f64 {
        share(2 * self.hits[class], self.predicted[class] + self.actual[class])
    }

    /// Returns the mean recall of the classes with images.
    pub fn balanced_accuracy(&self) -> f64 {
        mean(self.classes(|this, class| this.actual[class] > 0).map(|class| self.recall(class)))
    }

    /// Returns the mean F1 of the classes that occur among labels or predictions.
    pub fn macro_f1(&self) -> f64 {
        mean(self.classes(Self::occurs).map(|class| self.f1(class)))
    }

    /// Returns all averages over the classes, without those of rankings.
    pub fn averages(&self) -> Averages {
        let images: usize = self.actual.iter().sum();
        let weighted: f64 = self.classes(Self::occurs).map(|class| self.actual[class] as f64 * self.f1(class)).sum();
        Averages {
            macro_precision: mean(self.classes(Self::occurs).map(|class| self.precision(class))),
            macro_recall: mean(self.classes(Self::occurs).map(|class| self.recall(class))),
            macro_f1: self.macro_f1(),
            weighted_f1: weighted / f64::max(1.0, images as f64),
            balanced_accuracy: self.balanced_accuracy(),
            macro_auroc: None,
            macro_average_precision: None,
        }
    }

    /// Returns the counts with those of all processes, which `sum` adds element by element.
    pub(crate) fn summed(self, sum: impl FnOnce(&mut [f64])) -> Self {
        let classes = self.hits.len();
        let mut values: Vec<f64> =
            [self.hits, self.predicted, self.actual].concat().into_iter().map(|count| count as f64).collect();
        sum(&mut values);
        let counts = |part: usize| values[part * classes..][..classes].iter().map(|&count| count as usize).collect();
        Self { hits: counts(0), predicted: counts(1), actual: counts(2) }
    }

    fn occurs(&self, class: usize) -> bool {
        self.actual[class] + self.predicted[class] > 0
    }

    fn classes(&self, wanted: impl Fn(&Self, usize) -> bool) -> impl Iterator<Item = usize> {
        (0..self.hits.len()).filter(move |&class| wanted(self, class))
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns the mean, or 0 without values.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(pairs: &[(usize, usize)]) -> ClassCounts {
        let mut counts = ClassCounts::new(4);
        pairs.iter().for_each(|&(label, chosen)| counts.add(label, chosen));
        counts
    }

    #[test]
    fn absent_classes_do_not_lower_averages() {
        let all_right = counts(&[(0, 0), (0, 0), (2, 2)]);
        assert_eq!((all_right.macro_f1(), all_right.balanced_accuracy()), (1.0, 1.0));
        assert_eq!((all_right.precision(1), all_right.recall(1), all_right.f1(1)), (0.0, 0.0, 0.0));
        // A class that is only predicted has an F1 of 0 and no recall.
        let one_wrong = counts(&[(0, 0), (0, 0), (2, 2), (2, 3)]);
        assert_eq!(one_wrong.balanced_accuracy(), 0.75);
        assert!((one_wrong.macro_f1() - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(ClassCounts::new(4).averages().weighted_f1, 0.0);
    }

    proptest! {
        #[test]
        fn f1_is_between_precision_and_recall(pairs in prop::collection::vec((0usize..4, 0usize..4), 1..50)) {
            let counts = counts(&pairs);
            for class in 0..4 {
                let (p, r, f) = (counts.precision(class), counts.recall(class), counts.f1(class));
                prop_assert!(f <= p.max(r) + 1e-12 && f >= p.min(r) - 1e-12);
            }
            let averages = counts.averages();
            // Weighted by images, recall is accuracy; the unweighted mean is that of balanced
            // classes.
            let right = pairs.iter().filter(|(label, chosen)| label == chosen).count() as f64;
            let weighted: f64 = (0..4).map(|class| counts.images(class) as f64 * counts.recall(class)).sum();
            prop_assert!((weighted - right).abs() < 1e-9);
            prop_assert!(averages.macro_recall <= averages.balanced_accuracy + 1e-12);
        }
    }
}
