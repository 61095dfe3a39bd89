//! Recipe errors.

/// Errors of reading or checking a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read the recipe {path}: {source}")]
    Read {
        /// Path of the recipe.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
        /// Similar name of a recipe in the program.
        similar: Option<&'static str>,
    },
    /// Neither a file nor a recipe in the program.
    #[error("no recipe `{name}`: neither a file nor a recipe that comes with mbconv")]
    Unknown {
        /// Given name.
        name: String,
        /// Similar name of a recipe in the program.
        similar: Option<&'static str>,
    },
    /// The file of a stage table could not be read.
    #[error("cannot read the stage table {path}: {source}")]
    Table {
        /// Path of the table.
        path: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Invalid TOML, an unknown or missing key, or a value of the wrong type.
    #[error("in {path}: {message}")]
    Parse {
        /// Path of the recipe.
        path: String,
        /// Description of the error, including the key.
        message: String,
        /// A similar key or value.
        hint: Option<String>,
    },
    /// An override is not `key=value`, or its key does not exist.
    #[error("cannot set `{setting}`: {message}")]
    Override {
        /// The override.
        setting: String,
        /// Description of the error.
        message: String,
    },
    /// A value is out of range.
    #[error("the recipe's `{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Full name of the key.
        key: String,
        /// Value of the key.
        value: String,
        /// Description of the valid values.
        expected: String,
    },
    /// The network cannot be built with these settings.
    #[error("the recipe's [model]: {0}")]
    Model(#[from] mbconv_nets::ArchitectureError),
}

impl RecipeError {
    /// Returns a fix, if the message does not already name it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, similar, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some(names(*similar))
            }
            Self::Unknown { similar, .. } => Some(names(*similar)),
            Self::Table { .. } => Some("the path is relative to the recipe's folder or the working folder".into()),
            Self::Parse { hint, .. } => hint.clone(),
            Self::Model(error) => error.hint(),
            Self::OutOfRange { key, .. } => Some(format!("`mbconv recipe keys {key}` describes the key")),
            Self::Read { .. } | Self::Override { .. } => None,
        }
    }
}

fn names(similar: Option<&str>) -> String {
    let meant = similar.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    meant + "`mbconv recipe list` shows the recipes that come with mbconv"
}

pub(crate) fn ensure(holds: bool, key: &str, value: impl ToString, expected: &str) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError::OutOfRange { key: key.into(), value: value.to_string(), expected: expected.into() })
}
