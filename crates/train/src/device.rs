//! Devices by name: `cpu`, `ndarray`, `wgpu[:N]`, `vulkan[:N]`, `cuda[:N]`, `auto`.

pub use burn::tensor::Device;
pub use mbconv_nets::keep_freed_memory;

/// A kind of device that this program knows, compiled in or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Is it in this build?
    pub compiled: bool,
}

/// Every kind, in the order in which `auto` prefers them.
pub const KINDS: [DeviceKind; 5] = [
    kind("cuda", "NVIDIA GPUs", cfg!(feature = "cuda")),
    kind("vulkan", "GPUs through SPIR-V on Vulkan", cfg!(feature = "vulkan")),
    kind("wgpu", "GPUs through WGSL on Vulkan, Metal or DirectX 12", cfg!(feature = "wgpu")),
    kind("cpu", "this processor", true),
    kind("ndarray", "this processor through Burn's older backend, for comparison", cfg!(feature = "ndarray")),
];

const fn kind(name: &'static str, description: &'static str, compiled: bool) -> DeviceKind {
    DeviceKind { name, description, compiled }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DeviceError {
    /// No kind of that name.
    #[error("unknown device `{0}`: expected cpu, ndarray, wgpu[:N], vulkan[:N], cuda[:N] or auto")]
    Unknown(String),
    /// A kind that was left out of this build.
    #[error("this build has no `{0}` devices")]
    NotCompiled(&'static str),
    /// A number after a device of which there is only one.
    #[error("`{0}` takes no number")]
    NoIndex(String),
}

impl DeviceError {
    /// What would mend it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotCompiled(name) => Some(format!("build with `cargo build --release --features {name}`")),
            Self::Unknown(_) | Self::NoIndex(_) => Some("`mbconv devices` shows what there is".into()),
        }
    }
}

/// Finds a device by name.
///
/// # Errors
/// A name that is unknown or not in this build.
// Burn marks `ndarray` as deprecated; whoever turns the feature on knows.
#[cfg_attr(feature = "ndarray", allow(deprecated))]
pub fn parse(name: &str) -> Result<Device, DeviceError> {
    let (base, index) = match name.split_once(':') {
        None => (name, None),
        Some((base, index)) => {
            let index: usize = index.parse().map_err(|_| DeviceError::Unknown(name.into()))?;
            (base, Some(index))
        }
    };
    if base == "auto" && index.is_none() {
        return parse(automatic());
    }
    let kind = KINDS.iter().find(|kind| kind.name == base).ok_or_else(|| DeviceError::Unknown(name.into()))?;
    if !kind.compiled {
        return Err(DeviceError::NotCompiled(kind.name));
    }
    match (base, index) {
        ("cpu", None) => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        ("ndarray", None) => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        ("wgpu", index) => Ok(Device::wgpu(gpu(index))),
        #[cfg(feature = "vulkan")]
        ("vulkan", index) => Ok(Device::vulkan(gpu(index))),
        #[cfg(feature = "cuda")]
        ("cuda", index) => Ok(Device::cuda(index.unwrap_or(0))),
        _ => Err(DeviceError::NoIndex(name.into())),
    }
}

/// Does the device compute in the host's memory, where values can be changed in place?
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Has the CPU's kernels run on so many threads, by default one for each core, of which the calling thread is one: were it
/// not, every operation would put it to sleep and wake it again, which costs more than many an operation. More than four a core
/// count as four: they wait for each other awake. Once, before any computation: later calls change nothing.
pub fn set_threads(threads: Option<usize>) {
    let most = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or(0, |threads| threads.min(most));
    // It fails only where the threads are there already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
}

/// The name of a device's kind.
pub fn name(device: &Device) -> &'static str {
    if is_host(device) { "cpu" } else { automatic() }
}

/// What `auto` stands for in this build.
pub fn automatic() -> &'static str {
    KINDS.iter().find(|kind| kind.compiled).map_or("cpu", |kind| kind.name)
}

#[cfg(any(feature = "wgpu", feature = "vulkan"))]
fn gpu(index: Option<usize>) -> burn::tensor::DeviceKind {
    index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("cpu"), Ok(Device::flex()));
        assert!(parse("auto").is_ok());
        assert_eq!(parse("tpu"), Err(DeviceError::Unknown("tpu".into())));
        assert_eq!(parse("cuda:x"), Err(DeviceError::Unknown("cuda:x".into())));
        assert_eq!(parse("cpu:1"), Err(DeviceError::NoIndex("cpu:1".into())));
        #[cfg(not(feature = "cuda"))]
        assert_eq!(parse("cuda:0"), Err(DeviceError::NotCompiled("cuda")));
    }
}
