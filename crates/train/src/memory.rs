//! Memory of the process and available memory, if the operating system provides them.

use std::fs;
use std::path::Path;

use mbconv_data::ImageSize;
use mbconv_nets::{Architecture, Summary};

use crate::config::RecipeFile;
use crate::config::finetune::Freeze;
use crate::precision::MapPrecision;
use crate::scale::config::optimizer_state;

/// Fraction of the estimate that a training step certainly needs. Measured steps needed 0.86 to
/// 0.94 of the estimate.
const CERTAIN: f64 = 0.75;

/// A training step needs more memory than is available.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "training on batches of {batch_size} images of {size:#} pixels needs about {needed:.1} GB of memory, but only \
     {available:.1} GB are available"
)]
pub struct OutOfMemory {
    /// Number of images per batch.
    pub batch_size: usize,
    /// Image size.
    pub size: ImageSize,
    /// Estimated memory of a process, in GB.
    pub needed: f64,
    /// Available memory, in GB.
    pub available: f64,
    /// Largest power-of-two fraction of the batch size that fits, if any.
    pub fits: Option<usize>,
}

impl OutOfMemory {
    /// Returns a hint for fixing the error.
    pub fn hint(&self) -> String {
        match self.fits {
            Some(fits) => format!(
                "--set batch_size={fits} fits; a smaller input.size or gradient_checkpointing = true also need less memory"
            ),
            None => "choose a smaller input.size, such as --set input.size=224".into(),
        }
    }
}

/// Returns an error if a training step on the CPU certainly needs more than the `available` bytes,
/// in which case the system would kill the process. Compares the needs of one of the `processes`,
/// because the others may run on other machines.
pub(crate) fn check_training(
    recipe: &RecipeFile,
    architecture: &Architecture,
    processes: usize,
    available: Option<u64>,
) -> Result<(), OutOfMemory> {
    // A partly frozen network stores fewer feature maps, and bf16 smaller ones.
    let is_frozen = recipe.finetune.as_ref().is_some_and(|finetune| finetune.freeze != Freeze::None);
    if is_frozen || recipe.precision == MapPrecision::Bf16 {
        return Ok(());
    }
    let size = recipe.input.size;
    let (Some(available), Ok(summary)) = (available, Summary::new(architecture, size.sides())) else { return Ok(()) };
    let needed = |batch: usize| training_bytes(recipe, &summary, batch.div_ceil(processes.max(1)));
    if needed(recipe.batch_size) as f64 * CERTAIN <= available as f64 {
        return Ok(());
    }
    let halves = std::iter::successors(Some(recipe.batch_size / 2), |batch| Some(batch / 2));
    let fits = halves.take_while(|&batch| batch > 1).find(|&batch| needed(batch) <= available);
    let [needed, available] = [needed(recipe.batch_size), available].map(|bytes| bytes as f64 / 1e9);
    Err(OutOfMemory { batch_size: recipe.batch_size, size, needed, available, fits })
}

/// Estimates the bytes for training the recipe's network, given as `summary`, on batches of `batch`
/// images. A partly frozen network and bf16 need less.
pub(crate) fn training_bytes(recipe: &RecipeFile, summary: &Summary, batch: usize) -> u64 {
    summary.training_bytes(batch, optimizer_state(recipe), recipe.gradient_checkpointing)
}

/// Returns the peak memory of the process in bytes since its start or since [`forget_peak`]. Linux
/// only.
pub fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Resets the peak memory.
pub fn forget_peak() {
    // If this fails, the peak remains that since the start.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Returns the number of bytes that the process can still allocate, including swap: the available
/// memory of the machine or of its control group, such as a container, whichever is less. Linux
/// only.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let field = |name: &str| {
        let line = machine.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
    };
    let (free, swap) = (field("MemAvailable:")?, field("SwapFree:").unwrap_or(0));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let left = groups.lines().filter_map(|line| left_in_group(root, line)).fold(free, u64::min);
    Some(left.saturating_add(swap))
}

