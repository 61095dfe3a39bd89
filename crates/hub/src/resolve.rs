//! Resolution of names to local files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mbconv_files::hex;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::error::HubError;
use crate::fetch::{BRIEF, Client, OnProgress, PATIENT, Patience, Wanted, check};
use crate::files::{COMPANIONS, REPOSITORY_FILES};
use crate::spec::{Spec, file_name};

/// Maximum number of redirects followed within a server when requesting headers.
const REDIRECTIONS: usize = 5;

/// The hub's error code if a repository exists but does not have the file.
const NO_ENTRY: &str = "EntryNotFound";

/// A cache with a client that downloads missing files.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: Cache,
    client: Client,
}

/// A local file.
#[derive(Debug)]
pub struct Found {
    /// Path of the file.
    pub path: PathBuf,
    /// The error, if the files beside the weights in their repository could not be requested. The
    /// weights are complete nevertheless.
    pub alone: Option<HubError>,
}

/// Description of a file by the Hugging Face hub.
struct Described {
    /// Address, after renaming of the repository.
    url: String,
    /// Commit of the revision.
    commit: String,
    /// Identifier of the contents; the SHA-256 for large files.
    etag: String,
    /// Path at which to put the file manually.
    place: PathBuf,
}

impl Hub {
    /// Creates a hub with the cache configured by the environment.
    ///
    /// # Errors
    /// There is no home folder, or `SSL_CERT_FILE` cannot be read.
    pub fn from_env() -> Result<Self, HubError> {
        Self::new(Cache::from_env()?)
    }

    /// Creates a hub with the given cache.
    ///
    /// # Errors
    /// `SSL_CERT_FILE` cannot be read.
    pub fn new(cache: Cache) -> Result<Self, HubError> {
        Ok(Self { cache, client: Client::new()? })
    }

