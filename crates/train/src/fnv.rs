//! The FNV-1a hash, in files where its value must never change.

/// Hash of no bytes.
pub(crate) const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Continues a hash with `bytes`.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
