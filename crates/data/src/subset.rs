//! Subsets and concatenations of sources.

use std::path::PathBuf;
use std::sync::Arc;

use burn::data::dataset::Dataset;

use crate::error::DataError;
use crate::label_sets::LabelSets;
use crate::source::{Runs, Sample, Source};

/// Selected samples of another source, in a given order.
pub struct Subset {
    source: Arc<dyn Source>,
    members: Vec<u32>,
}

impl Subset {
    /// Selects samples by index, each at most 2³² − 1.
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

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.source.label_sets()
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.source.path(self.member(index))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.source.files()
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

/// Several sources in sequence.
pub struct Joined {
    sources: Vec<Arc<dyn Source>>,
    /// End index of each source.
    ends: Vec<usize>,
}

impl Joined {
    /// Concatenates the sources in this order.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        let mut end = 0;
        let ends = sources.iter().map(|source| {
            end += source.len();
            end
        });
        Self { ends: ends.collect(), sources }
    }

    /// Returns the source of a sample, and the sample's index in it.
    fn find(&self, index: usize) -> (&dyn Source, usize) {
        let source = self.ends.partition_point(|&end| end <= index);
        let start = if source == 0 { 0 } else { self.ends[source - 1] };
        (&*self.sources[source], index - start)
    }
}

impl Dataset<Sample, DataError> for Joined {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (source, index) = self.find(index);
        source.get(index)
    }

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }
}

impl Source for Joined {
    fn name(&self, index: usize) -> String {
        let (source, index) = self.find(index);
        source.name(index)
    }

    fn label(&self, index: usize) -> usize {
        let (source, index) = self.find(index);
        source.label(index)
    }

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.sources.first().and_then(|source| source.label_sets())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sources.iter().flat_map(|source| source.files()).collect()
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        let (source, index) = self.find(index);
        source.path(index)
    }
}
