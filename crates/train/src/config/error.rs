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

pub(crate) fn ensure(holds: bool, key: &str, value: impl ToString, expected: &str) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError::OutOfRange { key: key.into(), value: value.to_string(), expected: expected.into() })
}

/// Checks that a value is between 1 and `most`.
pub(crate) fn ensure_count(key: &str, value: usize, most: usize) -> Result<(), RecipeError> {
    ensure((1..=most).contains(&value), key, value, &format!("between 1 and {most}"))
}
