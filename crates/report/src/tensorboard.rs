//! Event files for TensorBoard.
//!
//! A file is a sequence of records (length, checksum of the length, data, checksum of the data:
//! TensorFlow's `record_writer`). Each record is an `Event` protocol buffer
//! (`tensorflow/core/util/event.proto`). Scalars and texts need few of its fields, so they are
//! encoded by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file.
#[derive(Debug)]
pub struct EventFile(File);

impl EventFile {
    /// Creates a file `events.out.tfevents.…` in `folder`.
    ///
    /// # Errors
    /// I/O errors, such as a full disk.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{}.mbconv", now.as_secs(), std::process::id());
        let mut file = Self(OpenOptions::new().create(true).append(true).open(folder.join(name))?);
        file.write(0, &message(3, b"brain.Event:2"))?;
        Ok(file)
    }

    /// Writes a text, displayed as code.
    ///
    /// # Errors
    /// I/O errors, such as a full disk.
    pub fn text(&mut self, tag: &str, content: &str) -> io::Result<()> {
        self.write(0, &message(5, &text(tag, content)))
    }

    /// Lets TensorBoard discard the events of earlier files from `step` on. Used when a run resumes
    /// there.
    ///
    /// # Errors
    /// I/O errors, such as a full disk.
    pub fn restart(&mut self, step: u64) -> io::Result<()> {
        // SessionLog { status: START }
        self.write(step, &message(7, &varint_field(1, 1)))
    }

    /// Writes scalars of one step.
    ///
    /// # Errors
    /// I/O errors, such as a full disk.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for &(tag, value) in values {
            let mut entry = message(1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((value as f32).to_le_bytes());
            summary.extend(message(1, &entry));
        }
        self.write(step, &message(5, &summary))
    }

    /// Writes an `Event` with the given step and content.
    fn write(&mut self, step: u64, content: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = vec![1 << 3 | 1];
        event.extend(now.as_secs_f64().to_le_bytes());
        event.extend(varint_field(2, step));
        event.extend(content);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc(&event).to_le_bytes());
        // One write call, so that a reader never sees part of a record.
        self.0.write_all(&record)
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint_field(number: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    bytes.extend(varint(value));
    bytes
}

/// Encodes a length-delimited field: a string or a nested message.
fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// Encodes a text summary, displayed as code: `Summary { value { tag, metadata { plugin_data {
/// plugin_name: "text" } }, tensor { DT_STRING } } }`.
fn text(tag: &str, text: &str) -> Vec<u8> {
    let markdown: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let plugin = message(1, &message(1, b"text"));
    let tensor = [varint_field(1, 7), message(2, &message(2, &varint_field(1, 1))), message(8, markdown.as_bytes())];
    let value = [message(1, tag.as_bytes()), message(9, &plugin), message(8, &tensor.concat())];
    message(1, &value.concat())
}

/// Computes TensorFlow's masked CRC-32C.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Computes CRC-32C (Castagnoli, RFC 3720) bit by bit, because records are short.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_rfc_3720() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_complete_and_contain_the_values() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path()).unwrap();
        file.text("recipe", "epochs = 3").unwrap();
        file.scalars(300, &[("train/loss", 2.5)]).unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(rest[8..12].try_into().unwrap()), masked_crc(&rest[..8]));
            let event = &rest[12..12 + length];
            assert_eq!(u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap()), masked_crc(event));
            events.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(events.len(), 3);
        assert!(events[0].ends_with(b"brain.Event:2"));
        assert!(events[1].windows(10).any(|part| part == b"epochs = 3"));
        // Step 300, then summary { value { tag, simple_value } }.
        let mut expected = vec![0x10, 0xac, 0x02, 0x2a, 19, 0x0a, 17, 0x0a, 10];
        expected.extend(b"train/loss");
        expected.extend([0x15, 0, 0, 0x20, 0x40]);
        assert!(events[2].ends_with(&expected), "{:x?}", events[2]);
    }
}