    /// Sets the delay before the second attempt, which doubles for each further one; by default one
    /// second.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.client.pause = pause;
        self
    }

    /// Returns the file named `spec`, downloading it if necessary. With the weights of a Hugging
    /// Face repository, the files in [`COMPANIONS`] are downloaded if they exist.
    ///
    /// A cached file is used without checking for a newer version: published weights do not change,
    /// and neither should runs.
    ///
    /// # Errors
    /// See [`HubError`]. A path is returned unchanged, even if the file does not exist.
    pub fn resolve(&self, spec: &str, progress: &mut OnProgress) -> Result<Found, HubError> {
        let alone = |path| Found { path, alone: None };
        match Spec::parse(spec)? {
            Spec::Path(path) => Ok(alone(path)),
            Spec::Url { url, sha256 } => self.url(&url, sha256.as_deref(), progress).map(alone),
            Spec::HuggingFace { repository, revision, file: Some(file) } => {
                let path = self.repository_file(&repository, &revision, &file, progress)?;
                match file.ends_with(".json") {
                    true => Ok(alone(path)),
                    false => self.with_companions(&repository, path, progress),
                }
            }
            Spec::HuggingFace { repository, revision, file: None } => {
                let path = self.repository_weights(&repository, &revision, progress)?;
                self.with_companions(&repository, path, progress)
            }
        }
    }

    fn url(&self, url: &str, sha256: Option<&str>, progress: &mut OnProgress) -> Result<PathBuf, HubError> {
        let name = file_name(url).unwrap_or("weights");
        // A name with its hash identifies one file; other names may occur at several addresses.
        let folder = match sha256 {
            Some(hash) if name.contains(hash) => self.cache.torch.clone(),
            _ => self.cache.others.join(&digest(url)[..16]),
        };
        let target = folder.join(name);
        if target.exists() {
            check(&target, sha256)?;
            return Ok(target);
        }
        if self.cache.offline {
            return Err(HubError::Offline { url: url.into(), place: target });
        }
        let wanted = Wanted {
            url,
            token: None,
            target: &target,
            partial: &folder.join(format!("{name}.incomplete")),
            lock: &folder.join(format!("{name}.lock")),
            sha256,
            place: &target,
            patience: PATIENT,
        };
        self.client.download(&wanted, progress)?;
        // Remove the lock. A program that waits for it then finds the finished file.
        let _ = std::fs::remove_file(wanted.lock);
        Ok(target)
    }

    /// Returns the first of the usual weights files that the repository has.
    fn repository_weights(
        &self,
        repository: &str,
        revision: &str,
        progress: &mut OnProgress,
    ) -> Result<PathBuf, HubError> {
        if let Some(path) = REPOSITORY_FILES.iter().find_map(|file| self.cached(repository, revision, file)) {
            return Ok(path);
        }
        let [first, second] = REPOSITORY_FILES;
        match self.repository_file(repository, revision, first, progress) {
            Err(error @ (HubError::NoEntry { .. } | HubError::Status { status: 404, .. })) => {
                match self.repository_file(repository, revision, second, progress) {
                    // Neither exists; report the preferred one.
                    Err(HubError::NoEntry { .. } | HubError::Status { status: 404, .. }) => Err(error),
                    other => other,
                }
            }
            other => other,
        }
    }

    fn repository_file(
        &self,
        repository: &str,
        revision: &str,
        file: &str,
        progress: &mut OnProgress,
    ) -> Result<PathBuf, HubError> {
        if let Some(path) = self.cached(repository, revision, file) {
            return Ok(path);
        }
        let folder = self.folder(repository);
        let url = format!("{}/{repository}/resolve/{revision}/{file}", self.cache.endpoint);
        let place = folder.join("snapshots").join(revision).join(file);
        if self.cache.offline {
            return Err(HubError::Offline { url, place });
        }
        let described = self.describe(&url, revision, &place, PATIENT)?;
        let snapshot = self.fetch_into(repository, &described.commit, file, &described, PATIENT, progress)?;
        if revision != described.commit {
            let reference = folder.join("refs").join(revision);
            write(&reference, described.commit.as_bytes())?;
        }
        Ok(snapshot)
    }

    /// Returns the weights at `path` after downloading their companions.
    fn with_companions(&self, repository: &str, path: PathBuf, progress: &mut OnProgress) -> Result<Found, HubError> {
        let alone = match self.companions(repository, &path, progress) {
            Err(HubError::Interrupted) => return Err(HubError::Interrupted),
            other => other.err(),
        };
        Ok(Found { path, alone })
    }

    /// Downloads the companions of `weights` into the snapshot of their commit. Files that exist,
    /// or are recorded as missing, are not requested. Timeouts are short, because the weights are
    /// usable without companions.
    fn companions(&self, repository: &str, weights: &Path, progress: &mut OnProgress) -> Result<(), HubError> {
        let folder = self.folder(repository);
        let within = weights.strip_prefix(folder.join("snapshots")).unwrap_or(Path::new(""));
        let mut parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
        if self.cache.offline || parts.len() < 2 {
            return Ok(());
        }
        let commit = parts.remove(0);
        for companion in COMPANIONS {
            parts.pop();
            parts.push(companion.into());
            let file = parts.join("/");
            let [place, absent] = ["snapshots", ".no_exist"].map(|kind| folder.join(kind).join(&*commit).join(&file));
            if place.exists() || absent.exists() {
                continue;
            }
            let url = format!("{}/{repository}/resolve/{commit}/{file}", self.cache.endpoint);
            match self.describe(&url, &commit, &place, BRIEF) {
                Ok(described) => drop(self.fetch_into(repository, &commit, &file, &described, BRIEF, progress)?),
                // Recorded as by huggingface_hub.
                Err(HubError::NoEntry { .. }) => write(&absent, b"")?,
                Err(HubError::Status { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Downloads a file's contents, and links them as `file` in the snapshot of `commit`.
    fn fetch_into(
        &self,
        repository: &str,
        commit: &str,
        file: &str,
        described: &Described,
        patience: Patience,
        progress: &mut OnProgress,
    ) -> Result<PathBuf, HubError> {
        let folder = self.folder(repository);
        let snapshot = folder.join("snapshots").join(commit).join(file);
        let blob = folder.join("blobs").join(&described.etag);
        let is_hash = described.etag.len() == 64;
        if !blob.exists() {
            let locks = self.cache.hugging_face.join(".locks").join(folder_name(repository));
            let wanted = Wanted {
                url: &described.url,
                token: self.cache.token.as_deref(),
                target: &blob,
                partial: &folder.join("blobs").join(format!("{}.incomplete", described.etag)),
                lock: &locks.join(format!("{}.lock", described.etag)),
                sha256: is_hash.then_some(described.etag.as_str()),
                place: &described.place,
                patience,
            };
            self.client.download(&wanted, progress)?;
        }
        point(&snapshot, &blob, file)?;
        Ok(snapshot)
    }

    /// Returns commit and content identifier of a file from its response headers.
    fn describe(&self, url: &str, revision: &str, place: &Path, patience: Patience) -> Result<Described, HubError> {
        let unreachable = |message: String| HubError::Unreachable { url: url.into(), message, place: place.into() };
        let mut at = url.to_string();
        for _ in 0..REDIRECTIONS {
            let answer = self.client.head(&at, self.cache.token.as_deref(), patience);
            let answer = answer.map_err(|error| unreachable(error.to_string()))?;
            let status = answer.status().as_u16();
            let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            if (300..400).contains(&status) {
                // A renamed repository; other redirects lead to the server of the contents.
                if let Some(path) =
                    header("location").filter(|place| place.starts_with('/') && !place.starts_with("//"))
                {
                    at = format!("{}{path}", origin(url));
                    continue;
                }
            } else if status == 404 && header("x-error-code") == Some(NO_ENTRY) {
                return Err(HubError::NoEntry { url: url.into(), place: place.into() });
            } else if !(200..300).contains(&status) {
                return Err(HubError::Status { url: url.into(), status, place: place.into() });
            }
            let plain =
                |text: &str| !text.is_empty() && text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric());
            let etag = header("x-linked-etag").or(header("etag")).unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
            if !plain(&etag) {
                return Err(unreachable("the server does not name the contents (no usable ETag)".into()));
            }
            let commit = header("x-repo-commit").filter(|commit| plain(commit)).unwrap_or(revision);
            return Ok(Described { commit: commit.into(), etag, url: at, place: place.into() });
        }
        Err(unreachable("too many redirections".into()))
    }

    /// Returns the cached file of the revision's last known commit, or of a snapshot with the
    /// revision's name.
    fn cached(&self, repository: &str, revision: &str, file: &str) -> Option<PathBuf> {
        let folder = self.folder(repository);
        let commit = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = commit.map(|commit| commit.trim().to_string()).filter(|commit| !commit.contains(['/', '\\', '.']));
        let snapshots = folder.join("snapshots");
        let names = commit.into_iter().chain([revision.to_string()]);
        names.map(|name| snapshots.join(name).join(file)).find(|path| path.is_file())
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.cache.hugging_face.join(folder_name(repository))
    }
}

/// Returns the cache folder's name of a repository: `models--owner--name`.
fn folder_name(repository: &str) -> String {
    format!("models--{}", repository.replace('/', "--"))
}

/// Returns `https://host:port` of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Makes `snapshot` refer to `blob`, as huggingface_hub does: by a relative link or, if links are
/// not supported, by moving it.
fn point(snapshot: &Path, blob: &Path, file: &str) -> Result<(), HubError> {
    if snapshot.exists() {
        return Ok(());
    }
    let folder = snapshot.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|source| HubError::io(folder, source))?;
    // Remove a broken link, left after cleaning the cache manually.
    let _ = std::fs::remove_file(snapshot);
    let up = "../".repeat(2 + file.matches('/').count());
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    link(Path::new(&format!("{up}blobs/{name}")), snapshot)
        .or_else(|_| std::fs::rename(blob, snapshot))
        .map_err(|source| HubError::io(snapshot, source))
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Writes a small file atomically.
fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let io = |source| HubError::io(path, source);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, bytes).map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
}
