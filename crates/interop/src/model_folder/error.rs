//! Errors of writing model folders.

use mbconv_nets::ArchitectureError;
use mbconv_nets::weights::WeightsError;

/// The reason why a model folder cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A network that the library does not have.
    #[error("{library} has no such network: {reason}")]
    Inexpressible {
        /// The library.
        library: &'static str,
        /// The difference from its networks.
        reason: String,
    },
    /// Invalid options of the network.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// A weight that the precision cannot represent.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The folder could not be written, or is in use for other files.
    #[error("cannot write the folder {path}: {source}")]
    Write {
        /// Path of the folder.
        path: String,
        /// The I/O error.
        source: std::io::Error,
    },
}

impl FolderError {
    /// Returns advice on how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Inexpressible { library: "transformers", .. } => {
                Some("try `--layout timm`, or export to ONNX: `mbconv export MODEL OUT.onnx`".into())
            }
            Self::Inexpressible { .. } => Some("export to ONNX: `mbconv export MODEL OUT.onnx`".into()),
            Self::Architecture(error) => error.hint(),
            _ => None,
        }
    }
}
