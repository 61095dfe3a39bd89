//! The state of the pickle machine: input, values, stack, marks and memo.

use std::collections::HashMap;

use super::value::{Id, Node};

/// Maximum number of values, marks and memo entries. A checkpoint with optimizer state has about
/// ten thousand.
pub const MAX_NODES: usize = 1 << 20;
/// Maximum size of the stack.
pub const MAX_STACK: usize = 4 * MAX_NODES;

/// The reason why a file cannot be read.
pub type Reason = &'static str;
pub const SHORT: Reason = "the pickle ends within a value";
pub const EMPTY: Reason = "the pickle takes a value from an empty stack";
pub const MANY: Reason = "the pickle has more values than any checkpoint";
const NO_MARK: Reason = "the pickle closes a list that it did not open";
const NO_MEMO: Reason = "the pickle reads a memo entry that it did not write";
const NO_NUMBER: Reason = "the pickle has an invalid number";

pub struct Machine<'a> {
    bytes: &'a [u8],
    /// Index of the next byte.
    pub position: usize,
    pub nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
        Self { bytes, position: 0, nodes: Vec::new(), stack, marks, memo }
    }

    /// Reads `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let end = self.position.checked_add(count).filter(|&end| end <= self.bytes.len()).ok_or(SHORT)?;
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    /// Skips `count` bytes.
    pub fn skip(&mut self, count: usize) -> Result<(), Reason> {
        self.take(count).map(|_| ())
    }

    /// Reads a little-endian number of `size` bytes.
    pub fn number(&mut self, size: usize) -> Result<u64, Reason> {
        Ok(little_endian(self.take(size)?))
    }

    /// Reads a length stored in `size` bytes, and data of that length.
    pub fn counted(&mut self, size: usize) -> Result<&'a [u8], Reason> {
        let count = self.number(size)?;
        self.take(usize::try_from(count).map_err(|_| SHORT)?)
    }

    /// Reads a line.
    pub fn line(&mut self) -> Result<&'a [u8], Reason> {
        let rest = &self.bytes[self.position..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or(SHORT)?;
        self.position += end + 1;
        Ok(&rest[..end])
    }

    /// Reads a line with a decimal number.
    pub fn decimal(&mut self) -> Result<i64, Reason> {
        let line = std::str::from_utf8(self.line()?).map_err(|_| NO_NUMBER)?;
        match line.trim_end_matches('L') {
            "00" => Ok(0),
            "01" => Ok(1),
            digits => digits.parse().map_err(|_| NO_NUMBER),
        }
    }

    /// Pushes a new value.
    pub fn push(&mut self, node: Node) -> Result<(), Reason> {
        if self.nodes.len() >= MAX_NODES {
            return Err(MANY);
        }
        self.nodes.push(node);
        self.push_id((self.nodes.len() - 1) as Id)
    }

    /// Pushes an existing value.
    pub fn push_id(&mut self, id: Id) -> Result<(), Reason> {
        self.stack.push(id);
        if self.stack.len() > MAX_STACK { Err(MANY) } else { Ok(()) }
    }

    /// Pushes a text.
    pub fn push_text(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.push(std::str::from_utf8(bytes).map_or(Node::Opaque, |text| Node::Text(text.into())))
    }

    /// Pops a value. Values below the last mark cannot be popped.
    pub fn pop(&mut self) -> Result<Id, Reason> {
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(EMPTY);
        }
        self.stack.pop().ok_or(EMPTY)
    }

    /// Returns the top of the stack.
    pub fn top(&self) -> Result<Id, Reason> {
        self.stack.last().copied().ok_or(EMPTY)
    }

    /// Marks the current height of the stack.
    pub fn mark(&mut self) -> Result<(), Reason> {
        self.marks.push(self.stack.len());
        if self.marks.len() > MAX_NODES { Err(MANY) } else { Ok(()) }
    }

    /// Removes the last mark and the values above it.
    pub fn pop_to_mark(&mut self) -> Result<Vec<Id>, Reason> {
        let mark = self.marks.pop().ok_or(NO_MARK)?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// Stores the top of the stack in the memo.
    pub fn store(&mut self, key: u64) -> Result<(), Reason> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MAX_NODES { Err(MANY) } else { Ok(()) }
    }

    /// Returns the number of memo entries.
    pub fn stored(&self) -> u64 {
        self.memo.len() as u64
    }

    /// Pushes a value of the memo.
    pub fn load(&mut self, key: u64) -> Result<(), Reason> {
        let id = *self.memo.get(&key).ok_or(NO_MEMO)?;
        self.push_id(id)
    }
}

pub fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
