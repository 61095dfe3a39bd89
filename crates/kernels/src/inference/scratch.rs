//! Memory that outlives a call.

use std::cell::Cell;

/// Memory that a thread keeps from call to call.
#[derive(Default)]
pub struct Scratch {
    /// The maps between stages.
    pub maps: [Vec<f32>; 2],
    /// What is projected: a band, or the whole map where a gate must see it first.
    pub hidden: Vec<f32>,
    /// Lines with borders.
    pub lines: Vec<f32>,
    /// Sums, means and gates.
    pub vectors: [Vec<f32>; 3],
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

/// The first `length` elements, whatever they hold.
pub fn room(memory: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if memory.len() < length {
        memory.resize(length, 0.0);
    }
    &mut memory[..length]
}
