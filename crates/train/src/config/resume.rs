//! Recipe keys that may change when a run is resumed.

use super::file::RecipeFile;

/// Keys that a resumed run may change, including all keys below them. They affect the length and
/// speed of a run, but not the meaning of its weights, optimizer state and position in the data. A
/// change of `data.val_fraction` changes the data, which is checked separately.
pub const RESUMABLE: [&str; 22] = [
    "epochs",
    "early_stopping",
    "on_nan",
    "gradient_checkpointing",
    "record_steps",
    "precision",
    "sync_batch_norm",
    "data.path",
    "data.val_fraction",
    "data.classes_may_differ",
    "data.may_change",
    "data.workers",
    "data.prefetch",
    "data.fast_decode",
    "data.cache",
    "data.max_pixels",
    "optimizer.learning_rate",
    "optimizer.learning_rate_per",
    "optimizer.clip_norm",
    "optimizer.adaptive_clip",
    "schedule",
    "checkpoint",
];

/// A key with different values in two recipes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Full key.
    pub(crate) key: String,
    /// Old and new value as TOML, or `None` if the key is not set.
    pub(crate) values: [Option<String>; 2],
}

impl Change {
    /// Returns whether a resumed run may make this change.
    pub(crate) fn is_allowed(&self) -> bool {
        let covers =
            |known: &&str| self.key.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        RESUMABLE.iter().any(covers)
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [old, new] = self.values.each_ref().map(|value| value.as_deref().unwrap_or("not set"));
        write!(f, "{} from {old} to {new}", self.key)
    }
}

/// Returns the keys whose values differ between two recipes, given as TOML.
pub(crate) fn changes(old: &str, new: &str) -> Vec<Change> {
    // Fills in the defaults of this version, so that keys added since the older version are not
    // reported.
    let flat = |text: &str| {
        let text = RecipeFile::parse(text, "checkpoint", &[]).map_or(text.into(), |recipe| recipe.to_toml());
        let mut keys = Vec::new();
        flatten("", &toml::Value::Table(text.parse().unwrap_or_default()), &mut keys);
        keys
    };
    let (old, new) = (flat(old), flat(new));
    let value =
        |keys: &[(String, String)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    let only_new = new.iter().filter(|(key, _)| value(&old, key).is_none());
    let keys = old.iter().chain(only_new).map(|(key, _)| key);
    keys.map(|key| Change { key: key.clone(), values: [value(&old, key), value(&new, key)] })
        .filter(|change| change.values[0] != change.values[1])
        .collect()
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
    let table = match value {
        toml::Value::Table(table) => table,
        // The debug format uses an exponent for large and small numbers.
        toml::Value::Float(number) => return into.push((prefix.into(), format!("{number:?}"))),
        value => return into.push((prefix.into(), value.to_string())),
    };
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&key, value, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "epochs = 3\nbatch_size = 4\n[model]\nname = \"mobilenet_v2_0.1\"\n[input]\nsize = 32\n\
                        [optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";

    #[test]
    fn changes_list_the_differing_keys() {
        let with = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            RecipeFile::parse(TEXT, "text", &settings).unwrap().to_toml()
        };
        assert!(changes(TEXT, &with(&[])).is_empty());
        let changes = |settings: &[&str]| -> Vec<(String, bool)> {
            let changes = changes(TEXT, &with(settings));
            changes.iter().map(|change| (change.to_string(), change.is_allowed())).collect()
        };
        for (setting, text, allowed) in [
            ("epochs=5", "epochs from 3 to 5", true),
            ("optimizer.clip_norm=1.0", "optimizer.clip_norm from not set to 1.0", true),
            ("schedule.warmup_epochs=2", "schedule.warmup_epochs from 0.0 to 2.0", true),
            ("checkpoint.minutes=3", "checkpoint.minutes from 10.0 to 3.0", true),
            ("data.workers=3", "data.workers from 0 to 3", true),
            ("data.exif_orientation=true", "data.exif_orientation from false to true", false),
            ("batch_size=8", "batch_size from 4 to 8", false),
            ("optimizer.momentum=0.5", "optimizer.momentum from 0.9 to 0.5", false),
            ("model.dropout=0.5", "model.dropout from not set to 0.5", false),
        ] {
            assert_eq!(changes(&[setting]), [(text.to_string(), allowed)]);
        }
        assert_eq!(changes(&["epochs=9", "schedule.name=linear"]).len(), 2);
    }

    #[test]
    fn resumable_keys_exist_in_the_recipe() {
        let settings =
            ["data.path=x", "optimizer.learning_rate_per=256", "optimizer.clip_norm=1", "optimizer.adaptive_clip=0.1"];
        let settings = settings.map(String::from);
        let text = RecipeFile::parse(TEXT, "text", &settings).unwrap().to_toml();
        let mut keys = Vec::new();
        flatten("", &toml::Value::Table(text.parse().unwrap()), &mut keys);
        for known in RESUMABLE {
            let found = keys.iter().any(|(key, _)| key == known || key.starts_with(&format!("{known}.")));
            assert!(found, "{known}");
        }
    }
}
