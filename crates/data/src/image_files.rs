//! Image files without labels.

use std::path::PathBuf;

use burn::data::dataset::Dataset;

use crate::error::DataError;
use crate::image_file::read_image;
use crate::source::{Sample, Source, StoredImage};

/// A list of image files. Their label is 0.
pub struct ImageFiles(pub Vec<PathBuf>);

impl Dataset<Sample, DataError> for ImageFiles {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        Ok(Sample { image: StoredImage::Encoded(read_image(&self.0[index])?), label: 0 })
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Source for ImageFiles {
    fn name(&self, index: usize) -> String {
        self.0[index].to_string_lossy().into_owned()
    }

    fn label(&self, _index: usize) -> usize {
        0
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.0[index].clone())
    }
}
