//! Images that lie within larger files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::data::dataset::Dataset;

use super::super::{DataError, DecodeError, Runs, Sample, Source, StoredImage};

/// The most bytes that an image's file may have, compressed or not.
const MOST_BYTES: u64 = 1 << 30;

/// Of more files than this, each is opened anew for every image: open files are limited.
const MOST_OPEN: usize = 400;

/// Samples of a run: those of a photographic data set take some 50 MB.
const RUN: usize = 512;

/// Runs to read side by side: a sample's neighbours are then drawn from eight thousand.
const ABREAST: usize = 16;

/// How an image's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Packing {
    /// As they are, at the offset.
    Plain,
    /// As they are, in a zip archive whose local header is at the offset.
    Stored,
    /// Compressed by deflate, likewise; with the number of bytes that it gives and their CRC-32.
    Deflated { size: u32, crc: u32 },
}

/// Where an image lies.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Place {
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
pub(in super::super) struct Members {
    files: Vec<(PathBuf, OnceLock<File>)>,
    places: Vec<Place>,
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
    pub fn push(&mut self, name: Box<str>, place: Place) {
        self.names.push(name);
        self.places.push(place);
    }

    pub fn path(&self, place: &Place) -> &Path {
        &self.files[place.file as usize].0
    }

    fn read(&self, place: &Place) -> io::Result<Vec<u8>> {
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

fn read_place(file: &File, place: &Place) -> io::Result<Vec<u8>> {
    let offset = match place.packing {
        Packing::Plain => place.offset,
        // The local header repeats the name, and has other extras than the directory.
        Packing::Stored | Packing::Deflated { .. } => {
            const HEADER: usize = 30;
            let mut header = [0; HEADER];
            read_exact_at(file, &mut header, place.offset)?;
            if header[..4] != *b"PK\x03\x04" {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive's directory leads astray"));
            }
            let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
            place.offset + HEADER as u64 + length(26) + length(28)
        }
    };
    if place.size > MOST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {} bytes, more than the {MOST_BYTES} that an image may have", place.size),
        ));
    }
    let mut bytes = vec![0; place.size as usize];
    read_exact_at(file, &mut bytes, offset)?;
    match place.packing {
        Packing::Plain | Packing::Stored => Ok(bytes),
        Packing::Deflated { size, crc } => {
            let mut inflated = Vec::with_capacity(size.min(1 << 24) as usize);
            flate2::read::DeflateDecoder::new(&bytes[..]).take(u64::from(size)).read_to_end(&mut inflated)?;
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
        // Where images of a class lie together, those of a few runs are of a few classes: then an epoch had better go anywhere.
        let (found, mixed) = runs.classes(|index| self.label(index));
        if found < 0.5 * mixed { Runs::default() } else { runs }
    }
}

/// Reads at a place, from any thread.
#[cfg(unix)]
pub(in super::super) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

/// Reads at a place, from any thread.
#[cfg(windows)]
pub(in super::super) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Fills `out` from a place.
pub(in super::super) fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match read_at(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
