//! What survives the program.

use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};

/// Keeps kernels compiled and tuned in the user's cache directory, for later runs. Does nothing once a GPU has been used; other
/// settings are those of `cubecl.toml` and CubeCL's environment variables.
pub fn keep_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
}
