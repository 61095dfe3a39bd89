//! What can be wrong with a recipe.

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read the recipe {path}: {source}")]
    Read {
        /// Path of the recipe.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of a stage table could not be read.
    #[error("cannot read the stage table {path}: {source}")]
    Table {
        /// Path of the table.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown or missing key, a value of the wrong type.
    #[error("in {path}: {message}")]
    Parse {
        /// Path of the recipe.
        path: String,
        /// What is wrong, with the key's name.
        message: String,
    },
    /// An override that is not `key=value`, or whose key leads nowhere.
    #[error("cannot set `{setting}`: {message}")]
    Override {
        /// The override as given.
        setting: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value outside its range.
    #[error("the recipe's `{key}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Full key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The network cannot be built so.
    #[error("the recipe's [model]: {0}")]
    Model(#[from] mbconv_nets::ArchitectureError),
}

pub(crate) fn ensure(holds: bool, key: &str, value: impl ToString, expected: &str) -> Result<(), RecipeError> {
    if holds {
        return Ok(());
    }
    Err(RecipeError::OutOfRange { key: key.into(), value: value.to_string(), expected: expected.into() })
}

/// A whole number from 1 to `most`.
pub(crate) fn ensure_count(key: &str, value: usize, most: usize) -> Result<(), RecipeError> {
    ensure((1..=most).contains(&value), key, value, &format!("between 1 and {most}"))
}
