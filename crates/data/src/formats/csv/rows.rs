//! Readers of the rows of a table: CSV, TSV, JSON Lines, or a list with white space between path
//! and label.

use std::path::Path;

use csv::StringRecord;

use mbconv_image::formats::is_image;

use crate::error::DataError;
use crate::formats::location::has_extension;
use crate::text::read_text;

/// A row, with its first line number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub line: usize,
    pub fields: StringRecord,
}

impl Row {
    pub fn get(&self, column: usize) -> Option<&str> {
        self.fields.get(column)
    }
}

/// Column separators. If several occur equally often in the first line, the last of them is used.
const SEPARATORS: [u8; 4] = [b'|', b';', b',', b'\t'];

/// Reads the rows of a table, without empty rows.
///
/// # Errors
/// A file that cannot be read or decoded; rows with more fields than the first row.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>, DataError> {
    let text = read_text(path)?;
    let malformed = |why: String| DataError::Malformed { path: path.into(), why };
    if has_extension(path, &["jsonl", "ndjson"]) {
        return json_lines(&text).map_err(malformed);
    }
    let skipped = text.len() - text.trim_start_matches(['\r', '\n']).len();
    // Excel writes a line `sep=;` before the table.
    let (text, named, before) = match text[skipped..].split_once('\n') {
        Some((first, rest)) if first.trim_end().to_ascii_lowercase().starts_with("sep=") => {
            (rest, first.trim_end().as_bytes().get(4).copied(), text[..skipped].matches('\n').count() + 1)
        }
        _ => (&text[..], None, 0),
    };
    let first = text.trim_start().lines().next().unwrap_or_default();
    let separator = named.unwrap_or_else(|| match has_extension(path, &["tsv"]) {
        true => b'\t',
        false => separator_of(first),
    });
    if has_extension(path, &["txt", "lst"]) && !first.as_bytes().contains(&separator) {
        return Ok(list(text));
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut rows: Vec<Row> = Vec::new();
    for record in reader.records() {
        let fields = record.map_err(|error| malformed(error.to_string()))?;
        let line = before + fields.position().map_or(0, |position| line_at(text, position));
        if fields.iter().all(str::is_empty) {
            continue;
        }
        let expected = rows.first().map_or(fields.len(), |first| first.fields.len());
        if fields.iter().skip(expected).any(|field| !field.is_empty()) {
            let found = fields.len();
            let why = format!(
                "line {line} has {found} columns, but the first row has {expected}: put fields that contain the separator {:?} in double quotes",
                char::from(separator)
            );
            return Err(malformed(why));
        }
        rows.push(Row { line, fields });
    }
    Ok(rows)
}

/// Returns the first line number of a record. The `csv` position is that of preceding empty lines.
fn line_at(text: &str, position: &csv::Position) -> usize {
    let rest = text.as_bytes().get(position.byte() as usize..).unwrap_or_default();
    let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    position.line() as usize + empty
}

/// Returns the separator that occurs most often in a line, outside quotes.
fn separator_of(line: &str) -> u8 {
    let unquoted: String = line.split('"').step_by(2).collect();
    let count = |separator: &u8| unquoted.bytes().filter(|byte| byte == separator).count();
    SEPARATORS.into_iter().max_by_key(count).filter(|separator| count(separator) > 0).unwrap_or(b',')
}

/// Parses lines of a path and a label. The path may contain blanks, the label may not.
fn list(text: &str) -> Vec<Row> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let row = |(number, line): (usize, &str)| {
        let fields = match line.rsplit_once(char::is_whitespace) {
            Some((path, label)) if !is_image(Path::new(label)) => vec![path.trim_end(), label],
            _ => vec![line],
        };
        Row { line: number, fields: fields.into() }
    };
    lines.map(row).collect()
}

/// Parses one JSON object per line. Returns a header row of the keys, then one row per object.
fn json_lines(text: &str) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    for (line, object) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(object).map_err(|error| format!("line {line} is not a JSON object: {error}"))?;
        for key in object.keys().filter(|key| rows.is_empty() || !keys.contains(key)).cloned().collect::<Vec<_>>() {
            keys.push(key);
        }
        if rows.is_empty() {
            rows.push(Row { line, fields: StringRecord::new() });
        }
        let text = |key: &String| match object.get(key) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        rows.push(Row { line, fields: keys.iter().map(text).collect::<Vec<_>>().into() });
    }
    if let Some(first) = rows.first_mut() {
        first.fields = keys.into();
    }
    let width = rows.first().map_or(0, |first| first.fields.len());
    for row in &mut rows {
        (row.fields.len()..width).for_each(|_| row.fields.push_field(""));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let rows = read(&path).map_err(|error| error.to_string())?;
        Ok(rows.into_iter().map(|row| (row.line, row.fields.iter().map(String::from).collect())).collect())
    }

    fn row(line: usize, fields: &[&str]) -> (usize, Vec<String>) {
        (line, fields.iter().map(|field| field.to_string()).collect())
    }

    #[test]
    fn separators_quotes_and_line_ends() {
        let expected = Ok(vec![row(1, &["path", "label"]), row(2, &["a b.jpg", "cat"]), row(4, &["c.jpg", "dog"])]);
        for separator in [",", ";", "\t", "|"] {
            for end in ["\n", "\r\n"] {
                let text = ["path,label", "a b.jpg, cat", "", "\"c.jpg\",dog"].join(end).replace(',', separator);
                assert_eq!(rows("t.csv", &text), expected, "{text:?}");
            }
        }
        let quoted = rows("t.csv", "\"path, of; it\",label\n\"a,b.jpg\",\"sea lion, \"\"eared\"\"\"\n").unwrap();
        assert_eq!(quoted, [row(1, &["path, of; it", "label"]), row(2, &["a,b.jpg", "sea lion, \"eared\""])]);
        assert_eq!(rows("t.csv", "sep=;\npath;label, it\n1.jpg;2\n").unwrap()[1], row(3, &["1.jpg", "2"]));
        assert_eq!(
            rows("t.txt", "a b.jpg 3\n# note\nc.jpg\n"),
            Ok(vec![row(1, &["a b.jpg", "3"]), row(3, &["c.jpg"])])
        );
        let many = rows("t.csv", "path,label\na.jpg,sea lion, eared\n").unwrap_err();
        assert!(many.contains("line 2 has 3 columns, but the first row has 2"), "{many}");
        // pandas also accepts extra empty fields at the end.
        assert!(rows("t.csv", "path,label\na.jpg,cat,\n").is_ok());
    }

    #[test]
    fn json_lines_are_rows() {
        let text = "{\"file_name\": \"a.jpg\", \"label\": 3}\n\n{\"label\": \"x\", \"file_name\": \"b.jpg\", \"text\": null}\n";
        let expected =
            [row(1, &["file_name", "label", "text"]), row(1, &["a.jpg", "3", ""]), row(3, &["b.jpg", "x", ""])];
        assert_eq!(rows("m.jsonl", text).unwrap(), expected);
        assert!(rows("m.jsonl", "{}\n[1]\n").unwrap_err().contains("line 2"));
    }
}
