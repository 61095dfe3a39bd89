//! Tests of the pickle reader.

use proptest::prelude::*;

use super::machine::{EMPTY, MANY, MAX_NODES, MAX_STACK, SHORT};
use super::*;

#[test]
fn numbers_texts_lists_and_dictionaries_are_read() {
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
fn calls_of_unknown_functions_are_opaque() {
    let pickle = read(b"cos\nsystem\n(S'touch /tmp/mbconv-was-here'\ntR.").unwrap();
    assert!(matches!(pickle.get(pickle.root), Node::Opaque));
}

#[test]
fn invalid_pickles_are_errors() {
    for (bytes, reason) in [
        (&b""[..], SHORT),
        (b"X\xff\xff\xff\xffa", SHORT),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", SHORT),
        (b".", EMPTY),
        (b"R.", EMPTY),
        (b"(\x85.", EMPTY),
        (b"t.", "the pickle closes a list that it did not open"),
        (b"h\x05.", "the pickle reads a memo entry that it did not write"),
        (b"\xfe.", "the pickle has an unknown opcode"),
    ] {
        assert_eq!(read(bytes).unwrap_err(), reason, "{bytes:?}");
    }
    // A list may contain itself.
    read(b"]q\x00h\x00a.").unwrap();
}

#[test]
fn number_of_values_is_limited() {
    let memo: Vec<u8> = (0..=MAX_NODES as u32).flat_map(|key| [&b"r"[..], &key.to_le_bytes()].concat()).collect();
    for (name, bytes) in [
        ("values", vec![b'N'; MAX_NODES + 1]),
        ("marks", vec![b'('; MAX_NODES + 1]),
        ("references", [&b"N"[..], &vec![b'2'; MAX_STACK]].concat()),
        ("memo reads", [&b"Nq\0"[..], &b"h\0".repeat(MAX_STACK)].concat()),
        ("memo entries", [&b"N"[..], &memo].concat()),
    ] {
        assert_eq!(read(&[&bytes[..], b"."].concat()).unwrap_err(), MANY, "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
    }

    #[test]
    fn arbitrary_opcodes_do_not_panic(
        codes in prop::collection::vec(prop::sample::select(b"(.0122NK\x01MJ\x88}])t\x85\x86\x87aeusqh\x00\x01cR\x93bQX".to_vec()), 0..200),
    ) {
        let _ = read(&codes);
    }
}
