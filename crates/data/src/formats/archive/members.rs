//! Images that lie within larger files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::data::dataset::Dataset;

use mbconv_files::{read_exact_at, zip};
use mbconv_image::DecodeError;

use crate::error::DataError;
use crate::source::{Runs, Sample, Source, StoredImage};

/// Largest image file in bytes, both as stored and decompressed.
const MOST_BYTES: u64 = 1 << 30;

/// Size in bytes above which the length of an archive is checked before memory is allocated for an
/// image.
const LARGE: u64 = 16 << 20;

/// Of more files than this, each is opened anew for every image: open files are limited.
const MOST_OPEN: usize = 400;

/// Samples of a run: those of a photographic data set take some 50 MB.
const RUN: usize = 512;

/// Runs to read side by side: a sample's neighbours are then drawn from eight thousand.
const ABREAST: usize = 16;

/// How an image's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As they are, at the offset.
    Plain,
    /// As they are, in a zip archive whose local header is at the offset.
    Stored,
    /// Compressed by deflate, likewise; with the decompressed size, or `u32::MAX` if it is larger,
    /// and its CRC-32.
    Deflated { size: u32, crc: u32 },
}

/// Where an image lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberLocation {
    /// Index of the file.
    pub file: u32,
    pub label: u32,
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    pub packing: Packing,
}

/// Images within a few large files.
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

    /// Reads the file of this number, whatever is at its path, from `contents`.
    pub fn hold(&mut self, number: usize, contents: File) {
        self.files[number].1 = OnceLock::from(contents);
    }

    /// Adds an image, which stands under this name in its file.
    pub fn push(&mut self, name: Box<str>, place: MemberLocation) {
        self.names.push(name);
        self.places.push(place);
    }

    pub fn path(&self, place: &MemberLocation) -> &Path {
        &self.files[place.file as usize].0
    }

    fn read(&self, place: &MemberLocation) -> io::Result<Vec<u8>> {
        let (path, kept) = &self.files[place.file as usize];
        if self.files.len() > MOST_OPEN && kept.get().is_none() {
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
    if largest > MOST_BYTES {
        let why = format!("it has {largest} bytes, more than the {MOST_BYTES} that an image may have");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    // A directory may list files that are larger than the archive.
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
                Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"))
            }
        }
    }
}

impl Dataset<Sample, DataError> for Members {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let place = &self.places[index];
        // Of damage to a part of an archive, only that image is at fault.
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
        // A run ends with its file, and before it grows long.
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
        // Where images of a class lie together, those of a few runs are of a few classes: then an
        // epoch had better go anywhere.
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
        // Three bytes of deflate under a local header.
        let bytes = [b"PK\x03\x04", &[0; 26][..], &[0x4b, 0x04, 0x00]].concat();
        let larger = MOST_BYTES as u32 + 1;
        for (size, packing) in [
            (3, Packing::Deflated { size: larger, crc: 0 }),
            (3, Packing::Deflated { size: u32::MAX, crc: 0 }),
            (larger.into(), Packing::Stored),
            (larger.into(), Packing::Plain),
        ] {
            let error = error(&bytes, size, packing).to_string();
            assert!(error.contains("more than the 1073741824 that an image may have"), "{packing:?}: {error}");
        }
        // Within the limit, but larger than the archive.
        for packing in [Packing::Plain, Packing::Stored, Packing::Deflated { size: 1, crc: 0 }] {
            let error = error(&bytes, MOST_BYTES, packing);
            assert!(matches!(error, DataError::Image { source: DecodeError::Truncated, .. }), "{error}");
        }
        let longer = Packing::Deflated { size: 2, crc: 0 };
        assert!(matches!(error(&bytes, 3, longer), DataError::Image { source: DecodeError::Damaged(_), .. }));
    }
}
