//! Errors of describing a network.

/// An invalid description of a network.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ArchitectureError {
    /// No network of that name.
    #[error("unknown architecture `{name}`")]
    UnknownName {
        /// The name as given.
        name: String,
        /// A known name that is similar.
        similar: Option<&'static str>,
    },
    /// A value outside its range.
    #[error("`{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Option.
        key: &'static str,
        /// Its value.
        value: String,
        /// Valid values.
        expected: &'static str,
    },
    /// A list of strides of the wrong length.
    #[error("`strides` has {found} entries, but this network has a stem and {stages} stages: give {} numbers", stages + 1)]
    StrideCount {
        /// Entries given.
        found: usize,
        /// Stages of the network.
        stages: usize,
    },
    /// An invalid row of a stage table.
    #[error("stage {stage} of the table: `{key}` is {value}, but must be {expected}")]
    Stage {
        /// Number of the row, from 1.
        stage: usize,
        /// Key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Valid values.
        expected: String,
    },
    /// A layer with a stride whose input is already 1×1 pixels.
    #[error(
        "{place} has stride {stride}, but its input is 1×1 pixels: a total stride of {strides} is too large for images of {side}×{side}"
    )]
    VanishedMap {
        /// The stem or a stage.
        place: String,
        /// Its stride.
        stride: usize,
        /// Total stride of the network.
        strides: usize,
        /// Side of the image.
        side: usize,
    },
}

impl ArchitectureError {
    /// Returns a fix, if the message does not already name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownName { similar, .. } => {
                let similar = similar.map(|similar| format!("did you mean `{similar}`? "));
                Some(similar.unwrap_or_default() + "`mbconv list` shows the known architectures")
            }
            Self::VanishedMap { .. } => {
                Some("use larger images, or smaller strides: strides = \"cifar\", or a list".into())
            }
            _ => None,
        }
    }
}

/// Returns [`ArchitectureError::OutOfRange`] unless the condition holds.
pub(crate) fn check(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    expected: &'static str,
) -> Result<(), ArchitectureError> {
    if holds { Ok(()) } else { Err(ArchitectureError::OutOfRange { key, value: value.to_string(), expected }) }
}
