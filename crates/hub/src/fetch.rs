//! Atomic download of a file over HTTP: resumed after interruptions, verified, then renamed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::HubError;

/// Maximum file size in bytes: four times the largest published weights.
pub const MAX_BYTES: u64 = 8 << 30;
/// Patience for required files.
pub(crate) const PATIENT: Patience =
    Patience { attempts: 5, connect: Duration::from_secs(20), answer: Duration::from_secs(60) };
/// Patience for optional files.
pub(crate) const BRIEF: Patience =
    Patience { attempts: 1, connect: Duration::from_secs(5), answer: Duration::from_secs(10) };
/// Number of bytes read at a time.
const CHUNK: usize = 1 << 18;

/// Progress of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Address of the file.
    pub url: &'a str,
    /// Downloaded bytes, including those of earlier attempts.
    pub done: u64,
    /// Total bytes, if the server reports them.
    pub total: Option<u64>,
    /// Why the file is asked for once more, before each further attempt.
    pub retry: Option<&'a str>,
}

/// Callback for progress. It can stop the download; the downloaded part is kept for the next time.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Retries and timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Consecutive attempts without a longer file before giving up.
    attempts: u32,
    /// Timeout for connecting.
    connect: Duration,
    /// Timeout for the start of the response.
    answer: Duration,
}

/// An HTTP client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    /// Delay before the second attempt; doubled for each further one.
    pub pause: Duration,
}

/// A file to fetch.
pub(crate) struct Wanted<'a> {
    pub url: &'a str,
    /// Sent to the first server only, not to redirect targets.
    pub token: Option<&'a str>,
    /// Final path.
    pub target: &'a Path,
    /// Path of the partial download.
    pub partial: &'a Path,
    /// Lock file, so that only one program downloads the file.
    pub lock: &'a Path,
    /// Published prefix of its SHA-256.
    pub sha256: Option<&'a str>,
    /// Path at which to put the file manually.
    pub place: &'a Path,
    pub patience: Patience,
}

impl Wanted<'_> {
    /// Returns the path of the partial download's ETag. A partial download can only be resumed with
    /// an ETag or a hash.
    fn tag(&self) -> PathBuf {
        self.partial.with_added_extension("etag")
    }
}

/// A failed attempt.
enum Setback {
    /// May succeed on retry; number of bytes of the file that are there.
    Passing(HubError, u64),
    /// Will fail again.
    Final(HubError),
}

