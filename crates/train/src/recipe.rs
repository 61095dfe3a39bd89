//! Recipes: everything a training run depends on, in one TOML file.
//!
//! A recipe arrives as a [`RecipeFile`], whose keys are checked by name, and becomes a [`Recipe`], whose values are
//! checked too. Nothing runs on an unchecked one.

use std::path::Path;

use mbconv_nets::{Architecture, ArchitectureOptions, Strides};
use serde::{Deserialize, Serialize};

use crate::data::{Crop, Interpolation, Preprocess, TrainTransform};
use crate::optimizer::OptimizerConfig;
use crate::schedule::ScheduleConfig;

/// A recipe as written: known keys, any values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Seed of everything random: weights, sample order, augmentation, dropout.
    #[serde(default)]
    pub seed: u64,
    /// Passes over the training data.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Share of the target spread evenly over all classes (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    /// The network.
    pub model: ModelConfig,
    /// Where images come from.
    #[serde(default)]
    pub data: DataConfig,
    /// What becomes of an image on its way to the network.
    pub input: InputConfig,
    /// How weights are updated.
    pub optimizer: OptimizerConfig,
    /// How the learning rate moves.
    #[serde(default)]
    pub schedule: ScheduleConfig,
}

/// `[model]`: an architecture by name; the number of classes comes from the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name, as `mbconv list` shows them.
    pub name: String,
    /// Strides: `"imagenet"`, `"cifar"` or a list.
    #[serde(default)]
    pub strides: Strides,
    /// Dropout before the classifier; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Stochastic depth at the last block; as published by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
}

impl ModelConfig {
    /// The named architecture for `classes` classes of RGB images.
    pub fn options(&self, classes: usize) -> ArchitectureOptions {
        ArchitectureOptions {
            strides: self.strides.clone(),
            dropout: self.dropout,
            drop_path: self.drop_path,
            ..ArchitectureOptions::new(&self.name, classes)
        }
    }
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Path of the data set, or the name of an embedded one. The command line's `--data` replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Share of the images kept for validation where the data does not come split.
    pub val_fraction: f64,
    /// Threads that decode and transform; 0 means one a processor core.
    pub workers: usize,
    /// Batches ready ahead of the training step.
    pub prefetch: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self { path: None, val_fraction: 0.2, workers: 0, prefetch: 4 }
    }
}

/// `[input]`: sizes in pixels of the square that the network sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Side of the training image.
    pub size: usize,
    /// How the training image is cut out.
    #[serde(default)]
    pub crop: CropKind,
    /// `crop = "random_resized"`: range of the crop's share of the area.
    #[serde(default = "default_scale")]
    pub scale: [f64; 2],
    /// `crop = "random_resized"`: range of width over height.
    #[serde(default = "default_ratio")]
    pub ratio: [f64; 2],
    /// `crop = "pad"`: zeros added on every side before a random crop.
    #[serde(default = "default_padding")]
    pub padding: usize,
    /// Probability of mirroring left to right.
    #[serde(default = "half")]
    pub horizontal_flip: f64,
    /// Filter of every resize.
    #[serde(default = "bilinear")]
    pub interpolation: Interpolation,
    /// Evaluation: side of the centre crop; `size` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_size: Option<usize>,
    /// Evaluation: length of the shorter side before the crop; `eval_size` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_resize: Option<usize>,
    /// Mean of each channel, of values in [0, 1]; ImageNet's by default.
    #[serde(default = "imagenet_mean")]
    pub mean: [f32; 3],
    /// Standard deviation of each channel; ImageNet's by default.
    #[serde(default = "imagenet_std")]
    pub std: [f32; 3],
}

/// Ways to cut out a training image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropKind {
    /// A random part of random aspect ratio (torchvision's `RandomResizedCrop`): for photographs.
    #[default]
    RandomResized,
    /// Pad with zeros, then crop at random: for small images.
    Pad,
    /// Resize, then crop the centre.
    Centre,
}

