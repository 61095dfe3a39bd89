//! Fine-tuning: a network that begins with another model's weights, and a recipe that suits it.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use mbconv_nets::Network;
use mbconv_nets::weights::{WeightsError, load_state_dict, new_classifier, state_dict};

use crate::data::Sampling;
use crate::data::augment::AugmentConfig;
use crate::ema::EmaConfig;
use crate::import::{ImportError, ImportOptions, Loaded, load_weights};
use crate::model_file::ModelCard;
use crate::optimizer::{OptimizerConfig, OptimizerName};
use crate::precision::MapPrecision;
use crate::recipe::{
    CheckpointConfig, CropKind, DataConfig, FinetuneConfig, Freeze, InputConfig, LossConfig, MixConfig, OnNan,
    RecipeError, RecipeFile,
};
use crate::schedule::ScheduleConfig;

/// Beginnings of the keys of the classifier's tensors.
const CLASSIFIER: &str = "classifier.";

/// Why a network cannot begin with a model's weights.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// The weights could not be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It is of another architecture.
    #[error("the weights of {path} are {found}'s and do not fit the recipe's {expected}: {source}")]
    Unfit {
        /// Path of the model.
        path: String,
        /// The model's architecture.
        found: String,
        /// The recipe's.
        expected: String,
        /// The first difference.
        source: Box<WeightsError>,
    },
}

impl FinetuneError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Import(error) => error.hint(),
            Self::Unfit { found, .. } => Some(format!("--set model.name={found}, or other weights")),
        }
    }
}

