//! Any bytes as a file of another project's weights: an error or a model, never a panic, never more memory than a few times
//! the file's length.
#![no_main]

use std::path::Path;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use mbconv_train::import::{ImportOptions, from_bytes};

fuzz_target!(|bytes: &[u8]| {
    let options = ImportOptions::default();
    let _ = from_bytes(bytes.to_vec(), Path::new("nowhere/efficientnet_b0"), &options, &Device::default());
});