fn default_scale() -> [f64; 2] {
    [0.08, 1.0]
}
fn default_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}
fn default_padding() -> usize {
    4
}
fn half() -> f64 {
    0.5
}
fn bilinear() -> Interpolation {
    Interpolation::Bilinear
}
fn imagenet_mean() -> [f32; 3] {
    [0.485, 0.456, 0.406]
}
fn imagenet_std() -> [f32; 3] {
    [0.229, 0.224, 0.225]
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read the recipe {path}: {source}")]
    Read {
        /// Path of the recipe.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or missing key, a value of the wrong type.
    #[error("in the recipe {path}: {message}")]
    Parse {
        /// Path of the recipe.
        path: String,
        /// What is wrong, with the key's name.
        message: String,
    },
    /// An override that is not `key=value`, or whose key leads nowhere.
    #[error("cannot set `{setting}`: {message}")]
    Override {
        /// The override as given.
        setting: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value outside its range.
    #[error("the recipe's `{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Full key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The network cannot be built so.
    #[error("the recipe's [model]: {0}")]
    Model(#[from] mbconv_nets::ArchitectureError),
}

impl RecipeFile {
    /// Parses TOML, then sets each of `overrides` (`key=value`, dotted keys, TOML values; bare words are strings).
    ///
    /// # Errors
    /// Anything wrong with the text or an override, by key.
    pub fn parse(text: &str, path: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let parse = |message: String| RecipeError::Parse { path: path.into(), message };
        if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            return toml::from_str(text).map_err(|error| parse(error.to_string().trim_end().into()));
        }
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| parse(error.to_string().trim_end().into()))?;
        for setting in overrides {
            set(&mut table, setting).map_err(|message| RecipeError::Override { setting: setting.clone(), message })?;
        }
        table.try_into().map_err(|error: toml::de::Error| parse(error.to_string().trim_end().into()))
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), or a file that cannot be read.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: shown.clone(), source })?;
        Self::parse(&text, &shown, overrides)
    }

    /// As TOML with every default spelt out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain data")
    }
}

/// Sets one `key=value` in `table`.
fn set(table: &mut toml::Table, setting: &str) -> Result<(), String> {
    let (key, value) = setting.split_once('=').ok_or("expected key=value, such as epochs=10")?;
    let (key, value) = (key.trim(), value.trim());
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value = parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.trim_matches('"').into()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or("the key is empty")?;
    let mut table = table;
    for part in parts {
        table = table
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("`{part}` is a value, not a table"))?;
    }
    table.insert(last.into(), value);
    Ok(())
}

/// A recipe whose every value is possible.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe(RecipeFile);

impl std::ops::Deref for Recipe {
    type Target = RecipeFile;
    fn deref(&self) -> &RecipeFile {
        &self.0
    }
}

impl TryFrom<RecipeFile> for Recipe {
    type Error = RecipeError;

    fn try_from(file: RecipeFile) -> Result<Self, RecipeError> {
        let unit = |key: &str, value: f64| ensure((0.0..=1.0).contains(&value), key, value, "in [0, 1]");
        let count = |key: &str, value: usize, most: usize| {
            ensure((1..=most).contains(&value), key, value, &format!("between 1 and {most}"))
        };
        let RecipeFile { input, data, optimizer, schedule, .. } = &file;
        count("epochs", file.epochs, 1_000_000)?;
        count("batch_size", file.batch_size, 1 << 20)?;
        ensure((0.0..1.0).contains(&file.label_smoothing), "label_smoothing", file.label_smoothing, "in [0, 1)")?;
        ensure(
            data.val_fraction > 0.0 && data.val_fraction < 1.0,
            "data.val_fraction",
            data.val_fraction,
            "between 0 and 1, both excluded",
        )?;
        ensure(data.workers <= 1024, "data.workers", data.workers, "at most 1024")?;
        count("data.prefetch", data.prefetch, 1024)?;
        count("input.size", input.size, 8192)?;
        let [eval_size, eval_resize] = [file.eval_size(), file.eval_resize()];
        count("input.eval_size", eval_size, 8192)?;
        count("input.eval_resize", eval_resize, 8192)?;
        ensure(input.padding <= input.size, "input.padding", input.padding, "at most input.size")?;
        unit("input.horizontal_flip", input.horizontal_flip)?;
        let range = |key: &str, [low, high]: [f64; 2], most: f64| {
            let holds = low > 0.0 && low <= high && high <= most;
            ensure(holds, key, format!("[{low}, {high}]"), &format!("[low, high] with 0 < low ≤ high ≤ {most}"))
        };
        range("input.scale", input.scale, 1.0)?;
        range("input.ratio", input.ratio, 100.0)?;
        for (mean, std) in input.mean.iter().zip(input.std) {
            ensure(mean.is_finite(), "input.mean", mean, "finite")?;
            ensure(std.is_finite() && std > 0.0, "input.std", std, "above 0")?;
        }
        optimizer.check()?;
        schedule.check(file.epochs)?;
        // Any number of classes shows whether the network can be built.
        file.model.options(2).architecture()?;
        Ok(Self(file))
    }
}

