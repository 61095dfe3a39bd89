//! Any bytes as a model file: an error or a model, never a panic, never more memory than the file is long.
#![no_main]

use std::path::Path;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use mbconv_train::Model;

fuzz_target!(|bytes: &[u8]| {
    let _ = Model::from_bytes(bytes, Path::new("fuzzed"), &Device::default());
});
