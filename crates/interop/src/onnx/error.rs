//! Errors of exporting to ONNX.

/// The reason why a model cannot be exported to ONNX.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OnnxError {
    /// bfloat16, for which the runtimes have no convolutions.
    #[error("ONNX files are written in f32 or f16, not bf16")]
    Precision,
    /// Byte input requires RGB or gray images.
    #[error("preprocessing inside the graph needs a network of 3 input channels or of 1, not of {0}")]
    Channels(usize),
    /// A folded weight that is not finite, or too large for f16.
    #[error("`{path}`, with its batch-norm folded in, has a value that is not finite in the precision asked for")]
    Value {
        /// Path of the tensor in the module.
        path: String,
    },
    /// The model exceeds the maximum size of a protobuf message.
    #[error("the model would take {0} bytes, but an ONNX file holds 2147483647 at most")]
    TooLarge(usize),
}

impl OnnxError {
    /// Returns how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Precision | Self::TooLarge(_) => Some("try --dtype f16".into()),
            Self::Value { .. } => Some("try --dtype f32".into()),
            Self::Channels(_) => Some("leave --with-preprocessing out, and normalise before".into()),
        }
    }
}
