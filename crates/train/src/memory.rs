//! The process's own memory, where the system tells.

/// The most memory that the process has held, in bytes, since its start or since [`forget_peak`]: Linux only.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Begins to watch the peak anew.
pub fn forget_peak() {
    // Where the system does not have it, the peak is that since the start.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_peak_counts_what_is_held() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        // Other tests may hold more at the same time, and begin to watch anew.
        assert!(super::peak().unwrap() >= 64 << 20);
        drop(held);
    }
}
