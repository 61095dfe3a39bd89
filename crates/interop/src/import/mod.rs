//! Import of published weights: converts a file of torchvision, timm,
//! lukemelas/EfficientNet-PyTorch, Hugging Face transformers or d-li14/mobilenetv2.pytorch to a
//! [`Model`] with the conventions of its source.
//!
//! [`load_weights`] accepts any file or folder with weights, including this program's own:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use mbconv_interop::import::{ImportOptions, load_weights};
//!
//! # fn main() -> Result<(), mbconv_interop::import::ImportError> {
//! let loaded = load_weights(
//!     Path::new("mobilenet_v2-7ebf99e0.pth"),
//!     &ImportOptions::default(),
//!     &Device::default(),
//! )?;
//! println!("{}", loaded.origin);
//! let (model, note) = loaded.model.with_classes(vec!["cat".into(), "dog".into()])?;
//! assert_eq!(model.network.architecture().num_classes, 2);
//! println!("{}", note.unwrap_or_default());
//! # Ok(())
//! # }
//! ```

mod error;
pub(crate) mod foreign;
mod hints;
mod keys;
mod pickle;
mod presets;
pub(crate) mod signature;
mod state;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};
use mbconv_nets::detect::{Detected, Shapes, detect};
use mbconv_nets::layout::TensorInfo;
use mbconv_nets::weights::{WeightsError, adapt, load_state_dict, state_dict};
use mbconv_nets::{Architecture, Layout, Network, NetworkOptions};

use mbconv_image::{IMAGENET_CLASSES, Preprocess};

use crate::model_file::{Model, ModelCard, ModelError, resolve};

pub use error::ImportError;
use error::LISTED;
use keys::Classifier;
pub use keys::NotFound;
pub use presets::{PRESETS, canonical_name, preprocess};
use signature::{NAMELESS, is_safetensors};
use state::StateFile;

/// Class 0 of weights with 1001 classes.
const BACKGROUND: &str = "background";

/// Options for importing a file, for properties that it does not contain.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Architecture, if it cannot be detected from shapes and file name; may be a timm name.
    pub arch: Option<String>,
    /// Name of a preprocessing preset in [`PRESETS`]; by default, the source's.
    pub preprocess: Option<String>,
    /// Prefix of the network's keys in a checkpoint that contains more than one network.
    pub prefix: Option<String>,
    /// Accepts weights without a classifier, because the caller replaces it.
    pub without_classifier: bool,
}

/// An imported model and its origin.
#[derive(Debug)]
pub struct Loaded {
    /// The model, ready to use.
    pub model: Model,
    /// Source of the weights and assumptions about them, for the user. Empty for this program's own
    /// files.
    pub origin: String,
    /// True if the file has no usable classifier; the model's is then a placeholder with one
    /// output.
    pub without_classifier: bool,
}

/// Loads the model in `path`: a model file or run folder of this program, or published weights in
/// any [`Layout`].
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

