//! Similar names for a misspelled one.

use serde_json::Value;

use super::schema::{alternatives, properties};

/// Returns the name that is closest to a misspelled one, if one is close.
pub fn nearest<'a>(misspelled: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (misspelled.chars().count() / 3).clamp(1, 3);
    let distance = |name: &&str| strsim::damerau_levenshtein(misspelled, name);
    let close = names.into_iter().map(|name| (distance(&name), name)).filter(|(distance, _)| *distance <= most);
    close.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Returns a hint for the first key or value of `table` that is not in its schema. `name` is the
/// name of the table in a recipe.
pub(super) fn hint(schema: &Value, table: &toml::Table, name: &str) -> Option<String> {
    let all = key_names(schema, name);
    match fault(schema, table, name)? {
        Fault::Key { section, key, keys } => {
            let beside = nearest(&key, keys.iter().map(String::as_str)).map(|near| dotted(&section, near));
            let elsewhere = || all.iter().find(|known| known.rsplit('.').next() == Some(&key)).cloned();
            let meant = beside.or_else(elsewhere).map(|near| format!("did you mean `{near}`? "));
            let section = if section.is_empty() { section } else { format!(" {section}") };
            Some(format!("{}`mbconv recipe keys{section}` lists the keys", meant.unwrap_or_default()))
        }
        Fault::Value { value, choices } => {
            nearest(&value, choices.iter().map(String::as_str)).map(|near| format!("did you mean \"{near}\"?"))
        }
    }
}

/// A key or value that is not in the schema.
enum Fault {
    Key { section: String, key: String, keys: Vec<String> },
    Value { value: String, choices: Vec<String> },
}

fn fault(schema: &Value, table: &toml::Table, name: &str) -> Option<Fault> {
    let keys = properties(schema)?;
    table.iter().find_map(|(key, value)| {
        let Some(schema) = keys.get(key) else {
            let keys = keys.keys().cloned().collect();
            return Some(Fault::Key { section: name.into(), key: key.clone(), keys });
        };
        let inner = dotted(name, key);
        match value {
            toml::Value::Table(table) => fault(schema, table, &inner),
            toml::Value::Array(rows) => {
                rows.iter().filter_map(toml::Value::as_table).find_map(|row| fault(schema, row, &inner))
            }
            toml::Value::String(value) => {
                let choices = choices(schema);
                let is_wrong = !choices.is_empty() && !choices.contains(value);
                is_wrong.then(|| Fault::Value { value: value.clone(), choices })
            }
            _ => None,
        }
    })
}

/// Returns the names that a key selects among.
fn choices(schema: &Value) -> Vec<String> {
    match alternatives(schema) {
        Some(alternatives) => alternatives.iter().flat_map(choices).collect(),
        None => schema.get("const").and_then(Value::as_str).map(String::from).into_iter().collect(),
    }
}

/// Returns the dotted names of all keys.
fn key_names(schema: &Value, name: &str) -> Vec<String> {
    let keys = properties(schema).into_iter().flatten();
    keys.flat_map(|(key, schema)| {
        let full = dotted(name, key);
        let inner = key_names(schema, &full);
        std::iter::once(full).chain(inner)
    })
    .collect()
}

fn dotted(table: &str, key: &str) -> String {
    if table.is_empty() { key.into() } else { format!("{table}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_close_names_are_suggested() {
        let names = ["momentum", "name", "nesterov"];
        assert_eq!(nearest("momentun", names), Some("momentum"));
        assert_eq!(nearest("nmae", names), Some("name"));
        assert_eq!(nearest("size", names), None);
    }
}
