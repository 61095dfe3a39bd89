//! The memory allocator for programs that use GPUs.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Memory allocator for programs that use GPUs.
///
/// One thread queues the work of a GPU and others process it. Every step, one thread allocates
/// thousands of small blocks that another one frees, which makes threads wait for each other in
/// glibc's allocator, but not in mimalloc. Large blocks still come from the system's allocator: see
/// [`crate::malloc::keep_freed_memory`].
pub struct Allocator;

/// Minimum size of a large block, in bytes.
const LARGE: usize = 1 << 15;

fn is_large(size: usize) -> bool {
    size >= LARGE
}

// SAFETY: every block comes from and returns to one of two allocators that fulfill this contract
// themselves. The choice depends only on the size in the block's layout, and the caller passes the
// same layout to allocate, reallocate and free it.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on unchanged.
        unsafe { if is_large(layout.size()) { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on unchanged.
        unsafe { if is_large(layout.size()) { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was allocated with this layout, so by the same allocator.
        unsafe { if is_large(layout.size()) { System.dealloc(block, layout) } else { MiMalloc.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block was allocated with this layout, so by the allocator for
        // `layout.size()`. If that is also the allocator for the new size, it does everything
        // itself. Otherwise the new block has room for `size` bytes, and the smaller of both sizes
        // is copied. Both blocks are allocated at that time, so they do not overlap. The old block
        // is freed only if the new one was allocated, as the contract requires. By the caller's
        // contract `size` rounded up to the alignment does not overflow, so the layout is valid.
        unsafe {
            match (is_large(layout.size()), is_large(size)) {
                (true, true) => System.realloc(block, layout, size),
                (false, false) => MiMalloc.realloc(block, layout, size),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers blocks of both allocators and blocks that move from one to the other.
    #[test]
    fn realloc_keeps_contents_within_and_across_allocators() {
        for align in [1, 16, 4096] {
            for (size, new) in
                [(1, 100), (100, LARGE), (LARGE - 1, LARGE), (LARGE, LARGE - 1), (3 * LARGE, 5), (LARGE, 9 * LARGE)]
            {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: all layouts have a nonzero size; blocks are accessed within their size
                // and freed once.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!((0..size).all(|at| block.add(at).read() == 0));
                    (0..size).for_each(|at| block.add(at).write(at as u8));
                    let block = Allocator.realloc(block, layout, new);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert!((0..size.min(new)).all(|at| block.add(at).read() == at as u8));
                    Allocator.dealloc(block, Layout::from_size_align(new, align).unwrap());
                }
            }
        }
    }
}
