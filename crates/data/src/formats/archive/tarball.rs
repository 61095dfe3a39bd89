//! The index of a `.tar` file: the offset and size of each member, for random access without
//! unpacking.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tar::{Archive, EntryType};

use crate::cache::{self, MANY, Reader, Writer};
use crate::error::DataError;
use crate::text::decode_text;

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: Box<str>,
    /// Offset of its contents in the archive.
    pub offset: u64,
    pub size: u64,
    /// Contents of the file, if requested.
    pub text: Option<Box<str>>,
}

/// The files in an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tarball {
    /// Members in archive order.
    pub members: Vec<Member>,
    /// If the archive is truncated, the reason.
    pub cut: Option<String>,
}

/// Maximum size of label files in bytes; larger ones are not read.
const MAX_TEXT: u64 = 1 << 20;

const BLOCK: u64 = 512;

impl Tarball {
    /// Reads the headers of the archive at `path`, and the contents of the files for which `wanted`
    /// returns true. The result is cached next to the archive under the name `purpose`, which must
    /// differ between different `wanted`.
    ///
    /// # Errors
    /// A file that cannot be read or does not start like a tar archive. A truncated archive gives
    /// the members before the end.
    pub fn index(path: &Path, purpose: &str, wanted: fn(&str) -> bool) -> Result<Tarball, DataError> {
        let failed = |source| DataError::io(path, source);
        let metadata = fs::metadata(path).map_err(failed)?;
        let stamp = cache::changed(&metadata).map(|[seconds, nanoseconds]| {
            let mut stamp = Writer::default();
            [seconds, nanoseconds, metadata.len()].into_iter().for_each(|number| stamp.number(number));
            stamp.0
        });
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = format!("{}.{purpose}", path.file_name().unwrap_or_default().to_string_lossy());
        let kept = stamp.as_ref().and_then(|stamp| Self::decode(&cache::load(folder, &name, stamp)?));
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let file = File::open(path).map_err(failed)?;
        let found = Self::scan(&file, 0..metadata.len(), wanted).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => DataError::Malformed { path: path.into(), why: source.to_string() },
            _ => failed(source),
        })?;
        if let Some(stamp) = stamp.filter(|_| found.members.len() >= MANY) {
            cache::store(folder, &name, &stamp, &found.encode());
        }
        Ok(found)
    }

    /// Reads the headers of an archive stored in a byte range of a file.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` if it does not start like a tar archive.
    pub fn scan(file: &File, bytes: std::ops::Range<u64>, wanted: fn(&str) -> bool) -> io::Result<Tarball> {
        let length = bytes.end.saturating_sub(bytes.start);
        let mut archive = Archive::new(Window { file, start: bytes.start, length, position: 0 });
        let mut found = Tarball::default();
        let mut links: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut end = 0;
        let cut = |error: &dyn std::fmt::Display, count: usize| format!("{error} after {count} complete file(s)");
        for entry in archive.entries_with_seek()? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) if found.members.is_empty() && end == 0 => {
                    let why = format!("it is not a tar archive: {error}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Err(error) => {
                    found.cut = Some(cut(&error, found.members.len()));
                    break;
                }
            };
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > length) {
                found.cut = Some(cut(&"it ends in the middle of a file", found.members.len()));
                break;
            }
            end = (offset + size).next_multiple_of(BLOCK);
            let name: Box<str> = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").into();
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    links.push((name, String::from_utf8_lossy(&target).trim_start_matches("./").into()));
                    continue;
                }
                _ => continue,
            }
            let mut text = None;
            if wanted(&name) && size <= MAX_TEXT {
                let mut bytes = Vec::with_capacity(size as usize);
                entry.read_to_end(&mut bytes)?;
                let decoded = decode_text(bytes, Path::new(&*name));
                let wrong = |error: DataError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                text = Some(decoded.map_err(wrong)?.into());
            }
            found.members.push(Member { name, offset: bytes.start + offset, size, text });
        }
        if found.cut.is_none() && length < end + BLOCK {
            found.cut = Some(cut(&"the end marker is missing", found.members.len()));
        }
        if !links.is_empty() {
            // GNU tar stores a file with several hard links once.
            let places: HashMap<&str, usize> = found.members.iter().map(|member| &*member.name).zip(0..).collect();
            let linked = links.into_iter().filter_map(|(name, target)| Some((name, *places.get(&*target)?)));
            // Each link takes a header; limit the total text of links to the size of the archive.
            let mut left = length as usize;
            let linked: Vec<Member> = linked
                .map(|(name, place)| {
                    let Member { offset, size, ref text, .. } = found.members[place];
                    let text = text.as_ref().filter(|text| {
                        let after = left.checked_sub(text.len());
                        left = after.unwrap_or(left);
                        after.is_some()
                    });
                    Member { name, offset, size, text: text.cloned() }
                })
                .collect();
            found.members.extend(linked);
        }
        Ok(found)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.text(self.cut.as_deref().unwrap_or_default());
        out.number(self.members.len() as u64);
        for Member { name, offset, size, text } in &self.members {
            out.text(name);
            out.number(*offset);
            out.number(*size);
            // A flag for the presence of a text, then the text.
            out.number(text.is_some().into());
            if let Some(text) = text {
                out.text(text);
            }
        }
        out.0
    }

    fn decode(bytes: &[u8]) -> Option<Tarball> {
        let mut from = Reader(bytes);
        let cut = Some(from.text()?).filter(|cut| !cut.is_empty()).map(str::to_string);
        let members = (0..from.count(28)?).map(|_| {
            let (name, offset, size) = (from.text()?.into(), from.number()?, from.number()?);
            let text = if from.number()? == 1 { Some(from.text()?.into()) } else { None };
            Some(Member { name, offset, size, text })
        });
        Some(Tarball { members: members.collect::<Option<_>>()?, cut })
    }
}

