//! Samples stored in large files, such as archives and shards.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::data::dataset::Dataset;

use mbconv_files::{read_exact_at, zip};
use mbconv_image::DecodeError;

use crate::error::DataError;
use crate::source::{Runs, Sample, Source, StoredImage};

/// Maximum size of an image file in bytes, both as stored and decompressed.
const MAX_BYTES: u64 = 1 << 30;

/// Image size in bytes above which the archive's length is checked before memory is allocated.
const LARGE: u64 = 16 << 20;

/// With more files than this, files are opened for each image, because the number of open files is
/// limited.
const MAX_OPEN: usize = 400;

/// Samples per run. A run of photographs has about 50 MB.
const RUN: usize = 512;

/// Number of runs to read concurrently, so that samples are shuffled among about 8000.
const ABREAST: usize = 16;

/// The storage format of an image in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Uncompressed, at the offset.
    Plain,
    /// Uncompressed, in a zip archive with the local header at the offset.
    Stored,
    /// Compressed with deflate, in a zip archive with the local header at the offset. `size` is the
    /// decompressed size, or `u32::MAX` if it is larger; the other field is the CRC-32.
    Deflated { size: u32, crc: u32 },
}

/// The location of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberLocation {
    /// Index of the file.
    pub file: u32,
    pub label: u32,
    pub offset: u64,
    /// Size in the file in bytes.
    pub size: u64,
    pub packing: Packing,
}

/// Images stored in a few large files.
#[derive(Default)]
pub(crate) struct Members {
    files: Vec<(PathBuf, OnceLock<File>)>,
    places: Vec<MemberLocation>,
    names: Vec<Box<str>>,
}

impl Members {
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { files: files.into_iter().map(|file| (file, OnceLock::new())).collect(), ..Self::default() }
    }

    /// Uses the open file `contents` instead of the file at the path.
    pub fn set_contents(&mut self, number: usize, contents: File) {
        self.files[number].1 = OnceLock::from(contents);
    }

    /// Adds an image and its name in the file.
    pub fn push(&mut self, name: Box<str>, place: MemberLocation) {
        self.names.push(name);
        self.places.push(place);
    }

    pub fn path(&self, place: &MemberLocation) -> &Path {
        &self.files[place.file as usize].0
    }

    fn read(&self, place: &MemberLocation) -> io::Result<Vec<u8>> {
        let (path, kept) = &self.files[place.file as usize];
        if self.files.len() > MAX_OPEN && kept.get().is_none() {
            return read_place(&File::open(path)?, place);
        }
        match kept.get() {
            Some(file) => read_place(file, place),
            None => {
                let file = File::open(path)?;
                read_place(kept.get_or_init(|| file), place)
            }
        }
    }
}

/// Reads and, if necessary, decompresses an image.
fn read_place(file: &File, place: &MemberLocation) -> io::Result<Vec<u8>> {
    let offset = match place.packing {
        Packing::Plain => place.offset,
        Packing::Stored | Packing::Deflated { .. } => zip::data_start(file, place.offset)?,
    };
    let decompressed = match place.packing {
        Packing::Deflated { size, .. } => size.into(),
        Packing::Plain | Packing::Stored => place.size,
    };
    let largest = place.size.max(decompressed);
    if largest > MAX_BYTES {
        let why = format!("it has {largest} bytes; the maximum for an image is {MAX_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // An archive's directory may list files that are larger than the archive.
    let end = offset.checked_add(place.size).ok_or(io::ErrorKind::UnexpectedEof)?;
    if place.size > LARGE && end > file.metadata()?.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; place.size as usize];
    read_exact_at(file, &mut bytes, offset)?;
    match place.packing {
        Packing::Plain | Packing::Stored => Ok(bytes),
        Packing::Deflated { size, crc } => {
            let mut inflated = Vec::with_capacity(decompressed.min(LARGE) as usize);
            flate2::read::DeflateDecoder::new(&bytes[..]).take(decompressed).read_to_end(&mut inflated)?;
            let mut found = flate2::Crc::new();
            found.update(&inflated);
            if found.sum() == crc && inflated.len() == size as usize {
                Ok(inflated)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum does not match"))
            }
        }
    }
}

impl Dataset<Sample, DataError> for Members {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let place = &self.places[index];
        // Damage to a part of an archive only affects the images stored there.
        let bytes = self.read(place).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DataError::Image { name: self.name(index), source: DecodeError::Truncated },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                DataError::Image { name: self.name(index), source: DecodeError::Damaged(error.to_string()) }
            }
            _ => DataError::Io { path: self.path(place).into(), source: error },
        })?;
        Ok(Sample { image: StoredImage::Encoded(bytes), label: place.label as usize })
    }

    fn len(&self) -> usize {
        self.places.len()
    }
}

impl Source for Members {
    fn name(&self, index: usize) -> String {
        format!("{}/{}", self.path(&self.places[index]).display(), self.names[index])
    }

    fn label(&self, index: usize) -> usize {
        self.places[index].label as usize
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn runs(&self) -> Runs {
        // A run ends at the end of its file or at the maximum length.
        let mut ends = Vec::new();
        let mut length = 0;
        for (index, place) in self.places.iter().enumerate() {
            if length == RUN || (length > 0 && self.places[index - 1].file != place.file) {
                ends.push(index);
                length = 0;
            }
            length += 1;
        }
        ends.push(self.places.len());
        let runs = Runs { ends, abreast: ABREAST };
        // If the images are sorted by class, a few runs contain only a few classes. Then shuffle
        // over the whole epoch instead.
        let (found, mixed) = runs.classes(|index| self.label(index));
        if found < 0.5 * mixed { Runs::default() } else { runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8], size: u64, packing: Packing) -> DataError {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images");
        std::fs::write(&path, bytes).unwrap();
        let mut members = Members::new(vec![path]);
        members.push("a.jpg".into(), MemberLocation { file: 0, label: 0, offset: 0, size, packing });
        members.get(0).unwrap_err()
    }

    #[test]
    fn image_files_are_limited_as_stored_and_decompressed() {
        // Three bytes of deflate after a local header.
        let bytes = [b"PK\x03\x04", &[0; 26][..], &[0x4b, 0x04, 0x00]].concat();
        let larger = MAX_BYTES as u32 + 1;
        for (size, packing) in [
            (3, Packing::Deflated { size: larger, crc: 0 }),
            (3, Packing::Deflated { size: u32::MAX, crc: 0 }),
            (larger.into(), Packing::Stored),
            (larger.into(), Packing::Plain),
        ] {
            let error = error(&bytes, size, packing).to_string();
            assert!(error.contains("the maximum for an image is 1073741824"), "{packing:?}: {error}");
        }
        // Within the limit, but larger than the archive.
        for packing in [Packing::Plain, Packing::Stored, Packing::Deflated { size: 1, crc: 0 }] {
            let error = error(&bytes, MAX_BYTES, packing);
            assert!(matches!(error, DataError::Image { source: DecodeError::Truncated, .. }), "{error}");
        }
        let longer = Packing::Deflated { size: 2, crc: 0 };
        assert!(matches!(error(&bytes, 3, longer), DataError::Image { source: DecodeError::Damaged(_), .. }));
    }
}
