//! Downloads from a local server that fails in every way that servers do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mbconv_hub::{Cache, Hub, HubError};
use sha2::{Digest, Sha256};

/// A request as the server received it.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

/// Status, headers, body, and the number of bytes of the body that are sent before the connection
/// is closed.
struct Answer(u16, Vec<(&'static str, String)>, Vec<u8>, usize);

impl Answer {
    fn new(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        Self(status, headers.iter().map(|&(name, value)| (name, value.into())).collect(), body.into(), usize::MAX)
    }

    fn breaking_off_after(mut self, bytes: usize) -> Self {
        self.3 = bytes;
        self
    }
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request with `answer(request, number of earlier requests)`.
    fn start(answer: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                // The client may close the connection.
                let _ = serve(stream, &answer, &seen);
            }
        });
        Self { address, requests }
    }

    fn seen(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &impl Fn(&Request, usize) -> Answer,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or("").to_string(), words.next().unwrap_or("").to_string());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_string());
        }
    }
    let request = Request { method, path, headers };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let Answer(status, headers, body, sent) = answer(&request, before);
    write!(stream, "HTTP/1.1 {status} Whatever\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
    for (name, value) in headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(&body[..sent.min(body.len())])?;
    }
    stream.flush()
}

fn contents() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hub(folder: &Path, server: &Server) -> Hub {
    let cache = Cache { endpoint: server.address.clone(), ..Cache::at(folder) };
    Hub::new(cache).unwrap().retry_after(Duration::from_millis(1))
}

fn resolve(hub: &Hub, spec: &str) -> Result<std::path::PathBuf, HubError> {
    Ok(hub.resolve(spec, &mut |_| ControlFlow::Continue(()))?.path)
}

/// Returns the part of `body` that the request's `Range` header selects.
fn part(request: &Request, body: &[u8]) -> Answer {
    match request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()) {
        None => Answer::new(200, &[], body),
        Some(start) if start >= body.len() => {
            Answer::new(416, &[("Content-Range", &format!("bytes */{}", body.len()))], b"")
        }
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
            Answer::new(206, &[("Content-Range", &range)], &body[start..])
        }
    }
}

#[test]
fn a_file_is_downloaded_once_and_then_found_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let hub = hub(folder.path(), &server);
    let name = format!("net-{}.pth", &sha256(&contents())[..8]);
    let spec = format!("{}/models/{name}#sha256={}", server.address, &sha256(&contents())[..8]);
    let mut steps = Vec::new();
    let path = hub
        .resolve(&spec, &mut |progress| {
            steps.push((progress.done, progress.total));
            ControlFlow::Continue(())
        })
        .unwrap()
        .path;
    assert_eq!(path, folder.path().join("torch/hub/checkpoints").join(&name));
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    assert_eq!(steps.first(), Some(&(0, Some(300_000))));
    assert_eq!(steps.last(), Some(&(300_000, Some(300_000))));
    assert!(steps.is_sorted());
    assert_eq!(resolve(&hub, &spec).unwrap(), path);
    assert_eq!(server.seen().len(), 1);
    // No temporary file is left.
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn urls_without_a_hash_in_their_name_do_not_collide() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| Answer::new(200, &[], request.path.as_bytes()));
    let hub = hub(folder.path(), &server);
    let [a, b] = ["a", "b"].map(|name| resolve(&hub, &format!("{}/{name}/model.pth", server.address)).unwrap());
    assert_eq!(std::fs::read_to_string(a).unwrap(), "/a/model.pth");
    assert_eq!(std::fs::read_to_string(b).unwrap(), "/b/model.pth");
}

#[test]
fn an_interrupted_download_resumes() {
    let folder = tempfile::tempdir().unwrap();
    // Each answer ends after 100,000 bytes.
    let server = Server::start(|request, _| part(request, &contents()).breaking_off_after(100_000));
    let path = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    let ranges: Vec<_> = server.seen().iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into()), Some("bytes=200000-".into())]);
}

