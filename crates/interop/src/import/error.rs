//! Errors of importing weights.

use std::path::Path;

use mbconv_nets::detect::DetectError;
use mbconv_nets::weights::WeightsError;

use crate::import::keys::NotFound;
use crate::import::presets::PRESETS;
use crate::model_file::ModelError;

/// Sources of supported weights.
const HOMES: &str =
    "torchvision, timm, lukemelas/EfficientNet-PyTorch, Hugging Face transformers and d-li14/mobilenetv2.pytorch";
/// Maximum number of keys or prefixes listed in a line.
pub(crate) const LISTED: usize = 6;

/// An error of importing a file.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file does not exist or cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Path of the file.
        path: String,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A file in another format, or without weights.
    #[error("{path} is {what}")]
    Foreign {
        /// Path of the file.
        path: String,
        /// Kind of the file, with an article.
        what: String,
        /// Advice for the user.
        remedy: String,
    },
    /// No network was located in the keys.
    #[error("{path} {}", no_network(why))]
    NoNetwork {
        /// Path of the file.
        path: String,
        /// The reason.
        why: NotFound,
    },
    /// The weights have no classifier.
    #[error("the weights in {path} have no classifier{}", several(layers))]
    NoClassifier {
        /// Path of the file.
        path: String,
        /// Weights of several layers in place of a single linear classifier.
        layers: Vec<String>,
    },
    /// A configuration with an unsupported setting.
    #[error("the configuration {path} asks for {asked}, which is not supported")]
    Configuration {
        /// Path of the configuration.
        path: String,
        /// Key and value.
        asked: String,
    },
    /// A folder, device or pipe.
    #[error("{path} is not a file")]
    NotAFile {
        /// Path.
        path: String,
    },
    /// A file that is damaged or does not contain weights.
    #[error("{path} is not a usable weights file: {wrong}")]
    Format {
        /// Path of the file.
        path: String,
        /// The reason.
        wrong: String,
    },
    /// Valid weights of an unknown network.
    #[error("the weights in {path} are no known network's: {source}")]
    Unknown {
        /// Path of the file.
        path: String,
        /// The differences from known networks.
        source: Box<DetectError>,
        /// True if the user specified the network.
        named: bool,
    },
    /// Two networks have these shapes.
    #[error(
        "the weights in {path} may be {name}'s or tf_{name}'s, which differ in padding and batch-norm's epsilon only"
    )]
    Ambiguous {
        /// Path of the file.
        path: String,
        /// Name of the one without prefix.
        name: String,
    },
    /// A tensor of another type than floats, or of floats with too few bits for weights.
    #[error("`{key}` in {path} holds {holds} where weights are expected")]
    Type {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
        /// Description of its type.
        holds: &'static str,
    },
    /// A tensor with infinite or NaN values.
    #[error("`{key}` in {path} has a value that is not finite")]
    NotFinite {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
    },
    /// An unknown preset.
    #[error("there is no preprocessing preset `{name}`")]
    UnknownPreset {
        /// The name.
        name: String,
    },
    /// Loading the weights into the network failed.
    #[error("{path}: {source}")]
    Weights {
        /// Path of the file.
        path: String,
        /// The error.
        source: WeightsError,
    },
    /// A model file of this program is unusable.
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn no_network(why: &NotFound) -> String {
    let listed = |prefixes: &[String]| -> String {
        let named: Vec<String> = prefixes.iter().take(LISTED).map(|prefix| named(prefix)).collect();
        named.join(", ")
    };
    match why {
        NotFound::Nothing => "holds no known network".into(),
        NotFound::NoSuchPrefix(found) if found.is_empty() => "has no tensors below that prefix".into(),
        NotFound::NoSuchPrefix(found) => format!("has no tensors below that prefix, only below {}", listed(found)),
        NotFound::Several(prefixes) => format!("holds several networks, below {}", listed(prefixes)),
        NotFound::Beside(prefix, keys) => {
            let below = if prefix.is_empty() { String::new() } else { format!(" below {}", named(prefix)) };
            format!("holds tensors beside the network{below} that may be part of what it computes: {}", keys.join(", "))
        }
    }
}

/// Quotes a prefix for messages.
fn named(prefix: &str) -> String {
    if prefix.is_empty() { "no prefix".into() } else { format!("`{prefix}`") }
}

fn several(layers: &[String]) -> String {
    if layers.is_empty() {
        String::new()
    } else {
        format!(" of one linear layer on the pooled features, but {}", layers.join(", "))
    }
}

impl ImportError {
    pub(crate) fn foreign(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let path = path.display().to_string();
        Self::Foreign { remedy: remedy.into().replace("FILE", &path), what: what.into(), path }
    }

    /// Returns advice on how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Foreign { remedy, .. } => Some(remedy.clone()),
            Self::NoNetwork { why, .. } => match why {
                NotFound::Nothing => Some(format!("MobileNetV2 and EfficientNet are read as {HOMES} write them")),
                NotFound::NoSuchPrefix(_) => Some("leave --prefix away to have it found".into()),
                NotFound::Several(prefixes) => {
                    let example = prefixes.iter().find(|prefix| !prefix.is_empty())?;
                    Some(format!("name one of them: --prefix {example}"))
                }
                NotFound::Beside(prefix, _) if prefix.is_empty() => Some("save the network's own `state_dict()`".into()),
                NotFound::Beside(prefix, _) => Some(format!("--prefix {prefix} takes the network alone")),
            },
            Self::NoClassifier { .. } => Some(
                "`mbconv import --classes FILE` gives them a new classifier, as `mbconv finetune` does by itself: \
                 train it before use"
                    .into(),
            ),
            Self::Configuration { .. } => {
                Some("if the weights do not need it, remove the file, and name the network with --arch".into())
            }
            Self::Ambiguous { name, .. } => {
                Some(format!("`--arch tf_{name}` for weights that were trained with TensorFlow, else `--arch {name}`"))
            }
            Self::Unknown { named: true, .. } => {
                Some("leave --arch away to have the network found; `mbconv list` shows the names".into())
            }
            Self::Unknown { .. } => Some(format!(
                "the networks of `mbconv list` are read as {HOMES} write them; other networks cannot be imported"
            )),
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
                Some("give a .pth or .safetensors file, a folder that `save_pretrained` wrote, or a model of this program".into())
            }
            Self::NotAFile { .. } => Some("give the file of weights itself".into()),
            Self::Model(error) => error.hint(),
            _ => None,
        }
    }
}
