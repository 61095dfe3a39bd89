//! Order and sampling of an epoch.

use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use mbconv_image::seed;

use crate::source::Runs;

/// The sampling strategy. An epoch always has as many samples as the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Every sample once.
    #[default]
    Once,
    /// A subset of the samples, each repeated this many times in a row with different augmentation
    /// (Hoffer et al. 2020; timm's `--aug-repeats` on one device).
    Repeated(#[schemars(range(min = 1, max = 100))] usize),
    /// Every class equally often: samples of rare classes repeat; of common classes, a subset is
    /// used.
    Balanced,
}

/// One sample of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// Index in the source.
    pub index: usize,
    /// Number of earlier occurrences in this epoch; selects the augmentation.
    pub repeat: usize,
}

/// Returns the samples of an epoch in order. `label` returns a sample's class. When shuffling, up
/// to `runs.abreast` runs are mixed at a time; balanced sampling ignores `runs`.
pub(crate) fn epoch_order(
    samples: usize,
    label: impl Fn(usize) -> usize,
    runs: &Runs,
    sampling: Sampling,
    shuffle: bool,
    seed: u64,
    epoch: usize,
) -> Vec<Draw> {
    let mut rng = seed::order_rng(seed, epoch);
    let mut shuffled = |indices: &mut Vec<usize>| {
        if shuffle {
            indices.shuffle(&mut rng);
        }
    };
    let mut each = || {
        let mut all: Vec<usize> = (0..samples).collect();
        if runs.ends.is_empty() || !shuffle {
            shuffled(&mut all);
            return all;
        }
        // Shuffle the runs, then the samples within each group of runs that are read together.
        let mut order: Vec<usize> = (0..runs.ends.len()).collect();
        shuffled(&mut order);
        let start = |run: usize| if run == 0 { 0 } else { runs.ends[run - 1] };
        all.clear();
        for abreast in order.chunks(runs.abreast.max(1)) {
            let mut window: Vec<usize> = abreast.iter().flat_map(|&run| start(run)..runs.ends[run]).collect();
            shuffled(&mut window);
            all.extend(window);
        }
        all
    };
    match sampling {
        Sampling::Once => {
            let all = each();
            all.into_iter().map(|index| Draw { index, repeat: 0 }).collect()
        }
        Sampling::Repeated(times) => {
            let all = each();
            let times = times.max(1);
            let repeated = all.into_iter().flat_map(|index| (0..times).map(move |repeat| Draw { index, repeat }));
            repeated.take(samples).collect()
        }
        Sampling::Balanced => {
            let mut members: Vec<Vec<usize>> = Vec::new();
            for index in 0..samples {
                let class = label(index);
                members.resize_with(members.len().max(class + 1), Vec::new);
                members[class].push(index);
            }
            members.retain(|members| !members.is_empty());
            members.iter_mut().for_each(&mut shuffled);
            // Classes take turns; the classes that get one more sample change with the epoch.
            let classes = members.len().max(1);
            let mut draws: Vec<Draw> = (0..samples)
                .map(|position| {
                    let members = &members[(position + epoch) % classes];
                    let turn = position / classes;
                    Draw { index: members[turn % members.len()], repeat: turn / members.len() }
                })
                .collect();
            if shuffle {
                draws.shuffle(&mut rng);
            }
            draws
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(labels: &[usize], sampling: Sampling, epoch: usize) -> Vec<Draw> {
        epoch_order(labels.len(), |index| labels[index], &Runs::default(), sampling, true, 7, epoch)
    }

    #[test]
    fn shuffled_runs_are_mixed_in_groups() {
        let runs = Runs { ends: (1..=10).map(|run| run * 20).collect(), abreast: 3 };
        let order = |epoch| -> Vec<usize> {
            let draws = epoch_order(200, |_| 0, &runs, Sampling::Once, true, 7, epoch);
            draws.iter().map(|draw| draw.index).collect()
        };
        let first = order(0);
        assert_eq!(first, order(0));
        assert_ne!(first, order(1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..200).collect::<Vec<_>>());
        for window in first.chunks(60) {
            let touched: std::collections::BTreeSet<usize> = window.iter().map(|index| index / 20).collect();
            assert_eq!(touched.len(), window.len() / 20);
            assert!(window.windows(2).filter(|pair| pair[0] / 20 != pair[1] / 20).count() > 20 || window.len() == 20);
        }
        let in_order = epoch_order(200, |_| 0, &runs, Sampling::Once, false, 7, 0);
        assert!(in_order.iter().map(|draw| draw.index).eq(0..200));
    }

    #[test]
    fn repeated_samples_are_adjacent() {
        let draws = order(&[0; 10], Sampling::Repeated(3), 0);
        for block in draws.chunks(3) {
            assert!(block.iter().all(|draw| draw.index == block[0].index));
            assert!(block.iter().enumerate().all(|(i, draw)| draw.repeat == i));
        }
        let firsts: std::collections::HashSet<usize> = draws.chunks(3).map(|block| block[0].index).collect();
        assert_eq!((draws.len(), firsts.len()), (10, 4));
    }

    #[test]
    fn balanced_epochs_sample_classes_equally() {
        let labels: Vec<usize> = (0..100).map(|i| if i < 90 { 0 } else { 2 + i % 2 }).collect();
        let draws = order(&labels, Sampling::Balanced, 0);
        let count = |class| draws.iter().filter(|draw| labels[draw.index] == class).count();
        assert_eq!((draws.len(), count(0), count(1)), (100, 34, 0));
        assert_eq!((count(2), count(3)), (33, 33));
        // The common class is sampled without repetition; the next epoch uses other samples.
        let common = |epoch| -> Vec<usize> {
            let mut indices: Vec<usize> =
                order(&labels, Sampling::Balanced, epoch).iter().map(|draw| draw.index).filter(|&i| i < 90).collect();
            indices.sort_unstable();
            indices
        };
        let (first, second) = (common(0), common(1));
        assert!(first.windows(2).all(|pair| pair[0] < pair[1]));
        assert_ne!(first, second);
    }

    proptest! {
        /// No (sample, repeat) pair occurs twice, so no augmentation does.
        #[test]
        fn draws_are_unique(labels in prop::collection::vec(0usize..5, 0..60), times in 1usize..4) {
            for sampling in [Sampling::Once, Sampling::Repeated(times), Sampling::Balanced] {
                let draws = order(&labels, sampling, 3);
                let unique: std::collections::HashSet<_> = draws.iter().map(|d| (d.index, d.repeat)).collect();
                prop_assert_eq!((draws.len(), unique.len()), (labels.len(), labels.len()));
            }
        }
    }
}
