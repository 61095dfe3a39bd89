//! Ranges of values: the limits in a JSON schema as text, and their check.

use serde_json::Value;

use super::error::{RecipeError, ensure};
use super::schema::alternatives;

/// Checks all values of a table against the limits in its schema. Types were checked by parsing.
///
/// # Errors
/// Names the first value out of its range, after `prefix`.
pub(super) fn check_ranges(schema: &Value, value: &toml::Value, key: &str) -> Result<(), RecipeError> {
    if let Some(alternatives) = alternatives(schema) {
        let mut results = alternatives.iter().filter(|schema| is_of_type(schema, value));
        let mut result = Ok(());
        if let Some(schema) = results.next() {
            result = check_ranges(schema, value, key);
        }
        return results.fold(result, |result, schema| result.or_else(|_| check_ranges(schema, value, key)));
    }
    if let toml::Value::Table(table) = value {
        for (name, value) in table {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            schema["properties"].get(name).map_or(Ok(()), |schema| check_ranges(schema, value, &key))?;
        }
        return Ok(());
    }
    let expected = range_text(schema).unwrap_or_else(|| "finite".into());
    ensure(is_within(schema, value), key, shown(value), &expected)
}

/// Returns the limits of a value as text, or `None` if there are none.
pub(super) fn range_text(schema: &Value) -> Option<String> {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return Some(choices.iter().map(Value::to_string).collect::<Vec<_>>().join(" or "));
    }
    let Some(items) = schema.get("items") else { return limits(schema) };
    if schema.get("x-rising").is_none() {
        return limits(items);
    }
    if schema["maxItems"] == 2 {
        let part = |name: &str, sign: &'static str| items.get(name).map(|limit| (number(limit), sign));
        let low =
            part("exclusiveMinimum", "<").or(part("minimum", "≤")).map(|(limit, sign)| format!("{limit} {sign} "));
        let high = part("maximum", "≤").map(|(limit, sign)| format!(" {sign} {limit}"));
        return Some(format!("[low, high] with {}low ≤ high{}", low.unwrap_or_default(), high.unwrap_or_default()));
    }
    Some(limits(items).map_or("rising".into(), |limits| format!("rising, {limits}")))
}

fn limits(schema: &Value) -> Option<String> {
    let limit = |name: &str| schema.get(name).map(number);
    let (least, above) = (limit("minimum"), limit("exclusiveMinimum"));
    let (most, below) = (limit("maximum"), limit("exclusiveMaximum"));
    // Whole numbers are at least 0 anyway.
    let least = least.filter(|least| schema["type"] != "integer" || least != "0");
    let low = least.as_ref().map(|limit| format!("at least {limit}")).or(above.map(|limit| format!("above {limit}")));
    let high = most.as_ref().map(|limit| format!("at most {limit}")).or(below.map(|limit| format!("below {limit}")));
    match (least, most, low, high) {
        (Some(least), Some(most), ..) => Some(format!("between {least} and {most}")),
        (.., Some(low), Some(high)) => Some(format!("{low} and {high}")),
        (.., low, high) => low.or(high),
    }
}

/// Returns a limit without decimals if it is whole.
fn number(limit: &Value) -> String {
    limit.as_f64().unwrap_or_default().to_string()
}

fn is_within(schema: &Value, value: &toml::Value) -> bool {
    let number = match value {
        toml::Value::Integer(number) => *number as f64,
        toml::Value::Float(number) => *number,
        toml::Value::Array(values) => {
            let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|number| number as f64));
            let rises = schema.get("x-rising").is_none() || values.iter().map(number).is_sorted();
            return rises && values.iter().all(|value| is_within(&schema["items"], value));
        }
        _ => return true,
    };
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let listed = schema.get("enum").and_then(Value::as_array);
    number.is_finite()
        && limit("minimum").is_none_or(|limit| number >= limit)
        && limit("exclusiveMinimum").is_none_or(|limit| number > limit)
        && limit("maximum").is_none_or(|limit| number <= limit)
        && limit("exclusiveMaximum").is_none_or(|limit| number < limit)
        && listed.is_none_or(|listed| listed.iter().any(|choice| choice.as_f64() == Some(number)))
}

/// Returns whether a value has the type of an alternative.
fn is_of_type(schema: &Value, value: &toml::Value) -> bool {
    let count = |name: &str| schema.get(name).and_then(Value::as_u64).map(|count| count as usize);
    match value {
        toml::Value::Table(table) => table.keys().all(|key| schema["properties"].get(key).is_some()),
        toml::Value::Array(values) => {
            schema["type"] == "array"
                && count("maxItems").is_none_or(|most| values.len() <= most)
                && count("minItems").is_none_or(|least| values.len() >= least)
        }
        toml::Value::Integer(_) => schema["type"] == "integer" || schema["type"] == "number",
        toml::Value::Float(_) => schema["type"] == "number",
        toml::Value::Boolean(_) => schema["type"] == "boolean",
        _ => schema["type"] == "string",
    }
}

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_described_and_checked() {
        let number = json!({ "type": "number", "minimum": 0, "exclusiveMaximum": 1 });
        let count = json!({ "type": "integer", "minimum": 0, "maximum": 1024 });
        let pair = json!({ "maxItems": 2, "items": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 }, "x-rising": true });
        let listed = json!({ "type": "integer", "enum": [1, 3] });
        let text = |schema: &Value| range_text(schema).unwrap();
        assert_eq!(text(&number), "at least 0 and below 1");
        assert_eq!(text(&count), "at most 1024");
        assert_eq!(text(&pair), "[low, high] with 0 < low ≤ high ≤ 1");
        assert_eq!(text(&listed), "1 or 3");
        assert_eq!(range_text(&json!({ "type": "integer", "minimum": 0 })), None);
        for (schema, valid, invalid) in [
            (&number, "[0.0, 0.999]", "[-0.1, 1.0, nan]"),
            (&count, "[0, 1024]", "[1025]"),
            (&pair, "[[0.5, 0.5], [0.1, 1.0]]", "[[0.6, 0.5], [0.0, 1.0], [0.5, 1.1], [nan, 1.0]]"),
            (&listed, "[1, 3]", "[2]"),
        ] {
            let all = |list: &str, within: bool| {
                let list: toml::Table = format!("list = {list}").parse().unwrap();
                list["list"].as_array().unwrap().iter().all(|value| is_within(schema, value) == within)
            };
            assert!(all(valid, true) && all(invalid, false), "{schema}");
        }
    }
}
