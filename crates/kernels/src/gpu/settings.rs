//! Settings of CubeCL and of Burn's operation fusion, shared by all GPUs of a process.

use burn::BurnConfig;
use burn_cubecl::cubecl::config::RuntimeConfig;
#[cfg(feature = "kernel-cache")]
use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, cache::CacheConfig};

/// Applies the settings that all GPUs share. Has no effect once a GPU has been used. All other
/// settings come from `burn.toml`, `cubecl.toml` and their environment variables.
pub fn set_up_gpus() {
    fuse_chains();
    #[cfg(feature = "kernel-cache")]
    keep_kernels();
}

/// Restricts fusion to operations that directly follow each other. By default Burn also searches
/// for fusable operations further apart. Most operations here are custom kernels, which are never
/// fused, so Burn deferred up to a whole training step and, whenever the program waited for the
/// GPU, repeated a search that took longer than the step.
fn fuse_chains() {
    let with_chains = || {
        let mut config = serde_json::to_value(BurnConfig::from_current_dir().override_from_env()).ok()?;
        config["fusion"]["beam_search"]["max_blocks"] = 1.into();
        serde_json::from_value::<BurnConfig>(config).ok()
    };
    if let Some(config) = with_chains() {
        BurnConfig::try_set(config);
    }
}

/// Stores compiled kernels and tuning results in the user's cache directory for later runs.
#[cfg(feature = "kernel-cache")]
fn keep_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
}
