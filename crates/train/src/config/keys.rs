//! The keys of recipes with types, defaults, ranges and descriptions, taken from the schema.

use serde::Serialize;
use serde_json::Value;

use super::file::RecipeFile;
use super::range::range_text;
use super::schema::{alternatives, properties, table};

/// A table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// Dotted name; empty for the top level.
    pub name: String,
    /// Description.
    pub description: String,
    /// True for a repeated table, `[[name]]`.
    pub repeats: bool,
    /// The keys, without those of tables below.
    pub keys: Vec<Key>,
}

/// A key of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Key {
    /// Full dotted name.
    pub key: String,
    /// Type, or the possible values.
    #[serde(rename = "type")]
    pub kind: String,
    /// True for a key that every recipe needs.
    pub required: bool,
    /// Default value. Without one, an optional key is unset by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Range of the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Possible values with descriptions, if the key selects among several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
    /// Description.
    pub description: String,
}

/// A possible value of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Value in TOML, or its type.
    pub value: String,
    /// Description.
    pub description: String,
}

impl Key {
    /// Returns the default value in TOML.
    pub fn default_text(&self) -> Option<String> {
        self.default.as_ref().map(toml_text)
    }
}

/// Returns all tables of a recipe with their keys, the top level first.
pub fn sections() -> Vec<Section> {
    let mut sections = Vec::new();
    collect(RecipeFile::schema(), "", false, &mut sections);
    sections
}

fn collect(schema: &Value, name: &str, repeats: bool, into: &mut Vec<Section>) {
    let (Some(table), Some(keys)) = (table(schema), properties(schema)) else { return };
    let description = description(schema);
    let full = |key: &str| if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
    let required = table.get("required").and_then(Value::as_array);
    let is_required = |key: &str| required.is_some_and(|required| required.iter().any(|name| name == key));
    let own = keys.iter().filter(|(_, schema)| properties(schema).is_none() || alternatives(schema).is_some());
    let own = own.map(|(key, schema)| self::key(full(key), schema, is_required(key))).collect();
    into.push(Section { name: name.into(), description, repeats, keys: own });
    for (key, schema) in keys {
        collect(schema, &full(key), schema.get("items").is_some(), into);
    }
}

fn key(key: String, schema: &Value, required: bool) -> Key {
    let default = schema.get("default").cloned();
    let choices = alternatives(schema).map_or(Vec::new(), |_| choices(schema));
    Key {
        key,
        kind: kind(schema),
        required,
        default,
        range: range_text(schema),
        choices,
        description: description(schema),
    }
}

fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().into()
}

/// Returns the type of a value, or its possible values.
fn kind(schema: &Value) -> String {
    if alternatives(schema).is_some() {
        let values = choices(schema).into_iter().map(|choice| choice.value.replace("true or false", "true, false"));
        return joined(&values.collect::<Vec<_>>());
    }
    if let Some(value) = schema.get("const") {
        return toml_text(value);
    }
    if let Some((name, _)) = variant(schema) {
        return format!("{{ {name} = N }}");
    }
    match schema["type"].as_str() {
        Some("boolean") => "true or false".into(),
        Some("integer") => "whole number".into(),
        Some("number") => "number".into(),
        Some("string") => "text".into(),
        Some("array") => {
            let of = kind(&schema["items"]);
            match schema.get("maxItems").filter(|most| schema.get("minItems") == Some(*most)) {
                Some(count) => format!("list of {count} {of}s"),
                None => format!("list of {of}s"),
            }
        }
        _ => "table".into(),
    }
}

/// Returns name and value of a variant `{ name = value }`.
fn variant(schema: &Value) -> Option<(&String, &Value)> {
    let mut keys = properties(schema)?.iter();
    keys.next().filter(|_| keys.len() == 0)
}

fn with_range(schema: &Value) -> String {
    match range_text(schema) {
        Some(range) => format!("{} {range}", kind(schema)),
        None => kind(schema),
    }
}

/// Returns the values of an enum, including those of enums in it.
fn choices(schema: &Value) -> Vec<Choice> {
    let Some(alternatives) = alternatives(schema) else {
        let mut description = description(schema);
        if let Some(range) = variant(schema).and_then(|(_, value)| range_text(value)) {
            description += &format!(" N is {range}.");
        }
        return vec![Choice { value: with_range(schema), description }];
    };
    alternatives.iter().flat_map(choices).collect()
}

/// Joins `a`, `b` and `c` to `a, b or c`.
fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Returns a value in TOML.
fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}