/// Returns the number of bytes left in a control group, given its line in `/proc/self/cgroup`:
/// `0::/path`, or `4:memory:/path` in version 1.
fn left_in_group(root: &Path, line: &str) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (mount, limit, usage, prefix) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max", "memory.current", ""),
        list if list.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        }
        _ => return None,
    };
    let top = root.join(mount);
    // The limits of the parent groups apply too. Within a container, its own group is at the top.
    let groups = top.join(path.trim_start_matches('/'));
    let left = groups.ancestors().take_while(|folder| folder.starts_with(&top)).filter_map(|folder| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // A group without a limit has `max` instead of a number.
        let (limit, used) = (number(limit)?, number(usage)?);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cached = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(prefix)?.strip_prefix(name));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        // Cached files can be evicted.
        let held = used.saturating_sub(cached("inactive_file ")).saturating_sub(cached("active_file "));
        Some(limit.saturating_sub(held))
    });
    left.min()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::path::Path;

    use mbconv_nets::MobileNetV2Config;

    use super::{available_below, check_training};
    use crate::scale::default_recipe;

    /// Creates a root directory with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn training_that_exceeds_memory_is_refused_with_a_hint() {
        let mut recipe = default_recipe();
        (recipe.batch_size, recipe.input.size) = (64, 224.into());
        let architecture = MobileNetV2Config::new(1000).architecture().unwrap();
        let check = |recipe: &_, processes, available| check_training(recipe, &architecture, processes, available);
        // 3.53 GB were measured for this batch with another optimizer.
        assert!(check(&recipe, 1, Some(3_600_000_000)).is_ok());
        assert!(check(&recipe, 1, None).is_ok());
        let error = check(&recipe, 1, Some(2_500_000_000)).unwrap_err();
        assert!((error.needed - 4.13).abs() < 0.05 && error.fits == Some(32), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("64 images of 224×224") && text.contains("2.5 GB are available"), "{text}");
        assert!(check(&recipe, 2, Some(2_500_000_000)).is_ok());
        recipe.gradient_checkpointing = true;
        assert!(check(&recipe, 1, Some(2_500_000_000)).is_ok());
        recipe.input.size = 8192.into();
        let error = check(&recipe, 1, Some(1 << 30)).unwrap_err();
        assert!(error.fits.is_none() && error.hint().contains("input.size"), "{error:?}");
    }

    #[test]
    fn available_memory_respects_container_limits() {
        const MACHINE: (&str, &str) =
            ("proc/meminfo", "MemTotal: 64 kB\nMemAvailable:   32 kB\nSwapFree:        1 kB\n");
        assert!(super::available().unwrap() > 0);
        assert_eq!(available_below(Path::new("/none")), None);
        let kilobytes = |files: &[(&str, &str)]| {
            let root = system(&[&[MACHINE], files].concat());
            available_below(root.path()).unwrap() / 1024
        };
        assert_eq!(kilobytes(&[]), 33);
        let second = |max: &'static str| {
            [
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/memory.max", max),
                ("sys/fs/cgroup/a/memory.current", "8192\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 2048\nactive_file 1024\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ]
        };
        // 16 - (8 - 3), and the swap.
        assert_eq!(kilobytes(&second("16384\n")), 12);
        assert_eq!(kilobytes(&second("max\n")), 33);
        assert_eq!(kilobytes(&second("4096\n")), 1);
        let first = [
            ("proc/self/cgroup", "5:cpu:/\n4:hugetlb,memory:/not/mounted/here\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "16384\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "8192\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 4096\ntotal_inactive_file 1024\n"),
        ];
        assert_eq!(kilobytes(&first), 10);
    }

    #[test]
    fn peak_includes_allocated_memory() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        // Other tests may allocate memory at the same time, and reset the peak.
        assert!(super::peak().unwrap() >= 64 << 20);
        drop(held);
    }
}