/// Puts the weights and running statistics of the model at `path` into `network`, whose classes are `classes` and which
/// the recipe calls `name`. The classifier stays as it is, freshly drawn, unless the model's classes are the same; the stem is
/// adapted where the network takes another number of channels. The weights' keys begin with
/// `prefix`, if it is given. What was done is told in lines for people.
///
/// # Errors
/// A model that cannot be read or has another architecture.
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
    // What the file leaves open the recipe decides.
    let loaded = match load(None) {
        Err(ImportError::Ambiguous { .. }) => load(Some(name.into())),
        loaded => loaded,
    };
    let Loaded { model, origin, without_classifier } = loaded?;
    let mut lines = vec![format!("begins with {}", model.path.display())];
    lines.extend(Some(origin).filter(|origin| !origin.is_empty()));
    let channels = network.architecture().input_channels;
    let (model, stem) = model.with_input_channels(channels).map_err(ImportError::from)?;
    lines.extend(stem);
    lines.extend(
        otherwise(&model.network, &network)
            .map(|how| format!("note: {how}: --set model.name={}", model.card.architecture.name)),
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

/// What `network` computes otherwise than the one that the weights were learnt in, where shapes do not tell.
fn otherwise(learnt: &Network, network: &Network) -> Option<String> {
    let (learnt, ours) = (learnt.architecture(), network.architecture());
    let differences = [
        (
            learnt.layer_options.padding != ours.layer_options.padding,
            format!("padding {:?} instead of {:?}", ours.layer_options.padding, learnt.layer_options.padding),
        ),
        (
            learnt.layer_options.norm_epsilon != ours.layer_options.norm_epsilon,
            format!(
                "batch-norm's epsilon {} instead of {}",
                ours.layer_options.norm_epsilon, learnt.layer_options.norm_epsilon
            ),
        ),
    ];
    let told: Vec<String> = differences.into_iter().filter(|(differs, _)| *differs).map(|(_, how)| how).collect();
    (!told.is_empty()).then(|| format!("the recipe's network is not quite the weights': {}", told.join(", ")))
}

/// A recipe for fine-tuning the model that `card` describes, at `weights`, on `images` training images, with `overrides` set.
/// What depends on the number of epochs follows the one that is set.
///
/// # Errors
/// Anything wrong with an override, by key.
pub fn recipe(
    card: &ModelCard,
    weights: &Path,
    images: usize,
    overrides: &[String],
) -> Result<RecipeFile, RecipeError> {
    let epochs = preset(card, weights, images, None).with(overrides)?.epochs;
    preset(card, weights, images, Some(epochs)).with(overrides)
}

/// Returns the recipe for fine-tuning on `images` training images.
///
/// The classifier learns alone for a tenth of the epochs; then all layers do, the body at a fiftieth of the
/// classifier's learning rate. Batch-norm keeps the statistics of the pretraining: those of small batches are noisy,
/// and running averages of few updates lag behind the weights. Input and preprocessing are the model's own.
fn preset(card: &ModelCard, weights: &Path, images: usize, epochs: Option<usize>) -> RecipeFile {
    const BATCH: usize = 32;
    /// Enough for a new classifier and a little change of the body.
    const UPDATES: usize = 160;
    let batch_size = BATCH.min((images / 4).max(2)).min(images.max(1));
    let epochs = epochs.unwrap_or((UPDATES * batch_size / images.max(1)).clamp(6, 30));
    let crop = card.preprocess.crop;
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
            // Milder than ImageNet's 0.08: small sets need what is in the picture.
            scale: [0.35, 1.0],
            crop: CropKind::RandomResized,
            interpolation: card.preprocess.interpolation,
            eval_size: Some(crop),
            eval_resize: Some(card.preprocess.resize),
            resize_mode: card.preprocess.resize_mode,
            mean: card.preprocess.mean,
            std: card.preprocess.std,
            ..InputConfig::of_size(crop)
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
    use crate::data::Preprocess;
    use crate::model_file::Model;
    use crate::recipe::Recipe;

    fn network(name: &str, classes: usize, seed: u64) -> Network {
        let device = Device::default();
        device.seed(seed);
        NetworkOptions::new(name, classes).architecture().unwrap().init(&device)
    }

    fn card(name: &str, classes: &[&str]) -> ModelCard {
        let preprocess =
            Preprocess { resize: 36, crop: 32, exif_orientation: true, ..InputConfig::of_size(32).preprocess() };
        let classes: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
        ModelCard::new(NetworkOptions::new(name, classes.len()), classes, preprocess)
    }

    #[test]
    fn the_body_is_taken_and_the_classifier_is_new_unless_the_classes_are_the_same() {
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
        let (tuned, told) = load_body(fresh, name, &classes(&["a", "b", "c"]), &path, None).unwrap();
        let begins = format!("begins with {}", path.display());
        assert_eq!(told, [&*begins, "the classifier is new, for the data's 3 classes instead of the model's 2"]);
        let tuned = weights(&tuned);
        assert!(tuned[0] == weights(&original)[0] && tuned[0] != drawn[0]);
        assert_eq!(tuned[1], [0.0; 3 * 1280]);
        let (same, told) = load_body(network(name, 2, 2), name, &classes(&["a", "b"]), &path, None).unwrap();
        assert_eq!(told, [&*begins, "the classifier is the model's"]);
        assert!(weights(&same) == weights(&original));
        let (_, told) = load_body(network(name, 2, 2), name, &classes(&["a", "c"]), &path, None).unwrap();
        assert_eq!(told[1], "the classifier is new: the data's 2 classes are not the model's");
        let twin = "tf_mobilenet_v2_0.1";
        let (_, told) = load_body(network(twin, 2, 2), twin, &classes(&["a", "b"]), &path, None).unwrap();
        assert_eq!(
            told[1],
            "note: the recipe's network is not quite the weights': padding Same instead of Symmetric, batch-norm's epsilon \
             0.001 instead of 0.00001: --set model.name=mobilenet_v2_0.1"
        );
        let other = load_body(network("mobilenet_v2_0.5", 3, 2), "mobilenet_v2_0.5", &classes(&["a"; 3]), &path, None);
        let error = other.unwrap_err();
        assert!(error.to_string().contains(name) && error.hint().unwrap().contains(name), "{error}");
    }

    #[test]
    fn presets_are_possible_recipes_for_any_number_of_images() {
        let card = card("mobilenet_v2_0.5", &["a", "b"]);
        for images in [1, 2, 30, 480, 5000, 1_000_000] {
            let recipe = Recipe::try_from(preset(&card, Path::new("m.safetensors"), images, None)).unwrap();
            assert_eq!(recipe.preprocess(), card.preprocess);
            assert!(recipe.batch_size <= images && (6..=30).contains(&recipe.epochs), "{images}");
            assert_eq!(Recipe::parse(&recipe.to_toml(), &[]).unwrap(), recipe);
            let short = super::recipe(&card, Path::new("m.safetensors"), images, &["epochs=3".into()]).unwrap();
            assert_eq!((short.epochs, short.finetune.unwrap().head_epochs), (3, 1));
        }
    }
}
