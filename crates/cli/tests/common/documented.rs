//! Commands in the documentation. The unit test of the command line and the
//! test that runs the commands share this file.
#![allow(dead_code, reason = "each of the two uses some of it")]

use std::fs;
use std::path::{Path, PathBuf};

/// A command line of a shell block, with its continuation lines.
#[derive(Debug)]
pub struct Documented {
    /// Page, relative to the repository, and line: `docs/training.md:15`.
    pub place: String,
    /// The text, as a shell reads it.
    pub text: String,
}

/// Returns the root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns the Markdown pages of the documentation, relative to the repository, sorted.
pub fn pages() -> Vec<PathBuf> {
    let mut pages = vec!["README.md".into(), "CONTRIBUTING.md".into()];
    for folder in ["docs", "docs/tutorials", "models", "datasets"] {
        let files = fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let markdown = files.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
        pages.extend(markdown.map(|name| Path::new(folder).join(name)));
    }
    pages.sort();
    pages
}

/// Returns the commands of a page's `sh` and `console` blocks.
pub fn commands(page: &Path) -> Vec<Documented> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let mut commands: Vec<Documented> = Vec::new();
    let (mut language, mut continues) = ("", false);
    for (index, line) in text.lines().enumerate() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            language = if language.is_empty() { if fence.is_empty() { "text" } else { fence } } else { "" };
            continues = false;
            continue;
        }
        let start = match language {
            "sh" => Some(line),
            "console" => line.strip_prefix("$ "),
            _ => continue,
        };
        match (continues, start) {
            (true, _) => {
                let command = commands.last_mut().unwrap();
                command.text += "\n";
                command.text += line;
            }
            (false, Some(text)) => {
                commands.push(Documented { place: format!("{}:{}", page.display(), index + 1), text: text.into() })
            }
            (false, None) => continue,
        }
        continues = is_incomplete(&commands.last().unwrap().text);
    }
    commands
}

/// Returns the code spans of a page's running text that start with `mbconv`.
pub fn code_spans(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let prose = text.split("```").step_by(2).collect::<String>().replace('\n', " ");
    let spans = prose.split('`').skip(1).step_by(2).filter(|span| span.starts_with("mbconv "));
    spans.map(String::from).collect()
}

/// Returns true if a shell would read another line: within quotes, or after `\` or `|`.
fn is_incomplete(command: &str) -> bool {
    let (words, open) = split(command);
    open || words.last().is_some_and(|word| word == "|")
}

/// Returns the arguments of each call of the program in a command line.
pub fn calls(command: &str) -> Vec<Vec<String>> {
    let (words, _) = split(command);
    let mut calls = Vec::new();
    for part in words.split(|word| matches!(word.as_str(), "|" | "||" | "&&" | ";" | "&")) {
        let end = part.iter().position(|word| word.starts_with('>') || word == "2>" || word == "<");
        let part = &part[..end.unwrap_or(part.len())];
        let cargo = part.starts_with(&["cargo".into(), "run".into()]);
        let program = |word: &String| word == "mbconv" || word.ends_with("/mbconv") || cargo && word == "--";
        let Some(start) = part.iter().position(program) else { continue };
        // `mpirun … mbconv` and `NAME=value mbconv` are calls; `script --mbconv mbconv` is none.
        let before = part[..start].first().map_or("", String::as_str);
        if start == 0 || cargo || matches!(before, "mpirun" | "srun" | "nohup") || before.contains('=') {
            calls.push(part[start + 1..].to_vec());
        }
    }
    calls
}

/// Splits a command line into words and operators. The second value is true if it ends within
/// quotes or after a backslash.
fn split(command: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = command.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some('"') | None, '\\') => match characters.next() {
                None => return (words, true),
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while characters.next_if(|&next| next != '\n').is_some() {},
            (None, '|' | '&' | ';') => {
                words.extend(word.take());
                let double = characters.next_if_eq(&character);
                words.push([Some(character), double].into_iter().flatten().collect());
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    (words, quote.is_some())
}
