//! Published weights: a file of torchvision, timm, lukemelas/EfficientNet-PyTorch, Hugging Face transformers or
//! d-li14/mobilenetv2.pytorch becomes a [`Model`], with its home's conventions.
//!
//! [`load_weights`] takes any file or folder that holds weights, this program's own too:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use mbconv_train::import::{ImportOptions, load_weights};
//!
//! # fn main() -> Result<(), mbconv_train::import::ImportError> {
//! let loaded = load_weights(Path::new("mobilenet_v2-7ebf99e0.pth"), &ImportOptions::default(), &Device::default())?;
//! println!("{}", loaded.origin);
//! let (model, note) = loaded.model.with_classes(vec!["cat".into(), "dog".into()])?;
//! assert_eq!(model.network.architecture().classes, 2);
//! println!("{}", note.unwrap_or_default());
//! # Ok(())
//! # }
//! ```

mod archive;
mod hints;
mod pickle;
mod presets;
mod state;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use mbconv_nets::detect::{DetectError, Detected, detect};
use mbconv_nets::weights::{WeightsError, adapt, load_state_dict};
use mbconv_nets::{ArchitectureOptions, Layout, Network};

use crate::data::Preprocess;
use crate::model_file::{Model, ModelCard, ModelError, resolve};

pub use presets::{PRESETS, canonical_name, preprocess};
use state::StateFile;
pub(crate) use state::is_pytorch;

/// ImageNet's class names, one a line, in torchvision's words and order.
pub(crate) const IMAGENET_CLASSES: &str = include_str!("imagenet.txt");
/// Whose weights are read.
const HOMES: &str =
    "torchvision, timm, lukemelas/EfficientNet-PyTorch, Hugging Face transformers and d-li14/mobilenetv2.pytorch";
/// Names that every repository gives its weights.
const NAMELESS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Class 0 of weights with 1001 classes.
const BACKGROUND: &str = "background";

/// What a user may say of a file that the file does not.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the network, where shapes and file name leave it open; timm's names will do.
    pub arch: Option<String>,
    /// Name of a preprocessing preset, of [`PRESETS`]; the source's by default.
    pub preprocess: Option<String>,
}

/// A model, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The model, ready to use.
    pub model: Model,
    /// For people: whose weights they are and what was assumed of them. Empty for this program's own files.
    pub origin: String,
}

/// Why a file does not become a model.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Nothing there, or not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("{path} is not a file")]
    NotAFile {
        /// Its path.
        path: String,
    },
    /// Not a weights file, or a damaged one.
    #[error("{path} is not a usable weights file: {wrong}")]
    Format {
        /// Path of the file.
        path: String,
        /// What is wrong.
        wrong: String,
    },
    /// Whole, but no known network's.
    #[error("the weights in {path} are no known network's: {source}")]
    Unknown {
        /// Path of the file.
        path: String,
        /// What differs.
        source: Box<DetectError>,
        /// Did the user name the network?
        named: bool,
    },
    /// Two networks have these shapes.
    #[error(
        "the weights in {path} may be {name}'s or tf_{name}'s, which differ in padding and batch-norm's epsilon only"
    )]
    Ambiguous {
        /// Path of the file.
        path: String,
        /// The first of the two.
        name: String,
    },
    /// A tensor that holds no floats, or such as have too few bits for weights.
    #[error("`{key}` in {path} holds {holds} where weights are expected")]
    Type {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
        /// What it holds, for people.
        holds: &'static str,
    },
    /// A tensor with values that no network can have.
    #[error("`{key}` in {path} has a value that is not finite")]
    NotFinite {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
    },
    /// No preset of that name.
    #[error("there is no preprocessing preset `{name}`")]
    UnknownPreset {
        /// The name.
        name: String,
    },
    /// The network could not take the weights.
    #[error("{path}: {source}")]
    Weights {
        /// Path of the file.
        path: String,
        /// What is wrong.
        source: WeightsError,
    },
    /// This program's own file is unusable.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl ImportError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous { name, .. } => {
                Some(format!("`--arch tf_{name}` for weights that were trained with TensorFlow, else `--arch {name}`"))
            }
            Self::Unknown { named: true, .. } => {
                Some("leave --arch away to have the network found; `mbconv list` shows the names".into())
            }
            Self::Unknown { .. } => Some(format!("MobileNetV2 and EfficientNet are read as {HOMES} write them: `mbconv list`")),
            Self::Format { .. } => Some(
                "is the file whole? Read are .safetensors files and what `torch.save(model.state_dict(), \"FILE.pth\")` writes"
                    .into(),
            ),
            Self::Type { .. } => {
                Some("weights are floats of 16, 32 or 64 bits: convert them where they come from, as with `.float()`".into())
            }
            Self::NotFinite { .. } => {
                Some("the file is damaged, or its training had diverged: fetch it again, or take another checkpoint".into())
            }
            Self::UnknownPreset { .. } => Some(format!("there are {}", PRESETS.join(", "))),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("give a .pth or .safetensors file, or a model of this program".into())
            }
            Self::NotAFile { .. } => Some("give the file of weights itself".into()),
            Self::Model(error) => error.hint(),
            _ => None,
        }
    }
}

