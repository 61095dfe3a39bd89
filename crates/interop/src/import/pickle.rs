//! A reader of the pickles that PyTorch writes. It knows a handful of names; everything else
//! becomes [`Node::Opaque`]. Nothing is ever imported, called or executed.
//!
//! The crate `pytorch-reader` 0.22 refuses a checkpoint for anything beside the weights that it
//! cannot represent: complex, sparse, quantized or 8-bit tensors, dictionaries with other keys than
//! texts and integers, `defaultdict` or `deque`.

use std::collections::HashMap;

/// Most values a pickle may make, remember, or open lists for: a checkpoint with an optimizer's
/// state has some ten thousand.
const MAX_NODES: usize = 1 << 20;
/// Most references to them at a time.
const MAX_STACK: usize = 4 * MAX_NODES;
/// Longest name of a module or class that is looked at.
const MAX_NAME: usize = 256;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// Index of a [`Node`].
pub type Id = u32;

/// Type of a storage's or a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F64,
    F32,
    F16,
    Bf16,
    /// What holds no weights, for people, in so many bytes: whole numbers, or bytes of no type.
    Other(usize, &'static str),
}

/// What a tensor may hold that is no weights.
pub const WHOLE: &str = "whole numbers";
pub const SMALL: &str = "floats of 8 bits or fewer";
pub const COMPLEX: &str = "complex numbers";

