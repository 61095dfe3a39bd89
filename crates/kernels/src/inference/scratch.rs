//! Memory that outlives a call.

use std::cell::Cell;

use crate::flex::buffer::Aligned;

/// Memory that a thread keeps from call to call.
#[derive(Default)]
pub struct Scratch {
    /// The maps between stages.
    pub maps: [Aligned; 2],
    /// What is projected: a band, or the whole map where a gate must see it first.
    pub hidden: Aligned,
    /// Lines with borders.
    pub lines: Aligned,
    /// Sums, means and gates.
    pub vectors: [Aligned; 3],
}

impl Scratch {
    pub fn with<R>(body: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: Cell<Scratch> = Cell::default());
        // Taken, not borrowed: a thread that waits inside `body` may be given another piece of work.
        let mut scratch = SCRATCH.take();
        let result = body(&mut scratch);
        SCRATCH.set(scratch);
        result
    }
}
