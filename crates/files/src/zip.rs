//! Reader of the central directory of a zip archive: names and locations of its files.
//!
//! Implements APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16, with zip64. Nothing is decompressed,
//! and no allocation is larger than the archive. The crate `zip` 9.8.2 is not used: it rejects some
//! PyTorch archives, keeps only one of several entries with the same name, and takes long to build.

use std::fs::File;
use std::io;

/// A seekable source of an archive: a file, or bytes in memory.
pub trait Source {
    /// Returns the length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `out` with the bytes from `offset` on.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        crate::read_exact_at(self, out, offset)
    }
}

impl Source for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        let bytes = start.and_then(|rest| rest.get(..out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
}

/// A file in an archive. Names of folders end in `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the archive.
    pub name: String,
    /// Offset of the local header, which precedes the file's bytes.
    pub header: u64,
    /// Length in the archive.
    pub stored: u64,
    /// Length when decompressed.
    pub size: u64,
    /// CRC-32 of the decompressed bytes.
    pub crc: u32,
    /// Compression method: 0 for none, 8 for deflate.
    pub method: u16,
    /// True if the file is encrypted.
    pub encrypted: bool,
}

/// An error of [`directory`].
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// The archive could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The archive is damaged, or not a zip archive.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Signature of a local header, with which a non-empty archive starts.
pub const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";

const NO_DIRECTORY: ZipError = ZipError::Malformed("it is not a zip archive, or it is truncated: it has no directory");
const BEYOND: ZipError = ZipError::Malformed("it is truncated: its directory is beyond its end");
const DAMAGED: ZipError = ZipError::Malformed("its directory is damaged");

/// Lists the files of an archive in directory order.
///
/// # Errors
/// I/O errors; an archive without a directory or with a damaged one.
pub fn directory(archive: &(impl Source + ?Sized)) -> Result<Vec<Entry>, ZipError> {
    let End { count, size, offset } = End::read(archive)?;
    let bytes = read(archive, offset, size)?;
    let mut rest = &bytes[..];
    // Every entry has at least 46 bytes, so the loop is bounded by the directory's size.
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(Entry::read(&mut rest).ok_or(DAMAGED)?);
    }
    Ok(entries)
}

/// Returns the offset of a file's data, given the offset of its local header. Local headers repeat
/// the name and have their own extra fields.
///
/// # Errors
/// I/O errors; `InvalidData` if there is no local header.
pub fn data_start(archive: &(impl Source + ?Sized), offset: u64) -> io::Result<u64> {
    const HEADER: usize = 30;
    let mut header = [0; HEADER];
    archive.read_at(&mut header, offset)?;
    if !header.starts_with(LOCAL_HEADER) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive's directory has an invalid file offset"));
    }
    let beyond = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let [name, extra] = [26, 28].map(|at| u16_at(&header, at).map_or(0, u64::from));
    offset.checked_add(HEADER as u64 + name + extra).ok_or_else(beyond)
}

/// The end-of-central-directory record.
struct End {
    /// Number of files.
    count: u64,
    /// Length of the directory.
    size: u64,
    /// Offset of the directory.
    offset: u64,
}

impl End {
    /// Finds and reads the record, which may be followed by a comment.
    fn read(archive: &(impl Source + ?Sized)) -> Result<End, ZipError> {
        const LENGTH: usize = 22;
        const LONGEST_COMMENT: u64 = 65_535;
        let length = archive.length()?;
        let reach = length.min(LENGTH as u64 + LONGEST_COMMENT);
        let tail = read(archive, length - reach, reach)?;
        let at = tail.windows(LENGTH).rposition(|bytes| bytes.starts_with(END)).ok_or(NO_DIRECTORY)?;
        match Self::read_64(archive, length - reach + at as u64)? {
            Some(end) => Ok(end),
            None => Self::parse(&tail[at..]).ok_or(DAMAGED),
        }
    }

    /// Parses the 32-bit record; returns `None` if it is too short.
    fn parse(record: &[u8]) -> Option<End> {
        Some(End {
            count: u16_at(record, 10)?.into(),
            size: u32_at(record, 12)?.into(),
            offset: u32_at(record, 16)?.into(),
        })
    }

    /// Returns the zip64 record, if its locator precedes the record at `end`.
    fn read_64(archive: &(impl Source + ?Sized), end: u64) -> Result<Option<End>, ZipError> {
        const LOCATOR: u64 = 20;
        const LENGTH: u64 = 56;
        let Some(at) = end.checked_sub(LOCATOR) else { return Ok(None) };
        let locator = read(archive, at, LOCATOR)?;
        if !locator.starts_with(END_64_LOCATOR) {
            return Ok(None);
        }
        let record = read(archive, u64_at(&locator, 8).ok_or(DAMAGED)?, LENGTH)?;
        let [count, size, offset] = [32, 40, 48].map(|at| u64_at(&record, at).filter(|_| record.starts_with(END_64)));
        match (count, size, offset) {
            (Some(count), Some(size), Some(offset)) => Ok(Some(End { count, size, offset })),
            _ => Err(ZipError::Malformed("its 64-bit directory is damaged")),
        }
    }
}

