//! Fetching, against a server on this machine that misbehaves in every way that servers do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mbconv_hub::{Cache, Hub, HubError};
use sha2::{Digest, Sha256};

/// One request as the server saw it.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

/// Status, headers, body, and how much of the body is sent before the connection breaks off.
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
    /// Answers every request with `answer(request, how many came before)`.
    fn start(answer: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                // A client that goes away is none of the test's business.
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

/// Gives the part of `body` that a request's `Range` asks for.
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
fn a_file_is_fetched_once_and_then_found() {
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
    // Nothing else is left beside it.
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
fn what_breaks_off_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    // Each answer breaks off after 100 000 bytes.
    let server = Server::start(|request, _| part(request, &contents()).breaking_off_after(100_000));
    let path = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    let ranges: Vec<_> = server.seen().iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into()), Some("bytes=200000-".into())]);
}

#[test]
fn a_server_that_knows_no_ranges_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, before| {
        Answer::new(200, &[], &contents()).breaking_off_after(if before == 0 { 100_000 } else { usize::MAX })
    });
    let path = resolve(&hub(folder.path(), &server), &format!("{}/model.pth", server.address)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_fetch_that_gets_no_further_ends() {
    let folder = tempfile::tempdir().unwrap();
    // Without ranges, every answer begins anew, and each breaks off.
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
fn an_interrupted_fetch_goes_on_where_it_stopped() {
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
fn a_broken_off_file_that_changed_meanwhile_is_fetched_again() {
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
fn without_a_hash_only_the_same_file_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let old = vec![9u8; 300_000];
    // Another file at the same address every time; it has a tag after the first.
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
    // Without a tag nothing says that the beginning is of the same file: begun anew.
    interrupt();
    assert!(partial(".incomplete").is_some() && partial(".etag").is_none());
    interrupt();
    assert!(partial(".etag").is_some());
    // With one the rest is asked for, of that file alone.
    let path = resolve(&hub, &spec).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), contents());
    // Interrupted once more, and another file is there the next time.
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
fn a_wrong_hash_is_refused_and_nothing_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Answer::new(200, &[], b"<html>Please log in</html>"));
    let hub = hub(folder.path(), &server);
    let error = resolve(&hub, &format!("{}/net-0123abcd.pth", server.address)).unwrap_err();
    let HubError::WrongHash { expected, cached: false, .. } = &error else { panic!("{error:?}") };
    assert_eq!(expected, "0123abcd");
    assert!(error.to_string().contains("net-0123abcd.pth"), "{error}");
    assert!(walk(folder.path()).iter().all(|path| path.ends_with(".lock")), "{:?}", walk(folder.path()));

    // A file put there by hand is checked as well.
    let place = folder.path().join("torch/hub/checkpoints/net-0123abcd.pth");
    std::fs::write(&place, "half a file").unwrap();
    let error = resolve(&hub, &format!("{}/net-0123abcd.pth", server.address)).unwrap_err();
    assert!(matches!(error, HubError::WrongHash { cached: true, .. }));
    assert!(error.hint().unwrap().contains(place.to_str().unwrap()));
}

