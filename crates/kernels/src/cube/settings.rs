//! Settings of CubeCL and of Burn's fusion of operations, which all GPUs of a process share.

use burn::BurnConfig;
use burn_cubecl::cubecl::config::RuntimeConfig;
#[cfg(feature = "kernel-cache")]
use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, cache::CacheConfig};

/// Sets up what GPUs share. Does nothing once a GPU has been used; other settings are those of `burn.toml`, `cubecl.toml` and
/// their environment variables.
pub fn set_up_gpus() {
    fuse_chains();
    #[cfg(feature = "kernel-cache")]
    keep_kernels();
}

/// Has only operations fused that follow each other. Burn would look for others in between, too; with most operations being kernels
/// of our own, which nothing is fused with, it then put off up to a whole training step, and a search for what to fuse, that took
/// longer than the step, came up again whenever a program waited for the GPU.
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

/// Keeps kernels compiled and tuned in the user's cache directory, for later runs.
#[cfg(feature = "kernel-cache")]
fn keep_kernels() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config);
}