impl Entry {
    /// Reads and removes the first entry of a directory; returns `None` if it is damaged.
    fn read(rest: &mut &[u8]) -> Option<Entry> {
        const HEADER: usize = 46;
        let header = rest.get(..HEADER).filter(|header| header.starts_with(ENTRY))?;
        let (flags, method, crc) = (u16_at(header, 8)?, u16_at(header, 10)?, u32_at(header, 16)?);
        let [mut stored, mut size, mut offset] =
            [u32_at(header, 20)?, u32_at(header, 24)?, u32_at(header, 42)?].map(u64::from);
        let [name, extra, comment] = [u16_at(header, 28)?, u16_at(header, 30)?, u16_at(header, 32)?].map(usize::from);
        let (name, after) = rest[HEADER..].split_at_checked(name)?;
        let (extra, after) = after.split_at_checked(extra)?;
        *rest = after.get(comment..)?;
        // Numbers that need more than 32 bits are in an extra field, in this order.
        let mut wide = wide_numbers(extra);
        for number in [&mut size, &mut stored, &mut offset] {
            if *number == u64::from(u32::MAX)
                && let Some(value) = u64_at(wide, 0)
            {
                *number = value;
                wide = &wide[8..];
            }
        }
        let name = String::from_utf8_lossy(name).into_owned();
        Some(Entry { name, header: offset, stored, size, crc, method, encrypted: flags & 1 != 0 })
    }
}

/// Returns the contents of the zip64 extra field.
fn wide_numbers(mut extras: &[u8]) -> &[u8] {
    while let (Some(kind), Some(length)) = (u16_at(extras, 0), u16_at(extras, 2)) {
        let (field, rest) = extras[4..].split_at(usize::from(length).min(extras.len() - 4));
        if kind == 1 {
            return field;
        }
        extras = rest;
    }
    &[]
}

/// Reads `count` bytes of an archive from `offset` on.
fn read(archive: &(impl Source + ?Sized), offset: u64, count: u64) -> Result<Vec<u8>, ZipError> {
    if offset.checked_add(count).is_none_or(|end| archive.length().is_ok_and(|length| end > length)) {
        return Err(BEYOND);
    }
    let mut bytes = vec![0; count as usize];
    archive.read_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::zip::*;

    /// Returns an archive of uncompressed files, in zip64 format if `wide`.
    fn archive(files: &[(&str, &[u8])], wide: bool) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let header = bytes.len() as u64;
            let lengths = [&(name.len() as u16).to_le_bytes()[..], &[0, 0]].concat();
            bytes.extend([LOCAL_HEADER, &[0; 22], &lengths, name.as_bytes(), data].concat());
            let numbers = [data.len() as u64, data.len() as u64, header];
            let narrow = numbers.map(|number| if wide { u32::MAX } else { number as u32 }.to_le_bytes());
            let extra = match wide {
                true => [&[1, 0, 24, 0][..], &numbers.map(u64::to_le_bytes).concat()].concat(),
                false => Vec::new(),
            };
            directory.extend([ENTRY, &[0; 16], &narrow[..2].concat(), &lengths[..2]].concat());
            directory.extend([&[extra.len() as u8, 0][..], &[0; 10], &narrow[2]].concat());
            directory.extend([name.as_bytes(), &extra].concat());
        }
        let (at, size, count) = (bytes.len() as u64, directory.len() as u64, files.len() as u64);
        bytes.extend(&directory);
        if wide {
            let end = bytes.len() as u64;
            bytes.extend([END_64, &[0; 28], &[count, size, at].map(u64::to_le_bytes).concat()].concat());
            bytes.extend([END_64_LOCATOR, &[0; 4], &end.to_le_bytes(), &[0; 4]].concat());
        }
        let [count, size, at] = if wide { [u64::from(u32::MAX); 3] } else { [count, size, at] };
        bytes.extend([END, &[0; 6], &(count as u16).to_le_bytes()].concat());
        bytes.extend([&(size as u32).to_le_bytes()[..], &(at as u32).to_le_bytes(), &[0, 0]].concat());
        bytes
    }

    const FILES: [(&str, &[u8]); 3] = [("a/", b""), ("a/one.jpg", b"first"), ("two.png", b"second one")];

    #[test]
    fn zip_and_zip64_archives_are_listed() {
        for wide in [false, true] {
            let bytes = archive(&FILES, wide);
            let entries = directory(&bytes[..]).unwrap();
            assert_eq!(entries.len(), 3);
            for (entry, (name, data)) in entries.iter().zip(FILES) {
                assert_eq!((&*entry.name, entry.stored, entry.size), (name, data.len() as u64, data.len() as u64));
                let start = data_start(&bytes[..], entry.header).unwrap() as usize;
                assert_eq!(&bytes[start..start + data.len()], data);
            }
        }
    }

    #[test]
    fn inconsistent_directories_are_errors() {
        let whole = archive(&FILES, true);
        let record = whole.len() - 22 - 20 - 56;
        // Number of files, length and offset of the directory.
        for (at, value) in [(32, 1 << 60), (32, 4), (40, 1 << 60), (40, u64::MAX), (48, 1 << 60), (48, u64::MAX)] {
            let mut bytes = whole.clone();
            bytes[record + at..record + at + 8].copy_from_slice(&u64::to_le_bytes(value));
            assert!(matches!(directory(&bytes[..]), Err(ZipError::Malformed(_))), "{at}: {value}");
        }
        for length in 0..whole.len() {
            assert!(directory(&whole[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn modified_archives_list_bounded_contents(
            wide: bool,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = archive(&FILES, wide);
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            for entry in directory(&bytes[..]).unwrap_or_default() {
                prop_assert!(entry.name.len() <= 3 * bytes.len());
                let _ = data_start(&bytes[..], entry.header);
            }
        }
    }
}
