//! Some samples of a source.

use std::path::PathBuf;
use std::sync::Arc;

use burn::data::dataset::Dataset;

use super::{DataError, Runs, Sample, Source};

/// Samples of another source, in an order of their own.
pub struct Subset {
    source: Arc<dyn Source>,
    members: Vec<u32>,
}

impl Subset {
    /// The samples of these indices, at most 2³² − 1.
    pub fn new(source: Arc<dyn Source>, members: Vec<usize>) -> Self {
        let members = members.into_iter().map(|index| u32::try_from(index).unwrap_or(u32::MAX)).collect();
        Self { source, members }
    }

    fn member(&self, index: usize) -> usize {
        self.members[index] as usize
    }
}

impl Dataset<Sample, DataError> for Subset {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.source.get(self.member(index))
    }

    fn len(&self) -> usize {
        self.members.len()
    }
}

impl Source for Subset {
    fn name(&self, index: usize) -> String {
        self.source.name(self.member(index))
    }

    fn label(&self, index: usize) -> usize {
        self.source.label(self.member(index))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.source.path(self.member(index))
    }

    fn runs(&self) -> Runs {
        if !self.members.is_sorted() {
            return Runs::default();
        }
        let Runs { ends, abreast } = self.source.runs();
        let mut ends: Vec<usize> =
            ends.into_iter().map(|end| self.members.partition_point(|&member| (member as usize) < end)).collect();
        ends.dedup();
        ends.retain(|&end| end > 0);
        Runs { ends, abreast }
    }
}
