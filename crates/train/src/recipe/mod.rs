//! Recipes: everything a training run depends on, in one TOML file.
//!
//! A recipe arrives as a [`RecipeFile`], whose keys are checked by name, and becomes a [`Recipe`], whose values are
//! checked too. Nothing runs on an unchecked one. Each section is a module, which also checks its values.

mod augment;
mod checkpoint;
mod data;
mod error;
mod finetune;
mod input;
mod loss;
mod mix;
mod model;
mod resume;
mod setting;

use std::path::Path;

use mbconv_nets::Architecture;
use serde::{Deserialize, Serialize};

pub use self::checkpoint::CheckpointConfig;
pub use self::data::DataConfig;
pub use self::error::RecipeError;
pub(crate) use self::error::{ensure, ensure_count};
pub use self::finetune::{FinetuneConfig, Freeze};
pub(crate) use self::input::MAX_SIDE;
pub use self::input::{CropKind, InputConfig, ProgressiveConfig};
pub use self::loss::{ClassWeights, DistillationConfig, DistillationKind, LossConfig, LossName};
pub use self::mix::{MixConfig, MixMode};
pub use self::model::{ModelConfig, TableSource, is_table, read_table};
pub use self::resume::RESUMABLE;
pub(crate) use self::resume::{Change, changes};
use crate::data::augment::{AugmentConfig, AugmentOn, Augmentation};
use crate::data::{Preprocess, Sampling, TrainTransform};
use crate::device::{Device, is_gpu, is_host};
use crate::ema::EmaConfig;
use crate::optimizer::OptimizerConfig;
use crate::precision::MapPrecision;
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
    /// Images that go through the network together.
    pub batch_size: usize,
    /// Batches whose gradients are averaged into one update, as if they were one large batch. What is left over at the end of
    /// an epoch makes a smaller one.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Share of the target spread evenly over all classes (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    /// What to do about a loss or gradient that is not a number.
    #[serde(default)]
    pub on_nan: OnNan,
    /// End the run after so many epochs without a better validation; 0 never does.
    #[serde(default)]
    pub early_stopping: usize,
    /// Compute activations again for the backward pass where that is cheap, instead of keeping them: less memory, more
    /// work.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// On GPUs, record a step once the first few are done, and repeat it as a whole.
    #[serde(default = "yes")]
    pub record_steps: bool,
    /// In which precision maps are computed: `"f32"` or `"bf16"`.
    #[serde(default)]
    pub precision: MapPrecision,
    /// Of several processes, take batch-norm's statistics over the images of all of them.
    #[serde(default)]
    pub sync_batch_norm: bool,
    /// Which training images an epoch takes: `"once"`, `{ repeated = 3 }` or `"balanced"`.
    #[serde(default)]
    pub sampling: Sampling,
    /// The network.
    pub model: ModelConfig,
    /// Where images come from.
    #[serde(default)]
    pub data: DataConfig,
    /// What becomes of an image on its way to the network.
    pub input: InputConfig,
    /// What happens to a training image thereafter.
    #[serde(default)]
    pub augment: AugmentConfig,
    /// How the images of a batch are mixed.
    #[serde(default)]
    pub mix: MixConfig,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossConfig,
    /// A network to learn from besides the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<DistillationConfig>,
    /// How weights are updated.
    pub optimizer: OptimizerConfig,
    /// How the learning rate moves.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// An average of the weights, kept beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// What is saved, and when.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What a run begins with, and what of it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneConfig>,
}

/// What to do about a loss or gradient that is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNan {
    /// End the run; the last good checkpoint is kept.
    #[default]
    Stop,
    /// Leave the update out, with everything its batches changed, and go on.
    Skip,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}

impl RecipeFile {
    /// Parses TOML, then sets each of `overrides` (`key=value`, dotted keys, TOML values; bare words are strings). A stage table
    /// in a file of its own is read too.
    ///
    /// # Errors
    /// Anything wrong with the text, an override or the stage table, by key.
    pub fn parse(text: &str, path: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let mut file = Self::parse_text(text, path, overrides)?;
        file.model.load_table(Path::new(path).parent().unwrap_or(Path::new("")))?;
        Ok(file)
    }

