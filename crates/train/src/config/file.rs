//! The whole recipe, before and after its values are checked.

use std::path::Path;
use std::sync::LazyLock;

use mbconv_nets::{Architecture, NetworkOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch_size::{self, BatchSize, MAX_BATCH};
use super::checkpoint::CheckpointConfig;
use super::data::DataConfig;
use super::defaults;
use super::embedded::read_recipe;
use super::error::{RecipeError, ensure};
use super::finetune::FinetuneConfig;
use super::input::InputConfig;
use super::loss::{DistillationConfig, LossConfig};
use super::mix::MixConfig;
use super::quantization::QuantizationConfig;
use super::range::check_ranges;
use super::schema::schema_of;
use super::{augment, model, setting, suggest};
use crate::device::{Device, is_gpu, is_host};
use mbconv_data::augment::{AugmentConfig, AugmentOn, Augmentation};
use mbconv_data::{Preprocess, Sampling, TrainTransform};
use mbconv_interop::model_file::ModelCard;

use crate::config::ema::EmaConfig;
use crate::config::optimizer::OptimizerConfig;
use crate::config::schedule::ScheduleConfig;
use crate::precision::MapPrecision;

/// A parsed recipe with checked keys and unchecked values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// Random seed of the weights, the sample order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Number of epochs.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: usize,
    /// Number of images per batch.
    #[serde(with = "batch_size")]
    #[schemars(with = "BatchSize")]
    pub batch_size: usize,
    /// Number of batches whose gradients are averaged for one optimizer step, as for one large
    /// batch. Batches that remain at the end of an epoch make a smaller step.
    #[serde(default = "defaults::one_count")]
    #[schemars(range(min = 1, max = MAX_BATCH))]
    pub accumulate: usize,
    /// Label smoothing: share of the target that is spread evenly over all classes (Szegedy et al.
    /// 2016).
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub label_smoothing: f64,
    /// Reaction to a loss or gradient that is not finite.
    #[serde(default)]
    pub on_nan: OnNan,
    /// End the run after this many epochs without an improvement on the validation split; 0
    /// disables early stopping.
    #[serde(default)]
    pub early_stopping: usize,
    /// Recompute cheap activations in the backward pass instead of storing them, which saves memory
    /// and costs time.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// On GPUs, record an optimizer step after the first few steps, and replay it.
    #[serde(default = "defaults::yes")]
    pub record_steps: bool,
    /// Precision of the feature maps in training.
    #[serde(default)]
    pub precision: MapPrecision,
    /// Compute batch-norm statistics over the batches of all processes.
    #[serde(default)]
    pub sync_batch_norm: bool,
    /// Sampling of the training images in an epoch.
    #[serde(default)]
    pub sampling: Sampling,
    /// The network: its architecture and changes to it.
    pub model: NetworkOptions,
    /// The data set and how to read it.
    #[serde(default)]
    pub data: DataConfig,
    /// Size of the network input in pixels, cropping and normalization.
    pub input: InputConfig,
    /// Augmentation of training images after cropping and horizontal flipping.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), as in timm.
    #[serde(default)]
    pub mix: MixConfig,
    /// The training loss.
    #[serde(default)]
    pub loss: LossConfig,
    /// Knowledge distillation from a teacher network; enabled by the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
    /// The optimizer and gradient clipping.
    pub optimizer: OptimizerConfig,
    /// The learning-rate schedule.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Exponential moving average of the weights; enabled by the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Quantization-aware training: rounds weights and activations to 8 bits; enabled by the
    /// section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<QuantizationConfig>,
    /// Frequency of checkpoints, and models to keep.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Initial weights and frozen layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneConfig>,
}

/// Reaction to a loss or gradient that is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNan {
    /// End the run. The last good checkpoint is kept.
    #[default]
    Stop,
    /// Skip the optimizer step, undo all changes by its batches, and continue.
    Skip,
}

impl RecipeFile {
    /// Parses TOML and applies `overrides` (`key=value`, with dotted keys and TOML values; bare
    /// words are strings). Also reads the file of a stage table that the recipe refers to.
    ///
    /// # Errors
    /// Returns an error with the key if the text, an override or the stage table is invalid.
    pub fn parse(text: &str, path: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let mut file = Self::parse_text(text, path, overrides)?;
        model::resolve(&mut file.model, Path::new(path).parent().unwrap_or(Path::new("")))?;
        Ok(file)
    }

