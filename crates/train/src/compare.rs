//! Comparison of runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::history::{METRICS, RECIPE, metric_of};
use crate::report::History;

/// Summary of a run folder.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Path of the folder.
    pub path: PathBuf,
    /// Name of the architecture.
    pub model: String,
    /// Number of completed epochs.
    pub epochs: usize,
    /// Number of epochs in the recipe.
    pub planned_epochs: usize,
    /// Epoch with the best validation score of the network or its moving average, by
    /// `checkpoint.metric`.
    pub best_epoch: Option<usize>,
    /// Top-1 accuracy in that epoch.
    pub top1: Option<f64>,
    /// Top-5 accuracy in that epoch.
    pub top5: Option<f64>,
    /// Validation loss in that epoch.
    pub val_loss: Option<f64>,
    /// Training loss of the last epoch.
    pub train_loss: Option<f64>,
    /// Median of the training images per second of all epochs.
    pub images_per_second: Option<f64>,
    /// Training time in seconds.
    pub seconds: f64,
    /// True if top-5 accuracy is below 1 in an epoch. With up to five classes it never is.
    #[serde(skip)]
    pub shows_top5: bool,
    /// Results of the epochs.
    #[serde(skip)]
    pub history: History,
    /// The recipe's dotted keys with their values as TOML.
    #[serde(skip)]
    recipe: BTreeMap<String, String>,
}

/// Errors of comparing runs.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The folder is not a run folder.
    #[error("{path} is no training run: it has no {RECIPE}")]
    NoRun {
        /// Path of the folder.
        path: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The recipe is invalid.
    #[error("the recipe {path} is damaged: {message}")]
    Recipe {
        /// Path of the file.
        path: String,
        /// Description of the error.
        message: String,
    },
}

impl RunSummary {
    /// Reads a run folder. The run may still be in progress.
    ///
    /// # Errors
    /// Returns an error if the folder is not a run folder or a file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, CompareError> {
        let file = folder.join(RECIPE);
        let shown = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                CompareError::NoRun { path: folder.display().to_string() }
            }
            _ => CompareError::Read { path: shown.clone(), source },
        })?;
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| CompareError::Recipe { path: shown, message: error.message().into() })?;
        let metrics = folder.join(METRICS);
        let history = History::read(&metrics)
            .map_err(|source| CompareError::Read { path: metrics.display().to_string(), source })?
            .selected_by(metric_of(&table));
        let mut recipe = BTreeMap::new();
        flatten("", &toml::Value::Table(table.clone()), &mut recipe);

        let best = history.best();
        let mut speeds: Vec<f64> = history.column("images_per_second").into_iter().map(|point| point.1).collect();
        speeds.sort_by(f64::total_cmp);
        let model = table.get("model").and_then(|model| model.get("name")).and_then(toml::Value::as_str);
        let planned = table.get("epochs").and_then(toml::Value::as_integer).unwrap_or(0);
        Ok(Self {
            path: folder.into(),
            model: model.unwrap_or("?").into(),
            epochs: history.len(),
            planned_epochs: planned.max(0) as usize,
            best_epoch: best.map(|best| best.epoch),
            top1: best.map(|best| best.top1),
            top5: best.and_then(|best| best.top5),
            val_loss: best.and_then(|best| best.loss),
            train_loss: history.last("train_loss"),
            shows_top5: ["train_top5", "val_top5"].iter().any(|name| history.column(name).iter().any(|p| p.1 < 1.0)),
            images_per_second: speeds.get(speeds.len() / 2).copied(),
            seconds: history.column("seconds").iter().map(|point| point.1).sum(),
            history,
            recipe,
        })
    }
}

/// A recipe key with different values, and its value in each run; `None` if a recipe does not
/// contain the key.
pub type Difference = (String, Vec<Option<String>>);

/// Returns the keys with different values in the runs' recipes.
pub fn differences(runs: &[RunSummary]) -> Vec<Difference> {
    let mut keys: Vec<&String> = runs.iter().flat_map(|run| run.recipe.keys()).collect();
    keys.sort();
    keys.dedup();
    let row = |key: &String| (key.clone(), runs.iter().map(|run| run.recipe.get(key).cloned()).collect::<Vec<_>>());
    keys.into_iter().map(row).filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    let toml::Value::Table(table) = value else {
        into.insert(prefix.into(), value.to_string());
        return;
    };
    for (key, value) in table {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        flatten(&dotted, value, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(folder: &Path, name: &str, recipe: &str, metrics: &str) -> RunSummary {
        let folder = folder.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(RECIPE), recipe).unwrap();
        std::fs::write(folder.join(METRICS), metrics).unwrap();
        RunSummary::read(&folder).unwrap()
    }

    #[test]
    fn best_epoch_and_recipe_differences_are_reported() {
        let root = tempfile::tempdir().unwrap();
        let head = "epoch,train_loss,val_loss,val_top1,val_top5,images_per_second,seconds\n";
        let rows = "1,2.0,1.5,0.5,0.9,100,10\n2,1.0,1.4,0.6,0.95,120,9\n3,0.9,1.3,0.6,0.94,110,9.5\n";
        let a = run(root.path(), "a", "epochs = 5\n[model]\nname = \"x\"", &format!("{head}{rows}"));
        assert_eq!((a.best_epoch, a.top1, a.top5, a.val_loss), (Some(3), Some(0.6), Some(0.94), Some(1.3)));
        assert_eq!((a.epochs, a.planned_epochs, a.images_per_second, a.seconds), (3, 5, Some(110.0), 28.5));
        let b = run(root.path(), "b", "epochs = 5\n[model]\nname = \"y\"\n[mix]\nmixup = 0.2", "");
        assert_eq!((b.epochs, b.top1), (0, None));
        let c = run(root.path(), "c", "", "epoch,train_top5,val_top1,val_top5\n1,1.0,0.5,1.0\n2,1.0,0.6,1.0\n");
        assert_eq!((a.shows_top5, b.shows_top5, c.shows_top5, c.top5), (true, false, false, Some(1.0)));
        let differences = differences(&[a, b]);
        let keys: Vec<&str> = differences.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["mix.mixup", "model.name"]);
        assert_eq!(differences[0].1, [None, Some("0.2".into())]);
        assert!(matches!(RunSummary::read(root.path()), Err(CompareError::NoRun { .. })));
    }
}
