//! Writers of shards.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use mbconv_files::hex;
use sha2::{Digest, Sha256};

/// An image to store.
pub(crate) struct Packed {
    /// Position in the split.
    pub(crate) place: usize,
    /// Contents of the image file.
    pub(crate) bytes: Vec<u8>,
    /// File name extension for the contents.
    pub(crate) extension: &'static str,
    /// File name, or the name of the sample.
    pub(crate) name: String,
    pub(crate) label: usize,
}

/// Writes a shard.
pub(crate) trait Writer {
    fn add(&mut self, image: Packed) -> io::Result<()>;
    fn finish(self: Box<Self>) -> io::Result<Hashed>;
}

/// A file writer that computes size and SHA-256.
pub(crate) struct Hashed {
    pub(crate) file: BufWriter<File>,
    pub(crate) sha: Sha256,
    pub(crate) bytes: u64,
}

impl Hashed {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(1 << 20, File::create(path)?), sha: Sha256::new(), bytes: 0 })
    }

    /// Returns the checksum and the size in bytes.
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
