//! Any bytes as a model file: an error or a model, never a panic, never more memory than the file is long.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::model_file(bytes);
});
