//! Results on standard output and in files.

use std::io::Write;
use std::path::Path;

use mbconv_train::files::write_atomically;
use mbconv_train::shell::quoted_path;
use mbconv_train::text::visible;
use serde_json::Value;

use crate::error::CliError;

/// Prints one JSON document on standard output.
pub fn print_json(value: &Value) -> Result<(), CliError> {
    let mut text = String::new();
    write_json(&mut text, value, 0);
    text.push('\n');
    print_text(&text)
}

/// Writes JSON with an entry per line; lists of numbers, such as the rows of a matrix, take one
/// line.
fn write_json(text: &mut String, value: &Value, depth: usize) {
    let mut entries = |brackets: [char; 2], values: &mut dyn Iterator<Item = (Option<&String>, &Value)>| {
        text.push(brackets[0]);
        for (index, (key, value)) in values.enumerate() {
            *text += if index == 0 { "\n" } else { ",\n" };
            *text += &"  ".repeat(depth + 1);
            if let Some(key) = key {
                *text += &format!("{}: ", Value::from(key.as_str()));
            }
            write_json(text, value, depth + 1);
        }
        text.push('\n');
        *text += &"  ".repeat(depth);
        text.push(brackets[1]);
    };
    match value {
        Value::Array(list) if !list.iter().all(Value::is_number) => {
            entries(['[', ']'], &mut list.iter().map(|value| (None, value)));
        }
        Value::Object(map) if !map.is_empty() => {
            entries(['{', '}'], &mut map.iter().map(|(key, value)| (Some(key), value)));
        }
        value => *text += &value.to_string(),
    }
}

/// Prints on standard output with control characters escaped. A closed pipe is not an error.
pub fn print_text(text: &str) -> Result<(), CliError> {
    match std::io::stdout().write_all(visible(text).as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a file atomically.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    write_atomically(path, bytes).map_err(|error| CliError::cannot_write(path, error))
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(path)
        .map_err(|error| CliError::new(format!("cannot create {}: {error}", path.display()), None))
}

/// Prints path and size of a file that was written.
pub fn print_written(path: &Path) -> Result<(), CliError> {
    let bytes = std::fs::metadata(path)?.len();
    eprintln!("wrote {} ({:.3} MB)", path.display(), bytes as f64 / 1e6);
    Ok(())
}

/// Rejects a folder as output file; `example` is a suitable file name in it.
pub fn check_is_file_name(path: &Path, example: &str) -> Result<(), CliError> {
    if !path.is_dir() {
        return Ok(());
    }
    Err(CliError::new(
        format!("{} is a folder", path.display()),
        format!("name the file to write, such as {}", quoted_path(path.join(example))),
    ))
}

/// Rejects a file name whose extension is not one of `extensions`; names without an extension are
/// accepted. `kind` names the kind of file, with an article.
pub fn check_extension(path: &Path, kind: &str, extensions: &[&str]) -> Result<(), CliError> {
    let Some(extension) = path.extension() else { return Ok(()) };
    if extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let listed: Vec<String> = extensions.iter().map(|known| format!(".{known}")).collect();
    Err(CliError::new(
        format!("{} does not have the extension of {kind}", path.display()),
        format!("use a name that ends in {}", listed.join(" or ")),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_indented_with_numbers_on_one_line() {
        let value = json!({"a \"b\"": [[1, 2.5], [3, 4]], "c": {}, "d": [], "e": ["x", null], "f": {"g": true}});
        let mut text = String::new();
        write_json(&mut text, &value, 0);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(text.starts_with("{\n  \"a \\\"b\\\"\": [\n    [1,2.5],\n    [3,4]\n  ],\n"), "{text}");
        assert!(text.ends_with("  \"f\": {\n    \"g\": true\n  }\n}"), "{text}");
    }
}