#[test]
fn without_range_support_a_download_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, before| {
        Answer::new(200, &[], &contents()).breaking_off_after(if before == 0 { 100_000 } else { usize::MAX })
    });
    let path = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_download_without_progress_fails() {
    let folder = tempfile::tempdir().unwrap();
    // Without range support every answer starts at the beginning, and each ends early.
    let server = Server::start(|_, _| Answer::new(200, &[], &contents()).breaking_off_after(100_000));
    let mut notes = Vec::new();
    let error = hub(folder.path(), &server)
        .resolve(&format!("{}/model.pth", server.address), &mut |progress| {
            notes.extend(progress.retry.map(String::from));
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert_eq!(server.seen().len(), 5);
    assert_eq!(notes.len(), 4);
    let broken = "it broke off after 100000 of 300000 bytes";
    assert!(notes.iter().all(|note| note.contains(broken) && note.ends_with("; trying again")), "{notes:?}");
    let text = error.to_string();
    assert!(text.contains(broken) && text.ends_with("; 5 attempts in a row got no further"), "{text}");
}

#[test]
fn a_canceled_download_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let hub = hub(folder.path(), &server);
    let spec = format!("{}/model.pth#sha256={}", server.address, sha256(&contents()));
    let stop = hub.resolve(&spec, &mut |progress| match progress.done {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(stop, Err(HubError::Interrupted)));
    let path = resolve(&hub, &spec).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    let seen = server.seen();
    assert!(seen[1].headers["range"].starts_with("bytes="), "{seen:?}");
}

#[test]
fn a_partial_file_that_changed_on_the_server_is_downloaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let hub = hub(folder.path(), &server);
    let spec = format!("{}/model.pth#sha256={}", server.address, sha256(&contents()));
    let _ = hub.resolve(&spec, &mut |_| ControlFlow::Break(()));
    let partial = walk(folder.path()).into_iter().find(|path| path.ends_with(".incomplete")).unwrap();
    for old in [vec![7; 1000], vec![7; 300_000], vec![7; 400_000]] {
        std::fs::write(&partial, old).unwrap();
        let path = resolve(&hub, &spec).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), contents());
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn without_a_hash_only_the_same_file_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let old = vec![9u8; 300_000];
    // Another file at the same address every time; all but the first have an entity tag.
    let server = Server::start(move |request, before| {
        let (body, tag) = match before {
            0 => (old.clone(), None),
            1 => (contents(), Some("\"one\"")),
            _ => (contents(), Some(if before < 4 { "\"one\"" } else { "\"two\"" })),
        };
        let same = request.headers.get("if-range").is_none_or(|asked| Some(asked.as_str()) == tag);
        let Answer(status, mut headers, body, sent) =
            if same { part(request, &body) } else { Answer::new(200, &[], &body) };
        headers.extend(tag.map(|tag| ("ETag", tag.to_string())));
        Answer(status, headers, body, sent)
    });
    let hub = hub(folder.path(), &server);
    let spec = format!("{}/model.pth", server.address);
    let interrupt = || {
        let mut stop = |progress: mbconv_hub::Progress| match progress.done {
            done if done >= 100_000 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        assert!(matches!(hub.resolve(&spec, &mut stop), Err(HubError::Interrupted)));
    };
    let partial = |name: &str| walk(folder.path()).into_iter().find(|path| path.ends_with(name));
    // Without a tag the partial file may be of another file, so the download starts again.
    interrupt();
    assert!(partial(".incomplete").is_some() && partial(".etag").is_none());
    interrupt();
    assert!(partial(".etag").is_some());
    // With a tag the rest of that file is requested.
    let path = resolve(&hub, &spec).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    // After another interruption the server has another file.
    std::fs::remove_file(path).unwrap();
    interrupt();
    let path = resolve(&hub, &spec).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().map(|request| request.headers.get("if-range").map(String::as_str)).collect();
    assert_eq!(asked, [None, None, Some("\"one\""), None, Some("\"one\"")]);
    assert!(seen[2].headers.contains_key("range") && !seen[1].headers.contains_key("range"));
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path().to_str().unwrap().to_string()),
        }
    }
    found
}