impl Element {
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(size, _) => size,
        }
    }

    /// By the name of a storage's class or of a dtype, without `torch.`.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" | "float64" | "double" => Self::F64,
            "FloatStorage" | "float32" | "float" => Self::F32,
            "HalfStorage" | "float16" | "half" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "LongStorage" | "int64" | "uint64" => Self::Other(8, WHOLE),
            "IntStorage" | "int32" | "uint32" => Self::Other(4, WHOLE),
            "ShortStorage" | "int16" | "uint16" => Self::Other(2, WHOLE),
            "CharStorage" | "ByteStorage" | "BoolStorage" | "int8" | "uint8" | "bool" | "UntypedStorage" => {
                Self::Other(1, WHOLE)
            }
            "ComplexDoubleStorage" | "complex128" => Self::Other(16, COMPLEX),
            "ComplexFloatStorage" | "complex64" => Self::Other(8, COMPLEX),
            // `float8_e4m3fn` and its siblings.
            name if name.starts_with("float8_") => Self::Other(1, SMALL),
            _ => return None,
        })
    }
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorRef {
    pub element: Element,
    /// Text node with the storage's key.
    pub storage: Id,
    /// Elements before the first.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Node {
    None,
    Bool,
    Int(i64),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`
    Global(String),
    /// A storage in the file: its element type and the text node with its key.
    Storage(Element, Id),
    Tensor(Box<TensorRef>),
    /// An object of the class that this node names.
    Object(Id),
    /// Something of no interest here.
    Opaque,
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    pub root: Id,
    /// Bytes read.
    pub length: usize,
}

impl Pickle {
    pub fn get(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The name of the class of an object.
    pub fn class(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Object(class) => match self.get(*class) {
                Node::Global(name) => Some(name),
                _ => Some("unknown"),
            },
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// What is wrong with a pickle.
pub type Wrong = &'static str;
const SHORT: Wrong = "it ends within a value";
const EMPTY: Wrong = "it takes a value that is not there";
const MANY: Wrong = "it has more values than any checkpoint";

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

/// Reads the pickle that `bytes` begin with.
pub fn read(bytes: &[u8]) -> Result<Pickle, Wrong> {
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), stack, marks, memo };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { nodes: machine.nodes, root, length: machine.at })
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len()).ok_or(SHORT)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `size` bytes.
    fn number(&mut self, size: usize) -> Result<u64, Wrong> {
        Ok(self.take(size)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn counted(&mut self, size: usize) -> Result<&'a [u8], Wrong> {
        let count = self.number(size)?;
        self.take(usize::try_from(count).map_err(|_| SHORT)?)
    }

    fn line(&mut self) -> Result<&'a [u8], Wrong> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or(SHORT)?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, node: Node) -> Result<(), Wrong> {
        if self.nodes.len() >= MAX_NODES {
            return Err(MANY);
        }
        self.nodes.push(node);
        self.refer((self.nodes.len() - 1) as Id)
    }

    /// Puts a reference to a value on the stack.
    fn refer(&mut self, id: Id) -> Result<(), Wrong> {
        self.stack.push(id);
        if self.stack.len() > MAX_STACK { Err(MANY) } else { Ok(()) }
    }

    fn mark(&mut self) -> Result<(), Wrong> {
        self.marks.push(self.stack.len());
        if self.marks.len() > MAX_NODES { Err(MANY) } else { Ok(()) }
    }

    fn push_text(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.push(std::str::from_utf8(bytes).map_or(Node::Opaque, |text| Node::Text(text.into())))
    }

    fn pop(&mut self) -> Result<Id, Wrong> {
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err(EMPTY);
        }
        self.stack.pop().ok_or(EMPTY)
    }

    fn top(&self) -> Result<Id, Wrong> {
        self.stack.last().copied().ok_or(EMPTY)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Wrong> {
        let mark = self.marks.pop().ok_or("it closes what it did not open")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn pop_tuple(&mut self, count: usize) -> Result<(), Wrong> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn remember(&mut self, key: u64) -> Result<(), Wrong> {
        let top = self.top()?;
        self.memo.insert(key, top);
        if self.memo.len() > MAX_NODES { Err(MANY) } else { Ok(()) }
    }

    fn recall(&mut self, key: u64) -> Result<(), Wrong> {
        let id = *self.memo.get(&key).ok_or("it recalls what it did not remember")?;
        self.refer(id)
    }

    fn decimal(&mut self) -> Result<i64, Wrong> {
        let line = std::str::from_utf8(self.line()?).map_err(|_| "it has a number that is none")?;
        match line.trim_end_matches('L') {
            "00" => Ok(0),
            "01" => Ok(1),
            digits => digits.parse().map_err(|_| "it has a number that is none"),
        }
    }

    /// One instruction; false at the end.
    fn step(&mut self) -> Result<bool, Wrong> {
        let [code] = *self.take(1)? else { return Err(SHORT) };
        match code {
            b'.' => return Ok(false),
            0x80 => {
                self.take(1)?;
            }
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.mark()?,
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.refer(top)?;
            }
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool)?,
            0x89 => self.push(Node::Bool)?,
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Node::Int(number.into()))?;
            }
            b'I' | b'L' => {
                let number = self.decimal()?;
                self.push(Node::Int(number))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Opaque)?;
            }
            b'F' | b'S' => {
                self.line()?;
                self.push(Node::Opaque)?;
            }
            b'V' => {
                let text = self.line()?;
                self.push_text(text)?;
            }
            b'X' | b'T' => self.text(4)?,
            0x8c | b'U' => self.text(1)?,
            0x8d => self.text(8)?,
            b'B' => self.data(4)?,
            b'C' => self.data(1)?,
            0x8e | 0x96 => self.data(8)?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b']' => self.push(Node::List(Vec::new()))?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            0x8f => self.push(Node::Opaque)?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            0x85 => self.pop_tuple(1)?,
            0x86 => self.pop_tuple(2)?,
            0x87 => self.pop_tuple(3)?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(pairs(&items)))?;
            }
            0x90 => {
                self.pop_to_mark()?;
            }
            0x91 => {
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            b'p' => {
                let key = self.decimal()?;
                self.remember(key as u64)?;
            }
            b'q' => {
                let key = self.number(1)?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.number(4)?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'g' => {
                let key = self.decimal()?;
                self.recall(key as u64)?;
            }
            b'h' => {
                let key = self.number(1)?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.number(4)?;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match &self.nodes[id as usize] {
                    Node::Text(text) if text.len() <= MAX_NAME => text.clone().into_bytes(),
                    _ => Vec::new(),
                };
                let (module, name) = (text(module), text(name));
                self.global(&module, &name)?;
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let made = self.apply(function, arguments);
                self.push(made)?;
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let made = match self.apply(class, arguments) {
                    Node::Opaque => Node::Object(class),
                    made => made,
                };
                self.push(made)?;
            }
            0x92 => {
                self.pop_tuple(3)?;
                self.pop()?;
                self.push(Node::Opaque)?;
            }
            b'i' => {
                self.line()?;
                self.line()?;
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            b'o' => {
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            // The state of an object: only attributes such as `_metadata`, or of something opaque.
            b'b' => {
                self.pop()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id);
                self.push(storage)?;
            }
            _ => return Err("it has an unknown instruction"),
        }
        Ok(true)
    }

    fn integer(&mut self, size: usize) -> Result<(), Wrong> {
        let number = self.number(size)?;
        self.push(Node::Int(number as i64))
    }

    /// A number of any length; those that no dimension can have are opaque.
    fn long(&mut self, size: usize) -> Result<(), Wrong> {
        let bytes = self.counted(size)?;
        let node = match bytes.len() {
            0 => Node::Int(0),
            count @ 1..=8 => {
                let number = bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
                let unused = 64 - 8 * count as u32;
                Node::Int((number << unused) as i64 >> unused)
            }
            _ => Node::Opaque,
        };
        self.push(node)
    }

    fn text(&mut self, size: usize) -> Result<(), Wrong> {
        let text = self.counted(size)?;
        self.push_text(text)
    }

    fn data(&mut self, size: usize) -> Result<(), Wrong> {
        self.counted(size)?;
        self.push(Node::Opaque)
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Wrong> {
        let known = module.len().max(name.len()) <= MAX_NAME;
        let text = || Some(format!("{}.{}", std::str::from_utf8(module).ok()?, std::str::from_utf8(name).ok()?));
        self.push(if known { text().map_or(Node::Opaque, Node::Global) } else { Node::Opaque })
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Wrong> {
        let top = self.top()?;
        if let Node::List(list) = &mut self.nodes[top as usize] {
            list.extend(items);
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), Wrong> {
        let top = self.top()?;
        if let Node::Dict(dict) = &mut self.nodes[top as usize] {
            dict.extend(pairs(items));
        }
        Ok(())
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id as usize] {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// What a call of a known function gives. Nothing is called.
    fn apply(&self, function: Id, arguments: Id) -> Node {
        let (Node::Global(name), Some(arguments)) = (&self.nodes[function as usize], self.tuple(arguments)) else {
            return Node::Opaque;
        };
        let made = match name.as_str() {
            "collections.OrderedDict" | "collections.defaultdict" => Some(Node::Dict(Vec::new())),
            "torch.Size" => arguments.first().and_then(|&items| {
                let items = self.tuple(items).filter(|items| items.len() <= MAX_DIMENSIONS)?;
                Some(Node::Tuple(items.to_vec()))
            }),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => self.tensor(arguments, None),
            "torch._utils._rebuild_tensor_v3" => self.tensor(arguments, arguments.get(6).copied()),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match arguments.first().map(|&data| &self.nodes[data as usize]) {
                    Some(tensor @ Node::Tensor(_)) => Some(tensor.clone()),
                    _ => None,
                }
            }
            _ => None,
        };
        made.unwrap_or(Node::Opaque)
    }

    /// (storage, offset, shape, strides, …)
    fn tensor(&self, arguments: &[Id], dtype: Option<Id>) -> Option<Node> {
        let [storage, offset, shape, strides, ..] = *arguments else { return None };
        let &Node::Storage(element, key) = &self.nodes[storage as usize] else { return None };
        let element = match dtype.map(|dtype| &self.nodes[dtype as usize]) {
            None => element,
            Some(Node::Global(name)) => Element::named(name.strip_prefix("torch.")?)?,
            Some(_) => return None,
        };
        let size = |id: Id| match self.nodes[id as usize] {
            Node::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let sizes = |id: Id| -> Option<Vec<usize>> {
            let items = self.tuple(id).filter(|items| items.len() <= MAX_DIMENSIONS)?;
            items.iter().map(|&item| size(item)).collect()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let offset = size(offset)?;
        (shape.len() == strides.len())
            .then(|| Node::Tensor(Box::new(TensorRef { element, storage: key, offset, shape, strides })))
    }

    /// `("storage", class, key, location, length)`
    fn storage(&self, id: Id) -> Node {
        let made = || {
            let [kind, class, key, ..] = *self.tuple(id)? else { return None };
            let is_storage = matches!(&self.nodes[kind as usize], Node::Text(kind) if kind == "storage");
            let Node::Global(class) = &self.nodes[class as usize] else { return None };
            let class = class.strip_prefix("torch.storage.").or_else(|| class.strip_prefix("torch."))?;
            let is_key = matches!(&self.nodes[key as usize], Node::Text(_));
            (is_storage && is_key).then_some(Node::Storage(Element::named(class)?, key))
        };
        made().unwrap_or(Node::Opaque)
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_are_read() {
        // pickle.dumps({"a": [1, 300, -5, 2**40], "b": (None, True)}, 2), then at protocol 4.
        for bytes in [
            &b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\xfb\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01eX\x01\x00\x00\x00bq\x03N\x88\x86q\x04u."[..],
            b"\x80\x04\x95.\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01M,\x01J\xfb\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01e\x8c\x01b\x94N\x88\x86\x94u.",
        ] {
            let pickle = read(bytes).unwrap();
            assert_eq!(pickle.length, bytes.len());
            let Node::Dict(dict) = pickle.get(pickle.root) else { panic!("no dictionary") };
            assert_eq!(pickle.text(dict[0].0), Some("a"));
            let Node::List(list) = pickle.get(dict[0].1) else { panic!("no list") };
            let numbers: Vec<_> = list.iter().map(|&id| if let Node::Int(n) = pickle.get(id) { *n } else { 0 }).collect();
            assert_eq!(numbers, [1, 300, -5, 1 << 40]);
        }
    }

    #[test]
    fn calls_of_other_functions_are_opaque() {
        let pickle = read(b"cos\nsystem\n(S'touch /tmp/mbconv-was-here'\ntR.").unwrap();
        assert!(matches!(pickle.get(pickle.root), Node::Opaque));
    }

    #[test]
    fn nonsense_is_an_error() {
        for (bytes, wrong) in [
            (&b""[..], SHORT),
            (b"X\xff\xff\xff\xffa", SHORT),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", SHORT),
            (b".", EMPTY),
            (b"R.", EMPTY),
            (b"(\x85.", EMPTY),
            (b"t.", "it closes what it did not open"),
            (b"h\x05.", "it recalls what it did not remember"),
            (b"\xfe.", "it has an unknown instruction"),
        ] {
            assert_eq!(read(bytes).unwrap_err(), wrong, "{bytes:?}");
        }
        // A list that holds itself is no trouble.
        read(b"]q\x00h\x00a.").unwrap();
    }

    #[test]
    fn nothing_grows_without_end() {
        let memo: Vec<u8> = (0..=MAX_NODES as u32).flat_map(|key| [&b"r"[..], &key.to_le_bytes()].concat()).collect();
        for (name, bytes) in [
            ("values", vec![b'N'; MAX_NODES + 1]),
            ("marks", vec![b'('; MAX_NODES + 1]),
            ("references", [&b"N"[..], &vec![b'2'; MAX_STACK]].concat()),
            ("recalled", [&b"Nq\0"[..], &b"h\0".repeat(MAX_STACK)].concat()),
            ("remembered", [&b"N"[..], &memo].concat()),
        ] {
            assert_eq!(read(&[&bytes[..], b"."].concat()).unwrap_err(), MANY, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_instructions_make_it_panic(
            codes in prop::collection::vec(prop::sample::select(b"(.0122NK\x01MJ\x88}])t\x85\x86\x87aeusqh\x00\x01cR\x93bQX".to_vec()), 0..200),
        ) {
            let _ = read(&codes);
        }
    }
}
