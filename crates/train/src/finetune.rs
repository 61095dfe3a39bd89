//! Fine-tuning: loading the weights of another model, and recipes for training from them.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use mbconv_nets::Network;
use mbconv_nets::weights::{WeightsError, load_state_dict, new_classifier, state_dict};

use mbconv_data::augment::AugmentConfig;
use mbconv_data::{ImageSize, Sampling};

use crate::config::checkpoint::CheckpointConfig;
use crate::config::data::DataConfig;
use crate::config::ema::EmaConfig;
use crate::config::error::RecipeError;
use crate::config::finetune::{FinetuneConfig, Freeze};
use crate::config::input::{CropKind, InputConfig, MAX_RATIO};
use crate::config::loss::LossConfig;
use crate::config::mix::MixConfig;
use crate::config::optimizer::{OptimizerConfig, OptimizerName};
use crate::config::schedule::ScheduleConfig;
use crate::config::{OnNan, RecipeFile};
use crate::precision::MapPrecision;
use mbconv_interop::import::{ImportError, ImportOptions, Loaded, load_weights};
use mbconv_interop::model_file::ModelCard;

/// Prefix of the keys of the classifier's tensors.
const CLASSIFIER: &str = "classifier.";

/// Errors of loading the initial weights.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// The weights could not be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The weights have a different architecture.
    #[error("{path} contains the weights of {found}, which do not fit the recipe's {expected}: {source}")]
    Unfit {
        /// Path of the model.
        path: String,
        /// Architecture of the weights.
        found: String,
        /// Architecture in the recipe.
        expected: String,
        /// First difference.
        source: Box<WeightsError>,
    },
}

impl FinetuneError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Import(error) => error.hint(),
            Self::Unfit { found, .. } => Some(format!("--set model.name={found}, or other weights")),
        }
    }
}

/// Loads the weights and running statistics of the model at `path` into `network`, which has the
/// classes `classes` and the architecture `name`. Returns the network and lines for the user.
///
/// The classifier is loaded only if the model has the same classes. The stem is adapted if the
/// network has a different number of input channels. `prefix` is the prefix of the network's keys
/// in the file.
///
/// # Errors
/// Returns an error if the model cannot be read or has a different architecture.
pub fn load_body(
    network: Network,
    name: &str,
    classes: &[String],
    path: &Path,
    prefix: Option<&str>,
) -> Result<(Network, Vec<String>), FinetuneError> {
    let load = |arch| {
        let prefix = prefix.map(String::from);
        let options = ImportOptions { arch, prefix, without_classifier: true, ..ImportOptions::default() };
        load_weights(path, &options, &Device::flex())
    };
    // If the file does not determine the architecture, the recipe does.
    let loaded = match load(None) {
        Err(ImportError::Ambiguous { .. }) => load(Some(name.into())),
        loaded => loaded,
    };
    let Loaded { model, origin, without_classifier } = loaded?;
    let mut lines = vec![format!("starts from {}", model.path.display())];
    lines.extend(Some(origin).filter(|origin| !origin.is_empty()));
    let channels = network.architecture().input_channels;
    let (model, stem) = model.with_input_channels(channels).map_err(ImportError::from)?;
    lines.extend(stem);
    lines.extend(
        difference(&model.network, &network)
            .map(|text| format!("note: {text}: --set model.name={}", model.card.architecture.name)),
    );
    let same_classes = model.card.classes == classes && !without_classifier;
    let by_key = |network: &Network| -> HashMap<String, TensorData> {
        state_dict(network).into_iter().map(|(info, data)| (info.key, data)).collect()
    };
    let mut state = by_key(&model.network);
    if !same_classes {
        state.retain(|key, _| !key.starts_with(CLASSIFIER));
        state.extend(new_classifier(network.architecture()));
    }
    let (ours, theirs) = (classes.len(), model.card.classes.len());
    lines.push(match same_classes {
        true => "the classifier is the model's".into(),
        false if without_classifier => format!("the classifier is new, for the data's {ours} classes"),
        false if ours == theirs => format!("the classifier is new: the data's {ours} classes are not the model's"),
        false => format!("the classifier is new, for the data's {ours} classes instead of the model's {theirs}"),
    });
    let network = load_state_dict(network, state).map_err(|source| FinetuneError::Unfit {
        source: Box::new(source),
        path: path.display().to_string(),
        found: model.card.architecture.name.clone(),
        expected: name.into(),
    })?;
    Ok((network, lines))
}

