//! Any text as the header of a model file, so that the fuzzer need not find its length.
#![no_main]

use std::path::Path;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use mbconv_train::Model;

fuzz_target!(|header: &[u8]| {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + (1 << 16), 0);
    let _ = Model::from_bytes(&bytes, Path::new("fuzzed"), &Device::default());
});
