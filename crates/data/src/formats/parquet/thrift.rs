//! Thrift's compact protocol, in which Parquet stores its metadata. Reads a structure as a tree of
//! values, and writes structures field by field.

/// Maximum nesting of structures; deeper data are treated as damaged.
const DEPTH: usize = 16;

/// A value. Structures store their fields by ID.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Number(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i64, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads a structure and removes it from `bytes`; returns `None` if it is truncated or invalid.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
        structure(bytes, DEPTH)
    }

    /// Returns a field of a structure.
    pub fn field(&self, number: i64) -> Option<&Value<'a>> {
        match self {
            Value::Struct(fields) => fields.iter().find(|(found, _)| *found == number).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns a numeric field.
    pub fn number(&self, field: i64) -> Option<i64> {
        match self.field(field) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Returns a non-negative numeric field.
    pub fn size(&self, field: i64) -> Option<usize> {
        usize::try_from(self.number(field)?).ok()
    }

    /// Returns a text field.
    pub fn text(&self, field: i64) -> Option<&'a str> {
        self.field(field)?.as_text()
    }

    /// Returns a list field, or an empty list.
    pub fn list(&self, field: i64) -> &[Value<'a>] {
        match self.field(field) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }

    /// Returns the value as text.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Reads an unsigned variable-length number: seven bits per byte, the lowest first.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        number |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Reads a zigzag-encoded signed number.
fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = varint(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

/// Reads the fields of a structure up to its end marker.
fn structure<'a>(bytes: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let mut fields = Vec::new();
    let mut number = 0i64;
    loop {
        let head = byte(bytes)?;
        if head == 0 {
            return Some(Value::Struct(fields));
        }
        number = match head >> 4 {
            0 => signed(bytes)?,
            step => number.checked_add(step.into())?,
        };
        let value = match head & 15 {
            // The value of a Boolean field is part of its type.
            1 => Value::Bool(true),
            2 => Value::Bool(false),
            kind => value(bytes, kind, depth)?,
        };
        fields.push((number, value));
    }
}

/// Reads a value of Thrift type `kind`.
fn value<'a>(bytes: &mut &'a [u8], kind: u8, depth: usize) -> Option<Value<'a>> {
    let depth = depth.checked_sub(1)?;
    Some(match kind {
        1 | 2 => Value::Bool(byte(bytes)? == 1),
        3 => Value::Number(byte(bytes)?.cast_signed().into()),
        4..=6 => Value::Number(signed(bytes)?),
        7 => Value::Bytes(take(bytes, 8)?),
        8 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(take(bytes, length)?)
        }
        9 | 10 => {
            let head = byte(bytes)?;
            let count = match head >> 4 {
                15 => usize::try_from(varint(bytes)?).ok()?,
                count => count.into(),
            };
            Value::List((0..count).map(|_| value(bytes, head & 15, depth)).collect::<Option<_>>()?)
        }
        11 => {
            let count = varint(bytes)?;
            let kinds = if count > 0 { byte(bytes)? } else { 0 };
            let mut pairs = Vec::new();
            for _ in 0..count {
                pairs.push(value(bytes, kinds >> 4, depth)?);
                pairs.push(value(bytes, kinds & 15, depth)?);
            }
            Value::List(pairs)
        }
        12 => structure(bytes, depth)?,
        13 => Value::Bytes(take(bytes, 16)?),
        _ => return None,
    })
}

/// Writer of a structure; fields must be added in ascending order.
pub(crate) struct Fields {
    bytes: Vec<u8>,
    last: u8,
}

impl Fields {
    pub const I32: u8 = 5;
    const I64: u8 = 6;
    pub const BINARY: u8 = 8;
    const LIST: u8 = 9;
    const STRUCT: u8 = 12;

    pub fn new() -> Self {
        Self { bytes: Vec::new(), last: 0 }
    }

    fn field(mut self, id: u8, kind: u8, content: impl IntoIterator<Item = u8>) -> Self {
        self.bytes.push((id - self.last) << 4 | kind);
        self.bytes.extend(content);
        self.last = id;
        self
    }

    pub fn i32(self, id: u8, value: i32) -> Self {
        self.field(id, Self::I32, unsigned(zigzag(value.into())))
    }

    pub fn i64(self, id: u8, value: i64) -> Self {
        self.field(id, Self::I64, unsigned(zigzag(value)))
    }

    pub fn text(self, id: u8, value: &str) -> Self {
        self.field(id, Self::BINARY, string(value))
    }

    pub fn inner(self, id: u8, value: Fields) -> Self {
        self.field(id, Self::STRUCT, value.end())
    }

    pub fn structs(self, id: u8, items: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.list(id, Self::STRUCT, items)
    }

    pub fn list(self, id: u8, kind: u8, items: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let items: Vec<Vec<u8>> = items.into_iter().collect();
        let mut content = match items.len() {
            count @ 0..15 => vec![(count as u8) << 4 | kind],
            count => [vec![0xF0 | kind], unsigned(count as u64)].concat(),
        };
        content.extend(items.concat());
        self.field(id, Self::LIST, content)
    }

    /// Returns the bytes with the end marker.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [unsigned(text.len() as u64), text.as_bytes().to_vec()].concat()
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unsigned(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read() {
        // Field 1: -3; field 3: "ab"; field 20 (with an explicit ID): true; field 21: a list of two
        // structures.
        let bytes = [0x15, 5, 0x28, 2, b'a', b'b', 0x01, 40, 0x19, 0x2c, 0x15, 2, 0, 0, 0, 99];
        let mut rest = &bytes[..];
        let value = Value::read(&mut rest).unwrap();
        assert_eq!(rest, [99]);
        assert_eq!((value.number(1), value.text(3), value.field(20)), (Some(-3), Some("ab"), Some(&Value::Bool(true))));
        assert_eq!((value.list(21).len(), value.list(21)[0].number(1)), (2, Some(1)));
        for length in 0..bytes.len() - 1 {
            assert_eq!(Value::read(&mut &bytes[..length]), None);
        }
    }

    #[test]
    fn written_numbers_follow_the_protocol() {
        assert_eq!((unsigned(0), unsigned(127), unsigned(300)), (vec![0], vec![127], vec![0xAC, 0x02]));
        assert_eq!([0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
        let fields = Fields::new().i32(1, -1).text(4, "ab").list(5, Fields::I32, vec![vec![7]; 15]).end();
        assert_eq!(fields[..8], [0x15, 1, 0x38, 2, b'a', b'b', 0x19, 0xF5]);
        assert_eq!(fields[8..], [&[15][..], &[7; 15], &[0]].concat());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::read(&mut &bytes[..]);
        }
    }
}
