//! Cache folders of huggingface_hub and `torch.hub`, configured by the same environment variables.

use std::path::{Path, PathBuf};

use crate::error::HubError;

/// The public Hugging Face hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Cache folders and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Hugging Face's cache of repositories, `~/.cache/huggingface/hub`.
    pub hugging_face: PathBuf,
    /// PyTorch's folder of weights, `~/.cache/torch/hub/checkpoints`.
    pub torch: PathBuf,
    /// Files from other URLs, `~/.cache/mbconv`, one folder per URL.
    pub others: PathBuf,
    /// Base URL of the Hugging Face hub, without a trailing slash.
    pub endpoint: String,
    /// Access token for the Hugging Face hub, for repositories that are not public.
    pub token: Option<String>,
    /// If true, all network requests are forbidden.
    pub offline: bool,
}

impl Cache {
    /// Reads the environment.
    ///
    /// | variable | default |
    /// |---|---|
    /// | `HF_HUB_CACHE` | `$HF_HOME/hub`; `HF_HOME` is `$XDG_CACHE_HOME/huggingface` |
    /// | `HF_ENDPOINT` | `https://huggingface.co` |
    /// | `HF_TOKEN` | the file `$HF_HOME/token`, where `hf auth login` put it |
    /// | `HF_HUB_OFFLINE` | off; `1`, `on`, `yes` or `true` forbid every request |
    /// | `TORCH_HOME` | `$XDG_CACHE_HOME/torch` |
    /// | `XDG_CACHE_HOME` | `~/.cache` |
    ///
    /// # Errors
    /// There is no home folder although one is needed.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the variables of [`from_env`](Self::from_env) with `variable`. Empty variables count
    /// as absent.
    ///
    /// # Errors
    /// There is no home folder although one is needed.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let text = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home = || text("HOME").or_else(|| text("USERPROFILE")).map(PathBuf::from);
        let place = |name: &str| {
            text(name).map(|value| match (value.strip_prefix("~/"), home()) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(value),
            })
        };
        let user = || place("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache"))).ok_or(HubError::NoHome);

        let hugging_face_home = match place("HF_HOME") {
            Some(path) => Some(path),
            None => user().ok().map(|cache| cache.join("huggingface")),
        };
        let hugging_face = place("HF_HUB_CACHE").or_else(|| place("HUGGINGFACE_HUB_CACHE"));
        let hugging_face = hugging_face.or_else(|| Some(hugging_face_home.as_ref()?.join("hub")));
        let torch = match place("TORCH_HOME") {
            Some(path) => path,
            None => user()?.join("torch"),
        };
        let flag = |name| text(name).is_some_and(|value| is_true(&value));
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN"));
        let token_file = place("HF_TOKEN_PATH").or_else(|| Some(hugging_face_home.as_ref()?.join("token")));
        let stored = || std::fs::read_to_string(token_file?).ok();
        Ok(Self {
            hugging_face: hugging_face.ok_or(HubError::NoHome)?,
            torch: torch.join("hub").join("checkpoints"),
            others: user()?.join("mbconv"),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()).trim_end_matches('/').into(),
            token: token.or_else(stored).map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
        })
    }

    /// Returns a cache inside one folder, with the public hub, online; for tests and for programs
    /// with their own cache.
    pub fn at(folder: &Path) -> Self {
        Self {
            hugging_face: folder.join("huggingface").join("hub"),
            torch: folder.join("torch").join("hub").join("checkpoints"),
            others: folder.join("mbconv"),
            endpoint: ENDPOINT.into(),
            token: None,
            offline: false,
        }
    }
}

/// Returns whether huggingface_hub interprets a value as true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(variables: &[(&str, &str)]) -> Result<Cache, HubError> {
        Cache::from_variables(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn folders_match_those_of_other_tools() {
        let cache = |variables: &[(&str, &str)]| cache(variables).unwrap();
        let plain = cache(&[("HOME", "/home/a")]);
        assert_eq!(plain.hugging_face, Path::new("/home/a/.cache/huggingface/hub"));
        assert_eq!(plain.torch, Path::new("/home/a/.cache/torch/hub/checkpoints"));
        assert_eq!(plain.others, Path::new("/home/a/.cache/mbconv"));
        assert_eq!((plain.endpoint.as_str(), plain.token, plain.offline), ("https://huggingface.co", None, false));

        let xdg = cache(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]);
        assert_eq!(xdg.hugging_face, Path::new("/c/huggingface/hub"));
        assert_eq!(xdg.torch, Path::new("/c/torch/hub/checkpoints"));
        let set = cache(&[
            ("HOME", "/home/a"),
            ("HF_HOME", "/hf"),
            ("TORCH_HOME", "~/t"),
            ("HF_ENDPOINT", "http://mirror:8080/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "YES"),
        ]);
        assert_eq!(set.hugging_face, Path::new("/hf/hub"));
        assert_eq!(set.torch, Path::new("/home/a/t/hub/checkpoints"));
        assert_eq!(
            (set.endpoint.as_str(), set.token.as_deref(), set.offline),
            ("http://mirror:8080", Some("secret"), true)
        );
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/x")]).hugging_face, Path::new("/x"));
        assert!(!cache(&[("HOME", "/h"), ("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn stored_token_is_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_abc\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", home)]).unwrap().token.as_deref(), Some("hf_abc"));
    }

    #[test]
    fn missing_home_folder_is_an_error() {
        assert!(matches!(cache(&[]), Err(HubError::NoHome)));
        assert!(matches!(cache(&[("HOME", " ")]), Err(HubError::NoHome)));
    }
}
