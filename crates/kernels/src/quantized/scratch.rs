//! Working memory that is reused between calls.

use std::cell::Cell;

use crate::cpu::buffer::Aligned;

/// Working memory that a thread keeps between calls.
#[derive(Default)]
pub struct Scratch {
    /// Feature maps between stages.
    pub maps: [Aligned<u8>; 2],
    /// The expanded map, the input of the projection, and the same scaled by a gate.
    pub hidden: [Aligned<u8>; 3],
    /// Padded lines.
    pub lines: Aligned<u8>,
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
