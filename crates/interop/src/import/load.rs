//! Loading of weights files.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use mbconv_image::{IMAGENET_CLASSES, Preprocess};
use mbconv_nets::detect::{DetectError, Detected, Shapes, detect};
use mbconv_nets::layout::TensorInfo;
use mbconv_nets::registry::canonical_name;
use mbconv_nets::weights::{WeightsError, load_state_dict};
use mbconv_nets::{Architecture, Layout, Network, NetworkOptions};

use crate::import::error::ImportError;
use crate::import::hints::{self, Hints, Transformers};
use crate::import::keys::Classifier;
use crate::import::origin;
use crate::import::presets;
use crate::import::signature::{NAMELESS, is_safetensors};
use crate::import::state::{self, StateFile};
use crate::model_file::{Model, ModelCard, ModelError, MultiLabel, resolve};

/// Class 0 of weights with 1001 classes.
const BACKGROUND: &str = "background";

/// Options for importing a file, for properties that it does not contain.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Architecture, if it cannot be detected from shapes and file name; may be a timm name.
    pub arch: Option<String>,
    /// Name of a preprocessing preset in [`PRESETS`](super::PRESETS); by default, the source's.
    pub preprocess: Option<String>,
    /// Prefix of the network's keys in a checkpoint that contains several networks.
    pub prefix: Option<String>,
    /// Accepts weights without a classifier, because the caller replaces it.
    pub without_classifier: bool,
}

/// An imported model and its origin.
#[derive(Debug)]
pub struct Loaded {
    /// The model, ready to use.
    pub model: Model,
    /// Source of the weights and assumptions about them, for the user. Empty for mbconv's own
    /// files.
    pub origin: String,
    /// True if the file has no usable classifier; the model's is then a placeholder with one
    /// output.
    pub without_classifier: bool,
}

/// Loads the model in `path`: a model file or run folder of mbconv, or published weights in any
/// [`Layout`].
///
/// Network and layout are detected from keys and shapes. Padding, batch-norm constants and
/// preprocessing follow from the layout, the name of the file or of its repository in a Hugging
/// Face cache, and timm's `config.json` or transformers' `preprocessor_config.json` beside it, if
/// they describe this network.
///
/// # Errors
/// See [`ImportError`]. Tensors that are missing, unused or of another shape are listed; weights
/// are never loaded in part.
pub fn load_weights(path: &Path, options: &ImportOptions, device: &Device) -> Result<Loaded, ImportError> {
    let path = resolve(path)?;
    from_bytes(state::read(&path)?, &path, options, device)
}

