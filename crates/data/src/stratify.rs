//! Iterative stratification of multi-label data.

use mbconv_image::seed::split_rng;
use rand::seq::SliceRandom;

use crate::label_sets::LabelSets;
use crate::options::OpenOptions;

/// Divides samples with these labels into training and validation so that each class has about the
/// same share in both (Sechidis et al. 2011): the samples of the rarest class are assigned first,
/// each to the part that lacks more samples of that class. Returns the indices of both parts,
/// ascending.
pub(crate) fn stratified_sets(
    labels: &[usize],
    sets: &LabelSets,
    classes: usize,
    options: &OpenOptions,
) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(&mut split_rng(options.seed, 0));
    let mut members = vec![Vec::new(); classes];
    for &index in &order {
        sets.classes(labels[index]).iter().for_each(|&class| members[class].push(index));
    }
    let lacking = |count: usize| {
        let val = options.val_fraction * count as f64;
        [count as f64 - val, val]
    };
    let mut parts = Parts {
        part_of: vec![None; labels.len()],
        left: members.iter().map(Vec::len).collect(),
        lacking: members.iter().map(|members| lacking(members.len())).collect(),
        lacking_in_total: lacking(labels.len()),
    };
    let set = |index: usize| sets.classes(labels[index]);
    while let Some(rarest) = (0..classes).filter(|&class| parts.left[class] > 0).min_by_key(|&class| parts.left[class])
    {
        for &index in &members[rarest] {
            parts.assign(index, Some(rarest), set(index));
        }
    }
    for &index in &order {
        parts.assign(index, None, set(index));
    }
    (0..labels.len()).partition(|&index| parts.part_of[index] == Some(TRAIN))
}

const TRAIN: usize = 0;
const VAL: usize = 1;

/// The samples assigned so far to training and validation.
struct Parts {
    part_of: Vec<Option<usize>>,
    /// Number of samples of each class that are not assigned.
    left: Vec<usize>,
    /// Number of samples of each class that each part lacks.
    lacking: Vec<[f64; 2]>,
    /// Number of samples that each part lacks.
    lacking_in_total: [f64; 2],
}

impl Parts {
    /// Assigns a sample of these classes, unless it is assigned, to the part that lacks more
    /// samples of `class`.
    fn assign(&mut self, index: usize, class: Option<usize>, classes: &[usize]) {
        if self.part_of[index].is_some() {
            return;
        }
        let total = self.lacking_in_total;
        let [train, val] = class.map_or(total, |class| self.lacking[class]);
        let is_val = val > train || (val == train && total[VAL] > total[TRAIN]);
        let part = if is_val { VAL } else { TRAIN };
        self.part_of[index] = Some(part);
        self.lacking_in_total[part] -= 1.0;
        for &class in classes {
            self.left[class] -= 1;
            self.lacking[class][part] -= 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_equal_shares_in_both_parts() {
        // 100 samples: class 0 in all, class 1 in half of them, class 2 in ten, 3 without a class.
        let sets = (0..103).map(|index| match index {
            100.. => vec![],
            _ => (0..3).filter(|class| index % [1, 2, 10][*class] == 0).collect(),
        });
        let (sets, labels) = LabelSets::new(sets);
        for seed in 0..4 {
            let options = OpenOptions { seed, ..OpenOptions::default() };
            let (train, val) = stratified_sets(&labels, &sets, 3, &options);
            assert_eq!((train.len() + val.len(), train.is_sorted()), (103, true));
            let count = |class| val.iter().filter(|&&index| sets.classes(labels[index]).contains(&class)).count();
            assert_eq!([0, 1, 2].map(count), [20, 10, 2]);
            assert_eq!(stratified_sets(&labels, &sets, 3, &options), (train, val));
        }
        let all = stratified_sets(&labels, &sets, 3, &OpenOptions { val_fraction: 0.0, ..OpenOptions::default() });
        assert_eq!((all.0.len(), all.1.len()), (103, 0));
    }
}
