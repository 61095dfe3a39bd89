//! JSON schemas derived from the structs that parse TOML.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Returns the JSON schema (draft 2020-12) of the TOML form of `T`, without references and without
/// `null`, which TOML lacks.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Returns the alternatives of a schema: the variants of an enum.
pub(super) fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    // A struct with `anyOf` requires one of several keys.
    if schema.get("properties").is_some() {
        return None;
    }
    schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array)
}

/// Returns the schema of a table, or `None` for another schema. A list of tables and a table that
/// is one of several alternatives count as a table.
pub(super) fn table(schema: &Value) -> Option<&Value> {
    let table = match (alternatives(schema), schema.get("items")) {
        (Some(alternatives), _) => alternatives.iter().find(|schema| is_section(schema))?,
        (None, Some(items)) => items,
        (None, None) => schema,
    };
    table.get("properties").is_some().then_some(table)
}

/// Returns the keys of a [`table`].
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    table(schema)?.get("properties")?.as_object()
}

/// Returns whether an alternative is a table with optional keys, rather than a variant with a
/// value.
fn is_section(schema: &Value) -> bool {
    schema.get("properties").is_some_and(|keys| {
        let required = schema.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        keys.as_object().is_some_and(|keys| keys.len() != required)
    })
}

/// Removes `null`, unset defaults and line breaks, and merges enums of a single variant.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(node) => {
            node.values_mut().for_each(tidy);
            tidy_node(node);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_node(node: &mut Map<String, Value>) {
    if let Some(Value::String(description)) = node.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = &types[..] {
            node["type"] = name.clone();
        }
    }
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(variants)) = node.get_mut(key) else { continue };
        variants.retain(|variant| variant["type"] != "null");
        if let [Value::Object(variant)] = &mut variants[..] {
            let variant = std::mem::take(variant);
            node.remove(key);
            for (key, value) in variant {
                node.entry(key).or_insert(value);
            }
        }
    }
    let is_f32 =
        [node.get("format"), node.get("items").and_then(|items| items.get("format"))].contains(&Some(&"float".into()));
    match node.get_mut("default") {
        Some(Value::Null | Value::Object(_)) => _ = node.remove("default"),
        Some(Value::String(text)) if text.is_empty() => _ = node.remove("default"),
        Some(default) if is_f32 => shorten(default),
        _ => {}
    }
}

/// Replaces numbers that were widened from f32 by the shortest with the same f32 value.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Number(number) => {
            let shortest = number.as_f64().and_then(|number| (number as f32).to_string().parse::<f64>().ok());
            *value = shortest.map_or(Value::Null, Value::from);
        }
        _ => {}
    }
}
