//! The forms of data sets.

use std::fmt;

/// The form of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version, with its fine labels.
    Cifar100,
    /// `train/` and `val/` (or `valid/`, `Testing/` …), each with class folders.
    SplitFolders,
    /// One folder of class folders, split by seed.
    FlatFolder,
    /// ImageNet in its original form: archives of archives, and a flat folder or archive of
    /// validation images.
    Ilsvrc,
    /// WebDataset: `.tar` shards of images and labels.
    Shards,
    /// Hugging Face's `.parquet` shards.
    Parquet,
    /// A CSV or TSV table, or a list, of paths and labels.
    Table,
    /// A `.zip` or `.tar` archive of image folders.
    Archive,
    /// The embedded data set of handwritten digits.
    Digits,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Cifar10 => "CIFAR-10 (binary)",
            Form::Cifar100 => "CIFAR-100 (binary)",
            Form::SplitFolders => "image folders with splits",
            Form::FlatFolder => "image folders",
            Form::Ilsvrc => "ImageNet (ILSVRC2012)",
            Form::Shards => "WebDataset shards",
            Form::Parquet => "Parquet shards",
            Form::Table => "table of paths and labels",
            Form::Archive => "archive of image folders",
            Form::Digits => "digits (embedded)",
        })
    }
}
