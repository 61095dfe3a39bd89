//! Any bytes as an image file: an error or pixels of the announced size, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::image(bytes);
});
