//! Any bytes as an image file that a training crop is made of: an error or a square, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::jpeg_crop(bytes);
});
