//! Why weights could not be had, and what to do by hand.

use std::path::PathBuf;

use crate::spec::COMPANIONS;

/// Why a name did not lead to a file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither `HOME` nor the variables that replace it are set.
    #[error("there is no home folder to keep weights in")]
    NoHome,
    /// A name of a known form that makes no sense.
    #[error("`{spec}` is no name of weights: {message}")]
    Malformed {
        /// The name as given.
        spec: String,
        /// What is wrong.
        message: String,
    },
    /// No such weights in the table.
    #[error("no weights are known as `{name}`")]
    Unknown {
        /// The name as given.
        name: String,
        /// Names that are near.
        nearest: Vec<String>,
    },
    /// The environment forbids the network, and the file is not there.
    #[error("{url} is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline {
        /// Where it would have come from.
        url: String,
        /// Where it may be put by hand.
        place: PathBuf,
    },
    /// No answer, or one that broke off again and again.
    #[error("cannot fetch {url}: {message}")]
    Unreachable {
        /// Address of the file.
        url: String,
        /// What happened.
        message: String,
        /// Where it may be put by hand.
        place: PathBuf,
    },
    /// The server refused.
    #[error("cannot fetch {url}: the server answered {status}{}", meaning(*status))]
    Status {
        /// Address of the file.
        url: String,
        /// HTTP status.
        status: u16,
        /// Where it may be put by hand.
        place: PathBuf,
    },
    /// The repository is there, and the file in it is not.
    #[error("cannot fetch {url}: the repository has no such file")]
    NoEntry {
        /// Address of the file.
        url: String,
        /// Where it may be put by hand.
        place: PathBuf,
    },
    /// The contents are not what was published.
    #[error("{}: its SHA-256 begins with {found}, but {expected} was published", path.display())]
    WrongHash {
        /// The file, or the address it came from.
        path: PathBuf,
        /// The published beginning of the hash.
        expected: String,
        /// As much of the file's.
        found: String,
        /// Was it in the cache before?
        cached: bool,
    },
    /// Larger than any weights.
    #[error("{url} has more than {limit} bytes")]
    TooLarge {
        /// Address of the file.
        url: String,
        /// What is accepted.
        limit: u64,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path at fault.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The caller stopped it; what was fetched so far is kept.
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

    /// What would mend it.
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
            Self::Unknown { nearest, .. } if !nearest.is_empty() => Some(format!("there is {}", nearest.join(", "))),
            Self::Unknown { .. } => Some("`mbconv list --pretrained` shows what is known".into()),
            // What is not there is answered so, too, where repositories may be private.
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
