//! Any bytes as a file of another project's weights: an error or a model, never a panic, never more memory than a few times
//! the file's length.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::weights_file(bytes);
});