impl Client {
    /// Creates a client. Proxies are set by `HTTPS_PROXY` and similar variables; `SSL_CERT_FILE`
    /// replaces Mozilla's root certificates.
    ///
    /// # Errors
    /// `SSL_CERT_FILE` cannot be read.
    pub fn new() -> Result<Self, HubError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("mbconv/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from) {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(&path)?).build());
        }
        Ok(Self { agent: config.build().new_agent(), pause: Duration::from_secs(1) })
    }

    /// Requests the headers of a file, without following redirects.
    pub fn head(
        &self,
        url: &str,
        token: Option<&str>,
        patience: Patience,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut attempt = 1;
        loop {
            let Patience { connect, answer, .. } = patience;
            let config = self.agent.head(url).config().max_redirects(0);
            let mut request = config.timeout_connect(Some(connect)).timeout_recv_response(Some(answer)).build();
            if let Some(token) = token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let answer = request.call();
            let passing = match &answer {
                Ok(answer) => is_passing(answer.status().as_u16()),
                Err(error) => may_pass(error),
            };
            if !passing || attempt >= patience.attempts {
                return answer;
            }
            std::thread::sleep(self.pause * (1 << (attempt - 1)));
            attempt += 1;
        }
    }

    /// Downloads a file to its target, unless another program does so in the meantime.
    pub fn download(&self, wanted: &Wanted, progress: &mut OnProgress) -> Result<(), HubError> {
        for path in [wanted.partial, wanted.target, wanted.lock] {
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(|source| HubError::io(folder, source))?;
        }
        let lock = File::create(wanted.lock).map_err(|source| HubError::io(wanted.lock, source))?;
        lock.lock().map_err(|source| HubError::io(wanted.lock, source))?;
        if wanted.target.exists() {
            return Ok(());
        }
        let resumed = wanted.partial.exists();
        if resumed && wanted.sha256.is_none() && !wanted.tag().exists() {
            // Without hash or ETag, the parts could belong to different files.
            remove(wanted.partial)?;
        }
        self.complete(wanted, progress)?;
        let checked = check(wanted.partial, wanted.sha256);
        if checked.is_err() {
            remove(wanted.partial)?;
        }
        match checked {
            Ok(()) => {}
            // The file may have changed since the partial download, so start over once.
            Err(HubError::WrongHash { .. }) if resumed => {
                self.complete(wanted, progress)?;
                if let Err(error) = check(wanted.partial, wanted.sha256) {
                    remove(wanted.partial)?;
                    return Err(from(wanted.url, error));
                }
            }
            Err(error) => return Err(from(wanted.url, error)),
        }
        std::fs::rename(wanted.partial, wanted.target).map_err(|source| HubError::io(wanted.target, source))?;
        // Errors are harmless: the ETag is not used any more.
        let _ = std::fs::remove_file(wanted.tag());
        Ok(())
    }

    /// Repeats attempts until the file is complete.
    fn complete(&self, wanted: &Wanted, progress: &mut OnProgress) -> Result<(), HubError> {
        let mut fruitless = 0;
        // Bytes alone are no progress: a server without ranges may begin and break off again each
        // time.
        let mut longest = 0;
        loop {
            match self.attempt(wanted, progress) {
                Ok(()) => return Ok(()),
                Err(Setback::Final(error)) => return Err(error),
                Err(Setback::Passing(error, length)) => {
                    fruitless = if length > longest { 1 } else { fruitless + 1 };
                    longest = longest.max(length);
                    if fruitless >= wanted.patience.attempts {
                        return Err(given_up(error, fruitless));
                    }
                    let retry = format!("{error}; trying again");
                    let step = Progress { url: wanted.url, done: length, total: None, retry: Some(&retry) };
                    if progress(step).is_break() {
                        return Err(HubError::Interrupted);
                    }
                    std::thread::sleep(self.pause * (1 << (fruitless - 1)));
                }
            }
        }
    }

    fn attempt(&self, wanted: &Wanted, progress: &mut OnProgress) -> Result<(), Setback> {
        let io = |source| Setback::Final(HubError::io(wanted.partial, source));
        let mut file = OpenOptions::new().create(true).append(true).open(wanted.partial).map_err(io)?;
        let mut length = file.metadata().map_err(io)?.len();
        let tag = std::fs::read_to_string(wanted.tag()).ok();
        let mut response = self.get(wanted, length, tag.as_deref())?;
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        // `bytes 100-199/200` or, past the end, `bytes */200`.
        let range = header("content-range").and_then(|value| value.strip_prefix("bytes ")?.split_once('/'));
        match status {
            200 => {
                file.set_len(0).map_err(io)?;
                length = 0;
                keep(header("etag"), &wanted.tag()).map_err(io)?;
            }
            206 if range.is_some_and(|(range, _)| range.split('-').next() == Some(&length.to_string()))
                && header("etag").is_none_or(|of| tag.is_none_or(|tag| tag == of)) => {}
            416 if range.is_some_and(|(_, total)| total == length.to_string()) => return Ok(()),
            206 | 416 => {
                file.set_len(0).map_err(io)?;
                return Err(Setback::Passing(unreachable(wanted, "it answers for another part of the file"), 0));
            }
            status if is_passing(status) => return Err(Setback::Passing(refused(wanted, status), 0)),
            _ => return Err(Setback::Final(refused(wanted, status))),
        }
        let total = response.body().content_length().map(|rest| length + rest);
        let mut body = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            if length > MAX_BYTES || total.is_some_and(|total| total > MAX_BYTES) {
                return Err(Setback::Final(HubError::TooLarge { url: wanted.url.into(), limit: MAX_BYTES }));
            }
            if progress(Progress { url: wanted.url, done: length, total, retry: None }).is_break() {
                return Err(Setback::Final(HubError::Interrupted));
            }
            match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => file.write_all(&chunk[..read]).map_err(io)?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let of = total.map_or(String::new(), |total| format!(" of {total}"));
                    let message = format!("it broke off after {length}{of} bytes ({error})");
                    return Err(Setback::Passing(unreachable(wanted, &message), length));
                }
            }
            length = file.metadata().map_err(io)?.len();
        }
        match total {
            Some(total) if total != length => {
                let message = format!("it broke off after {length} of {total} bytes");
                Err(Setback::Passing(unreachable(wanted, &message), length))
            }
            _ => file.sync_all().map_err(io),
        }
    }

    fn get(&self, wanted: &Wanted, from: u64, tag: Option<&str>) -> Result<Response<ureq::Body>, Setback> {
        // Do not follow redirects from HTTPS to HTTP.
        let config = self.agent.get(wanted.url).config().https_only(wanted.url.starts_with("https:"));
        let Patience { connect, answer, .. } = wanted.patience;
        let mut request = config.timeout_connect(Some(connect)).timeout_recv_response(Some(answer)).build();
        if let Some(token) = wanted.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
            if let Some(tag) = tag {
                // If the file has changed, the server sends all of it.
                request = request.header("If-Range", tag);
            }
        }
        request.call().map_err(|error| match may_pass(&error) {
            true => Setback::Passing(unreachable(wanted, &error.to_string()), 0),
            false => Setback::Final(unreachable(wanted, &error.to_string())),
        })
    }
}

