//! Any bytes as an image file: an error or pixels of the announced size, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mbconv_train::data::{Decoding, decode};

fuzz_target!(|bytes: &[u8]| {
    let decoding = Decoding { max_pixels: 1 << 22, ..Decoding::default() };
    if let Ok(image) = decode(bytes, &decoding) {
        assert_eq!(image.data.len(), image.width * image.height * 3);
    }
});
