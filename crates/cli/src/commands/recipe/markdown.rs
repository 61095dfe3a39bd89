//! The page `docs/recipes.md`.

use std::fmt::Write;

use mbconv_train::config::{Key, Section};

const HEADER: &str = "\
# Recipe keys

<!-- Written by `just recipe-keys`, from the doc comments of the structs that parse recipes. -->

A recipe is a TOML file with these keys. [training.md](training.md#training-from-a-recipe) describes
how to write, check and run one. A key without a default is optional unless it is required.
";

/// Returns a page with one table per section.
pub fn markdown(sections: &[Section]) -> String {
    let mut page = HEADER.to_string();
    for section in sections {
        let _ = match (section.name.as_str(), section.repeats) {
            ("", _) => write!(page, "\n## Top level\n\n"),
            (name, false) => write!(page, "\n## `[{name}]`\n\n{}\n\n", section.description),
            (name, true) => write!(page, "\n## `[[{name}]]`\n\n{}\n\n", section.description),
        };
        page += "| key | value | default | meaning |\n|---|---|---|---|\n";
        section.keys.iter().for_each(|key| page += &row(section, key));
    }
    page
}

fn row(section: &Section, key: &Key) -> String {
    let name = key.key.strip_prefix(&section.name).unwrap_or(&key.key).trim_start_matches('.');
    let range = key.range.as_ref().map(|range| format!(", {range}")).unwrap_or_default();
    let default = match (key.default_text(), key.required) {
        (Some(value), _) => format!("`{value}`"),
        (None, true) => "required".into(),
        (None, false) => String::new(),
    };
    let mut meaning = key.description.clone();
    for choice in key.choices.iter().filter(|choice| !choice.description.is_empty()) {
        let _ = write!(meaning, "<br>`{}`: {}", choice.value, choice.description);
    }
    format!("| `{name}` | {}{range} | {default} | {meaning} |\n", key.kind)
}