/// A byte range of a file as a reader.
struct Window<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    position: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = self.length.saturating_sub(self.position).min(out.len() as u64) as usize;
        let count = mbconv_files::read_at(self.file, &mut out[..most], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn scan(bytes: &[u8]) -> io::Result<Tarball> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Tarball::scan(&file, 0..bytes.len() as u64, |name| name.ends_with(".cls"))
    }

    #[test]
    fn long_names_and_texts_are_read() {
        let long = format!("{}/image.jpg", "folder".repeat(40));
        let bytes = archive(&[(&long, &[7; 1000]), ("./a.cls", b"12")]);
        let found = scan(&bytes).unwrap();
        assert_eq!(found.cut, None);
        assert_eq!((&*found.members[0].name, found.members[0].size), (long.as_str(), 1000));
        let start = found.members[0].offset as usize;
        assert_eq!(bytes[start..start + 1000], [7; 1000]);
        assert_eq!((&*found.members[1].name, found.members[1].text.as_deref()), ("a.cls", Some("12")));
        assert_eq!(Tarball::decode(&found.encode()), Some(found));
    }

    #[test]
    fn links_do_not_multiply_texts() {
        let text = vec![b'7'; 100_000];
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        builder.append_data(&mut header, "a.cls", &text[..]).unwrap();
        for number in 0..1000 {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            builder.append_link(&mut header, format!("{number}.cls"), "a.cls").unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let found = scan(&bytes).unwrap();
        assert_eq!((found.members.len(), found.members[1].text.as_deref().map(str::len)), (1001, Some(text.len())));
        let texts: usize = found.members.iter().filter_map(|member| member.text.as_deref().map(str::len)).sum();
        assert!(texts <= text.len() + bytes.len(), "{texts}");
    }

    #[test]
    fn members_before_a_truncation_are_listed() {
        let bytes = archive(&[("a.jpg", &[1; 600]), ("b.jpg", &[2; 600]), ("c.jpg", &[3; 600])]);
        // Each member has a header and 600 bytes, padded to two blocks; two blocks end the archive.
        let cuts = [(4608, 3), (4607, 3), (4183, 2), (3600, 2), (3072, 2), (2648, 2), (2647, 1), (1600, 1), (1111, 0)];
        for (length, whole) in cuts {
            let found = scan(&bytes[..length]).unwrap();
            assert_eq!(found.members.len(), whole, "{length}");
            assert!(found.cut.is_some(), "{length}");
        }
        assert_eq!(scan(&bytes).unwrap().cut, None);
        let mut damaged = bytes.clone();
        damaged[1536..2048].fill(b'x');
        let found = scan(&damaged).unwrap();
        assert_eq!(found.members.len(), 1);
        assert!(found.cut.unwrap().contains("after 1 complete file(s)"));
        assert_eq!(scan(&[b'x'; 2000]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn damaged_cached_listings_are_rejected() {
        let kept = scan(&archive(&[("a.jpg", b"1"), ("a.cls", b"1")])).unwrap().encode();
        for length in 0..kept.len() {
            assert_eq!(Tarball::decode(&kept[..length]), None, "{length}");
        }
        let mut huge = kept.clone();
        huge[4..12].fill(0xff);
        assert_eq!(Tarball::decode(&huge), None);
    }
}