/// Describes how `network` differs from the network of the weights, `trained`, in settings that do
/// not change the shapes of the weights.
fn difference(trained: &Network, network: &Network) -> Option<String> {
    let (trained, ours) = (trained.architecture(), network.architecture());
    let differences = [
        (
            trained.layer_options.padding != ours.layer_options.padding,
            format!("padding {:?} instead of {:?}", ours.layer_options.padding, trained.layer_options.padding),
        ),
        (
            trained.layer_options.norm_epsilon != ours.layer_options.norm_epsilon,
            format!(
                "batch-norm's epsilon {} instead of {}",
                ours.layer_options.norm_epsilon, trained.layer_options.norm_epsilon
            ),
        ),
    ];
    let texts: Vec<String> = differences.into_iter().filter(|(differs, _)| *differs).map(|(_, text)| text).collect();
    (!texts.is_empty()).then(|| format!("the recipe's network differs from that of the weights: {}", texts.join(", ")))
}

/// Returns the recipe for fine-tuning the model with the card `card` and the file `weights` on
/// `images` training images, with `overrides` of its keys. Settings that depend on the number of
/// epochs or on the shape of the images follow overrides of these.
///
/// # Errors
/// Returns an error if an override is invalid.
pub fn recipe(
    card: &ModelCard,
    weights: &Path,
    images: usize,
    overrides: &[String],
) -> Result<RecipeFile, RecipeError> {
    let size = card.preprocess.crop;
    let given = preset(card, weights, images, None, size).with(overrides)?;
    preset(card, weights, images, Some(given.epochs), given.input.size).with(overrides)
}

/// Returns the recipe for fine-tuning on `images` training images.
///
/// Only the classifier is trained for a tenth of the epochs, and then all layers, the body with a
/// fiftieth of the classifier's learning rate. Batch-norm keeps the statistics of the pretraining,
/// because those of small batches are noisy, and running averages over few updates lag behind the
/// weights. Input and preprocessing are those of the model, but a `size` of another shape than the
/// model's is also the size in evaluation. Crops have the aspect ratio of `size`, up to 4:3 times
/// wider or taller.
fn preset(card: &ModelCard, weights: &Path, images: usize, epochs: Option<usize>, size: ImageSize) -> RecipeFile {
    const BATCH: usize = 32;
    /// Enough for a new classifier and small changes of the body.
    const UPDATES: usize = 160;
    let batch_size = BATCH.min((images / 4).max(2)).min(images.max(1));
    let epochs = epochs.unwrap_or((UPDATES * batch_size / images.max(1)).clamp(6, 30));
    let crop = card.preprocess.crop;
    let as_model = size.height * crop.width == size.width * crop.height;
    let shape = size.width.max(1) as f64 / size.height.max(1) as f64;
    let defaults = InputConfig::of_size(crop);
    let architecture = &card.architecture;
    RecipeFile {
        seed: 0,
        epochs,
        batch_size,
        accumulate: 1,
        label_smoothing: 0.1,
        on_nan: OnNan::Stop,
        early_stopping: epochs.div_ceil(3).max(3),
        gradient_checkpointing: false,
        record_steps: true,
        precision: MapPrecision::F32,
        sync_batch_norm: false,
        sampling: Sampling::Once,
        model: architecture.for_recipe(),
        data: DataConfig {
            exif_orientation: card.preprocess.exif_orientation,
            gray16: card.preprocess.gray16,
            ..DataConfig::default()
        },
        input: InputConfig {
            // Milder than ImageNet's 0.08, because small data sets need the whole object.
            scale: [0.35, 1.0],
            ratio: defaults.ratio.map(|ratio| (ratio * shape).min(MAX_RATIO)),
            crop: CropKind::RandomResized,
            interpolation: card.preprocess.interpolation,
            eval_size: as_model.then_some(crop),
            eval_resize: as_model.then_some(card.preprocess.resize),
            resize_mode: card.preprocess.resize_mode,
            mean: card.preprocess.mean,
            std: card.preprocess.std,
            ..defaults
        },
        augment: AugmentConfig::default(),
        mix: MixConfig::default(),
        loss: LossConfig::default(),
        distillation: None,
        optimizer: OptimizerConfig {
            name: OptimizerName::AdamW,
            learning_rate: 1e-3,
            weight_decay: 0.02,
            body_factor: 0.02,
            clip_norm: Some(1.0),
            ..OptimizerConfig::default()
        },
        schedule: ScheduleConfig { warmup_epochs: 0.5, ..ScheduleConfig::default() },
        ema: None::<EmaConfig>,
        quantization: None,
        checkpoint: CheckpointConfig::default(),
        finetune: Some(FinetuneConfig {
            weights: Some(weights.into()),
            prefix: None,
            head_epochs: epochs.div_ceil(10),
            freeze: Freeze::None,
            freeze_norms: true,
        }),
    }
}

#[cfg(test)]
mod tests {
    use mbconv_nets::NetworkOptions;
    use mbconv_nets::weights::Precision;

    use super::*;
    use crate::config::Recipe;
    use mbconv_data::Preprocess;
    use mbconv_interop::model_file::Model;

    fn network(name: &str, classes: usize, seed: u64) -> Network {
        let device = Device::default();
        device.seed(seed);
        NetworkOptions::new(name, classes).architecture().unwrap().init(&device)
    }