/// Loads a model like [`load_weights`] from the contents of the file `path`.
///
/// # Errors
/// See [`ImportError`].
pub fn from_bytes(
    bytes: Vec<u8>,
    path: &Path,
    options: &ImportOptions,
    device: &Device,
) -> Result<Loaded, ImportError> {
    if is_safetensors(&bytes) {
        match Model::from_bytes(&bytes, path, device) {
            Ok(model) => return Ok(Loaded { model, origin: String::new(), without_classifier: false }),
            // Not a model file of mbconv, or damaged.
            Err(ModelError::NoCard { .. } | ModelError::Weights { source: WeightsError::Format(_), .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let file = StateFile::new(bytes, path, options.prefix.as_deref())?;
    let (shapes, without_classifier) = with_classifier(&file, path, options.without_classifier)?;
    let Source { layout, options: network, architecture, preprocess, preset, classes, multi_label, mut notes } =
        identify(&shapes, path, options)?;

    let mut lines = vec![origin::describe(layout, &network, &file, &preprocess, &preset)];
    lines.extend(origin::ignored(&file));
    lines.append(&mut notes);
    let count = architecture.num_classes;
    let classes = classes.filter(|names| names.len() == count && !without_classifier);
    let classes = classes.unwrap_or_else(|| class_names(count));

    let failed = |source| ImportError::Weights { path: path.display().to_string(), source };
    let state = read_tensors(&file, layout, &architecture, path)?;
    let weights = load_state_dict(Network::new(&architecture, device), state).map_err(failed)?;
    let multi_label = (multi_label && count > 1).then(MultiLabel::default);
    let card = ModelCard::new(network, classes, preprocess).with_multi_label(multi_label);
    let mut model = Model { card, network: weights, path: path.into() };
    if count == 1 && !without_classifier {
        model = model.with_two_outputs(class_names(2)).map_err(failed)?;
        lines.push(
            "note: the single output is read as a sigmoid: class 0 is the negative and class 1 the positive class \
             (--classes names them)"
                .into(),
        );
    }
    Ok(Loaded { model, origin: lines.join("\n"), without_classifier })
}

/// Returns the shapes of a file's tensors, and whether a placeholder classifier with one class was
/// added.
fn with_classifier(file: &StateFile, path: &Path, allowed: bool) -> Result<(Shapes, bool), ImportError> {
    let mut shapes = file.shapes();
    let Some(found) = &file.found else { return Ok((shapes, false)) };
    let (layers, features) = match (&found.classifier, found.features) {
        (Classifier::Missing, Some(features)) => (Vec::new(), features),
        (Classifier::Several(layers), Some(features)) => (layers.clone(), features),
        _ => return Ok((shapes, false)),
    };
    if !allowed {
        return Err(ImportError::NoClassifier { path: path.display().to_string(), layers });
    }
    shapes.insert(format!("{}.weight", found.usual), vec![1, features]);
    shapes.insert(format!("{}.bias", found.usual), vec![1]);
    Ok((shapes, true))
}

/// The network of a weights file, with the conventions of its source.
struct Source {
    layout: Layout,
    options: NetworkOptions,
    architecture: Architecture,
    preprocess: Preprocess,
    /// Name of the preprocessing for the user.
    preset: String,
    /// Class names of the configuration beside the file.
    classes: Option<Vec<String>>,
    /// True if the configuration is that of a multi-label model.
    multi_label: bool,
    /// Notes for the user.
    notes: Vec<String>,
}

/// Detects the network from the tensors' shapes, and its conventions from names and configurations.
/// Options given by the user must match the shapes; a configuration that does not match belongs to
/// other weights and is ignored.
fn identify(shapes: &Shapes, path: &Path, options: &ImportOptions) -> Result<Source, ImportError> {
    let shown = || path.display().to_string();
    let unknown = |source: DetectError| {
        let named = options.arch.is_some();
        ImportError::Unknown { path: shown(), source: Box::new(source), named }
    };
    let mut notes = Vec::new();
    let mut hints = hints::beside(path);
    notes.extend(check_timm_config(&mut hints, shapes));
    let arch = options.arch.as_deref().or(hints.architecture.as_deref()).map(canonical_name);
    let Detected { layout, options: network } = detect(shapes, arch.as_deref()).map_err(unknown)?;
    let stem = hints.name.clone().unwrap_or_else(|| stem(path));
    let name = network.name.clone();
    let mut found = presets::conventions(layout, network, &stem, arch.is_some())
        .ok_or_else(|| ImportError::Ambiguous { path: shown(), name })?;
    if layout == Layout::Timm {
        hints.apply_timm_arguments(&mut found.options);
    }
    notes.extend(apply_transformers_config(&mut hints, layout, &mut found.options)?);
    let architecture = found.options.architecture().map_err(|error| unknown(error.into()))?;

    let preset = options.preprocess.as_deref().unwrap_or(found.preset);
    let published = presets::preprocess(preset, &found.options.name, architecture.resolution)
        .ok_or_else(|| ImportError::UnknownPreset { name: preset.into() })?;
    let configured = hints.preprocess(&published).filter(|_| options.preprocess.is_none());
    let preset = if configured.is_some() { "from its configuration" } else { preset }.to_string();
    let preprocess = configured.unwrap_or(published).with_channels(architecture.input_channels);
    let multi_label = hints.transformers.as_ref().is_some_and(Transformers::is_multi_label);
    let (options, classes) = (found.options, hints.classes);
    Ok(Source { layout, options, architecture, preprocess, preset, classes, multi_label, notes })
}

/// Discards timm's configuration if it does not match the shapes, with a note for the user.
fn check_timm_config(hints: &mut Hints, shapes: &Shapes) -> Option<String> {
    let name = hints.architecture.as_ref()?;
    if detect(shapes, Some(&canonical_name(name))).is_ok_and(|found| found.layout == Layout::Timm) {
        return None;
    }
    let note = format!("note: the config.json beside the weights is for timm's `{name}` and is ignored");
    hints.ignore_config();
    Some(note)
}

/// Applies transformers' configuration to `options`, or discards it if the layout is another.
/// Returns notes for the user.
fn apply_transformers_config(
    hints: &mut Hints,
    layout: Layout,
    options: &mut NetworkOptions,
) -> Result<Vec<String>, ImportError> {
    let Some(config) = &hints.transformers else { return Ok(Vec::new()) };
    if layout == Layout::HuggingFace {
        let unsupported = |setting| ImportError::Configuration { path: config.path.clone(), setting };
        return config.apply(options).map_err(unsupported);
    }
    let note = format!("note: {} is for transformers' `{}` and is ignored", config.path, config.kind);
    hints.ignore_config();
    Ok(vec![note])
}

/// Reads all tensors of the architecture. Absent ones, as of a placeholder classifier, are zeros.
fn read_tensors(
    file: &StateFile,
    layout: Layout,
    architecture: &Architecture,
    path: &Path,
) -> Result<HashMap<String, TensorData>, ImportError> {
    let shown = || path.display().to_string();
    let mut state = HashMap::new();
    for TensorInfo { key, shape, .. } in layout.tensors(architecture) {
        if !file.contains(&key) {
            state.insert(key, TensorData::zeros::<f32, _>(shape));
            continue;
        }
        let unsupported = |found| ImportError::Type { path: shown(), key: key.clone(), found };
        let data = file.tensor(&key).map_err(unsupported)?;
        if data.iter::<f32>().any(|value| !value.is_finite()) {
            return Err(ImportError::NotFinite { path: shown(), key });
        }
        state.insert(key, data);
    }
    Ok(state)
}

/// Returns the file stem or, in a Hugging Face cache, where all weights have the same name, the
/// repository's name.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    // …/models--OWNER--NAME/snapshots/COMMIT/model.safetensors
    let parts: Vec<_> = absolute.iter().map(|part| part.to_string_lossy()).collect();
    let repository = parts.windows(2).rev().find_map(|pair| {
        let (_, name) = pair[0].strip_prefix("models--")?.split_once("--")?;
        (pair[1] == "snapshots").then(|| name.to_string())
    });
    repository
        .filter(|_| NAMELESS.contains(&&*name))
        .unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}

/// Returns ImageNet's class names if the number of classes matches, otherwise numbered names.
fn class_names(count: usize) -> Vec<String> {
    let imagenet = || IMAGENET_CLASSES.lines().map(String::from);
    match count {
        1000 => imagenet().collect(),
        1001 => std::iter::once(BACKGROUND.into()).chain(imagenet()).collect(),
        _ => (0..count).map(|index| format!("class_{index}")).collect(),
    }
}
