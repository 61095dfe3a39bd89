//! Any text as the header of a model file, so that the fuzzer need not find its length.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::model_header(bytes);
});