    fn parse_text(text: &str, path: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let parse = |message: String| RecipeError::Parse { path: path.into(), message };
        if overrides.is_empty() {
            // Straight from the text, so that errors show line and column.
            return toml::from_str(text).map_err(|error| parse(error.to_string().trim_end().into()));
        }
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| parse(error.to_string().trim_end().into()))?;
        for setting in overrides {
            setting::apply(&mut table, setting)
                .map_err(|message| RecipeError::Override { setting: setting.clone(), message })?;
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

    /// The same with `overrides` set; see [`parse`](Self::parse).
    ///
    /// # Errors
    /// Anything wrong with an override, by key.
    pub fn with(&self, overrides: &[String]) -> Result<Self, RecipeError> {
        Self::parse(&self.to_toml(), "preset", overrides)
    }

    /// As TOML with every default spelt out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is plain data")
    }
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
        let RecipeFile { input, data, optimizer, schedule, .. } = &file;
        ensure_count("epochs", file.epochs, 1_000_000)?;
        ensure_count("batch_size", file.batch_size, 1 << 20)?;
        ensure_count("accumulate", file.accumulate, 1 << 20)?;
        ensure((0.0..1.0).contains(&file.label_smoothing), "label_smoothing", file.label_smoothing, "in [0, 1)")?;
        data.check()?;
        input.check(file.epochs)?;
        augment::check(&file.augment)?;
        file.mix.check(file.epochs)?;
        file.loss.check()?;
        file.distillation.as_ref().map_or(Ok(()), DistillationConfig::check)?;
        if let Sampling::Repeated(times) = file.sampling {
            ensure_count("sampling.repeated", times, 100)?;
        }
        optimizer.check()?;
        schedule.check(file.epochs)?;
        file.ema.as_ref().map_or(Ok(()), EmaConfig::check)?;
        file.checkpoint.check()?;
        let named = !file.model.name.is_empty() || file.model.table.is_some();
        ensure(named, "model.name", "missing", "an architecture's name, or model.table a stage table")?;
        // Any number of classes shows whether the network can be built.
        let channels = file.model.input_channels;
        ensure(matches!(channels, 1 | 3), "model.input_channels", channels, "3 for colour or 1 for grey")?;
        let architecture = file.model.options(2).architecture()?;
        if file.model.table.is_some() {
            architecture.check_side(input.size)?;
        }
        let stages = architecture.blocks.last().map_or(0, |block| block.stage + 1);
        file.finetune.as_ref().map_or(Ok(()), |finetune| finetune.check(stages))?;
        Ok(Self(file))
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
        let input = &self.0.input;
        let augmentation = Augmentation::new(self.0.augment.clone(), input.interpolation, input.mean, input.std);
        TrainTransform { augmentation, ..input.train_transform(self.0.epochs) }
    }

    /// The same for training on `device`, which may have its part in it.
    pub fn train_transform_for(&self, device: &Device) -> TrainTransform {
        let deferred = match self.0.augment.on {
            AugmentOn::Auto => is_gpu(device),
            AugmentOn::Device => !is_host(device),
            AugmentOn::Workers => false,
        };
        TrainTransform { deferred, ..self.train_transform() }
    }

    /// What becomes of an image in evaluation, and what the model file will say of it.
    pub fn preprocess(&self) -> Preprocess {
        let DataConfig { exif_orientation, gray16, .. } = self.0.data;
        Preprocess { exif_orientation, gray16, ..self.0.input.preprocess() }.with_channels(self.0.model.input_channels)
    }

    /// `device` with gradients, taken as the recipe says.
    pub fn autodiff(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        if self.0.gradient_checkpointing { device.gradient_checkpointing() } else { device }
    }

    /// Number of loader threads.
    pub fn workers(&self) -> usize {
        self.0.data.workers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Crop;

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
    fn stage_tables_stand_in_the_recipe_or_beside_it() {
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
        assert_eq!(beside.model.options(3).name, "pocket");
        assert_eq!(beside.architecture(3).unwrap().strides(), [1, 1, 1]);
        // What is kept of the run needs no other file.
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
    fn misspelt_keys_show_their_line() {
        let error = RecipeFile::parse(&TEXT.replace("batch_size", "batchsize"), "x.toml", &[]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("x.toml") && text.contains("line 3") && text.contains("batchsize"), "{text}");
    }
}