    fn parse_text(text: &str, path: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let parse = |error: toml::de::Error, hint| {
            let message = error.to_string().trim_end().into();
            RecipeError::Parse { path: path.into(), message, hint }
        };
        let hint = |table: &toml::Table| suggest::hint(Self::schema(), table, "");
        if overrides.is_empty() {
            // Parses the text directly, so that errors contain line and column.
            return toml::from_str(text).map_err(|error| parse(error, text.parse().ok().as_ref().and_then(hint)));
        }
        let mut table: toml::Table = toml::from_str(text).map_err(|error| parse(error, None))?;
        for setting in overrides {
            setting::apply(&mut table, setting)
                .map_err(|message| RecipeError::Override { setting: setting.clone(), message })?;
        }
        table.clone().try_into().map_err(|error| parse(error, hint(&table)))
    }

    /// Reads and parses a file, the recipe of a run folder, or a recipe in the program; see
    /// [`read_recipe`].
    ///
    /// # Errors
    /// Returns the errors of [`parse`](Self::parse), or an error if there is no such recipe.
    pub fn read(recipe: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        let (path, text) = read_recipe(recipe)?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// Returns the JSON schema (draft 2020-12) of recipes. Its extension `x-rising` requires a list
    /// in rising order.
    pub fn schema() -> &'static serde_json::Value {
        static SCHEMA: LazyLock<serde_json::Value> = LazyLock::new(schema_of::<RecipeFile>);
        &SCHEMA
    }

    /// Checks the range of every value except those of a stage table, which the network checks.
    fn check_ranges(&self) -> Result<(), RecipeError> {
        let invalid = |error: toml::ser::Error| {
            let message = error.to_string();
            RecipeError::Parse { path: "the recipe".into(), message, hint: None }
        };
        // TOML lacks whole numbers above 2⁶³.
        let mut table = toml::Table::try_from(self).map_err(invalid)?;
        if let Some(toml::Value::Table(model)) = table.get_mut("model") {
            model.remove("table");
        }
        check_ranges(Self::schema(), &toml::Value::Table(table), "")
    }

    /// Returns this recipe with `overrides` applied, as in [`parse`](Self::parse).
    ///
    /// # Errors
    /// Returns an error with the key if an override is invalid.
    pub fn with(&self, overrides: &[String]) -> Result<Self, RecipeError> {
        Self::parse(&self.to_toml(), "preset", overrides)
    }

    /// Returns whether `batch_size` is `"auto"`. Such a recipe can be trained after
    /// [`with_batch_size`](crate::auto_batch::with_batch_size).
    pub fn has_auto_batch(&self) -> bool {
        self.batch_size == batch_size::AUTO
    }

    /// Returns this recipe with batches of `images` images if `batch_size` is `"auto"`.
    pub fn or_batch(self, images: usize) -> Self {
        if self.has_auto_batch() { Self { batch_size: images, ..self } } else { self }
    }

    /// Returns the recipe that a model was trained with, if its file contains one.
    pub fn of_model(card: &ModelCard) -> Option<Self> {
        serde_json::from_value(card.recipe.clone()?).ok()
    }

    /// Returns the recipe as plain data, as stored in a model file.
    pub fn to_json(&self) -> serde_json::Value {
        // By way of text, because a conversion would widen f32 values to f64.
        let text = serde_json::to_string(self).expect("a recipe is plain data");
        serde_json::from_str(&text).expect("the text is valid JSON")
    }

    /// Returns the recipe as TOML, including all default values.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain data")
    }
}

/// Returns the line of a key, or of its table, in a recipe, counted from 1.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut start = None;
    for part in key.split('.') {
        let Some((name, value)) = table.get_key_value(part) else { break };
        start = Some(name.span().start);
        let Some(inner) = value.get_ref().as_table() else { break };
        table = inner;
    }
    start.map(|start| text[..start].matches('\n').count() + 1)
}

/// A recipe with checked values.
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
        file.check_ranges()?;
        ensure(!file.has_auto_batch(), "batch_size", "\"auto\"", "a number here: only training chooses it")?;
        file.input.check(file.epochs)?;
        file.augment.color_jitter.as_ref().map_or(Ok(()), augment::check_jitter)?;
        file.mix.check(file.epochs)?;
        file.loss.check()?;
        file.optimizer.check()?;
        file.schedule.check(file.epochs)?;
        let rounds_maps = file.precision == MapPrecision::Bf16;
        ensure(!rounds_maps || file.quantization.is_none(), "precision", "\"bf16\"", "\"f32\" with [quantization]")?;
        let named = !file.model.name.is_empty() || file.model.table.is_some();
        ensure(named, "model.name", "missing", "an architecture's name, or model.table a stage table")?;
        let (classes, resolution) = (file.model.num_classes, file.model.resolution);
        ensure(classes == 0, "model.classes", classes, "left out: the number of classes is the data's")?;
        ensure(resolution.is_none(), "model.resolution", format!("{resolution:?}"), "left out: set input.size")?;
        // The number of classes does not affect whether the network can be built.
        let architecture = file.model.with_classes(2).architecture()?;
        if file.model.table.is_some() {
            architecture.check_side(file.input.size.shorter())?;
        }
        let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
        file.finetune.as_ref().map_or(Ok(()), |finetune| finetune.check(stages))?;
        Ok(Self(file))
    }
}