    fn card(name: &str, classes: &[&str]) -> ModelCard {
        let preprocess = Preprocess {
            resize: 36.into(),
            crop: 32.into(),
            exif_orientation: true,
            ..InputConfig::of_size(32).preprocess()
        };
        let classes: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
        ModelCard::new(NetworkOptions::new(name, classes.len()), classes, preprocess)
    }

    #[test]
    fn classifier_is_replaced_if_classes_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let name = "mobilenet_v2_0.1";
        let original = network(name, 2, 1);
        Model::save(&original, &card(name, &["a", "b"]), Precision::F32, &path).unwrap();
        let weights = |network: &Network| {
            [network.head.weight.val().flatten::<1>(0, 3), network.classifier.weight.val().flatten(0, 1)]
                .map(|tensor| tensor.into_data().try_to_vec::<f32>().unwrap())
        };
        let classes = |names: &[&str]| -> Vec<String> { names.iter().map(|name| name.to_string()).collect() };
        let fresh = network(name, 3, 2);
        let drawn = weights(&fresh);
        let (tuned, lines) = load_body(fresh, name, &classes(&["a", "b", "c"]), &path, None).unwrap();
        let source = format!("starts from {}", path.display());
        assert_eq!(lines, [&*source, "the classifier is new, for the data's 3 classes instead of the model's 2"]);
        let tuned = weights(&tuned);
        assert!(tuned[0] == weights(&original)[0] && tuned[0] != drawn[0]);
        assert_eq!(tuned[1], [0.0; 3 * 1280]);
        let (same, lines) = load_body(network(name, 2, 2), name, &classes(&["a", "b"]), &path, None).unwrap();
        assert_eq!(lines, [&*source, "the classifier is the model's"]);
        assert!(weights(&same) == weights(&original));
        let (_, lines) = load_body(network(name, 2, 2), name, &classes(&["a", "c"]), &path, None).unwrap();
        assert_eq!(lines[1], "the classifier is new: the data's 2 classes are not the model's");
        let twin = "tf_mobilenet_v2_0.1";
        let (_, lines) = load_body(network(twin, 2, 2), twin, &classes(&["a", "b"]), &path, None).unwrap();
        assert_eq!(
            lines[1],
            "note: the recipe's network differs from that of the weights: padding Same instead of Symmetric, batch-norm's epsilon \
             0.001 instead of 0.00001: --set model.name=mobilenet_v2_0.1"
        );
        let other = load_body(network("mobilenet_v2_0.5", 3, 2), "mobilenet_v2_0.5", &classes(&["a"; 3]), &path, None);
        let error = other.unwrap_err();
        assert!(error.to_string().contains(name) && error.hint().unwrap().contains(name), "{error}");
    }

    #[test]
    fn preset_is_a_valid_recipe_for_any_number_of_images() {
        let card = card("mobilenet_v2_0.5", &["a", "b"]);
        for images in [1, 2, 30, 480, 5000, 1_000_000] {
            let recipe =
                Recipe::try_from(super::recipe(&card, Path::new("m.safetensors"), images, &[]).unwrap()).unwrap();
            assert_eq!(recipe.preprocess(), card.preprocess);
            assert!(recipe.batch_size <= images && (6..=30).contains(&recipe.epochs), "{images}");
            assert_eq!(Recipe::parse(&recipe.to_toml(), &[]).unwrap(), recipe);
            let short = super::recipe(&card, Path::new("m.safetensors"), images, &["epochs=3".into()]).unwrap();
            assert_eq!((short.epochs, short.finetune.unwrap().head_epochs), (3, 1));
        }
    }

    #[test]
    fn images_of_another_shape_are_evaluated_in_it() {
        let file = |settings: &[&str]| {
            let card = card("mobilenet_v2_0.1", &["a", "b"]);
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            super::recipe(&card, Path::new("m.safetensors"), 100, &settings).unwrap()
        };
        let of = |settings: &[&str]| {
            let input = file(settings).input;
            let Preprocess { resize, crop, .. } = input.preprocess();
            (resize.sides(), crop.sides(), input.ratio)
        };
        let usual = InputConfig::of_size(32).ratio;
        assert_eq!(of(&["input.size=64"]), ([36; 2], [32; 2], usual));
        assert_eq!(of(&["input.size=[48, 96]"]), ([48, 96], [48, 96], usual.map(|ratio| 2.0 * ratio)));
        let tall = ["input.size=[96, 48]", "input.eval_size=40"];
        assert_eq!(of(&tall), ([40; 2], [40; 2], usual.map(|ratio| ratio / 2.0)));
        assert_eq!(of(&["input.size=[1, 8192]"]).2, [MAX_RATIO; 2]);
        let error = Recipe::try_from(file(&["input.size=0"])).unwrap_err().to_string();
        assert!(error.contains("`input.size` is 0"), "{error}");
    }
}
