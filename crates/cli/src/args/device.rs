//! Arguments that choose device, threads and precision.

use clap::{Args, ValueEnum};
use mbconv_train::Group;
use mbconv_train::device::{self, Device, DeviceError};
use mbconv_train::precision::{MapPrecision, NoBf16};
use mbconv_train::shell::quoted;

use super::values::positive;
use crate::error::CliError;

#[derive(Args)]
pub struct DeviceArgs {
    /// Device: cpu, ndarray, wgpu:N, vulkan:N, cuda:N or auto
    #[arg(long, value_name = "DEV", default_value = "auto")]
    pub device: String,
    /// Number of CPU threads, at most four per core [default: one per core]
    #[arg(long, value_parser = positive)]
    pub threads: Option<usize>,
}

impl DeviceArgs {
    /// Sets the number of threads and returns the device. Must be called once, before any
    /// computation.
    pub fn open(&self) -> Result<Device, DeviceError> {
        device::set_threads(self.threads);
        device::parse(&self.device)
    }

    /// Returns the CPU for an 8-bit model, as [`open`](Self::open) does.
    ///
    /// # Errors
    /// Another device was asked for.
    pub fn open_for_8_bits(&self) -> Result<Device, CliError> {
        if !["auto", "cpu"].contains(&self.device.as_str()) {
            return Err(CliError::new(
                format!("--device {}: 8-bit models run on the CPU", self.device),
                "use --device cpu, or the model in single precision".to_string(),
            ));
        }
        device::set_threads(self.threads);
        Ok(device::parse("cpu")?)
    }

    /// Returns the options as command-line arguments.
    pub fn repeated(&self) -> String {
        let device = (self.device != "auto").then(|| format!(" --device {}", quoted(&self.device)));
        let threads = self.threads.map(|threads| format!(" --threads {threads}"));
        [device, threads].into_iter().flatten().collect()
    }

    /// Returns the device of one of several processes, and sets its number of threads.
    pub fn open_in(&self, group: &Group) -> Result<Device, DeviceError> {
        device::set_threads(self.threads.or_else(|| (group.size() > 1).then(|| group.threads())));
        let name = if self.device == "auto" { device::automatic() } else { &self.device };
        device::parse(&group.device(name))
    }
}

#[derive(Args)]
pub struct DtypeArgs {
    /// Precision of matrix multiplications: bf16 is faster on GPUs and on processors with
    /// AVX512-BF16
    #[arg(long, value_enum, default_value_t = MapDtype::F32)]
    pub dtype: MapDtype,
}

impl DtypeArgs {
    /// Returns the precision if the device supports it, with a note on standard error if it is
    /// slower than f32.
    pub fn check(&self, device: &Device) -> Result<MapPrecision, NoBf16> {
        let precision = MapPrecision::from(self.dtype);
        precision.check(device)?;
        if precision.is_slow_to_evaluate(device) {
            eprintln!("note: --dtype bf16: this processor has no bf16 instructions; f32 is faster");
        }
        Ok(precision)
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum MapDtype {
    F32,
    Bf16,
}

impl DtypeArgs {
    /// Checks the precision for an 8-bit model.
    ///
    /// # Errors
    /// bf16 was asked for.
    pub fn check_8_bits(&self) -> Result<(), CliError> {
        match self.dtype {
            MapDtype::F32 => Ok(()),
            MapDtype::Bf16 => Err(CliError::new(
                "--dtype bf16: an 8-bit model computes in 8 bits",
                "omit --dtype, or use the model in single precision".to_string(),
            )),
        }
    }
}

impl From<MapDtype> for MapPrecision {
    fn from(dtype: MapDtype) -> Self {
        match dtype {
            MapDtype::F32 => Self::F32,
            MapDtype::Bf16 => Self::Bf16,
        }
    }
}
