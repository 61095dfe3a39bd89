//! What a folder of shards holds, and how to tell whether it is whole.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::DataSet;
use crate::source::Source;
use crate::tools::pack::options::{PackFormat, PackOptions};
use crate::tools::pack::writer::hex;
use crate::tools::{CurateError, splits};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// What was packed and how: enough to make the same shards again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    /// The form of the shards.
    pub format: PackFormat,
    /// The form of the data set that was packed.
    pub source: String,
    /// SHA-256 over the names and labels of its images and its classes. Names are paths below the common folder.
    pub source_sha256: String,
    /// Shorter side of larger images, in pixels.
    pub size: Option<usize>,
    /// Quality of JPEG images that were made, where any were.
    pub quality: Option<u8>,
    /// The most images a shard.
    pub shard_size: usize,
    /// Seed of the order of training images.
    pub seed: u64,
    /// The classes' names; a label is an index into them.
    pub classes: Vec<String>,
}

/// What a folder of shards holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What was packed and how.
    #[serde(flatten)]
    pub packing: Packing,
    /// The shards of each split.
    pub splits: Vec<SplitShards>,
}

/// A split in shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitShards {
    /// `train`, `val` or `test`.
    pub split: String,
    /// Its images of each class, skipped ones included.
    pub images: Vec<usize>,
    /// Its shards, in order.
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its file's name.
    pub file: String,
    /// The file's SHA-256.
    pub sha256: String,
    /// The file's bytes.
    pub bytes: u64,
    /// Its images.
    pub images: usize,
    /// Images that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// An image that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

impl Packing {
    pub(crate) fn new(data: &DataSet, options: &PackOptions) -> Self {
        Self {
            format: options.format,
            source: data.form.to_string(),
            source_sha256: fingerprint(data),
            size: options.size,
            quality: options.size.map(|_| options.quality),
            shard_size: options.shard_size,
            seed: options.seed,
            classes: data.classes.clone(),
        }
    }

    /// Compares with what a folder of shards was packed with.
    pub(crate) fn check(&self, old: &Packing, out: &Path) -> Result<(), CurateError> {
        let pair =
            |what: &str, old: String, new: String| (old != new).then(|| format!("{what} {old} instead of {new}"));
        let text = |number: Option<usize>| number.map_or("none".into(), |number| number.to_string());
        let difference = pair("format", format!("{:?}", old.format), format!("{:?}", self.format))
            .or_else(|| pair("--size", text(old.size), text(self.size)))
            .or_else(|| pair("--quality", text(old.quality.map(Into::into)), text(self.quality.map(Into::into))))
            .or_else(|| pair("--shard-size", old.shard_size.to_string(), self.shard_size.to_string()))
            .or_else(|| pair("--seed", old.seed.to_string(), self.seed.to_string()))
            .or_else(|| (old != self).then(|| "of other images or classes".into()));
        match difference {
            Some(difference) => Err(CurateError::OtherShards { path: out.into(), difference }),
            None => Ok(()),
        }
    }
}

/// A checksum of what the images are called and which class they are of; their content is not read.
fn fingerprint(data: &DataSet) -> String {
    let mut sha = Sha256::new();
    let mut field = |text: &str| {
        sha.update((text.len() as u64).to_le_bytes());
        sha.update(text);
    };
    data.classes.iter().for_each(|class| field(class));
    for (name, source) in splits(data) {
        field(name);
        // The data set may have been moved, or be named otherwise: only what differs between images counts.
        let names = |index| source.name(index);
        let common =
            (1..source.len()).fold(if source.len() > 0 { names(0) } else { String::new() }, |common, index| {
                let name = names(index);
                let same =
                    common.chars().zip(name.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
                common[..same].to_string()
            });
        for index in 0..source.len() {
            field(&names(index)[common.len()..]);
            field(&source.label(index).to_string());
        }
    }
    hex(&sha.finalize())
}

impl Manifest {
    /// The manifest of a folder, if it has one.
    ///
    /// # Errors
    /// One that is not readable.
    pub fn read(folder: &Path) -> Result<Option<Self>, CurateError> {
        let path = folder.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(CurateError::file("read", &path))?,
        };
        let damaged = |error: serde_json::Error| CurateError::Damaged { path, why: error.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The entry of a file.
    pub(crate) fn shard(&self, file: &str) -> Option<&Shard> {
        self.splits.iter().flat_map(|split| &split.shards).find(|shard| shard.file == file)
    }

    /// With the shards that an older manifest knows besides.
    pub(crate) fn with_later(&self, old: &Manifest) -> Manifest {
        let mut all = self.clone();
        for split in &old.splits {
            let place = all.splits.iter().position(|mine| mine.split == split.split);
            let place = place.unwrap_or_else(|| {
                all.splits.push(SplitShards { shards: Vec::new(), ..split.clone() });
                all.splits.len() - 1
            });
            let later = split.shards.iter().filter(|shard| self.shard(&shard.file).is_none());
            all.splits[place].shards.extend(later.cloned());
        }
        all
    }
}

impl SplitShards {
    pub(crate) fn new(name: &str, source: &dyn Source, classes: usize) -> Self {
        let mut images = vec![0; classes];
        (0..source.len()).for_each(|index| images[source.label(index)] += 1);
        Self { split: name.into(), images, shards: Vec::new() }
    }
}

impl Shard {
    /// Whether the file is there, with this content.
    pub fn is_whole(&self, folder: &Path) -> bool {
        let check = || -> io::Result<bool> {
            let mut file = File::open(folder.join(&self.file))?;
            if file.metadata()?.len() != self.bytes {
                return Ok(false);
            }
            let mut sha = Sha256::new();
            io::copy(&mut file, &mut sha)?;
            Ok(hex(&sha.finalize()) == self.sha256)
        };
        check().unwrap_or(false)
    }
}
