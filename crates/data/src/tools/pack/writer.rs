//! Writers of shards.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// An image ready to be stored.
pub(crate) struct Packed {
    /// Its place in the split.
    pub(crate) place: usize,
    /// The bytes of an image file.
    pub(crate) bytes: Vec<u8>,
    /// The extension that fits them.
    pub(crate) extension: &'static str,
    /// The name that its file had, or what it was called.
    pub(crate) name: String,
    pub(crate) label: usize,
}

/// A shard that is being written.
pub(crate) trait Writer {
    fn add(&mut self, image: Packed) -> io::Result<()>;
    fn finish(self: Box<Self>) -> io::Result<Hashed>;
}

/// A file that knows its checksum.
pub(crate) struct Hashed {
    pub(crate) file: BufWriter<File>,
    pub(crate) sha: Sha256,
    pub(crate) bytes: u64,
}

impl Hashed {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(1 << 20, File::create(path)?), sha: Sha256::new(), bytes: 0 })
    }

    /// Checksum and size.
    pub(crate) fn finish(self) -> io::Result<(String, u64)> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok((hex(&self.sha.finalize()), self.bytes))
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
