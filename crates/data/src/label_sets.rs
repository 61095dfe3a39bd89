//! Sets of classes: the labels of images in multi-label data.

use std::collections::HashMap;

/// The distinct sets of classes of a multi-label data set. The label of a sample is the index of
/// its set. A set may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSets {
    sets: Vec<Box<[usize]>>,
}

impl LabelSets {
    /// Collects the distinct sets. Returns them with the label of each given set; the order and
    /// repetition of classes do not matter.
    pub fn new(given: impl IntoIterator<Item = Vec<usize>>) -> (Self, Vec<usize>) {
        let mut known: HashMap<Box<[usize]>, usize> = HashMap::new();
        let mut sets = Vec::new();
        let label = |mut classes: Vec<usize>| {
            classes.sort_unstable();
            classes.dedup();
            let classes = classes.into_boxed_slice();
            *known.entry(classes).or_insert_with_key(|classes| {
                sets.push(classes.clone());
                sets.len() - 1
            })
        };
        let labels = given.into_iter().map(label).collect();
        (Self { sets }, labels)
    }

    /// Returns these sets with other indices of the classes. Labels stay the same.
    pub fn renamed(&self, index: impl Fn(usize) -> usize) -> Self {
        let sets = self.sets.iter().map(|set| {
            let mut classes: Vec<usize> = set.iter().map(|&class| index(class)).collect();
            classes.sort_unstable();
            classes.into_boxed_slice()
        });
        Self { sets: sets.collect() }
    }

    /// Returns the number of distinct sets.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Returns whether there are no sets.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Returns the classes of a label, ascending.
    ///
    /// # Panics
    /// If there is no such label.
    pub fn classes(&self, label: usize) -> &[usize] {
        &self.sets[label]
    }

    /// Returns the names of a label's classes, separated by `|`.
    pub fn name(&self, label: usize, names: &[String]) -> String {
        self.classes(label).iter().map(|&class| names[class].as_str()).collect::<Vec<_>>().join("|")
    }

    /// Returns the multi-hot targets of labels, row-major `[labels, classes]`: 1 for the classes of
    /// a label, otherwise 0.
    pub fn multi_hot(&self, labels: &[usize], classes: usize) -> Vec<f32> {
        let mut targets = vec![0.0; labels.len() * classes];
        for (row, &label) in targets.chunks_exact_mut(classes.max(1)).zip(labels) {
            self.classes(label).iter().for_each(|&class| row[class] = 1.0);
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_share_a_label() {
        let (sets, labels) = LabelSets::new([vec![2, 0], vec![], vec![0, 2, 2], vec![1]]);
        assert_eq!((sets.len(), labels), (3, vec![0, 1, 0, 2]));
        assert_eq!((sets.classes(0), sets.classes(1)), (&[0, 2][..], &[][..]));
        let names = ["a", "b", "c"].map(String::from);
        assert_eq!((sets.name(0, &names), sets.name(1, &names)), ("a|c".into(), String::new()));
        let renamed = sets.renamed(|class| 2 - class);
        assert_eq!((renamed.classes(0), renamed.classes(2)), (&[0, 2][..], &[1][..]));
        assert_eq!(sets.multi_hot(&[0, 2, 1], 3), [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