#[test]
fn a_file_with_a_wrong_hash_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Answer::new(200, &[], b"<html>Please log in</html>"));
    let hub = hub(folder.path(), &server);
    let error = resolve(&hub, &format!("{}/net-0123abcd.pth", server.address)).unwrap_err();
    let HubError::WrongHash { expected, cached: false, .. } = &error else { panic!("{error:?}") };
    assert_eq!(expected, "0123abcd");
    assert!(error.to_string().contains("net-0123abcd.pth"), "{error}");
    assert!(walk(folder.path()).iter().all(|path| path.ends_with(".lock")), "{:?}", walk(folder.path()));

    // A file that a user put there is checked, too.
    let place = folder.path().join("torch/hub/checkpoints/net-0123abcd.pth");
    std::fs::write(&place, "half a file").unwrap();
    let error = resolve(&hub, &format!("{}/net-0123abcd.pth", server.address)).unwrap_err();
    assert!(matches!(error, HubError::WrongHash { cached: true, .. }));
    assert!(error.hint().unwrap().contains(place.to_str().unwrap()));
}

#[test]
fn client_errors_are_final_and_server_errors_are_retried() {
    for (status, requests) in [(404, 1), (403, 1), (500, 5), (429, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(move |_, _| Answer::new(status, &[], b"no"));
        let error = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap_err();
        assert!(matches!(&error, HubError::Status { status: found, .. } if *found == status), "{error:?}");
        assert_eq!(server.seen().len(), requests, "{status}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("put it at"), "{hint}");
        assert_eq!(status == 403, hint.contains("is the name right?") && hint.contains("HF_TOKEN"), "{hint}");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, before| Answer::new(if before < 2 { 503 } else { 200 }, &[], b"yes"));
    let path = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"yes");
}

#[test]
fn without_a_network_the_error_names_the_cache_path() {
    let folder = tempfile::tempdir().unwrap();
    // A port without a server.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = Cache { endpoint: format!("http://127.0.0.1:{port}"), ..Cache::at(folder.path()) };
    let hub = Hub::new(cache).unwrap().retry_after(Duration::from_millis(1));
    for spec in [&format!("http://127.0.0.1:{port}/model-0a0b0c0d.pth"), "timm/mobilenetv2_100.ra_in1k"] {
        let error = resolve(&hub, spec).unwrap_err();
        let HubError::Unreachable { place, .. } = &error else { panic!("{error:?}") };
        assert!(place.starts_with(folder.path()));
        assert!(error.hint().unwrap().contains(place.to_str().unwrap()));
    }
}

#[test]
fn offline_mode_sends_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let cache = Cache { endpoint: server.address.clone(), offline: true, ..Cache::at(folder.path()) };
    let hub = Hub::new(cache).unwrap();
    for spec in [format!("{}/model.pth", server.address), "hf:org/name".into(), "torchvision/mobilenet_v2".into()] {
        let error = resolve(&hub, &spec).unwrap_err();
        let HubError::Offline { place, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().contains("HF_HUB_OFFLINE"));
        // A file at the path in the hint is found.
        if spec != "torchvision/mobilenet_v2" {
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, "weights").unwrap();
            assert_eq!(&resolve(&hub, &spec).unwrap(), place);
        }
    }
    assert!(server.seen().is_empty());
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository whose files are behind a redirect.
fn repository(files: &'static [(&'static str, &'static [u8])]) -> Server {
    Server::start(move |request, _| {
        let path = request.path.as_str();
        if path == "/contents" {
            return part(request, files[0].1);
        }
        let name = ["main", COMMIT].iter().find_map(|at| path.strip_prefix(&format!("/org/name/resolve/{at}/")));
        match files.iter().find(|(file, _)| Some(*file) == name) {
            None if path.starts_with("/org/name/") => {
                Answer::new(404, &[("X-Error-Code", "EntryNotFound")], b"Entry not found")
            }
            None => Answer::new(404, &[], b"Not found"),
            Some((_, body)) => {
                let headers: [(&'static str, &str); 4] = [
                    ("X-Repo-Commit", COMMIT),
                    ("X-Linked-Etag", &format!("\"{}\"", sha256(body))),
                    ("ETag", "\"not-this\""),
                    ("Location", &format!("http://{}/contents", request.headers["host"])),
                ];
                Answer::new(302, &headers, b"")
            }
        }
    })
}

#[test]
fn repositories_are_cached_in_the_layout_of_huggingface_hub() {
    let folder = tempfile::tempdir().unwrap();
    let server = repository(&[("model.safetensors", b"tensors")]);
    let hub = hub(folder.path(), &server);
    let path = resolve(&hub, "hf:org/name").unwrap();
    let home = folder.path().join("huggingface/hub/models--org--name");
    assert_eq!(path, home.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(std::fs::read(&path).unwrap(), b"tensors");
    assert_eq!(std::fs::read_to_string(home.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read(home.join("blobs").join(sha256(b"tensors"))).unwrap(), b"tensors");
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(&path).unwrap(),
        Path::new("../../blobs").join(sha256(b"tensors")),
        "relative, so that the cache can be moved"
    );
    let asked = server.seen().len();
    assert_eq!(resolve(&hub, "hf:org/name").unwrap(), path);
    assert_eq!(resolve(&hub, "hf:org/name@main/model.safetensors").unwrap(), path);
    assert_eq!(server.seen().len(), asked, "what is there is not asked for again");
}

/// A repository in timm's layout, without redirects.
fn with_config() -> Server {
    Server::start(|request, _| {
        let file = request.path.strip_prefix("/timm/net.tag/resolve/").and_then(|rest| rest.split_once('/'));
        let body = match file {
            Some(("main" | COMMIT, "model.safetensors")) => &b"tensors"[..],
            Some((COMMIT, "config.json")) => b"{}",
            _ => return Answer::new(404, &[("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", COMMIT)], b""),
        };
        // The entity tag of a small file is its git hash, not its SHA-256.
        let etag = if body == b"{}" { "44136fa355b3678a1146ad16f7e8649e94fb4fc2".into() } else { sha256(body) };
        let answer = if request.method == "HEAD" { Answer::new(200, &[], b"") } else { part(request, body) };
        let Answer(status, mut headers, body, sent) = answer;
        headers.extend([("X-Repo-Commit", COMMIT.to_string()), ("ETag", format!("\"{etag}\""))]);
        Answer(status, headers, body, sent)
    })
}

#[test]
fn configuration_files_are_downloaded_with_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_config();
    let hub = hub(folder.path(), &server);
    let path = resolve(&hub, "timm/net.tag").unwrap();
    let home = folder.path().join("huggingface/hub/models--timm--net.tag");
    assert_eq!(path, home.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(std::fs::read(path.with_file_name("config.json")).unwrap(), b"{}");
    // Missing files are recorded where huggingface_hub records them.
    assert!(!path.with_file_name("preprocessor_config.json").exists());
    assert!(home.join(".no_exist").join(COMMIT).join("preprocessor_config.json").is_file());
    let asked = server.seen().len();
    assert_eq!(resolve(&hub, "timm/net.tag").unwrap(), path);
    assert_eq!(server.seen().len(), asked, "nothing is asked for again");

    // Missing configuration files of cached weights are downloaded from the same commit.
    std::fs::remove_file(path.with_file_name("config.json")).unwrap();
    assert!(hub.resolve("timm/net.tag", &mut |_| ControlFlow::Continue(())).unwrap().alone.is_none());
    assert!(path.with_file_name("config.json").is_file());
    // A file given by name is downloaded alone.
    let count = server.seen().len();
    assert!(resolve(&hub, "hf:timm/net.tag@main/config.json").is_ok());
    assert_eq!(server.seen().len(), count);
}

#[test]
fn cached_weights_need_no_network() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("huggingface/hub/models--timm--net.tag/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("model.safetensors"), b"tensors").unwrap();
    let go_on = &mut |_: mbconv_hub::Progress| ControlFlow::Continue(());

    // A port without a server; then a hub that fails, which receives one request.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let failing = Server::start(|_, _| Answer::new(503, &[], b""));
    for endpoint in [format!("http://127.0.0.1:{port}"), failing.address.clone()] {
        let cache = Cache { endpoint, ..Cache::at(folder.path()) };
        let found = Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap();
        assert_eq!(found.path, snapshot.join("model.safetensors"));
        assert!(found.alone.unwrap().to_string().contains("config.json"));
    }
    assert_eq!(failing.seen().len(), 1);
    // In offline mode there is no request, and no error.
    let cache = Cache { endpoint: failing.address.clone(), offline: true, ..Cache::at(folder.path()) };
    assert!(Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap().alone.is_none());
    assert_eq!(failing.seen().len(), 1);
    // A mirror without the repository returns no information on its files.
    let empty = Server::start(|_, _| Answer::new(404, &[], b""));
    let cache = Cache { endpoint: empty.address.clone(), ..Cache::at(folder.path()) };
    assert!(Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap().alone.is_none());
    assert!(!snapshot.parent().unwrap().with_file_name(".no_exist").exists());
}

#[test]
fn a_busy_hub_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, before| match (before, request.method.as_str()) {
        (0 | 1, _) => Answer::new(503, &[], b""),
        (_, "HEAD") => {
            Answer::new(200, &[("ETag", &format!("\"{}\"", sha256(b"tensors"))), ("X-Repo-Commit", COMMIT)], b"")
        }
        _ => Answer::new(200, &[], b"tensors"),
    });
    let path = resolve(&hub(folder.path(), &server), "hf:org/name").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"tensors");
}

