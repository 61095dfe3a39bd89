//! The zip files that PyTorch writes: stored, never compressed, so nothing in them can grow.

use std::collections::HashMap;
use std::ops::Range;

use super::pickle::Wrong;

const END: &[u8] = b"PK\x05\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
const END_64: &[u8] = b"PK\x06\x06";
const CENTRAL: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
/// A file's beginning, if it is a zip file.
pub const MAGIC: &[u8] = LOCAL;
/// Longest comment at the end of a zip file, and the record before it.
const END_REACH: usize = 65_535 + 22;

const DAMAGED: Wrong = "the zip file is damaged or was cut short";

/// The number of files in the archive, and where its directory begins.
fn directory(bytes: &[u8]) -> Result<(u64, usize), Wrong> {
    let from = bytes.len().saturating_sub(END_REACH);
    let tail = &bytes[from..];
    let end = from + tail.windows(4).rposition(|window| window == END).ok_or(DAMAGED)?;
    let (mut count, mut at) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
    if let Some(locator) = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(END_64_LOCATOR)) {
        let end = position(number(bytes, locator + 8, 8)?)?;
        if slice(bytes, end, 4)? != END_64 {
            return Err(DAMAGED);
        }
        (count, at) = (number(bytes, end + 32, 8)?, number(bytes, end + 48, 8)?);
    }
    Ok((count, position(at)?))
}

/// The names of the archive's files, compressed ones too; those before any damage.
pub fn names(bytes: &[u8]) -> Vec<String> {
    let Ok((count, mut at)) = directory(bytes) else { return Vec::new() };
    let mut names = Vec::new();
    let mut next = || -> Result<String, Wrong> {
        if slice(bytes, at, 4)? != CENTRAL {
            return Err(DAMAGED);
        }
        let [name, extra, comment] = [28, 30, 32].map(|offset| number(bytes, at + offset, 2));
        let (name, rest) = (name? as usize, extra? as usize + comment? as usize);
        let text = String::from_utf8_lossy(slice(bytes, at + 46, name)?).into_owned();
        at += 46 + name + rest;
        Ok(text)
    };
    for _ in 0..count {
        let Ok(name) = next() else { break };
        names.push(name);
    }
    names
}

/// Where each file of the archive lies.
pub fn entries(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, Wrong> {
    let (count, mut at) = directory(bytes)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        if slice(bytes, at, 4)? != CENTRAL {
            return Err(DAMAGED);
        }
        let short = |offset| number(bytes, at + offset, 2).map(|number| number as usize);
        let (flags, method) = (short(8)?, short(10)?);
        let [name, extra, comment] = [short(28)?, short(30)?, short(32)?];
        let mut sizes = [number(bytes, at + 20, 4)?, number(bytes, at + 24, 4)?, number(bytes, at + 42, 4)?];
        let extra_at = at + 46 + name;
        widen(slice(bytes, extra_at, extra)?, &mut sizes)?;
        let [compressed, size, local] = sizes;
        let name = String::from_utf8_lossy(slice(bytes, at + 46, name)?).into_owned();
        at = extra_at + extra + comment;
        if flags & 1 != 0 || method != 0 || compressed != size {
            return Err("the zip file is compressed or encrypted, which PyTorch's are not");
        }
        let local = position(local)?;
        if slice(bytes, local, 4)? != LOCAL {
            return Err(DAMAGED);
        }
        let start = local + 30 + number(bytes, local + 26, 2)? as usize + number(bytes, local + 28, 2)? as usize;
        let size = position(size)?;
        slice(bytes, start, size)?;
        entries.insert(name, start..start + size);
    }
    Ok(entries)
}

/// Replaces sizes that are too large for their fields by those of the zip64 field, where they stand in the order
/// uncompressed, compressed, offset.
fn widen(mut extra: &[u8], [compressed, size, local]: &mut [u64; 3]) -> Result<(), Wrong> {
    while extra.len() >= 4 {
        let (kind, length) = (number(extra, 0, 2)?, number(extra, 2, 2)? as usize);
        let mut field = slice(extra, 4, length)?;
        if kind == 1 {
            for value in [&mut *size, &mut *compressed, &mut *local] {
                if *value == u64::from(u32::MAX) {
                    *value = number(field, 0, 8)?;
                    field = &field[8..];
                }
            }
        }
        extra = &extra[4 + length..];
    }
    Ok(())
}

fn slice(bytes: &[u8], at: usize, count: usize) -> Result<&[u8], Wrong> {
    at.checked_add(count).and_then(|end| bytes.get(at..end)).ok_or(DAMAGED)
}

fn number(bytes: &[u8], at: usize, size: usize) -> Result<u64, Wrong> {
    Ok(slice(bytes, at, size)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn position(number: u64) -> Result<usize, Wrong> {
    // Far from any overflow in what is added to it.
    usize::try_from(number).ok().filter(|&number| number < usize::MAX / 4).ok_or(DAMAGED)
}
