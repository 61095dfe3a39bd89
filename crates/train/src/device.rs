//! Devices by name: `cpu`, `ndarray`, `wgpu[:N]`, `vulkan[:N]`, `cuda[:N]`, `auto`.

pub use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub use mbconv_nets::Allocator;
pub use mbconv_nets::keep_freed_memory;
use serde::Serialize;

/// A kind of device, whether or not it is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// Name on the command line.
    pub name: &'static str,
    /// Description for users.
    pub description: &'static str,
    /// True if the kind is compiled in.
    pub compiled: bool,
}

/// All kinds, in the order of preference of `auto`.
pub const KINDS: [DeviceKind; 5] = [
    kind("cuda", "NVIDIA GPUs", cfg!(feature = "cuda")),
    kind("vulkan", "GPUs through SPIR-V on Vulkan", cfg!(feature = "vulkan")),
    kind("wgpu", "GPUs through WGSL on Vulkan, Metal or DirectX 12", cfg!(feature = "wgpu")),
    kind("cpu", "this processor", true),
    kind("ndarray", "this processor through Burn's older backend, for comparison", cfg!(feature = "ndarray")),
];

/// Kinds with any number of devices.
const GPUS: [&str; 3] = ["cuda", "vulkan", "wgpu"];

const fn kind(name: &'static str, description: &'static str, compiled: bool) -> DeviceKind {
    DeviceKind { name, description, compiled }
}

/// Errors of finding a device.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DeviceError {
    /// The kind of device is unknown.
    #[error("unknown device `{0}`: expected cpu, ndarray, wgpu[:N], vulkan[:N], cuda[:N] or auto")]
    Unknown(String),
    /// The kind of device is not compiled in.
    #[error("this build has no `{0}` devices")]
    NotCompiled(&'static str),
    /// A device number was given for a kind with a single device.
    #[error("`{0}` takes no number")]
    NoIndex(String),
    /// The GPU does not exist.
    #[error("there is no device `{name}` here: {count} of this kind")]
    Absent {
        /// The requested name.
        name: String,
        /// Number of devices of this kind.
        count: usize,
    },
}

impl DeviceError {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotCompiled(name) => how_to_build(name),
            Self::Unknown(_) | Self::NoIndex(_) => "`mbconv devices` shows what there is".into(),
            Self::Absent { name, count: 0 } if name.starts_with("cuda") => {
                "install NVIDIA's driver, which brings libcuda; `mbconv devices` shows what there is".into()
            }
            Self::Absent { count: 0, .. } => "install the GPU's driver with Vulkan (on Debian without a GPU, \
                 `apt-get install mesa-vulkan-drivers` is a slow stand-in); `mbconv devices` shows what there is"
                .into(),
            Self::Absent { count: 1, .. } => "the only one has number 0; `mbconv devices` shows it".into(),
            Self::Absent { count, .. } => {
                format!("they are numbered from 0 to {}; `mbconv devices` shows them", count - 1)
            }
        })
    }
}

/// Returns the command for building the program with a kind of device.
pub fn how_to_build(kind: &str) -> String {
    let note = if kind == "cuda" { " (downloads LLVM while building)" } else { "" };
    format!("build with `cargo build --release --features {kind}`{note}")
}

/// An available device.
#[derive(Clone, Debug, Serialize)]
pub struct Present {
    /// Name for `--device`.
    pub name: String,
    /// Name of the CPU or GPU.
    pub adapter: Option<String>,
    /// Compilation target of kernels, as named by the runtime.
    pub target: Option<String>,
    /// True for a software implementation of a GPU.
    pub software: bool,
    /// Dedicated memory in bytes, if the operating system provides it.
    pub memory_bytes: Option<u64>,
}

/// Returns the available devices of a kind, best first. Opens each of them.
pub fn present(kind: &str) -> Vec<Present> {
    if !KINDS.iter().any(|known| known.name == kind && known.compiled) {
        return Vec::new();
    }
    if !GPUS.contains(&kind) {
        return vec![Present {
            name: kind.into(),
            adapter: processor_name(),
            target: None,
            software: false,
            memory_bytes: None,
        }];
    }
    let open = |(number, device): (usize, Device)| {
        let (adapter, target, memory_bytes) = identity(&device);
        Present { name: format!("{kind}:{number}"), adapter, target, software: is_software(&device), memory_bytes }
    };
    adapters(kind).into_iter().enumerate().map(|(number, device)| open((number, device))).collect()
}

