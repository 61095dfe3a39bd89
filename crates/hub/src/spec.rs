//! Names of weights.

use std::path::{Path, PathBuf};

use crate::error::HubError;
use crate::pretrained::{PRETRAINED, Place, similar_weights};

/// Source of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A local file.
    Path(PathBuf),
    /// A file at a URL.
    Url {
        /// The address.
        url: String,
        /// Published prefix of its SHA-256, in lowercase hexadecimal.
        sha256: Option<String>,
    },
    /// A file in a Hugging Face repository.
    HuggingFace {
        /// `owner/name`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// File in the repository; by default the first existing one of
        /// [`crate::files::REPOSITORY_FILES`].
        file: Option<String>,
    },
}

impl Spec {
    /// Parses a name:
    ///
    /// | | |
    /// |---|---|
    /// | `torchvision/mobilenet_v2`, `torchvision/mobilenet_v2.imagenet1k_v1` | torchvision's default weights, or specific ones |
    /// | `timm/mobilenetv2_100.ra_in1k`, `timm/mobilenetv2_100` | timm's weights, with a tag or the default one |
    /// | `lukemelas/efficientnet-b0`, `lukemelas/adv-efficientnet-b0` | EfficientNet-PyTorch's weights, and those trained with AdvProp |
    /// | `d-li14/mobilenetv2_0.5` | weights of d-li14/mobilenetv2.pytorch |
    /// | `hf:owner/name`, `hf:owner/name@revision/file` | any repository |
    /// | `https://…`, `https://…#sha256=…` | any URL, optionally with its hash |
    /// | anything else, and any existing file | a path |
    ///
    /// # Errors
    /// A name in one of these forms that is invalid or unknown.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return repository(text, rest);
        }
        if is_url(text) {
            return address(text);
        }
        let home =
            ["torchvision/", "timm/", "lukemelas/", "d-li14/"].into_iter().find_map(|home| text.strip_prefix(home));
        let Some(name) = home.filter(|_| !Path::new(text).exists()) else { return Ok(Self::Path(text.into())) };
        let wanted = text.to_ascii_lowercase();
        // The first row of an architecture is its default.
        let known = PRETRAINED.iter().find(|row| row.name == wanted || row.untagged() == wanted);
        match known.map(|row| row.place) {
            Some(Place::Url(url)) => Ok(Self::Url { url: url.into(), sha256: hash_in_name(url) }),
            Some(Place::HuggingFace(repository)) => Ok(Self::repository(repository)),
            // timm publishes under its own names, including tags.
            None if text.starts_with("timm/") && name.contains('.') => repository(text, text),
            None => Err(HubError::Unknown { name: text.into(), similar: similar_weights(text) }),
        }
    }

    fn repository(name: &str) -> Self {
        Self::HuggingFace { repository: name.into(), revision: "main".into(), file: None }
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Parses `owner/name@revision/path/of/file`.
fn repository(spec: &str, text: &str) -> Result<Spec, HubError> {
    let malformed = |message: &str| HubError::Malformed { spec: spec.into(), message: message.into() };
    let mut parts = text.split('/');
    let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
        return Err(malformed("a Hugging Face repository is `owner/name`"));
    };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let file = parts.collect::<Vec<_>>().join("/");
    if ![owner, name, revision].into_iter().chain(file.split('/').filter(|_| !file.is_empty())).all(is_component) {
        return Err(malformed("its parts are made of letters, digits, `.`, `-` and `_`"));
    }
    Ok(Spec::HuggingFace {
        repository: format!("{owner}/{name}"),
        revision: revision.into(),
        file: (!file.is_empty()).then_some(file),
    })
}

/// Returns whether a text is valid as a file name in the cache and in a URL without escaping.
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && !text.contains("..") && text.chars().all(plain)
}

fn address(text: &str) -> Result<Spec, HubError> {
    let malformed = |message: &str| HubError::Malformed { spec: text.into(), message: message.into() };
    let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
    let sha256 = match fragment {
        "" => hash_in_name(url),
        fragment => {
            let hash = fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase);
            let hash =
                hash.filter(|hash| (8..=64).contains(&hash.len()) && hash.chars().all(|c| c.is_ascii_hexdigit()));
            Some(hash.ok_or_else(|| malformed("what follows `#` is sha256=, and 8 to 64 hexadecimal digits"))?)
        }
    };
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(malformed("a URL holds no spaces"));
    }
    match file_name(url) {
        Some(_) => Ok(Spec::Url { url: url.into(), sha256 }),
        None => Err(malformed("its path ends without a file's name")),
    }
}

/// Returns the file name at the end of a URL's path, if it is valid in the cache.
pub(crate) fn file_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1;
    let (_, name) = path.split_once('/')?.1.rsplit_once('/').or(path.split_once('/'))?;
    is_component(name).then_some(name)
}

