//! Working memory that is reused between calls.

use std::cell::Cell;

use crate::cpu::buffer::Aligned;

/// Working memory that a thread keeps between calls.
#[derive(Default)]
pub struct Scratch {
    /// Feature maps between stages.
    pub maps: [Aligned; 2],
    /// Input of the projection: a band, or the whole feature map if a gate depends on it.
    pub hidden: Aligned,
    /// Padded lines.
    pub lines: Aligned,
    /// Sums, means and gates.
    pub vectors: [Aligned; 3],
}

impl Scratch {
    pub fn with<R>(body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: Cell<Scratch> = Cell::default());
        // Taken, not borrowed: a thread that waits inside `body` may start another piece of work.
        let mut scratch = SCRATCH.take();
        let result = body(&mut scratch);
        SCRATCH.set(scratch);
        result
    }
}
