//! The opcodes of pickle protocols 0 to 5, grouped by effect and named as in Python's
//! `pickletools`.

use super::machine::{Machine, Reason, little_endian};
use super::value::{Id, Node};

/// Maximum length of the name of a module or class; longer names are opaque.
const MAX_NAME: usize = 256;
const UNKNOWN: Reason = "the pickle has an unknown opcode";

const STOP: u8 = b'.';
const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const MARK: u8 = b'(';
const POP: u8 = b'0';
const POP_MARK: u8 = b'1';
const DUP: u8 = b'2';

const NONE: u8 = b'N';
const NEWTRUE: u8 = 0x88;
const NEWFALSE: u8 = 0x89;
const BININT: u8 = b'J';
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const INT: u8 = b'I';
const LONG: u8 = b'L';
const LONG1: u8 = 0x8a;
const LONG4: u8 = 0x8b;
const BINFLOAT: u8 = b'G';
const FLOAT: u8 = b'F';

const STRING: u8 = b'S';
const BINSTRING: u8 = b'T';
const SHORT_BINSTRING: u8 = b'U';
const UNICODE: u8 = b'V';
const BINUNICODE: u8 = b'X';
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE8: u8 = 0x8d;
const BINBYTES: u8 = b'B';
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES8: u8 = 0x8e;
const BYTEARRAY8: u8 = 0x96;

const EMPTY_DICT: u8 = b'}';
const EMPTY_LIST: u8 = b']';
const EMPTY_TUPLE: u8 = b')';
const EMPTY_SET: u8 = 0x8f;
const TUPLE: u8 = b't';
const TUPLE1: u8 = 0x85;
const TUPLE2: u8 = 0x86;
const TUPLE3: u8 = 0x87;
const LIST: u8 = b'l';
const DICT: u8 = b'd';
const ADDITEMS: u8 = 0x90;
const FROZENSET: u8 = 0x91;
const APPEND: u8 = b'a';
const APPENDS: u8 = b'e';
const SETITEM: u8 = b's';
const SETITEMS: u8 = b'u';

const PUT: u8 = b'p';
const BINPUT: u8 = b'q';
const LONG_BINPUT: u8 = b'r';
const MEMOIZE: u8 = 0x94;
const GET: u8 = b'g';
const BINGET: u8 = b'h';
const LONG_BINGET: u8 = b'j';

const GLOBAL: u8 = b'c';
const STACK_GLOBAL: u8 = 0x93;
const REDUCE: u8 = b'R';
const NEWOBJ: u8 = 0x81;
const NEWOBJ_EX: u8 = 0x92;
const INST: u8 = b'i';
const OBJ: u8 = b'o';
const BUILD: u8 = b'b';
const BINPERSID: u8 = b'Q';

