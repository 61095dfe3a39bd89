//! Writes WebDataset's shards: tar files of `KEY.jpg` and `KEY.cls`.

use std::io::{self, Write};

use crate::tools::pack::writer::{Hashed, Packed, Writer};

/// Size of a tar block in bytes.
const BLOCK: usize = 512;

/// Writer of a tar file (POSIX ustar) without times and owners, so that equal contents give equal
/// files.
pub(crate) struct Tar {
    out: Hashed,
    /// Number of digits of a key.
    digits: usize,
}

impl Tar {
    /// Creates a writer for a split of `images` images. Keys are positions in the split, padded to
    /// equal length.
    pub(crate) fn new(out: Hashed, images: usize) -> Self {
        Self { out, digits: images.to_string().len().max(6) }
    }

    /// Writes a file, padded to whole blocks.
    fn member(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.out.write_all(&header(name, content.len()))?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; BLOCK][..content.len().next_multiple_of(BLOCK) - content.len()])
    }
}

impl Writer for Tar {
    fn add(&mut self, image: Packed) -> io::Result<()> {
        let key = format!("{:0digits$}", image.place, digits = self.digits);
        self.member(&format!("{key}.{}", image.extension), &image.bytes)?;
        self.member(&format!("{key}.cls"), image.label.to_string().as_bytes())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Hashed> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Returns the header of a regular file. `name` has at most 100 bytes.
fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The checksum field counts as spaces.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
