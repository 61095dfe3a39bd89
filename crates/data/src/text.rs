//! Lossless decoding of text files. Other encodings are rejected with the likely encoding.

use std::path::Path;

use crate::error::DataError;

/// Reads a text file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.
///
/// # Errors
/// A file that cannot be read; [`DataError::Encoding`] for any other encoding.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, source))?;
    decode_text(bytes, path)
}

/// Decodes the contents of the text file at `path`, like [`read_text`].
pub(crate) fn decode_text(mut bytes: Vec<u8>, path: &Path) -> Result<String, DataError> {
    let wrong = |line: usize, likely| DataError::Encoding { path: path.into(), line, likely };
    if bytes.starts_with(b"\xff\xfe\0\0") || bytes.starts_with(b"\0\0\xfe\xff") {
        return Err(wrong(1, "UTF-32"));
    }
    for (mark, name, unit) in [
        (b"\xff\xfe", "UTF-16LE", u16::from_le_bytes as fn([u8; 2]) -> u16),
        (b"\xfe\xff", "UTF-16BE", u16::from_be_bytes as fn([u8; 2]) -> u16),
    ] {
        if let Some(rest) = bytes.strip_prefix(mark) {
            return utf16(rest, unit).map_err(|line| wrong(line, name));
        }
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let name = if at % 2 == 0 { "UTF-16BE" } else { "UTF-16LE" };
        return Err(wrong(line_of(&bytes, at), name));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        wrong(line_of(error.as_bytes(), at), likely_encoding(error.as_bytes()))
    })
}

/// Decodes UTF-16; the error is the line number of the first invalid unit.
fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, usize> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(pairs.iter().map(|&pair| unit(pair)));
    let mut decoded = String::with_capacity(pairs.len());
    for character in text {
        match character {
            Ok(character) => decoded.push(character),
            Err(_) => return Err(line_of(decoded.as_bytes(), decoded.len())),
        }
    }
    if rest.is_empty() { Ok(decoded) } else { Err(line_of(decoded.as_bytes(), decoded.len())) }
}

/// Returns the line number, from 1, of a byte.
fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count()
}

/// Guesses the encoding of text that is not UTF-8; returns iconv's name.
///
/// Western European text has single accented letters between ASCII letters. Cyrillic words are runs
/// of non-ASCII letters; lowercase is the upper half of the range in Windows-1251 and the lower
/// half in KOI8-R. East Asian characters are byte pairs; Shift_JIS uses leading bytes for kana that
/// are rare in GBK.
fn likely_encoding(bytes: &[u8]) -> &'static str {
    let high: Vec<u8> = bytes.iter().copied().filter(|&byte| byte >= 0x80).collect();
    let runs = bytes.split(u8::is_ascii).filter(|run| !run.is_empty()).count();
    let share = |range: std::ops::RangeInclusive<u8>| {
        high.iter().filter(|byte| range.contains(byte)).count() as f64 / high.len() as f64
    };
    // Windows-1251 has two letters outside the range of the others.
    let cyrillic = share(0xc0..=0xff) + share(0xa8..=0xa8) + share(0xb8..=0xb8) > 0.95;
    let kana = bytes.windows(2).filter(|pair| matches!(pair, [0x82, 0x9f..=0xf1] | [0x83, 0x40..=0x96])).count();
    match () {
        _ if pairs(bytes, |lead| matches!(lead, 0x81..=0x9f | 0xe0..=0xfc), |trail| trail >= 0x40) && kana > 0 => {
            "SHIFT_JIS"
        }
        _ if high.len() as f64 <= 1.3 * runs as f64 => "WINDOWS-1252",
        _ if cyrillic && share(0xc0..=0xdf) > 0.6 => "KOI8-R",
        _ if cyrillic => "WINDOWS-1251",
        _ if pairs(bytes, |lead| lead >= 0x81, |trail| trail >= 0x40) => "GB18030",
        _ if share(0x80..=0xaf) + share(0xe0..=0xef) > 0.95 => "CP866",
        _ => "WINDOWS-1252",
    }
}

/// Returns whether all non-ASCII bytes form valid pairs.
fn pairs(bytes: &[u8], lead: fn(u8) -> bool, trail: fn(u8) -> bool) -> bool {
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte >= 0x80 && !(lead(byte) && bytes.next().is_some_and(trail)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<String, (usize, &'static str)> {
        decode_text(bytes.to_vec(), Path::new("t.csv")).map_err(|error| match error {
            DataError::Encoding { line, likely, .. } => (line, likely),
            other => panic!("{other}"),
        })
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn utf8_and_marked_utf16_are_decoded() {
        let text = "path,label\r\n1.jpg,пёс\r\n2.jpg,🐈\r\n";
        let marked = format!("\u{feff}{text}");
        assert_eq!(decode(text.as_bytes()), Ok(text.into()));
        assert_eq!(decode(marked.as_bytes()), Ok(text.into()));
        assert_eq!(decode(&utf16(&marked, u16::to_le_bytes)), Ok(text.into()));
        assert_eq!(decode(&utf16(&marked, u16::to_be_bytes)), Ok(text.into()));
        assert_eq!(decode(b""), Ok(String::new()));
    }

    #[test]
    fn other_encodings_are_rejected_with_line_and_name() {
        assert_eq!(decode(&utf16("a\nb", u16::to_le_bytes)), Err((1, "UTF-16LE")));
        assert_eq!(decode(&utf16("a\nb", u16::to_be_bytes)), Err((1, "UTF-16BE")));
        assert_eq!(decode(b"\xff\xfea\0\n\0\x00\xd8b\0"), Err((2, "UTF-16LE")));
        assert_eq!(decode(b"\xff\xfea\0b"), Err((1, "UTF-16LE")));
        assert_eq!(
            decode(b"path,label\n1.jpg,\xea\xee\xf2\n2.jpg,\xef\xb8\xf1\n3.jpg,\xeb\xe5\xe2\n"),
            Err((2, "WINDOWS-1251"))
        );
        assert_eq!(decode(b"1.jpg,\xcb\xcf\xd4\n2.jpg,\xd3\xcf\xc2\xc1\xcb\xc1\n"), Err((1, "KOI8-R")));
        assert_eq!(decode(b"1.jpg,cat\n2.jpg,caf\xe9\n3.jpg,M\xfcller\n"), Err((2, "WINDOWS-1252")));
        assert_eq!(decode(b"1.jpg,\xc3\xa8\n2.jpg,\xb9\xb7\xb9\xb7\n3.jpg,\xd0\xa1\xc3\xa8\n"), Err((2, "GB18030")));
        assert_eq!(decode(b"1.jpg,\x94\x4c\n2.jpg,\x82\xb1\x82\xa2\x82\xca\n"), Err((1, "SHIFT_JIS")));
        // UTF-8 truncated within a character.
        assert!(decode("1.jpg,пёс".as_bytes().split_last().unwrap().1).is_err());
    }
}