/// Returns the hash in a file name, by PyTorch's convention: the SHA-256 of
/// `mobilenet_v2-7ebf99e0.pth` starts with `7ebf99e0`.
///
/// Eight digits without a letter are probably a date, except in URLs of the table.
fn hash_in_name(url: &str) -> Option<String> {
    let (stem, _) = file_name(url)?.rsplit_once('.')?;
    let hash = stem.rsplit_once('-')?.1;
    let hexadecimal = |hash: &str| hash.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    let published = PRETRAINED.iter().any(|row| matches!(row.place, Place::Url(place) if place == url));
    let looks = hash.len() == 64 || hash.len() == 8 && (published || hash.chars().any(|c| c.is_ascii_alphabetic()));
    (looks && hexadecimal(hash)).then(|| hash.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> (String, Option<String>) {
        match Spec::parse(text).unwrap() {
            Spec::Url { url, sha256 } => (url, sha256),
            other => panic!("{other:?}"),
        }
    }

    fn repository(text: &str) -> (String, String, Option<String>) {
        match Spec::parse(text).unwrap() {
            Spec::HuggingFace { repository, revision, file } => (repository, revision, file),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_names_resolve_to_their_source() {
        let (address, hash) = url("torchvision/mobilenet_v2");
        assert_eq!(address, "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth");
        assert_eq!(hash.as_deref(), Some("7ebf99e0"));
        assert!(url("torchvision/MobileNet_V2.IMAGENET1K_V1").0.ends_with("mobilenet_v2-b0353104.pth"));
        assert_eq!(url("lukemelas/efficientnet-b0").1.as_deref(), Some("355c32eb"));
        let main = |name: &str| (name.to_string(), "main".to_string(), None);
        assert_eq!(repository("timm/mobilenetv2_100.ra_in1k"), main("timm/mobilenetv2_100.ra_in1k"));
        assert_eq!(repository("timm/mobilenetv2_100"), main("timm/mobilenetv2_100.ra_in1k"));
        assert_eq!(repository("timm/tf_efficientnet_b0"), main("timm/tf_efficientnet_b0.ns_jft_in1k"));
        assert_eq!(repository("timm/something_new.tag"), main("timm/something_new.tag"));
        // A network with 11,821 classes is not a default.
        assert_eq!(repository("timm/efficientnet_b5"), main("timm/efficientnet_b5.sw_in12k_ft_in1k"));
        assert_eq!(url("lukemelas/adv-efficientnet-b8").1.as_deref(), Some("22a8fe65"));
        assert_eq!(repository("hf:google/efficientnet-b7"), main("google/efficientnet-b7"));
    }

    #[test]
    fn repositories_have_revisions_and_files() {
        assert_eq!(
            repository("hf:google/mobilenet_v2_1.0_224@v1/sub/weights.bin"),
            ("google/mobilenet_v2_1.0_224".into(), "v1".into(), Some("sub/weights.bin".into()))
        );
        for wrong in
            ["hf:", "hf:google", "hf:a/..", "hf:a/b/../c", "hf:a/b@", "hf:/b", "hf:a b/c", "hf:a/b\\c", "hf:a/b//c"]
        {
            let error = Spec::parse(wrong);
            assert!(matches!(error, Err(HubError::Malformed { .. })), "{wrong}: {error:?}");
        }
    }

    #[test]
    fn urls_may_contain_a_hash() {
        assert_eq!(url("https://x.org/a/model-20231101.pth").1, None, "a date");
        assert_eq!(url("https://x.org/a/model-deadbee1.pth?download=1").1.as_deref(), Some("deadbee1"));
        assert_eq!(url("https://x.org/m.pth").1, None);
        let (address, hash) = url("https://x.org/m.pth#sha256=ABCDEF0123");
        assert_eq!((address.as_str(), hash.as_deref()), ("https://x.org/m.pth", Some("abcdef0123")));
        for wrong in ["https://", "https://x.org", "https://x.org/", "https://x.org/a b", "https://x.org/m#sha256=xyz"]
        {
            assert!(matches!(Spec::parse(wrong), Err(HubError::Malformed { .. })), "{wrong}");
        }
    }

    #[test]
    fn other_names_are_paths() {
        assert_eq!(url("d-li14/mobilenetv2_0.1").1.as_deref(), Some("7d1d638a"));
        assert!(Spec::parse("d-li14/mobilenetv2_0").is_err());
        for path in ["model.safetensors", "runs/pets", "/a/b", "C:\\x", "", "timmy/x"] {
            assert_eq!(Spec::parse(path).unwrap(), Spec::Path(path.into()));
        }
    }

    #[test]
    fn unknown_names_suggest_similar_ones() {
        let error = Spec::parse("torchvision/mobilenet_v3").unwrap_err();
        assert_eq!(error.to_string(), "no weights are known as `torchvision/mobilenet_v3`");
        assert!(error.hint().unwrap().contains("did you mean `torchvision/mobilenet_v2`?"));
        assert!(Spec::parse("timm/resnet50").unwrap_err().hint().unwrap().contains("--pretrained"));
    }
}
