//! The directory of a `.zip` file: what lies where. It stands at the file's end, so that any file is found at once.
//!
//! APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16, with zip64. Crates that read zip give one file at a time through one
//! reader; training wants them from many threads.

use std::fs::File;
use std::path::Path;

use super::super::DataError;
use super::members::{Packing, read_exact_at};

/// A file in a zip archive.
pub(super) struct Entry {
    pub name: Box<str>,
    /// Where its local header begins.
    pub offset: u64,
    /// Bytes as stored.
    pub size: u64,
    pub packing: Packing,
}

/// Lists the files of an archive; folders are left out.
///
/// # Errors
/// A file that cannot be read, that is no zip archive or breaks off; a file in it that is encrypted or compressed by another
/// method than deflate.
pub(super) fn index(path: &Path) -> Result<Vec<Entry>, DataError> {
    let malformed = |why: &str| DataError::Malformed { path: path.into(), why: why.into() };
    let failed = |source| DataError::io(path, source);
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let read = |offset: u64, count: u64| -> Result<Vec<u8>, DataError> {
        if offset.checked_add(count).is_none_or(|end| end > length) {
            return Err(malformed("it breaks off: its directory lies beyond its end"));
        }
        let mut bytes = vec![0; count as usize];
        read_exact_at(&file, &mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    };

    const END: usize = 22;
    const LONGEST_COMMENT: u64 = 65_535;
    let tail_length = length.min(END as u64 + LONGEST_COMMENT);
    let tail = read(length - tail_length, tail_length)?;
    let end = tail.windows(END).rposition(|bytes| bytes.starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(|| malformed("it is no zip archive, or breaks off: it has no directory"))?;
    let (count, size, offset) = (u16_at(&tail, end + 10), u32_at(&tail, end + 12), u32_at(&tail, end + 16));
    let (mut count, mut size, mut offset) = (u64::from(count), u64::from(size), u64::from(offset));
    if count == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff {
        let end = length - tail_length + end as u64;
        let locator = read(end.checked_sub(20).ok_or_else(|| malformed("it breaks off"))?, 20)?;
        if locator.starts_with(b"PK\x06\x07") {
            let record = read(u64_at(&locator, 8), 56)?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(malformed("its 64-bit directory is damaged"));
            }
            (count, size, offset) = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
        }
    }

    let directory = read(offset, size)?;
    let mut rest = &directory[..];
    let mut entries = Vec::with_capacity(count.min(size / 46) as usize);
    for _ in 0..count {
        const HEADER: usize = 46;
        if rest.len() < HEADER || !rest.starts_with(b"PK\x01\x02") {
            return Err(malformed("its directory is damaged"));
        }
        let (flags, method, crc) = (u16_at(rest, 8), u16_at(rest, 10), u32_at(rest, 16));
        let (mut stored, mut size) = (u64::from(u32_at(rest, 20)), u64::from(u32_at(rest, 24)));
        let mut offset = u64::from(u32_at(rest, 42));
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(rest, at)));
        let whole = HEADER + name + extra + comment;
        if rest.len() < whole {
            return Err(malformed("its directory is damaged"));
        }
        let extras = &rest[HEADER + name..HEADER + name + extra];
        let name: Box<str> = String::from_utf8_lossy(&rest[HEADER..HEADER + name]).replace('\\', "/").into();
        // What does not fit into 32 bits stands in an extra field, in this order.
        let mut wide = zip64(extras);
        for value in [&mut size, &mut stored, &mut offset] {
            if *value == 0xffff_ffff && wide.len() >= 8 {
                *value = u64_at(wide, 0);
                wide = &wide[8..];
            }
        }
        rest = &rest[whole..];
        if name.ends_with('/') {
            continue;
        }
        let packing = match method {
            _ if flags & 1 != 0 => return Err(malformed(&format!("{name} in it is encrypted"))),
            0 => Packing::Stored,
            8 => Packing::Deflated { size: u32::try_from(size).unwrap_or(u32::MAX), crc },
            method => {
                let why = format!("{name} in it is compressed by method {method}, not by deflate: pack it anew");
                return Err(malformed(&why));
            }
        };
        entries.push(Entry { name, offset, size: stored, packing });
    }
    Ok(entries)
}

/// The contents of the extra field that holds 64-bit numbers.
fn zip64(mut extras: &[u8]) -> &[u8] {
    while extras.len() >= 4 {
        let length = usize::from(u16_at(extras, 2)).min(extras.len() - 4);
        let (field, rest) = extras[4..].split_at(length);
        if u16_at(extras, 0) == 1 {
            return field;
        }
        extras = rest;
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
