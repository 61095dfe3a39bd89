//! AUROC and average precision of each class against the rest.

use rayon::prelude::*;

/// AUROC and average precision of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranking {
    /// Area under the receiver operating characteristic: the probability that an image of the class
    /// has a higher score than another image, where equal scores count half.
    pub auroc: f64,
    /// Mean of the precision over the steps in recall, without interpolation.
    pub average_precision: f64,
}

impl Ranking {
    /// Ranks images, given their scores for a class and whether they belong to it. Returns `None`
    /// if all of them belong to it, or none. Equal to scikit-learn's `roc_auc_score` and
    /// `average_precision_score`.
    pub fn new(mut images: Vec<(f32, bool)>) -> Option<Self> {
        let positives = images.iter().filter(|image| image.1).count();
        let negatives = images.len() - positives;
        if positives == 0 || negatives == 0 {
            return None;
        }
        images.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let (mut above, mut true_above) = (0usize, 0usize);
        let (mut pairs, mut precisions) = (0.0, 0.0);
        for tied in images.chunk_by(|a, b| a.0 == b.0) {
            let hits = tied.iter().filter(|image| image.1).count();
            let misses = tied.len() - hits;
            pairs += misses as f64 * (true_above as f64 + 0.5 * hits as f64);
            (above, true_above) = (above + tied.len(), true_above + hits);
            precisions += hits as f64 * true_above as f64 / above as f64;
        }
        Some(Self {
            auroc: pairs / (positives as f64 * negatives as f64),
            average_precision: precisions / positives as f64,
        })
    }
}

/// Ranks the images by their probability for each class. `probabilities` are `[N, classes]`, and
/// `labels` `[N]`. Classes without images, or without other images, have no ranking.
pub fn one_vs_rest(probabilities: &[f32], labels: &[usize], classes: usize) -> Vec<Option<Ranking>> {
    let of_class = |class: usize| {
        let rows = probabilities.chunks_exact(classes).zip(labels);
        Ranking::new(rows.map(|(row, &label)| (row[class], label == class)).collect())
    };
    (0..classes).into_par_iter().map(of_class).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rankings_match_their_definition() {
        let perfect = Ranking::new(vec![(0.9, true), (0.1, false), (0.8, true)]).unwrap();
        assert_eq!((perfect.auroc, perfect.average_precision), (1.0, 1.0));
        let constant = Ranking::new(vec![(0.5, true), (0.5, false), (0.5, false), (0.5, false)]).unwrap();
        assert_eq!((constant.auroc, constant.average_precision), (0.5, 0.25));
        assert_eq!(Ranking::new(vec![(0.5, true)]), None);
        assert_eq!(Ranking::new(vec![(0.5, false)]), None);
    }

    proptest! {
        #[test]
        fn auroc_is_symmetric_and_counts_pairs(images in prop::collection::vec((0u8..6, any::<bool>()), 2..40)) {
            let of = |flip: bool| Ranking::new(images.iter().map(|&(s, b)| (f32::from(s), b != flip)).collect());
            let (Some(ranking), Some(inverted)) = (of(false), of(true)) else { return Ok(()) };
            prop_assert!((ranking.auroc + inverted.auroc - 1.0).abs() < 1e-12);
            // Any increasing function of the scores gives the same ranking.
            let squared = Ranking::new(images.iter().map(|&(s, b)| (f32::from(s) * f32::from(s), b)).collect());
            prop_assert_eq!(Some(ranking), squared);
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (a, _) in images.iter().filter(|image| image.1) {
                for (b, _) in images.iter().filter(|image| !image.1) {
                    pairs += 1.0;
                    wins += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                }
            }
            prop_assert!((ranking.auroc - wins / pairs).abs() < 1e-12);
            prop_assert!((0.0..=1.0).contains(&ranking.average_precision));
        }
    }
}
