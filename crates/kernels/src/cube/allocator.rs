//! The allocator of programs that use GPUs.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// The allocator for programs that use GPUs.
///
/// One thread queues what a GPU has to do, and others work it off: thousands of small blocks a step are allocated by one and freed by
/// another, for which glibc's allocator has them wait for each other. mimalloc does not. Large blocks stay with the
/// system's allocator: see [`crate::memory::keep_freed_memory`].
pub struct Allocator;

/// Bytes of a block that is large, at least.
const LARGE: usize = 1 << 15;

fn is_large(size: usize) -> bool {
    size >= LARGE
}

// SAFETY: every block comes from and goes back to one of two allocators that keep this contract themselves, chosen by the size
// in its layout alone, which the caller gives alike when it allocates, changes and frees it.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on.
        unsafe { if is_large(layout.size()) { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is passed on.
        unsafe { if is_large(layout.size()) { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was allocated with this layout, and so by the same allocator.
        unsafe { if is_large(layout.size()) { System.dealloc(block, layout) } else { MiMalloc.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the block was allocated with this layout, and so by the allocator that `layout.size()` tells. If the new size
        // belongs to it, too, it does all itself. Otherwise the new block has room for `size` bytes, the smaller of the sizes is copied,
        // and the blocks do not overlap, for both are allocated; the old one is freed only if there is a new one, as the
        // contract wants. `size` rounded up to the alignment does not overflow, by the caller's contract, so the layout is valid.
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

    /// Blocks of both allocators, and those that change from one to the other.
    #[test]
    fn blocks_keep_their_contents() {
        for align in [1, 16, 4096] {
            for (size, new) in
                [(1, 100), (100, LARGE), (LARGE - 1, LARGE), (LARGE, LARGE - 1), (3 * LARGE, 5), (LARGE, 9 * LARGE)]
            {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: layouts are of more than no bytes, and blocks are written and read within them and freed once.
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
