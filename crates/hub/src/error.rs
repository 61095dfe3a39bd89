//! Errors of finding and downloading weights, with instructions for doing so manually.

use std::path::PathBuf;

use crate::files::COMPANIONS;

/// An error of resolving a name to a file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither `HOME` nor the variables that replace it are set.
    #[error("there is no home folder to keep weights in")]
    NoHome,
    /// A name in a known form that is invalid.
    #[error("`{spec}` is no name of weights: {message}")]
    Malformed {
        /// The name as given.
        spec: String,
        /// The reason.
        message: String,
    },
    /// A name that is not in the table.
    #[error("no weights are known as `{name}`")]
    Unknown {
        /// The name as given.
        name: String,
        /// A known name that is similar.
        similar: Option<&'static str>,
    },
    /// The file is not in the cache, and network access is disabled.
    #[error("{url} is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline {
        /// Address of the file.
        url: String,
        /// Path at which to put the file manually.
        place: PathBuf,
    },
    /// There was no response, or the download failed repeatedly.
    #[error("cannot fetch {url}: {message}")]
    Unreachable {
        /// Address of the file.
        url: String,
        /// The error.
        message: String,
        /// Path at which to put the file manually.
        place: PathBuf,
    },
    /// The server returned an error.
    #[error("cannot fetch {url}: the server answered {status}{}", meaning(*status))]
    Status {
        /// Address of the file.
        url: String,
        /// HTTP status.
        status: u16,
        /// Path at which to put the file manually.
        place: PathBuf,
    },
    /// The repository exists but does not have the file.
    #[error("cannot fetch {url}: the repository has no such file")]
    NoEntry {
        /// Address of the file.
        url: String,
        /// Path at which to put the file manually.
        place: PathBuf,
    },
    /// The hash differs from the published one.
    #[error("{}: its SHA-256 begins with {found}, but {expected} was published", path.display())]
    WrongHash {
        /// The file, or the address it came from.
        path: PathBuf,
        /// The published prefix of the hash.
        expected: String,
        /// The prefix of the file's hash, of the same length.
        found: String,
        /// True if the file was already in the cache.
        cached: bool,
    },
    /// The file is larger than any weights.
    #[error("{url} has more than {limit} bytes")]
    TooLarge {
        /// Address of the file.
        url: String,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// An I/O error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The caller stopped the download; the downloaded part is kept.
    #[error("interrupted")]
    Interrupted,
}

fn meaning(status: u16) -> &'static str {
    match status {
        401 | 403 => " (not allowed)",
        404 | 410 => " (not found)",
        429 => " (too many requests)",
        500..=599 => " (its own failure)",
        _ => "",
    }
}

impl HubError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// Returns advice on how to fix the error.
    pub fn hint(&self) -> Option<String> {
        let by_hand = |url: &str, place: &PathBuf| {
            let repository = place.iter().any(|part| part == "snapshots");
            let with = if repository {
                format!(" with its {}, if it has them,", COMPANIONS.join(" and "))
            } else {
                String::new()
            };
            format!(
                "fetch {url} by other means and put it{with} at {}, or give the path of a file you have",
                place.display()
            )
        };
        match self {
            Self::NoHome => Some("set HOME, or HF_HUB_CACHE, TORCH_HOME and XDG_CACHE_HOME".into()),
            Self::Malformed { .. } => Some(
                "names look like torchvision/mobilenet_v2, timm/mobilenetv2_100.ra_in1k, \
                 hf:google/mobilenet_v2_1.0_224 or https://…; `mbconv list --pretrained` shows those that are known"
                    .into(),
            ),
            Self::Unknown { similar, .. } => {
                let similar = similar.map(|similar| format!("did you mean `{similar}`? ")).unwrap_or_default();
                Some(similar + "`mbconv list --pretrained` shows what is known")
            }
            // The hub also returns this for missing repositories, so as not to reveal private ones.
            Self::Status { url, status: 401 | 403, place } => Some(format!(
                "is the name right? If the repository is yours or gated, set HF_TOKEN to a token that may read it; or {}",
                by_hand(url, place)
            )),
            Self::Unreachable { message, .. } if message.contains("certificate") => {
                Some("where the network has certificates of its own, name their PEM file in SSL_CERT_FILE".into())
            }
            Self::Offline { url, place }
            | Self::Unreachable { url, place, .. }
            | Self::Status { url, place, .. }
            | Self::NoEntry { url, place } => Some(by_hand(url, place)),
            Self::WrongHash { path, cached: true, .. } => {
                Some(format!("the file is damaged or another: delete {} to fetch it again", path.display()))
            }
            Self::WrongHash { .. } => Some("the file was damaged on its way, or replaced: try again later".into()),
            Self::TooLarge { .. } | Self::Io { .. } | Self::Interrupted => None,
        }
    }
}
