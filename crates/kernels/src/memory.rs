//! The allocator's treatment of large blocks.

/// Asks the C library to keep freed memory for the next allocation instead of giving it back to the system.
///
/// A training step frees and allocates the same maps of many megabytes again and again; given back each time, every page
/// of them is faulted in anew, which can cost more than the arithmetic. For programs, once, at their start: the process
/// then keeps its peak of memory until it ends. Does nothing where the C library is not glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        // No block of its own from the system, however large …
        (libc::M_MMAP_MAX, 0),
        // … no giving back from the heap's end, and growth in large steps.
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // SAFETY: `mallopt` takes two integers and only sets parameters of the allocator, under the allocator's own lock.
        // Whatever it answers, allocation stays correct, so the answer is not needed.
        unsafe { libc::mallopt(option, value) };
    }
}