/// Finds a device by name.
///
/// # Errors
/// Returns an error if the name is unknown, its kind is not compiled in, or the device does not
/// exist.
// Burn marks `ndarray` as deprecated, but users can still enable the feature.
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
        _ if GPUS.contains(&base) => {
            let mut adapters = adapters(base);
            let absent = DeviceError::Absent { name: name.into(), count: adapters.len() };
            let index = index.unwrap_or(0);
            if index < adapters.len() { Ok(adapters.swap_remove(index)) } else { Err(absent) }
        }
        _ => Err(DeviceError::NoIndex(name.into())),
    }
}

/// Returns whether the device is the CPU, where values can be changed in place.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Returns whether the device is a GPU and not a software implementation of one.
pub fn is_gpu(device: &Device) -> bool {
    is_on_gpus(device) && !is_software(device)
}

/// Sets the number of threads of the CPU kernels, by default one per core. The calling thread is
/// one of them, since otherwise each operation would suspend and wake it, which takes longer than
/// many operations. At most four threads per core are used, because waiting threads spin. Must be
/// called before any computation; later calls have no effect.
pub fn set_threads(threads: Option<usize>) {
    let most = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or(0, |threads| threads.min(most));
    // Fails only if the threads already exist.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
}

/// Returns a description of a device: `cpu` or the name of the GPU.
pub fn describe(device: &Device) -> String {
    match identity(device).0 {
        Some(adapter) => adapter,
        None if is_host(device) => "cpu".into(),
        None => "ndarray".into(),
    }
}

/// Returns the kind that `auto` selects: the first kind with a GPU, or else the CPU, which is
/// faster than a software implementation of a GPU.
pub fn automatic() -> &'static str {
    let has_gpu = |kind: &&DeviceKind| kind.compiled && adapters(kind.name).iter().any(|device| !is_software(device));
    KINDS.iter().find(has_gpu).map_or("cpu", |kind| kind.name)
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod gpu {
    use burn::backend::{CubeDevice, DispatchDevice};
    use burn::tensor::{DeviceType, PhysicalDevice};

    use super::Device;

    /// Returns the GPUs of a kind, best first: discrete, integrated, virtual, others, software
    /// implementations.
    pub fn adapters(kind: &str) -> Vec<Device> {
        let filter = match kind {
            #[cfg(feature = "cuda")]
            "cuda" => DeviceType::Cuda,
            #[cfg(feature = "vulkan")]
            "vulkan" => DeviceType::Vulkan,
            #[cfg(feature = "wgpu")]
            "wgpu" => DeviceType::Wgpu,
            _ => return Vec::new(),
        };
        // Must be called before any GPU is opened.
        mbconv_nets::set_up_gpus();
        let mut devices: Vec<Device> = Device::enumerate(filter).into_vec();
        devices.sort_by_key(rank);
        devices
    }

    fn rank(device: &Device) -> usize {
        match device.as_dispatch() {
            #[cfg(feature = "wgpu")]
            DispatchDevice::Cube(CubeDevice::Wgpu(device)) => {
                use burn::backend::WgpuDeviceKind::{Cpu, DiscreteGpu, IntegratedGpu, VirtualGpu};
                match device.kind {
                    DiscreteGpu(_) => 0,
                    IntegratedGpu(_) => 1,
                    VirtualGpu(_) => 2,
                    Cpu => SOFTWARE,
                    _ => 3,
                }
            }
            _ => 0,
        }
    }

    const SOFTWARE: usize = 4;

    /// Returns whether the device runs GPU kernels, possibly in software.
    pub fn is_on_gpus(device: &Device) -> bool {
        matches!(device.as_dispatch(), DispatchDevice::Cube(_))
    }

    pub fn is_software(device: &Device) -> bool {
        rank(device) == SOFTWARE
    }

    /// Returns name, compilation target and memory.
    pub fn identity(device: &Device) -> (Option<String>, Option<String>, Option<u64>) {
        match device.identity() {
            None => (None, None, None),
            Some(identity) => {
                let memory = identity.physical.as_ref().and_then(memory);
                (Some(identity.name), Some(identity.fingerprint), memory)
            }
        }
    }

    /// Returns the memory of a GPU: from a file of AMD's driver, or from NVIDIA's `nvidia-smi`.
    fn memory(card: &PhysicalDevice) -> Option<u64> {
        let address = card.pci_address?.to_string().to_lowercase();
        let file = format!("/sys/bus/pci/devices/{address}/mem_info_vram_total");
        if let Ok(text) = std::fs::read_to_string(file) {
            return text.trim().parse().ok();
        }
        let query = ["--query-gpu=pci.bus_id,memory.total", "--format=csv,noheader,nounits"];
        let output = std::process::Command::new("nvidia-smi").args(query).output().ok()?;
        nvidia_memory(&String::from_utf8_lossy(&output.stdout), &address)
    }

    /// Parses lines such as `00000000:3B:00.0, 143771`, in MiB. Other sources write fewer digits of
    /// the PCI domain.
    pub fn nvidia_memory(listing: &str, address: &str) -> Option<u64> {
        let number = |text: &str| {
            let (domain, rest) = text.split_once(':')?;
            Some((u64::from_str_radix(domain, 16).ok()?, rest.to_lowercase()))
        };
        let wanted = number(address)?;
        let card = listing
            .lines()
            .filter_map(|line| line.split_once(','))
            .find(|(bus, _)| number(bus.trim()).is_some_and(|found| found == wanted))?;
        card.1.trim().parse::<u64>().ok().map(|mebibytes| mebibytes << 20)
    }
}

