//! Any text as a name of weights: what it leads to stays inside the cache.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    mbconv_fuzz::names::weights_name(text);
});
