//! Thrift's compact protocol, in which Parquet writes its descriptions: any structure, as a tree of values.

/// Structures within structures; more than this is damage.
const DEPTH: usize = 16;

/// A value; structures hold their fields by number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Bool(bool),
    Number(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Struct(Vec<(i64, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads a structure from the beginning of `bytes`, and takes it off. None if it breaks off or is none.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
        structure(bytes, DEPTH)
    }

    /// A structure's field.
    pub fn field(&self, number: i64) -> Option<&Value<'a>> {
        match self {
            Value::Struct(fields) => fields.iter().find(|(found, _)| *found == number).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A field that is a number.
    pub fn number(&self, field: i64) -> Option<i64> {
        match self.field(field) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A field that is a number of things or a place.
    pub fn size(&self, field: i64) -> Option<usize> {
        usize::try_from(self.number(field)?).ok()
    }

    /// A field that is text.
    pub fn text(&self, field: i64) -> Option<&'a str> {
        self.field(field)?.as_text()
    }

    /// A field's list; empty if there is none.
    pub fn list(&self, field: i64) -> &[Value<'a>] {
        match self.field(field) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }

    /// A text.
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

/// A number of seven bits a byte, the lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
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

/// One whose sign is in the lowest bit.
fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let number = varint(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

fn structure<'a>(bytes: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let mut fields = Vec::new();
    let mut number = 0i64;
    loop {
        let head = byte(bytes)?;
        if head == 0 {
            return Some(Value::Struct(fields));
        }
        number = match head >> 4 {
            0 => zigzag(bytes)?,
            step => number.checked_add(step.into())?,
        };
        let value = match head & 15 {
            // The value of a field that is true or false is in its type.
            1 => Value::Bool(true),
            2 => Value::Bool(false),
            kind => value(bytes, kind, depth)?,
        };
        fields.push((number, value));
    }
}

fn value<'a>(bytes: &mut &'a [u8], kind: u8, depth: usize) -> Option<Value<'a>> {
    let depth = depth.checked_sub(1)?;
    Some(match kind {
        1 | 2 => Value::Bool(byte(bytes)? == 1),
        3 => Value::Number(byte(bytes)?.cast_signed().into()),
        4..=6 => Value::Number(zigzag(bytes)?),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_found() {
        // Field 1: -3; field 3: "ab"; field 20 (its number written out): true; field 21: a list of two structures.
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

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::read(&mut &bytes[..]);
        }
    }
}
