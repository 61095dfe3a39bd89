//! The manifest of a folder of shards: contents, options and checksums.

use std::fs;
use std::io;
use std::path::Path;

use mbconv_files::{hex, sha256};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dataset::DataSet;
use crate::source::Source;
use crate::tools::pack::options::{PackFormat, PackOptions};
use crate::tools::{CurateError, splits};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// The options and source of a folder of shards. The same values give the same shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packing {
    /// Format of the shards.
    pub format: PackFormat,
    /// Form of the source data set.
    pub source: String,
    /// SHA-256 of the image names, labels and classes. Names are paths relative to the common
    /// folder.
    pub source_sha256: String,
    /// Maximum length of the shorter side in pixels; longer ones are resized.
    pub size: Option<usize>,
    /// Quality of the JPEG images that were encoded; `None` without resizing.
    pub quality: Option<u8>,
    /// Maximum number of images per shard.
    pub shard_size: usize,
    /// Seed of the order of the training images.
    pub seed: u64,
    /// Class names in label order.
    pub classes: Vec<String>,
}

/// The manifest of a folder of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Shards of each split.
    #[serde(flatten)]
    pub packing: Packing,
    /// The shards of each split.
    pub splits: Vec<SplitShards>,
}

/// The shards of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitShards {
    /// `train`, `val` or `test`.
    pub split: String,
    /// Number of images of each class, including skipped ones.
    pub images: Vec<usize>,
    /// Shards in order.
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// File name.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// File size in bytes.
    pub bytes: u64,
    /// Number of images.
    pub images: usize,
    /// Images that were skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A skipped image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Name of the image.
    pub name: String,
    /// The reason.
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

    /// Checks that the existing shards in `out` were packed with the same options from the same
    /// data.
    pub(crate) fn check(&self, old: &Packing, out: &Path) -> Result<(), CurateError> {
        let pair = |what: &str, old: String, new: String| {
            (old != new).then(|| format!("{what} is {old} there, but {new} is requested"))
        };
        let text = |number: Option<usize>| number.map_or("none".into(), |number| number.to_string());
        let difference = pair("format", format!("{:?}", old.format), format!("{:?}", self.format))
            .or_else(|| pair("--size", text(old.size), text(self.size)))
            .or_else(|| pair("--quality", text(old.quality.map(Into::into)), text(self.quality.map(Into::into))))
            .or_else(|| pair("--shard-size", old.shard_size.to_string(), self.shard_size.to_string()))
            .or_else(|| pair("--seed", old.seed.to_string(), self.seed.to_string()))
            .or_else(|| (old != self).then(|| "the images or classes differ".into()));
        match difference {
            Some(difference) => Err(CurateError::OtherShards { path: out.into(), difference }),
            None => Ok(()),
        }
    }
}

/// Returns a checksum of the image names and labels. The images are not read.
fn fingerprint(data: &DataSet) -> String {
    let mut sha = Sha256::new();
    let mut field = |text: &str| {
        sha.update((text.len() as u64).to_le_bytes());
        sha.update(text);
    };
    data.classes.iter().for_each(|class| field(class));
    for (name, source) in splits(data) {
        field(name);
        // Use only the part of the paths below the common folder, so that the data set may be moved
        // or opened by another path.
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
    /// Reads the manifest of a folder; returns `None` if there is none.
    ///
    /// # Errors
    /// An unreadable or damaged manifest.
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

    /// Returns the entry of a file.
    pub(crate) fn shard(&self, file: &str) -> Option<&Shard> {
        self.splits.iter().flat_map(|split| &split.shards).find(|shard| shard.file == file)
    }

    /// Adds the shards of an older manifest that are not in this one.
    pub(crate) fn merged_with(&self, old: &Manifest) -> Manifest {
        let mut all = self.clone();
        for split in &old.splits {
            let place = all.splits.iter().position(|mine| mine.split == split.split);
            let place = place.unwrap_or_else(|| {
                all.splits.push(SplitShards { shards: Vec::new(), ..split.clone() });
                all.splits.len() - 1
            });
            let missing = split.shards.iter().filter(|shard| self.shard(&shard.file).is_none());
            all.splits[place].shards.extend(missing.cloned());
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
    /// Returns whether the file exists and has the recorded checksum.
    pub fn is_complete(&self, folder: &Path) -> bool {
        let path = folder.join(&self.file);
        path.metadata().is_ok_and(|metadata| metadata.len() == self.bytes)
            && sha256(&path).is_ok_and(|found| found == self.sha256)
    }
}
