//! The keys, ranges and defaults that are derived from the structs of recipes.

use mbconv_train::Recipe;
use mbconv_train::config::{EMBEDDED, Key, RecipeError, RecipeFile, line_of, sections};
use serde_json::Value;

const TEXT: &str = "\
epochs = 5
batch_size = 16
[model]
name = \"mobilenet_v2_0.25\"
[input]
size = 32
[optimizer]
name = \"sgd\"
learning_rate = 0.1
";

/// Settings with which every optional table can be parsed.
const TABLES: [&str; 5] =
    ["ema={}", "finetune={}", "distillation={teacher='x'}", "input.progressive={start=16}", "quantization={}"];

fn parse(settings: &[String]) -> Result<Recipe, RecipeError> {
    Recipe::parse(TEXT, settings)
}

fn all_keys() -> Vec<Key> {
    sections().into_iter().flat_map(|section| section.keys).collect()
}

#[test]
fn sections_list_exactly_the_keys_that_parsing_accepts() {
    let sections = sections();
    let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
    for name in ["", "model", "model.table", "input.progressive", "augment.erasing", "optimizer", "finetune"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for section in &sections {
        let setting = match section.name.as_str() {
            "" => "unknown=1".into(),
            name if section.repeats => format!("{name}=[{{unknown=1}}]"),
            name => format!("{name}={{unknown=1}}"),
        };
        let error = RecipeFile::parse(TEXT, "text", &[setting]).unwrap_err().to_string();
        let line = error.lines().find(|line| line.contains("expected")).unwrap_or(&error);
        let (_, expected) = line.split_once("expected").unwrap_or_else(|| panic!("{error}"));
        let mut accepted: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        // The values of these are the data's and `input.size`.
        accepted.retain(|key| section.name != "model" || !["classes", "resolution"].contains(key));
        let prefix = if section.name.is_empty() { String::new() } else { format!("{}.", section.name) };
        let inner = sections.iter().filter_map(|inner| inner.name.strip_prefix(&prefix));
        let inner = inner.filter(|name| !name.is_empty() && !name.contains('.')).map(String::from);
        let mut listed: Vec<String> =
            section.keys.iter().map(|key| key.key[prefix.len()..].to_string()).chain(inner).collect();
        listed.sort();
        listed.dedup();
        accepted.sort();
        assert_eq!(listed, accepted, "{}", section.name);
    }
    assert!(sections.iter().flat_map(|section| &section.keys).all(|key| key.description.ends_with('.')));
}

#[test]
fn every_limit_of_the_schema_is_enforced() {
    let mut checked = 0;
    let mut check = |key: &str, schema: &Value| {
        let in_list = schema.get("items").filter(|items| items["type"] != "object");
        let limits = in_list.unwrap_or(schema);
        let limit = |name: &str| limits.get(name).and_then(Value::as_f64);
        let outside = [
            limit("minimum").map(|limit| limit - 1.0).filter(|limit| *limit >= 0.0 || limits["type"] == "number"),
            limit("exclusiveMinimum"),
            limit("maximum").map(|limit| limit + 1.0),
            limit("exclusiveMaximum"),
        ];
        for value in outside.into_iter().flatten() {
            let count = schema["minItems"].as_u64().unwrap_or(1) as usize;
            let listed = || format!("[{}]", vec![value.to_string(); count].join(", "));
            let value = if in_list.is_some() { listed() } else { value.to_string() };
            let setting = match key.strip_prefix("model.table.stages.") {
                Some("channels") => format!("model.table.stages=[{{channels=8}},{{channels={value}}}]"),
                Some(key) => format!("model.table.stages=[{{channels=8}},{{channels=8,{key}={value}}}]"),
                None => format!("{key}={value}"),
            };
            let table = "model.table={name='x',stages=[{channels=8}]}";
            let tables = TABLES.into_iter().chain(key.starts_with("model.table.").then_some(table));
            // A required key of a table that is set above is replaced.
            let settings: Vec<String> = tables.map(String::from).chain([setting.clone()]).collect();
            let error = parse(&settings).map(|_| ()).unwrap_err().to_string();
            let name = if key.starts_with("model.table") { key.rsplit('.').next().unwrap() } else { key };
            // Parsing rejects values outside the integer type.
            let reason = error.contains("must be") || error.contains("expected u8");
            assert!(error.contains(name) && reason, "{setting}: {error}");
            checked += 1;
        }
    };
    walk(RecipeFile::schema(), "", &mut check);
    assert!(checked > 90, "{checked}");
    for setting in ["sampling.repeated=0", "sampling.repeated=101", "model.strides=[1,5]", "augment.color_jitter=101"] {
        assert!(parse(&[setting.into()]).unwrap_err().to_string().contains("must be"), "{setting}");
    }
}

/// Calls `visit` for every key that is not an enum or a table.
fn walk(schema: &Value, prefix: &str, visit: &mut impl FnMut(&str, &Value)) {
    let tables = ["oneOf", "anyOf"].iter().filter_map(|name| schema.get(name)?.as_array()).flatten();
    for table in tables.chain([schema, &schema["items"]]) {
        for (key, schema) in table.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if key == "repeated" {
                continue;
            }
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            visit(&key, schema);
            walk(schema, &key, visit);
        }
    }
}