#[test]
fn refusals_are_final_and_failures_are_not() {
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
fn without_a_network_the_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // A port on which nobody listens.
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
fn offline_asks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|request, _| part(request, &contents()));
    let cache = Cache { endpoint: server.address.clone(), offline: true, ..Cache::at(folder.path()) };
    let hub = Hub::new(cache).unwrap();
    for spec in [format!("{}/model.pth", server.address), "hf:org/name".into(), "torchvision/mobilenet_v2".into()] {
        let error = resolve(&hub, &spec).unwrap_err();
        let HubError::Offline { place, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().contains("HF_HUB_OFFLINE"));
        // Where the hint says, the file is found.
        if spec != "torchvision/mobilenet_v2" {
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, "weights").unwrap();
            assert_eq!(&resolve(&hub, &spec).unwrap(), place);
        }
    }
    assert!(server.seen().is_empty());
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository: its files are at another path, behind a redirection.
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
fn repositories_are_cached_where_hugging_face_looks() {
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

/// A repository of timm's form, whose files are given as they are.
fn with_config() -> Server {
    Server::start(|request, _| {
        let file = request.path.strip_prefix("/timm/net.tag/resolve/").and_then(|rest| rest.split_once('/'));
        let body = match file {
            Some(("main" | COMMIT, "model.safetensors")) => &b"tensors"[..],
            Some((COMMIT, "config.json")) => b"{}",
            _ => return Answer::new(404, &[("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", COMMIT)], b""),
        };
        // Small files are named by git's hash, which is none of theirs.
        let etag = if body == b"{}" { "44136fa355b3678a1146ad16f7e8649e94fb4fc2".into() } else { sha256(body) };
        let answer = if request.method == "HEAD" { Answer::new(200, &[], b"") } else { part(request, body) };
        let Answer(status, mut headers, body, sent) = answer;
        headers.extend([("X-Repo-Commit", COMMIT.to_string()), ("ETag", format!("\"{etag}\""))]);
        Answer(status, headers, body, sent)
    })
}

#[test]
fn what_says_how_weights_are_used_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_config();
    let hub = hub(folder.path(), &server);
    let path = resolve(&hub, "timm/net.tag").unwrap();
    let home = folder.path().join("huggingface/hub/models--timm--net.tag");
    assert_eq!(path, home.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(std::fs::read(path.with_file_name("config.json")).unwrap(), b"{}");
    // What the repository has not is remembered, where huggingface_hub remembers it.
    assert!(!path.with_file_name("preprocessor_config.json").exists());
    assert!(home.join(".no_exist").join(COMMIT).join("preprocessor_config.json").is_file());
    let asked = server.seen().len();
    assert_eq!(resolve(&hub, "timm/net.tag").unwrap(), path);
    assert_eq!(server.seen().len(), asked, "nothing is asked for again");

    // Weights from before this was so, and weights that another tool has fetched: what is missing
    // comes, of their commit.
    std::fs::remove_file(path.with_file_name("config.json")).unwrap();
    assert!(hub.resolve("timm/net.tag", &mut |_| ControlFlow::Continue(())).unwrap().alone.is_none());
    assert!(path.with_file_name("config.json").is_file());
    // A file that was named is fetched alone.
    let count = server.seen().len();
    assert!(resolve(&hub, "hf:timm/net.tag@main/config.json").is_ok());
    assert_eq!(server.seen().len(), count);
}

#[test]
fn weights_that_are_here_need_no_network() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("huggingface/hub/models--timm--net.tag/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("model.safetensors"), b"tensors").unwrap();
    let go_on = &mut |_: mbconv_hub::Progress| ControlFlow::Continue(());

    // A port on which nobody listens; then a hub that fails, which is asked once.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let failing = Server::start(|_, _| Answer::new(503, &[], b""));
    for endpoint in [format!("http://127.0.0.1:{port}"), failing.address.clone()] {
        let cache = Cache { endpoint, ..Cache::at(folder.path()) };
        let found = Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap();
        assert_eq!(found.path, snapshot.join("model.safetensors"));
        assert!(found.alone.unwrap().to_string().contains("config.json"));
    }
    assert_eq!(failing.seen().len(), 1);
    // Where it may not be asked it is not, and nothing is said of it.
    let cache = Cache { endpoint: failing.address.clone(), offline: true, ..Cache::at(folder.path()) };
    assert!(Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap().alone.is_none());
    assert_eq!(failing.seen().len(), 1);
    // A mirror that does not know the repository says nothing of its files.
    let empty = Server::start(|_, _| Answer::new(404, &[], b""));
    let cache = Cache { endpoint: empty.address.clone(), ..Cache::at(folder.path()) };
    assert!(Hub::new(cache).unwrap().resolve("timm/net.tag", go_on).unwrap().alone.is_none());
    assert!(!snapshot.parent().unwrap().with_file_name(".no_exist").exists());
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
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
fn old_repositories_have_a_pickle_instead() {
    let folder = tempfile::tempdir().unwrap();
    let server = repository(&[("pytorch_model.bin", b"pickle")]);
    let hub = hub(folder.path(), &server);
    let path = resolve(&hub, "hf:org/name").unwrap();
    assert!(path.ends_with("pytorch_model.bin"));
    let error = resolve(&hub, "hf:org/other").unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 404, url, .. } if url.contains("model.safetensors")));
}

#[test]
fn contents_that_are_not_the_published_ones_are_refused() {
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
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Server::start(|request, _| part(request, b"tensors"));
    let place = format!("{}/contents", storage.address);
    let server = Server::start(move |request, _| match request.path.as_str() {
        // Renamed, as the hub says it: by a path.
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
fn two_at_once_fetch_one_file() {
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
