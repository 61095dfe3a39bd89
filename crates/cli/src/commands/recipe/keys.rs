//! `mbconv recipe keys`

use std::fmt::Write;

use mbconv_train::config::{Key, Section, nearest, sections};
use serde_json::json;

use super::markdown::markdown;
use crate::args::RecipeKeys;
use crate::error::CliError;
use crate::output::{print_json, print_text};

/// Width of the text.
const WIDTH: usize = 80;

pub fn run(args: RecipeKeys) -> Result<(), CliError> {
    let all = sections();
    if args.markdown {
        return print_text(&markdown(&all));
    }
    let chosen = match &args.section {
        Some(name) => choose(all, name)?,
        None => all,
    };
    if args.json.json {
        return print_json(&json!(chosen.iter().flat_map(|section| &section.keys).collect::<Vec<_>>()));
    }
    print_text(&chosen.iter().map(section_text).collect::<Vec<_>>().join("\n"))
}

/// Returns the section of this name and those below it, or the section with only the key of this
/// name.
fn choose(all: Vec<Section>, name: &str) -> Result<Vec<Section>, CliError> {
    let name = name.trim_matches(['[', ']']);
    let is_below = |section: &Section| section.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    let chosen: Vec<Section> =
        all.iter().filter(|section| section.name == name || is_below(section)).cloned().collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let holder = all.iter().find(|section| section.keys.iter().any(|key| key.key == name));
    if let Some(section) = holder {
        let keys = section.keys.iter().filter(|key| key.key == name).cloned().collect();
        return Ok(vec![Section { keys, ..section.clone() }]);
    }
    Err(unknown(&all, name))
}

fn unknown(all: &[Section], name: &str) -> CliError {
    let keys = all.iter().flat_map(|section| &section.keys).map(|key| key.key.as_str());
    let names: Vec<&str> = all.iter().map(|section| section.name.as_str()).chain(keys).collect();
    // A key may also be given without its section.
    let in_section = names.iter().find(|known| known.rsplit('.').next() == Some(name));
    let hint = match in_section.copied().or_else(|| nearest(name, names.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let listed: Vec<&str> =
                all.iter().map(|section| section.name.as_str()).filter(|name| !name.is_empty()).collect();
            format!("the sections are {}", listed.join(", "))
        }
    };
    CliError::new(format!("recipes have no section or key `{name}`"), hint)
}

fn section_text(section: &Section) -> String {
    let mut text = match (section.name.as_str(), section.repeats) {
        ("", _) => String::new(),
        (name, false) => wrapped(&format!("[{name}]  {}", section.description), ""),
        (name, true) => wrapped(&format!("[[{name}]]  {}", section.description), ""),
    };
    if !text.is_empty() {
        text.push('\n');
    }
    section.keys.iter().for_each(|key| text += &key_text(key));
    text
}

fn key_text(key: &Key) -> String {
    let default = key.default_text().map(|value| format!(" = {value}")).unwrap_or_default();
    let range = key.range.as_ref().map(|range| format!(", {range}")).unwrap_or_default();
    let required = if key.required { ", required" } else { "" };
    let mut text = wrapped(&format!("{}{default}  ({}{range}{required})", key.key, key.kind), "    ");
    let description = wrapped(&key.description, "    ");
    let _ = write!(text, "    {description}");
    for choice in key.choices.iter().filter(|choice| !choice.description.is_empty()) {
        let _ = write!(text, "    {}", wrapped(&format!("{}: {}", choice.value, choice.description), "      "));
    }
    text
}

/// Breaks a text into lines. Lines after the first start with `indent`; the first is assumed to be
/// printed after an indentation of four.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let used = line.chars().count().max(4) + 1 + word.chars().count();
        if !line.trim().is_empty() && used > WIDTH - 4 {
            lines += &format!("{}\n", line.trim_end());
            line = indent.to_string();
        }
        if !line.trim().is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &line + "\n"
}
