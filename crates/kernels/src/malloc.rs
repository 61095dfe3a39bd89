//! A setting of the memory allocator for large blocks.

/// Makes the C library keep freed memory for later allocations instead of returning it to the
/// system.
///
/// Every training step frees and allocates the same feature maps of many megabytes. If they were
/// returned each time, every page would cause a new page fault, which can cost more than the
/// arithmetic. Programs call this once at their start; the process then keeps its peak memory until
/// it ends. Has no effect if the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        // Never map a large block separately.
        (libc::M_MMAP_MAX, 0),
        // Never shrink the heap, and grow it in large steps.
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // SAFETY: `mallopt` takes two integers and only sets parameters of the allocator, under the
        // allocator's own lock. Allocation stays correct whether it succeeds or not, so the result
        // is ignored.
        unsafe { libc::mallopt(option, value) };
    }
}