/// Loads a model like [`load_weights`] from the contents of a file; `path` is its origin.
///
/// # Errors
/// As [`load_weights`].
pub fn from_bytes(
    bytes: Vec<u8>,
    path: &Path,
    options: &ImportOptions,
    device: &Device,
) -> Result<Loaded, ImportError> {
    let shown = || path.display().to_string();
    if is_safetensors(&bytes) {
        match Model::from_bytes(&bytes, path, device) {
            Ok(model) => return Ok(Loaded { model, origin: String::new(), without_classifier: false }),
            // Not a model file of this program, or damaged.
            Err(ModelError::NoCard { .. } | ModelError::Weights { source: WeightsError::Format(_), .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let file = StateFile::new(bytes, path, options.prefix.as_deref())?;
    let (shapes, without_classifier) = with_classifier(&file, path, options.without_classifier)?;

    let named = options.arch.is_some();
    let unknown = |source| ImportError::Unknown { path: shown(), source: Box::new(source), named };

    // The network is detected from shapes, its conventions from names. Options given by the user
    // must match; a configuration that does not match belongs to other weights and is ignored.
    let mut hints = hints::beside(path);
    let mut notes = Vec::new();
    if let Some(theirs) = &hints.architecture {
        let fits = detect(&shapes, Some(&canonical_name(theirs)));
        if !fits.is_ok_and(|found| found.layout == Layout::Timm) {
            notes.push(format!("note: the config.json beside it is of timm's `{theirs}` and is ignored"));
            hints.ignore_config();
        }
    }
    let arch = options.arch.as_deref().or(hints.architecture.as_deref()).map(canonical_name);
    let Detected { layout, options: network } = detect(&shapes, arch.as_deref()).map_err(unknown)?;
    let stem = hints.name.clone().unwrap_or_else(|| stem(path));
    let name = network.name.clone();
    let mut found = presets::conventions(layout, network, &stem, arch.is_some())
        .ok_or_else(|| ImportError::Ambiguous { path: shown(), name })?;
    match (&hints.transformers, layout) {
        (Some(config), Layout::HuggingFace) => {
            let asked = |asked| ImportError::Configuration { path: config.path.clone(), asked };
            notes.extend(config.apply(&mut found.options).map_err(asked)?);
        }
        (Some(config), _) => {
            notes.push(format!("note: {} is of transformers' `{}` and is ignored", config.path, config.kind));
            hints.ignore_config();
        }
        (None, _) => {}
    }
    let architecture = found.options.architecture().map_err(|error| unknown(error.into()))?;
    let preset = options.preprocess.as_deref().unwrap_or(found.preset);
    let published = presets::preprocess(preset, &found.options.name, architecture.resolution)
        .ok_or_else(|| ImportError::UnknownPreset { name: preset.into() })?;
    let beside = hints.preprocess(&published).filter(|_| options.preprocess.is_none());
    let preset = if beside.is_some() { "its configuration's" } else { preset };
    let preprocess = beside.unwrap_or(published).with_channels(architecture.input_channels);

    let mut state = HashMap::new();
    for TensorInfo { key, shape, .. } in layout.tensors(&architecture) {
        if !file.has(&key) {
            state.insert(key, TensorData::zeros::<f32, _>(shape));
            continue;
        }
        let typed = |holds| ImportError::Type { path: shown(), key: key.clone(), holds };
        let data = file.tensor(&key).map_err(typed)?;
        if data.iter::<f32>().any(|value| !value.is_finite()) {
            return Err(ImportError::NotFinite { path: shown(), key });
        }
        state.insert(key, data);
    }
    let network = load_state_dict(Network::new(&architecture, device), state)
        .map_err(|source| ImportError::Weights { path: shown(), source })?;
    let mut lines = vec![origin(layout, &found.options, &file, &preprocess, preset)];
    lines.extend(ignored(&file));
    lines.append(&mut notes);
    let classes = hints.classes.filter(|names| names.len() == architecture.num_classes && !without_classifier);
    let classes = classes.unwrap_or_else(|| class_names(architecture.num_classes));
    let card = ModelCard::new(found.options, classes, preprocess);
    let mut model = Model { card, network, path: path.into() };
    if architecture.num_classes == 1 && !without_classifier {
        model = model.with_two_outputs().map_err(|source| ImportError::Weights { path: shown(), source })?;
        lines.push(
            "note: one output is taken for a sigmoid: class 0 is the negative class and class 1 the positive one \
             (--classes names them)"
                .into(),
        );
    }
    Ok(Loaded { model, origin: lines.join("\n"), without_classifier })
}

/// Returns the shapes of a file's tensors, and whether a placeholder classifier of one class was
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

impl Model {
    /// Sets the classes; returns a note for the user about changes. The same number of classes only
    /// renames them; any other number reinitializes the classifier.
    ///
    /// # Errors
    /// More classes than a network can have, or none.
    pub fn with_classes(self, classes: Vec<String>) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.classes.len();
        if before == classes.len() {
            return Ok((Self { card: ModelCard { classes, ..self.card }, ..self }, None));
        }
        let options = NetworkOptions { num_classes: classes.len(), ..self.card.architecture.clone() };
        let model = self.adapted(options)?;
        let note = format!("the classifier is new, for {} classes instead of {before}: train it", classes.len());
        Ok((Self { card: ModelCard { classes, ..model.card }, ..model }, Some(note)))
    }

    /// Sets the number of input channels, see [`adapt`]; returns a note for the user about changes.
    ///
    /// # Errors
    /// More channels than a network can have, or none.
    pub fn with_input_channels(self, input_channels: usize) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.architecture.input_channels;
        if before == input_channels {
            return Ok((self, None));
        }
        let options = NetworkOptions { input_channels, ..self.card.architecture.clone() };
        let mut model = self.adapted(options)?;
        model.card.preprocess = model.card.preprocess.with_channels(input_channels);
        let (how, channels) =
            if input_channels == 1 { ("summed", "channel") } else { ("repeated and scaled", "channels") };
        let note = format!("the stem's weights are {how}, for {input_channels} input {channels} instead of {before}");
        Ok((model, Some(note)))
    }

    /// Prepends an output of 0 to the only output: the softmax of both equals the sigmoid of the
    /// original one.
    fn with_two_outputs(self) -> Result<Self, WeightsError> {
        let options = NetworkOptions { num_classes: 2, ..self.card.architecture };
        let architecture = Architecture { num_classes: 2, ..self.network.architecture().clone() };
        let state = state_dict(&self.network).into_iter().map(|(info, data)| {
            let data = match info.path.starts_with("classifier.") {
                true => {
                    let values: Vec<f32> =
                        std::iter::repeat_n(0.0, info.elements()).chain(data.iter::<f32>()).collect();
                    let shape: Vec<usize> = std::iter::once(2).chain(info.shape[1..].iter().copied()).collect();
                    TensorData::new(values, shape)
                }
                false => data,
            };
            (info.key, data)
        });
        let device = self.network.classifier.weight.val().device();
        let network = load_state_dict(Network::new(&architecture, &device), state.collect())?;
        let classes = class_names(2);
        Ok(Self { card: ModelCard { architecture: options, classes, ..self.card }, network, path: self.path })
    }

    fn adapted(self, options: NetworkOptions) -> Result<Self, ModelError> {
        let path = || self.path.display().to_string();
        let architecture =
            options.architecture().map_err(|error| ModelError::Card { path: path(), message: error.to_string() })?;
        let network =
            adapt(&self.network, &architecture).map_err(|source| ModelError::Weights { path: path(), source })?;
        // Recipe and results belong to the original network.
        let card = ModelCard { architecture: options, recipe: None, results: None, ..self.card };
        Ok(Self { card, network, path: self.path })
    }
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

fn origin(layout: Layout, options: &NetworkOptions, file: &StateFile, preprocess: &Preprocess, preset: &str) -> String {
    let source = match layout {
        Layout::Torchvision => "torchvision's",
        Layout::Timm => "timm's",
        Layout::Lukemelas => "lukemelas/EfficientNet-PyTorch's",
        Layout::HuggingFace => "Hugging Face transformers'",
        Layout::Flat => "d-li14/mobilenetv2.pytorch's",
    };
    let NetworkOptions { name, num_classes, .. } = options;
    let holder = file.holder.as_ref().map(|holder| format!(" (`{holder}` of a checkpoint)")).unwrap_or_default();
    let below = file.found.as_ref().map(|found| found.prefix.as_str()).filter(|prefix| !prefix.is_empty());
    let below = below.map(|prefix| format!(", below `{prefix}`")).unwrap_or_default();
    let head = match file.found.as_ref().map(|found| &found.classifier) {
        Some(Classifier::Renamed(key)) => format!(", classifier `{key}`"),
        Some(Classifier::Missing) => ", without a classifier".into(),
        Some(Classifier::Several(layers)) => {
            format!(", without its classifier of several layers ({})", layers.join(", "))
        }
        Some(Classifier::Usual) | None => String::new(),
    };
    let with = if head.starts_with(", without") { String::new() } else { format!(" with {num_classes} classes") };
    format!("{name}{with} in {source} layout{holder}{below}{head}; preprocessing {preset}: {preprocess}")
}

/// Returns a note about ignored tensors, if any.
fn ignored(file: &StateFile) -> Option<String> {
    let ignored = &file.found.as_ref()?.ignored;
    let listed: Vec<String> = ignored.iter().take(LISTED).map(|key| format!("`{key}`")).collect();
    let more = if ignored.len() > LISTED { ", …" } else { "" };
    (!ignored.is_empty()).then(|| format!("note: ignored tensors beside the network: {}{more}", listed.join(", ")))
}
