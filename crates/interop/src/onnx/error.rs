//! Errors of exporting to ONNX.

/// The reason why a model cannot be exported to ONNX.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OnnxError {
    /// bfloat16, for which the runtimes have no convolutions.
    #[error("ONNX export supports f32 and f16, not bf16")]
    Precision,
    /// A precision for an 8-bit model.
    #[error("an 8-bit model is exported in 8 bits")]
    EightBits,
    /// Byte input requires RGB or gray images.
    #[error("preprocessing in the graph requires 1 or 3 input channels, not {0}")]
    Channels(usize),
    /// A folded weight that is not finite, or too large for f16.
    #[error("`{path}`, with its batch-norm folded in, has a value that is not finite in the requested precision")]
    Value {
        /// Path of the tensor in the module.
        path: String,
    },
    /// The model exceeds the maximum size of a protobuf message.
    #[error("the model takes {0} bytes, but ONNX files are limited to 2147483647")]
    TooLarge(usize),
}

impl OnnxError {
    /// Returns how to fix the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Precision | Self::TooLarge(_) => Some("use --dtype f16".into()),
            Self::EightBits => Some("omit --dtype".into()),
            Self::Value { .. } => Some("use --dtype f32".into()),
            Self::Channels(_) => Some("omit --with-preprocessing and normalize the images before the model".into()),
        }
    }
}
