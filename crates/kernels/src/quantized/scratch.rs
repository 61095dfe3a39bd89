//! Working memory that is reused between calls.

use std::cell::RefCell;

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
        thread_local!(static IDLE: RefCell<Vec<Scratch>> = const { RefCell::new(Vec::new()) });
        // Taken, not borrowed: `body` may need more memory, as may other work that the thread
        // starts while it waits.
        let mut scratch = IDLE.with_borrow_mut(Vec::pop).unwrap_or_default();
        let result = body(&mut scratch);
        IDLE.with_borrow_mut(|idle| idle.push(scratch));
        result
    }
}