#[cfg(not(any(feature = "wgpu", feature = "cuda")))]
mod gpu {
    use super::Device;

    pub fn adapters(_: &str) -> Vec<Device> {
        Vec::new()
    }

    pub fn is_on_gpus(_: &Device) -> bool {
        false
    }

    pub fn is_software(_: &Device) -> bool {
        false
    }

    pub fn identity(_: &Device) -> (Option<String>, Option<String>, Option<u64>) {
        (None, None, None)
    }
}

pub(crate) use gpu::is_on_gpus;
use gpu::{adapters, identity, is_software};

/// Returns the name of the CPU, if the operating system provides it.
fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_parsed() {
        assert_eq!(parse("cpu"), Ok(Device::flex()));
        assert!(!is_gpu(&Device::flex()));
        assert!(parse("auto").is_ok());
        assert_eq!(parse("tpu"), Err(DeviceError::Unknown("tpu".into())));
        assert_eq!(parse("cuda:x"), Err(DeviceError::Unknown("cuda:x".into())));
        assert_eq!(parse("cpu:1"), Err(DeviceError::NoIndex("cpu:1".into())));
        #[cfg(not(feature = "cuda"))]
        assert_eq!(parse("cuda:0"), Err(DeviceError::NotCompiled("cuda")));
        #[cfg(feature = "wgpu")]
        assert!(matches!(parse("wgpu:99"), Err(DeviceError::Absent { .. })));
    }

    #[test]
    fn available_devices_can_be_opened_by_name() {
        assert_eq!(present("cpu").len(), 1);
        assert!(present("tpu").is_empty());
        for kind in KINDS {
            for device in present(kind.name) {
                assert!(parse(&device.name).is_ok(), "{device:?}");
            }
        }
    }

    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    #[test]
    fn nvidia_smi_listing_is_parsed() {
        let listing = "00000000:3B:00.0, 143771\n00000000:AF:00.0, 81559\n";
        assert_eq!(gpu::nvidia_memory(listing, "0000:af:00.0"), Some(81559 << 20));
        assert_eq!(gpu::nvidia_memory(listing, "0000:00:02.0"), None);
        assert_eq!(gpu::nvidia_memory("no devices were found", "0000:00:02.0"), None);
    }
}
