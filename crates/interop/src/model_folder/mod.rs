//! Folders of published models: weights, configuration and a README, as timm and Hugging Face
//! transformers open them.

mod error;
mod library;
mod readme;
mod timm;
mod transformers;
mod write;

pub use error::FolderError;
pub use library::Library;
pub use write::{configuration, write};