/// The model in `path`: this program's own, as a file or a run's folder, or published weights in any layout of [`Layout`].
///
/// The network and its layout are found from keys and shapes; padding, batch-norm's constants and preprocessing follow from
/// the layout, from what the file or its repository in a cache of Hugging Face's is called, and from timm's `config.json` or
/// transformers' `preprocessor_config.json` beside it, where they are of this network.
///
/// # Errors
/// See [`ImportError`]: tensors that are missing, unused or of another shape are listed. Nothing is loaded by halves.
pub fn load_weights(path: &Path, options: &ImportOptions, device: &Device) -> Result<Loaded, ImportError> {
    let path = resolve(path)?;
    from_bytes(state::read(&path)?, &path, options, device)
}

/// The same of a file's contents; `path` is where it came from.
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
    if state::is_safetensors(&bytes) {
        match Model::from_bytes(&bytes, path, device) {
            Ok(model) => return Ok(Loaded { model, origin: String::new() }),
            // Not one of ours, or damaged.
            Err(ModelError::NoCard { .. } | ModelError::Weights { source: WeightsError::Format(_), .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let file = StateFile::new(bytes, path)?;
    let shapes = file.shapes();

    let named = options.arch.is_some();
    let unknown = |source| ImportError::Unknown { path: shown(), source: Box::new(source), named };

    // The network, from shapes; its conventions, from names. What the user says must fit; a configuration that does not is
    // of other weights, and nothing in it counts.
    let mut hints = hints::beside(path, true);
    if let Some(theirs) = &hints.architecture {
        let fits = detect(&shapes, Some(&canonical_name(theirs)));
        if !fits.is_ok_and(|found| found.layout == Layout::Timm) {
            hints = hints::beside(path, false);
        }
    }
    let arch = options.arch.as_deref().or(hints.architecture.as_deref()).map(canonical_name);
    let Detected { layout, options: network } = detect(&shapes, arch.as_deref()).map_err(unknown)?;
    let stem = hints.name.clone().unwrap_or_else(|| stem(path));
    let name = network.name.clone();
    let found = presets::conventions(layout, network, &stem, arch.is_some())
        .ok_or_else(|| ImportError::Ambiguous { path: shown(), name })?;
    let architecture = found.options.architecture().map_err(|error| unknown(error.into()))?;
    let preset = options.preprocess.as_deref().unwrap_or(found.preset);
    let published = presets::preprocess(preset, &found.options.name, architecture.resolution)
        .ok_or_else(|| ImportError::UnknownPreset { name: preset.into() })?;
    let beside = hints.preprocess(&published).filter(|_| options.preprocess.is_none());
    let preset = if beside.is_some() { "its configuration's" } else { preset };
    let preprocess = beside.unwrap_or(published).with_channels(architecture.input_channels);

    let mut state = HashMap::new();
    for key in layout.tensors(&architecture).into_iter().map(|info| info.key) {
        let typed = |holds| ImportError::Type { path: shown(), key: key.clone(), holds };
        let data = file.tensor(&key).map_err(typed)?;
        if data.iter::<f32>().any(|value| !value.is_finite()) {
            return Err(ImportError::NotFinite { path: shown(), key });
        }
        state.insert(key, data);
    }
    let network = load_state_dict(Network::new(&architecture, device), state)
        .map_err(|source| ImportError::Weights { path: shown(), source })?;
    let origin = origin(layout, &found.options, &file, &preprocess, preset);
    let classes = hints.classes.filter(|names| names.len() == architecture.classes);
    let classes = classes.unwrap_or_else(|| class_names(architecture.classes));
    let card = ModelCard::new(found.options, classes, preprocess);
    Ok(Loaded { model: Model { card, network, path: path.into() }, origin })
}

impl Model {
    /// The model with these classes, and what was done, for people. As many classes as before are renamed; any other
    /// number makes the classifier new and everything else stays.
    ///
    /// # Errors
    /// More classes than a network may have, or none.
    pub fn with_classes(self, classes: Vec<String>) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.classes.len();
        if before == classes.len() {
            return Ok((Self { card: ModelCard { classes, ..self.card }, ..self }, None));
        }
        let options = ArchitectureOptions { classes: classes.len(), ..self.card.architecture.clone() };
        let model = self.adapted(options)?;
        let note = format!("the classifier is new, for {} classes instead of {before}: train it", classes.len());
        Ok((Self { card: ModelCard { classes, ..model.card }, ..model }, Some(note)))
    }

    /// The model for images of another number of channels, and what was done, for people: see [`adapt`].
    ///
    /// # Errors
    /// More channels than a network may have, or none.
    pub fn with_input_channels(self, input_channels: usize) -> Result<(Self, Option<String>), ModelError> {
        let before = self.card.architecture.input_channels;
        if before == input_channels {
            return Ok((self, None));
        }
        let options = ArchitectureOptions { input_channels, ..self.card.architecture.clone() };
        let mut model = self.adapted(options)?;
        model.card.preprocess = model.card.preprocess.with_channels(input_channels);
        let (how, channels) =
            if input_channels == 1 { ("summed", "channel") } else { ("repeated and scaled", "channels") };
        let note = format!("the stem's weights are {how}, for {input_channels} input {channels} instead of {before}");
        Ok((model, Some(note)))
    }

    fn adapted(self, options: ArchitectureOptions) -> Result<Self, ModelError> {
        let path = || self.path.display().to_string();
        let architecture =
            options.architecture().map_err(|error| ModelError::Card { path: path(), message: error.to_string() })?;
        let network =
            adapt(&self.network, &architecture).map_err(|source| ModelError::Weights { path: path(), source })?;
        // What was measured and trained was another network.
        let card = ModelCard { architecture: options, recipe: None, results: None, ..self.card };
        Ok(Self { card, network, path: self.path })
    }
}

/// What the file is called, without its ending: in a cache of Hugging Face's, where all weights have one name, what their
/// repository is called.
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

/// ImageNet's names for its numbers of classes, else numbers.
fn class_names(count: usize) -> Vec<String> {
    let imagenet = || IMAGENET_CLASSES.lines().map(String::from);
    match count {
        1000 => imagenet().collect(),
        1001 => std::iter::once(BACKGROUND.into()).chain(imagenet()).collect(),
        _ => (0..count).map(|index| format!("class_{index}")).collect(),
    }
}

fn origin(
    layout: Layout,
    options: &ArchitectureOptions,
    file: &StateFile,
    preprocess: &Preprocess,
    preset: &str,
) -> String {
    let source = match layout {
        Layout::Torchvision => "torchvision's",
        Layout::Timm => "timm's",
        Layout::Lukemelas => "lukemelas/EfficientNet-PyTorch's",
        Layout::HuggingFace => "Hugging Face transformers'",
        Layout::Flat => "d-li14/mobilenetv2.pytorch's",
    };
    let ArchitectureOptions { name, classes, .. } = options;
    let holder = file.holder.as_ref().map(|holder| format!(" (`{holder}` of a checkpoint)")).unwrap_or_default();
    format!("{name} with {classes} classes in {source} layout{holder}; preprocessing {preset}: {preprocess}")
}
