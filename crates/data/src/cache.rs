//! Cache of folder and archive listings, stored next to the data, so that large data sets are
//! listed only once.
//!
//! The files are in a folder `.mbconv`, which may be deleted at any time. Each starts with a stamp
//! of its source. A file that is damaged or has another stamp is replaced. Without write
//! permission, nothing is stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mbconv_files::{remove_left_overs, write_atomically};

const FOLDER: &str = ".mbconv";
const MAGIC: &[u8] = b"mbconv listing 1\n";

/// Minimum number of entries to cache; listing fewer is as fast.
pub(crate) const MANY: usize = 10_000;

/// Loads the cache `name` in `folder`, if its stamp matches.
pub(crate) fn load(folder: &Path, name: &str, stamp: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file(folder, name)).ok()?;
    let begins = bytes.strip_prefix(MAGIC)?.strip_prefix(stamp)?.len();
    bytes.drain(..bytes.len() - begins);
    Some(bytes)
}

/// Stores `contents`, if the folder is writable.
pub(crate) fn store(folder: &Path, name: &str, stamp: &[u8], contents: &[u8]) {
    let path = file(folder, name);
    let bytes = [MAGIC, stamp, contents].concat();
    // Ignore errors: a missing cache only costs time.
    let parent = path.parent().unwrap_or(folder);
    remove_left_overs(parent);
    let _ = fs::create_dir_all(parent).and_then(|()| write_atomically(&path, &bytes));
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(FOLDER).join(name)
}

/// Returns the modification time of a file or folder, in seconds and nanoseconds, or `None` if it
/// is so recent that a further change might not be visible in it.
pub(crate) fn changed(metadata: &fs::Metadata) -> Option<[u64; 2]> {
    const SETTLED: Duration = Duration::from_secs(2);
    let modified = metadata.modified().ok()?;
    SystemTime::now().duration_since(modified).ok().filter(|age| *age > SETTLED)?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    Some([since.as_secs(), since.subsec_nanos().into()])
}

/// Encodes numbers and texts.
#[derive(Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }
}

/// Decodes the output of a [`Writer`]; returns `None` past the end.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn number(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)?;
        std::str::from_utf8(self.take(length as usize)?).ok()
    }

    /// Reads a number of items of at least `least` bytes each. The count is checked against the
    /// remaining bytes, so that damaged data cannot request more memory than the file's size.
    pub fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() / least).then_some(count)
    }
}
