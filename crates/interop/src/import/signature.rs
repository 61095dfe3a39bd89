//! Recognizes weights files by their first bytes and names.

use mbconv_files::zip;

/// `pickle.dumps(0x1950a86a20f9469cfc6c, 2)`: the first pickle of files before PyTorch 1.6.
pub(crate) const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// File names shared by the weights of all repositories.
pub(crate) const NAMELESS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Formats of weights files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Zip,
    /// PyTorch's before 1.6.
    Legacy,
    Safetensors,
}

/// Returns the format of a file, given its first bytes.
pub(crate) fn format_of(bytes: &[u8]) -> Option<Format> {
    let legacy = bytes.starts_with(LEGACY).then_some(Format::Legacy);
    let tensors = is_safetensors(bytes).then_some(Format::Safetensors);
    bytes.starts_with(zip::LOCAL_HEADER).then_some(Format::Zip).or(legacy).or(tensors)
}

/// Returns whether a file is PyTorch's, given its first bytes.
pub(crate) fn is_pytorch(bytes: &[u8]) -> bool {
    matches!(format_of(bytes), Some(Format::Zip | Format::Legacy))
}

/// Returns whether a file may be a safetensors file, given its first bytes.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}