/// Returns the last error of several attempts without progress.
fn given_up(error: HubError, attempts: u32) -> HubError {
    match error {
        HubError::Unreachable { url, message, place } if attempts > 1 => {
            let message = format!("{message}; {attempts} attempts in a row got no further");
            HubError::Unreachable { url, message, place }
        }
        error => error,
    }
}

/// Returns whether a request with this status may succeed on retry.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Returns whether a request with this error may succeed on retry. Unresolved names, refused
/// connections and untrusted certificates are permanent.
fn may_pass(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error {
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock
        ),
        _ => false,
    }
}

/// Reads the certificates in a PEM file.
fn certificates(path: &Path) -> Result<RootCerts, HubError> {
    let pem = std::fs::read(path).map_err(|source| HubError::io(path, source))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(HubError::io(path, std::io::Error::other("SSL_CERT_FILE holds no certificates")));
    }
    Ok(RootCerts::from(certificates))
}

/// Checks that the file's SHA-256 has the published prefix.
pub(crate) fn check(path: &Path, sha256: Option<&str>) -> Result<(), HubError> {
    let Some(expected) = sha256 else { return Ok(()) };
    let found = mbconv_files::sha256(path).map_err(|source| HubError::io(path, source))?;
    if found.starts_with(expected) {
        return Ok(());
    }
    let found = found[..expected.len().min(found.len())].into();
    Err(HubError::WrongHash { path: path.into(), expected: expected.into(), found, cached: true })
}

/// Replaces the temporary path in a hash error by the address.
fn from(url: &str, error: HubError) -> HubError {
    match error {
        HubError::WrongHash { expected, found, .. } => {
            HubError::WrongHash { path: url.into(), expected, found, cached: false }
        }
        error => error,
    }
}

/// Stores the ETag of a new partial download at `path`. Weak ETags do not identify exact contents
/// and are discarded.
fn keep(tag: Option<&str>, path: &Path) -> std::io::Result<()> {
    match tag.filter(|tag| tag.starts_with('"')) {
        Some(tag) => std::fs::write(path, tag),
        None if path.exists() => std::fs::remove_file(path),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), HubError> {
    std::fs::remove_file(path).map_err(|source| HubError::io(path, source))
}

fn refused(wanted: &Wanted, status: u16) -> HubError {
    HubError::Status { url: wanted.url.into(), status, place: wanted.place.into() }
}

fn unreachable(wanted: &Wanted, message: &str) -> HubError {
    HubError::Unreachable { url: wanted.url.into(), message: message.into(), place: wanted.place.into() }
}
