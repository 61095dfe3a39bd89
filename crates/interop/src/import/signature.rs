//! Recognizes weights files by their first bytes and names.

use mbconv_files::zip;

/// `pickle.dumps(0x1950a86a20f9469cfc6c, 2)`: the first of the pickles in PyTorch's old form.
pub(crate) const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// File names shared by the weights of all repositories.
pub(crate) const NAMELESS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The forms of weights files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Zip,
    Legacy,
    Safetensors,
}

/// Returns the form of a file, given its first bytes.
pub(crate) fn form(bytes: &[u8]) -> Option<Form> {
    let legacy = bytes.starts_with(LEGACY).then_some(Form::Legacy);
    let tensors = is_safetensors(bytes).then_some(Form::Safetensors);
    bytes.starts_with(zip::LOCAL_HEADER).then_some(Form::Zip).or(legacy).or(tensors)
}

/// Returns whether a file is PyTorch's, given its first bytes.
pub(crate) fn is_pytorch(bytes: &[u8]) -> bool {
    matches!(form(bytes), Some(Form::Zip | Form::Legacy))
}

/// Could it be a safetensors file?
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}