impl RecipeFile {
    fn eval_size(&self) -> usize {
        self.input.eval_size.unwrap_or(self.input.size)
    }

    fn eval_resize(&self) -> usize {
        self.input.eval_resize.unwrap_or(self.eval_size())
    }
}

impl Recipe {
    /// Parses and checks; see [`RecipeFile::parse`].
    ///
    /// # Errors
    /// What is wrong, by key.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        RecipeFile::parse(text, "text", overrides)?.try_into()
    }

    /// The network for `classes` classes.
    ///
    /// # Errors
    /// None that checking the recipe would not have found, but for a number of classes of 0.
    pub fn architecture(&self, classes: usize) -> Result<Architecture, RecipeError> {
        Ok(self.model.options(classes).architecture()?)
    }

    /// What becomes of a training image.
    pub fn train_transform(&self) -> TrainTransform {
        let InputConfig { size, crop, scale, ratio, padding, horizontal_flip, interpolation, .. } = self.0.input;
        let crop = match crop {
            CropKind::RandomResized => Crop::RandomResized { scale: scale.into(), ratio: ratio.into() },
            CropKind::Pad => Crop::PadAndCrop { padding },
            CropKind::Centre => Crop::Centre,
        };
        TrainTransform { size, interpolation, crop, horizontal_flip }
    }

    /// What becomes of an image in evaluation, and what the model file will say of it.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess {
            resize: self.eval_resize(),
            crop: self.eval_size(),
            interpolation: self.input.interpolation,
            mean: self.input.mean,
            std: self.input.std,
        }
    }

    /// Number of loader threads.
    pub fn workers(&self) -> usize {
        match self.data.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

pub(crate) fn ensure(holds: bool, key: &str, value: impl ToString, expected: &str) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError::OutOfRange { key: key.into(), value: value.to_string(), expected: expected.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        epochs = 3
        batch_size = 16
        [model]
        name = "mobilenet_v2_0.25"
        strides = "cifar"
        [input]
        size = 32
        crop = "pad"
        [optimizer]
        name = "sgd"
        learning_rate = 0.1
    "#;

    fn parse(overrides: &[&str]) -> Result<Recipe, RecipeError> {
        Recipe::parse(TEXT, &overrides.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_are_filled_in_and_survive_the_round_trip() {
        let recipe = parse(&[]).unwrap();
        assert_eq!(recipe.preprocess().resize, 32);
        assert_eq!(recipe.train_transform().crop, Crop::PadAndCrop { padding: 4 });
        let again = Recipe::parse(&recipe.to_toml(), &[]).unwrap();
        assert_eq!(recipe, again);
    }

    #[test]
    fn any_key_can_be_set() {
        let recipe = parse(&["epochs=7", "model.name=efficientnet_b0", "input.scale=[0.5, 1.0]", "data.workers = 3"]);
        let recipe = recipe.unwrap();
        assert_eq!((recipe.epochs, recipe.data.workers), (7, 3));
        assert_eq!(recipe.model.name, "efficientnet_b0");
        assert_eq!(recipe.input.scale, [0.5, 1.0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (setting, words) in [
            ("epocs=3", "epocs"),
            ("optimizer.momentun=0.9", "momentun"),
            ("epochs=0", "`epochs` is 0"),
            ("epochs=many", "epochs"),
            ("input.std=[0.1, 0.0, 0.1]", "input.std"),
            ("input.scale=[0.9, 0.1]", "input.scale"),
            ("optimizer.learning_rate=-1", "optimizer.learning_rate"),
            ("optimizer.learning_rate=nan", "optimizer.learning_rate"),
            ("schedule.warmup_epochs=4", "schedule.warmup_epochs"),
            ("model.name=vgg", "vgg"),
            ("model.strides=[1,2]", "strides"),
            ("label_smoothing=1.0", "label_smoothing"),
            ("epochs", "key=value"),
            ("epochs.x=1", "`epochs` is a value"),
            ("=3", "key is empty"),
        ] {
            let error = parse(&[setting]).unwrap_err().to_string();
            assert!(error.contains(words), "{setting}: {error}");
        }
    }

    #[test]
    fn misspelt_keys_show_their_line() {
        let error = RecipeFile::parse(&TEXT.replace("batch_size", "batchsize"), "x.toml", &[]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("x.toml") && text.contains("line 3") && text.contains("batchsize"), "{text}");
    }
}
