//! A reader of pickles written by PyTorch. It recognizes a few functions and classes; everything
//! else becomes [`Node::Opaque`]. Nothing is imported, called or executed.
//!
//! The crate `pytorch-reader` 0.22 rejects checkpoints that contain, beside the weights, complex,
//! sparse, quantized or 8-bit tensors, dictionaries with keys other than texts and integers,
//! `defaultdict` or `deque`.

mod machine;
mod opcodes;
#[cfg(test)]
mod tests;
mod torch;
mod value;

pub use machine::Reason;
pub use value::{COMPLEX, Element, INTEGERS, Id, Node, Pickle, SMALL_FLOATS, TensorRef};

use machine::Machine;

/// Reads the pickle at the start of `bytes`.
pub fn read(bytes: &[u8]) -> Result<Pickle, Reason> {
    let mut machine = Machine::new(bytes);
    while machine.step()? {}
    let root = machine.pop()?;
    let Machine { nodes, position, .. } = machine;
    Ok(Pickle { nodes, root, length: position })
}