#[test]
fn old_repositories_have_a_pickle_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = repository(&[("pytorch_model.bin", b"pickle")]);
    let hub = hub(folder.path(), &server);
    let path = resolve(&hub, "hf:org/name").unwrap();
    assert!(path.ends_with("pytorch_model.bin"));
    let error = resolve(&hub, "hf:org/other").unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 404, url, .. } if url.contains("model.safetensors")));
}

#[test]
fn contents_that_differ_from_the_published_hash_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| match request.method.as_str() {
        "HEAD" => Answer::new(200, &[("ETag", &format!("\"{}\"", sha256(b"tensors"))), ("X-Repo-Commit", COMMIT)], b""),
        _ => Answer::new(200, &[], b"other tensors"),
    });
    let error = resolve(&hub(folder.path(), &server), "hf:org/name").unwrap_err();
    assert!(matches!(error, HubError::WrongHash { cached: false, .. }), "{error:?}");
    assert!(walk(folder.path()).iter().all(|path| path.ends_with(".lock")));
}

#[test]
fn the_token_is_sent_to_the_hub_only() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Server::start(|request, _| part(request, b"tensors"));
    let place = format!("{}/contents", storage.address);
    let server = Server::start(move |request, _| match request.path.as_str() {
        // The repository was renamed: the hub redirects to a relative path.
        path if path.starts_with("/org/old/") => {
            Answer::new(307, &[("Location", &path.replace("/org/old/", "/org/new/"))], b"")
        }
        _ => {
            let etag = format!("\"{}\"", sha256(b"tensors"));
            Answer::new(302, &[("X-Linked-Etag", &etag), ("X-Repo-Commit", COMMIT), ("Location", &place)], b"")
        }
    });
    let cache = Cache { endpoint: server.address.clone(), token: Some("hf_secret".into()), ..Cache::at(folder.path()) };
    let path = resolve(&Hub::new(cache).unwrap(), "hf:org/old").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"tensors");
    assert!(
        server
            .seen()
            .iter()
            .filter(|request| request.method == "HEAD")
            .all(|request| { request.headers.get("authorization").map(String::as_str) == Some("Bearer hf_secret") })
    );
    let seen = storage.seen();
    assert!(!seen.is_empty() && seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
}

#[test]
fn concurrent_threads_download_a_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let hub = hub(folder.path(), &server);
    let spec = format!("{}/model.pth", server.address);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| resolve(&hub, &spec).unwrap())).collect();
        for run in runs {
            assert_eq!(std::fs::read(run.join().unwrap()).unwrap(), contents());
        }
    });
    assert_eq!(server.seen().len(), 1);
}
