//! Any bytes as a Parquet shard: an error or a data set whose samples can be asked for, never a
//! panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mbconv_fuzz::readers::parquet(bytes);
});
