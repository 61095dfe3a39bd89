//! Any text as a name of weights: what it leads to stays inside the cache.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mbconv_hub::Spec;

fuzz_target!(|text: &str| {
    if let Ok(Spec::HuggingFace { repository, revision, file }) = Spec::parse(text) {
        for part in [Some(repository), Some(revision), file].into_iter().flatten() {
            assert!(!part.contains("..") && !part.starts_with('/') && !part.contains('\\'), "{part}");
        }
    }
});