impl Machine<'_> {
    /// Executes an opcode; returns false at the end of the pickle.
    pub fn step(&mut self) -> Result<bool, Reason> {
        let opcode = self.take(1)?[0];
        if opcode == STOP {
            return Ok(false);
        }
        let known = self.stack_opcode(opcode)?
            || self.number_opcode(opcode)?
            || self.text_opcode(opcode)?
            || self.collection_opcode(opcode)?
            || self.memo_opcode(opcode)?
            || self.object_opcode(opcode)?;
        if known { Ok(true) } else { Err(UNKNOWN) }
    }

    /// Executes an opcode that frames the pickle or moves values on the stack. Like the following
    /// methods, returns false for an opcode of another group.
    fn stack_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        match opcode {
            PROTO => self.skip(1)?,
            FRAME => self.skip(8)?,
            MARK => self.mark()?,
            POP => {
                self.pop()?;
            }
            POP_MARK => {
                self.pop_to_mark()?;
            }
            DUP => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn number_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        let node = match opcode {
            NONE => Node::None,
            NEWTRUE | NEWFALSE => Node::Bool,
            BININT1 => Node::Int(self.number(1)? as i64),
            BININT2 => Node::Int(self.number(2)? as i64),
            BININT => Node::Int((self.number(4)? as u32 as i32).into()),
            INT | LONG => Node::Int(self.decimal()?),
            LONG1 => long(self.counted(1)?),
            LONG4 => long(self.counted(4)?),
            BINFLOAT => {
                self.skip(8)?;
                Node::Opaque
            }
            FLOAT => {
                self.line()?;
                Node::Opaque
            }
            _ => return Ok(false),
        };
        self.push(node)?;
        Ok(true)
    }

    fn text_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        let text = match opcode {
            UNICODE => self.line()?,
            BINUNICODE | BINSTRING => self.counted(4)?,
            SHORT_BINUNICODE | SHORT_BINSTRING => self.counted(1)?,
            BINUNICODE8 => self.counted(8)?,
            _ => return self.bytes_opcode(opcode),
        };
        self.push_text(text)?;
        Ok(true)
    }

    fn bytes_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        match opcode {
            STRING => self.line()?,
            BINBYTES => self.counted(4)?,
            SHORT_BINBYTES => self.counted(1)?,
            BINBYTES8 | BYTEARRAY8 => self.counted(8)?,
            _ => return Ok(false),
        };
        self.push(Node::Opaque)?;
        Ok(true)
    }

    fn collection_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        match opcode {
            EMPTY_DICT => self.push(Node::Dict(Vec::new()))?,
            EMPTY_LIST => self.push(Node::List(Vec::new()))?,
            EMPTY_TUPLE => self.push(Node::Tuple(Vec::new()))?,
            EMPTY_SET => self.push(Node::Opaque)?,
            TUPLE => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            TUPLE1 => self.pop_tuple(1)?,
            TUPLE2 => self.pop_tuple(2)?,
            TUPLE3 => self.pop_tuple(3)?,
            LIST => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            DICT => {
                let items = self.pop_to_mark()?;
                self.push(Node::Dict(pairs(&items)))?;
            }
            ADDITEMS => {
                self.pop_to_mark()?;
            }
            FROZENSET => {
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            APPEND => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            APPENDS => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            SETITEMS => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn memo_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        let key = match opcode {
            PUT | GET => self.decimal()? as u64,
            BINPUT | BINGET => self.number(1)?,
            LONG_BINPUT | LONG_BINGET => self.number(4)?,
            MEMOIZE => self.stored(),
            _ => return Ok(false),
        };
        match opcode {
            GET | BINGET | LONG_BINGET => self.load(key)?,
            _ => self.store(key)?,
        }
        Ok(true)
    }

    fn object_opcode(&mut self, opcode: u8) -> Result<bool, Reason> {
        match opcode {
            GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(module, name)?;
            }
            STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = (self.name(module), self.name(name));
                self.push_global(&module, &name)?;
            }
            REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let result = self.apply(function, arguments);
                self.push(result)?;
            }
            NEWOBJ => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let result = match self.apply(class, arguments) {
                    Node::Opaque => Node::Object(class),
                    result => result,
                };
                self.push(result)?;
            }
            NEWOBJ_EX => {
                self.pop_tuple(3)?;
                self.pop()?;
                self.push(Node::Opaque)?;
            }
            INST => {
                self.line()?;
                self.line()?;
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            OBJ => {
                self.pop_to_mark()?;
                self.push(Node::Opaque)?;
            }
            // The state of an object contains only attributes such as `_metadata`.
            BUILD => {
                self.pop()?;
            }
            BINPERSID => {
                let id = self.pop()?;
                let storage = self.storage(id);
                self.push(storage)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn pop_tuple(&mut self, count: usize) -> Result<(), Reason> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    /// Appends to the list on top of the stack.
    fn append(&mut self, items: &[Id]) -> Result<(), Reason> {
        let top = self.top()?;
        if let Node::List(list) = &mut self.nodes[top as usize] {
            list.extend(items);
        }
        Ok(())
    }

    /// Inserts alternating keys and values into the dictionary on top of the stack.
    fn insert(&mut self, items: &[Id]) -> Result<(), Reason> {
        let top = self.top()?;
        if let Node::Dict(dict) = &mut self.nodes[top as usize] {
            dict.extend(pairs(items));
        }
        Ok(())
    }

    /// Returns a text as the name of a module or class; empty if it is not a name.
    fn name(&self, id: Id) -> Vec<u8> {
        match &self.nodes[id as usize] {
            Node::Text(text) if text.len() <= MAX_NAME => text.clone().into_bytes(),
            _ => Vec::new(),
        }
    }

    fn push_global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Reason> {
        let is_short = module.len().max(name.len()) <= MAX_NAME;
        let text = || Some(format!("{}.{}", std::str::from_utf8(module).ok()?, std::str::from_utf8(name).ok()?));
        self.push(if is_short { text().map_or(Node::Opaque, Node::Global) } else { Node::Opaque })
    }
}

/// Returns an integer of any length; more than 8 bytes are opaque.
fn long(bytes: &[u8]) -> Node {
    match bytes.len() {
        0 => Node::Int(0),
        count @ 1..=8 => {
            let unused = 64 - 8 * count as u32;
            Node::Int((little_endian(bytes) << unused) as i64 >> unused)
        }
        _ => Node::Opaque,
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)).collect()
}
