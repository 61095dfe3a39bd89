//! Names of weights, as `--weights` takes them.

use mbconv_hub::Spec;

/// Any text as a name: what it leads to stays inside the cache. Returns whether it is a name.
pub fn weights_name(text: &str) -> bool {
    let spec = Spec::parse(text);
    if let Ok(Spec::HuggingFace { repository, revision, file }) = &spec {
        for part in [Some(repository), Some(revision), file.as_ref()].into_iter().flatten() {
            assert!(!part.contains("..") && !part.starts_with('/') && !part.contains('\\'), "{part}");
        }
    }
    spec.is_ok()
}
