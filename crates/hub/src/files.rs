//! Names of the files in a Hugging Face repository.

/// Weights files of a Hugging Face repository, in order of preference.
pub const REPOSITORY_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Files beside weights in a repository that describe their use.
pub const COMPANIONS: [&str; 2] = ["config.json", "preprocessor_config.json"];