#[test]
fn listed_defaults_are_those_of_a_parsed_recipe() {
    let settings = TABLES.map(String::from);
    let parsed = RecipeFile::parse(TEXT, "text", &settings).unwrap().to_json();
    let mut compared = 0;
    for key in all_keys() {
        let Some(default) = &key.default else { continue };
        // Some values that equal the default are not written.
        let pointer = format!("/{}", key.key.replace('.', "/"));
        let Some(value) = parsed.pointer(&pointer) else { continue };
        assert_eq!(value, default, "{}", key.key);
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn every_file_of_configs_is_embedded_and_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".toml").to_string())
        .collect();
    let mut names: Vec<&str> = EMBEDDED.iter().map(|recipe| recipe.name).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
    for recipe in EMBEDDED {
        Recipe::parse(recipe.text, &[]).unwrap_or_else(|error| panic!("{}: {error}", recipe.name));
        assert!(!recipe.title().is_empty() && recipe.title().chars().count() < 50, "{}", recipe.title());
    }
}

#[test]
fn misspelled_keys_and_values_have_hints() {
    for (setting, hint) in [
        ("optimizer.momentun=0.9", "did you mean `optimizer.momentum`? `mbconv recipe keys optimizer` lists the keys"),
        ("learning_rate=0.1", "did you mean `optimizer.learning_rate`? `mbconv recipe keys` lists the keys"),
        ("loss={class_weights='balanced',gama=1}", "did you mean `loss.gamma`?"),
        ("optimiser.momentum=0.9", "did you mean `optimizer`?"),
        ("optimizer.name=sgdd", "did you mean \"sgd\"?"),
        ("model.table={name='x',stages=[{chanels=8}]}", "did you mean `model.table.stages.channels`?"),
        ("epochs=0", "`mbconv recipe keys epochs` describes the key"),
    ] {
        let error = parse(&[setting.into()]).unwrap_err();
        let found = error.hint().unwrap_or_default();
        assert!(found.starts_with(hint), "{setting}: {found}: {error}");
    }
    let error = RecipeFile::read("digts".as_ref(), &[]).unwrap_err();
    assert!(error.to_string().contains("no recipe `digts`"), "{error}");
    assert!(error.hint().unwrap().contains("did you mean `digits`?"));
    let error = RecipeFile::read("elsewhere/digits.toml".as_ref(), &[]).unwrap_err();
    assert!(error.to_string().contains("cannot read the recipe elsewhere/digits.toml"), "{error}");
    assert!(error.hint().unwrap().contains("did you mean `digits`?"));
}

#[test]
fn keys_are_located_by_line() {
    assert_eq!(line_of(TEXT, "batch_size"), Some(2));
    assert_eq!(line_of(TEXT, "input.size"), Some(6));
    assert_eq!(line_of(TEXT, "optimizer.momentum"), Some(7));
    assert_eq!(line_of(TEXT, "ema.decay"), None);
}
