//! Errors of importing weights.

use std::path::Path;

use mbconv_nets::detect::DetectError;
use mbconv_nets::weights::WeightsError;

use crate::import::keys::NotFound;
use crate::import::presets::PRESETS;
use crate::model_file::ModelError;

/// Sources of supported weights.
const SOURCES: &str =
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
    #[error("{path} is {kind}")]
    Foreign {
        /// Path of the file.
        path: String,
        /// Kind of the file, with an article.
        kind: String,
        /// Advice for the user.
        advice: String,
    },
    /// No network was located in the keys.
    #[error("{path} {}", describe_not_found(reason))]
    NoNetwork {
        /// Path of the file.
        path: String,
        /// The reason.
        reason: NotFound,
    },
    /// The weights have no classifier.
    #[error("the weights in {path} have no classifier{}", describe_layers(layers))]
    NoClassifier {
        /// Path of the file.
        path: String,
        /// Weights of several layers in place of a single linear classifier.
        layers: Vec<String>,
    },
    /// A configuration with an unsupported setting.
    #[error("the configuration {path} requires {setting}, which is not supported")]
    Configuration {
        /// Path of the configuration.
        path: String,
        /// Key and value.
        setting: String,
    },
    /// A folder, device or pipe.
    #[error("{path} is not a file")]
    NotAFile {
        /// Path.
        path: String,
    },
    /// A file that is damaged or does not contain weights.
    #[error("{path} is not a usable weights file: {reason}")]
    Format {
        /// Path of the file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// Valid weights of an unknown network.
    #[error("the weights in {path} match no supported network: {source}")]
    Unknown {
        /// Path of the file.
        path: String,
        /// The differences from known networks.
        source: Box<DetectError>,
        /// True if the user specified the network.
        named: bool,
    },
    /// Two networks have these shapes.
    #[error("the weights in {path} match {name} and tf_{name}, which differ only in padding and batch-norm epsilon")]
    Ambiguous {
        /// Path of the file.
        path: String,
        /// Name of the one without prefix.
        name: String,
    },
    /// A tensor that does not contain floats of at least 16 bits.
    #[error("`{key}` in {path} contains {found} instead of weights")]
    Type {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
        /// Description of its elements.
        found: &'static str,
    },
    /// A tensor with infinite or NaN values.
    #[error("`{key}` in {path} contains a value that is not finite")]
    NotFinite {
        /// Path of the file.
        path: String,
        /// Key of the tensor.
        key: String,
    },
    /// An unknown preset.
    #[error("unknown preprocessing preset `{name}`")]
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
    /// An unusable model file of mbconv.
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn describe_not_found(reason: &NotFound) -> String {
    let listed = |prefixes: &[String]| -> String {
        let quoted: Vec<String> = prefixes.iter().take(LISTED).map(|prefix| quoted(prefix)).collect();
        quoted.join(", ")
    };
    match reason {
        NotFound::Nothing => "contains no supported network".into(),
        NotFound::NoSuchPrefix(found) if found.is_empty() => "has no tensors with this prefix".into(),
        NotFound::NoSuchPrefix(found) => format!("has no tensors with this prefix, only with {}", listed(found)),
        NotFound::Several(prefixes) => format!("contains several networks, with the prefixes {}", listed(prefixes)),
        NotFound::Beside(prefix, keys) => {
            let prefix = if prefix.is_empty() { String::new() } else { format!(" with prefix {}", quoted(prefix)) };
            let keys = keys.join(", ");
            format!("contains tensors beside the network{prefix} that may be part of its computation: {keys}")
        }
    }
}

fn quoted(prefix: &str) -> String {
    if prefix.is_empty() { "none".into() } else { format!("`{prefix}`") }
}

fn describe_layers(layers: &[String]) -> String {
    if layers.is_empty() {
        String::new()
    } else {
        format!(" (one linear layer on the pooled features), but {}", layers.join(", "))
    }
}

impl ImportError {
    /// Returns the error of a file of another kind; `FILE` in the advice is replaced by its path.
    pub(crate) fn foreign(path: &Path, kind: impl Into<String>, advice: impl Into<String>) -> Self {
        let path = path.display().to_string();
        Self::Foreign { advice: advice.into().replace("FILE", &path), kind: kind.into(), path }
    }

    /// Returns advice on how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Foreign { advice, .. } => Some(advice.clone()),
            Self::NoNetwork { reason, .. } => match reason {
                NotFound::Nothing => Some(format!("supported are MobileNetV2 and EfficientNet weights of {SOURCES}")),
                NotFound::NoSuchPrefix(_) => Some("omit --prefix to detect it".into()),
                NotFound::Several(prefixes) => {
                    let example = prefixes.iter().find(|prefix| !prefix.is_empty())?;
                    Some(format!("`--prefix {example}` selects that one"))
                }
                NotFound::Beside(prefix, _) if prefix.is_empty() => Some("save the network's own `state_dict()`".into()),
                NotFound::Beside(prefix, _) => Some(format!("`--prefix {prefix}` imports only the network")),
            },
            Self::NoClassifier { .. } => Some(
                "`mbconv import --classes FILE` adds a new classifier, which must be trained before use; `mbconv \
                 finetune` adds one automatically"
                    .into(),
            ),
            Self::Configuration { .. } => {
                Some("if the weights do not need this setting, remove the file and select the network with --arch".into())
            }
            Self::Ambiguous { name, .. } => {
                Some(format!("`--arch tf_{name}` for weights trained with TensorFlow, otherwise `--arch {name}`"))
            }
            Self::Unknown { named: true, .. } => {
                Some("omit --arch to detect the network; `mbconv list` prints the names".into())
            }
            Self::Unknown { .. } => Some(format!(
                "supported are the networks of `mbconv list`, with weights of {SOURCES}"
            )),
            Self::Format { .. } => Some(
                "check that the file is complete; supported are .safetensors files and files that `torch.save(model.state_dict(), \"FILE.pth\")` writes"
                    .into(),
            ),
            Self::Type { .. } => {
                Some("weights must be floats of 16, 32 or 64 bits: convert them in the source program, for example with `.float()`".into())
            }
            Self::NotFinite { .. } => {
                Some("the file is damaged or the training diverged: download it again, or use another checkpoint".into())
            }
            Self::UnknownPreset { .. } => Some(format!("use one of {}", PRESETS.join(", "))),
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("use a .pth or .safetensors file, a folder written by `save_pretrained`, or a model of mbconv".into())
            }
            Self::NotAFile { .. } => Some("use the weights file itself".into()),
            Self::Model(error) => error.hint(),
            _ => None,
        }
    }
}