impl Recipe {
    /// Parses and checks a recipe; see [`RecipeFile::parse`].
    ///
    /// # Errors
    /// Returns an error with the key if the text, an override or a value is invalid.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        RecipeFile::parse(text, "text", overrides)?.try_into()
    }

    /// Returns the architecture of the network for `classes` classes.
    ///
    /// # Errors
    /// Returns an error if `classes` is 0. Other errors were found when the recipe was checked.
    pub fn architecture(&self, classes: usize) -> Result<Architecture, RecipeError> {
        Ok(self.model.with_classes(classes).architecture()?)
    }

    /// Returns the transform of training images.
    pub fn train_transform(&self) -> TrainTransform {
        let input = &self.0.input;
        let augmentation = Augmentation::new(self.0.augment.clone(), input.interpolation, input.mean, input.std);
        TrainTransform { augmentation, ..input.train_transform(self.0.epochs) }
    }

    /// Returns the transform of training images for `device`, on which part of the augmentation may
    /// run.
    pub fn train_transform_for(&self, device: &Device) -> TrainTransform {
        let deferred = match self.0.augment.on {
            AugmentOn::Auto => is_gpu(device),
            AugmentOn::Device => !is_host(device),
            AugmentOn::Workers => false,
        };
        TrainTransform { deferred, ..self.train_transform() }
    }

    /// Returns the preprocessing for evaluation, which is also stored in the model file.
    pub fn preprocess(&self) -> Preprocess {
        let DataConfig { exif_orientation, gray16, .. } = self.0.data;
        Preprocess { exif_orientation, gray16, ..self.0.input.preprocess() }.with_channels(self.0.model.input_channels)
    }

    /// Returns `device` with autodiff enabled, with gradient checkpointing if the recipe enables
    /// it.
    pub fn autodiff(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        if self.0.gradient_checkpointing { device.gradient_checkpointing() } else { device }
    }

    /// Returns the number of data-loader threads.
    pub fn workers(&self) -> usize {
        self.0.data.workers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mbconv_data::Crop;

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
    fn defaults_are_filled_in_and_survive_a_round_trip() {
        let recipe = parse(&[]).unwrap();
        assert_eq!(recipe.preprocess().resize, 32.into());
        assert_eq!(recipe.train_transform().crop, Crop::PadAndCrop { padding: 4 });
        let again = Recipe::parse(&recipe.to_toml(), &[]).unwrap();
        assert_eq!(recipe, again);
    }

    #[test]
    fn overrides_set_any_key() {
        let recipe = parse(&["epochs=7", "model.name=efficientnet_b0", "input.scale=[0.5, 1.0]", "data.workers = 3"]);
        let recipe = recipe.unwrap();
        assert_eq!((recipe.epochs, recipe.data.workers), (7, 3));
        assert_eq!(recipe.model.name, "efficientnet_b0");
        assert_eq!(recipe.input.scale, [0.5, 1.0]);
    }

    #[test]
    fn errors_name_the_invalid_key_or_value() {
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
            ("model.input_channels=4", "model.input_channels"),
            ("label_smoothing=1.0", "label_smoothing"),
            ("accumulate=0", "accumulate"),
            ("on_nan=ignore", "ignore"),
            ("optimizer.name=sgdd", "sgdd"),
            ("optimizer.betas=[0.9]", "optimizer.betas"),
            ("optimizer.layer_decay=0", "optimizer.layer_decay"),
            ("schedule.milestones=[3, 1]", "schedule.milestones"),
            ("schedule.decay=1.5", "schedule.decay"),
            ("ema.decay=1", "ema.decay"),
            ("checkpoint.minutes=-1", "checkpoint.minutes"),
            ("finetune.freeze=9", "finetune.freeze"),
            ("finetune.freeze=head", "freeze"),
            ("sampling.repeated=0", "sampling.repeated"),
            ("sampling=twice", "sampling"),
            ("input.size=0", "`input.size` is 0, but must be between 1 and 8192"),
            ("input.size=[0, 32]", "`input.size` is [0, 32], but must be between 1 and 8192"),
            ("input.size=[32, 8193]", "`input.size` is [32, 8193], but must be between 1 and 8192"),
            ("input.size=-1", "expected a size in pixels: a whole number for a square, or [height, width]"),
            ("input.size=[32, 32, 3]", "invalid length 3, expected a size in pixels"),
            ("input.size=large", "input.size"),
            ("input.size=[32, \"x\"]", "input.size"),
            ("input.eval_size=[9000, 32]", "input.eval_size"),
            ("input.eval_resize=[1, 2, 3]", "input.eval_resize"),
            ("input.progressive.start=64", "input.progressive.start"),
            ("input.progressive={start=16,stages=9}", "input.progressive.stages"),
            ("augment.on=gpu", "gpu"),
            ("augment.policy=rand-x9", "`x9`"),
            ("augment.vertical_flip=2", "augment.vertical_flip"),
            ("augment.color_jitter=[0.1,0.1,0.1,0.6]", "augment.color_jitter"),
            ("augment.erasing.probability=-1", "augment.erasing.probability"),
            ("augment.erasing.area=[0.5,0.1]", "augment.erasing.area"),
            ("augment.erasing.aspect=[0,1]", "augment.erasing.aspect"),
            ("augment.erasing.count=[2,1]", "augment.erasing.count"),
            ("mix.mixup=-1", "mix.mixup"),
            ("mix.cutmix=nan", "mix.cutmix"),
            ("mix.cutmix_range=[0.9,0.1]", "mix.cutmix_range"),
            ("mix.mode=half", "half"),
            ("mix.off_epochs=4", "mix.off_epochs"),
            ("loss.name=hinge", "hinge"),
            ("loss.gamma=-1", "loss.gamma"),
            ("loss.target_threshold=2", "loss.target_threshold"),
            ("loss.class_weights=[1,-1]", "loss.class_weights"),
            ("loss.class_weights=fair", "class_weights"),
            ("distillation.alpha=0.5", "teacher"),
            ("distillation={teacher='x',alpha=2}", "distillation.alpha"),
            ("distillation={teacher='x',temperature=0}", "distillation.temperature"),
            ("epochs", "key=value"),
            ("epochs.x=1", "`epochs` is a value"),
            ("=3", "key is empty"),
        ] {
            let error = parse(&[setting]).unwrap_err().to_string();
            assert!(error.contains(words), "{setting}: {error}");
        }
    }

    #[test]
    fn stage_table_is_read_inline_or_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let table = "name = \"pocket\"\nstem = 8\n[[stages]]\nchannels = 8\n[[stages]]\nchannels = 16\nstride = 2\n";
        std::fs::write(folder.path().join("pocket.toml"), table).unwrap();
        let recipe = folder.path().join("recipe.toml");
        std::fs::write(&recipe, TEXT.replace("name = \"mobilenet_v2_0.25\"", "table = \"pocket.toml\"")).unwrap();
        let read = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
            RecipeFile::read(&recipe, &overrides).and_then(Recipe::try_from)
        };
        let beside = read(&[]).unwrap();
        assert_eq!(beside.model.with_classes(3).name, "pocket");
        assert_eq!(beside.architecture(3).unwrap().strides(), [1, 1, 1]);
        // The recipe saved with a run contains the stage table.
        std::fs::remove_file(folder.path().join("pocket.toml")).unwrap();
        assert_eq!(Recipe::parse(&beside.to_toml(), &[]).unwrap(), beside);
        assert!(read(&[]).unwrap_err().to_string().contains("cannot read the stage table pocket.toml"));
        let inline = TEXT.to_string() + "[model.table]\n" + &table.replace("[[", "[[model.table.");
        let inline = inline.replace("name = \"mobilenet_v2_0.25\"", "");
        let parse = |text: &str| Recipe::parse(text, &[]);
        assert_eq!(parse(&inline).unwrap(), beside);
        let wrong = parse(&inline.replace("stem = 8", "stm = 8")).unwrap_err().to_string();
        assert!(wrong.contains("stm") && wrong.contains("line"), "{wrong}");
        assert!(parse(&inline.replace("channels = 16", "channels = 0")).unwrap_err().to_string().contains("stage 2"));
        let vanished = parse(&inline.replace("size = 32", "size = 4\npadding = 0").replace("\"cifar\"", "[4, 1, 2]"));
        assert!(vanished.unwrap_err().to_string().contains("1×1"));
        assert!(parse(&TEXT.replace("name = \"mobilenet", "# ")).unwrap_err().to_string().contains("model.name"));
    }

    #[test]
    fn unknown_keys_are_reported_with_their_line() {
        let error = RecipeFile::parse(&TEXT.replace("batch_size", "batchsize"), "x.toml", &[]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("x.toml") && text.contains("line 3") && text.contains("batchsize"), "{text}");
    }
}
