//! `mbconv fetch`: published weights by name, without internet access.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use common::{json, mbconv, path, tiny_recipe, trained};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{Layout, NetworkOptions};
use mbconv_train::device;

/// Returns a command with its own cache, offline if `offline`.
fn with_cache(cache: &Path, offline: bool) -> assert_cmd::Command {
    let mut command = mbconv();
    for name in ["HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_ENDPOINT", "HF_TOKEN", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(name);
    }
    command.env("XDG_CACHE_HOME", cache).env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
    command
}

/// Returns status, standard output and standard error of `mbconv fetch`.
fn fetch(cache: &Path, weights: &str, offline: bool) -> (i32, String, String) {
    let output = with_cache(cache, offline).args(["fetch", weights]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn cached_weights_are_printed() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("huggingface/hub/models--timm--mobilenetv2_100.ra_in1k/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    let file = snapshot.join("model.safetensors");
    std::fs::write(&file, "weights").unwrap();
    let (status, stdout, stderr) = fetch(cache.path(), "timm/mobilenetv2_100", true);
    assert_eq!((status, stdout.trim()), (0, file.to_str().unwrap()), "{stderr}");
}

#[test]
fn offline_error_names_the_cache_path() {
    let cache = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = fetch(cache.path(), "torchvision/mobilenet_v2", true);
    assert_eq!((status, stdout.as_str()), (1, ""));
    let place = cache.path().join("torch/hub/checkpoints/mobilenet_v2-7ebf99e0.pth");
    assert!(stderr.contains("error: https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"), "{stderr}");
    assert!(stderr.contains("hint: ") && stderr.contains(place.to_str().unwrap()), "{stderr}");

    // Its checksum is verified.
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, "not those weights").unwrap();
    let (status, _, stderr) = fetch(cache.path(), "torchvision/mobilenet_v2", true);
    assert!(status == 1 && stderr.contains("7ebf99e0 was published") && stderr.contains("delete"), "{stderr}");
}

#[test]
fn unknown_names_give_suggestions() {
    let cache = tempfile::tempdir().unwrap();
    let (status, _, stderr) = fetch(cache.path(), "torchvision/mobilenet_v4", true);
    assert!(status == 1 && stderr.contains("hint: did you mean `torchvision/mobilenet_v2`?"), "{stderr}");
    let (status, _, stderr) = fetch(cache.path(), "gone.pth", true);
    assert!(status == 1 && stderr.contains("there is no model or architecture `gone.pth`"), "{stderr}");
}

#[test]
fn urls_are_downloaded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nets/small.pth", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nweights").unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let cache = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = fetch(cache.path(), &url, false);
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("fetching http://127.0.0.1"), "{stderr}");
    assert_eq!(std::fs::read_to_string(stdout.trim()).unwrap(), "weights");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /nets/small.pth ") && request.contains("mbconv/"), "{request}");
}

/// Starts a hub with one repository and returns its address.
fn hub(repository: &'static str, files: Vec<(&'static str, Vec<u8>)>) -> String {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let place = request.split(' ').nth(1).unwrap_or_default().strip_prefix(&format!("/{repository}/resolve/"));
            let name = place.and_then(|place| place.split_once('/')).map(|(_, name)| name);
            let answer = match files.iter().find(|(file, _)| Some(*file) == name) {
                None => b"HTTP/1.1 404 No\r\nConnection: close\r\nX-Error-Code: EntryNotFound\r\n\r\n".to_vec(),
                Some((file, body)) => {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{}{:x}\"\r\nContent-Length: {}\r\n\r\n",
                        file.len(),
                        body.len(),
                        body.len()
                    );
                    let body = if request.starts_with("HEAD") { &[][..] } else { body };
                    [head.as_bytes(), body].concat()
                }
            };
            // The client may close the connection.
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[test]
fn downloaded_weights_use_their_configuration() {
    let architecture = NetworkOptions::new("mobilenet_v2_0.1", 4).architecture().unwrap();
    let network = architecture.init(&device::parse("cpu").unwrap());
    let weights = to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap();
    let config = r#"{"architecture": "mobilenetv2_010", "label_names": ["w", "x", "y", "z"], "pretrained_cfg": {"tag": "own",
        "input_size": [3, 96, 96], "crop_pct": 0.5, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
    let endpoint = hub(
        "timm/mobilenetv2_010.own",
        vec![("model.safetensors", weights), ("config.json", config.as_bytes().to_vec())],
    );
    let folder = tempfile::tempdir().unwrap();
    let (cache, model) = (folder.path().join("cache"), folder.path().join("model.safetensors"));
    let import = |offline| {
        let mut command = with_cache(&cache, offline);
        command.env("HF_ENDPOINT", &endpoint).args(["import", "timm/mobilenetv2_010.own", path(&model)]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !stderr.contains("note: "), "{stderr}");
        stderr
    };
    for offline in [false, true] {
        let log = import(offline);
        let applied = "preprocessing from its configuration: resize 192 (bicubic), crop 96, mean [0.5, 0.5, 0.5]";
        assert!(log.contains(applied), "{log}");
        assert_eq!(json(&["info", path(&model), "--json"])["class_names"][3], "z");
    }
}

#[test]
fn recipes_accept_published_weights() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let snapshot = cache.join("huggingface/hub/models--someone--digits/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    let model = snapshot.join("model.safetensors");
    std::fs::copy(trained().join("best.safetensors"), &model).unwrap();
    let recipe = tiny_recipe(folder.path());
    let (out, svg) = (folder.path().join("run"), folder.path().join("rates.svg"));
    let weights = ["--device", "cpu", "--set", "finetune.weights=\"hf:someone/digits\"", "--set", "epochs=1"];
    for command in [
        &["train", path(&recipe), "--out", path(&out)][..],
        &["train", path(&recipe), "--out", path(&out), "--resume"],
        &["find-lr", path(&recipe), "--out", path(&svg), "--steps", "8"],
    ] {
        let output = with_cache(&cache, true).args(command).args(weights).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
    }
    let log = std::fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(log.contains(&format!("starts from {}", path(&model))), "{log}");
    // An error names the weights.
    let output = with_cache(&folder.path().join("empty"), true)
        .args(["train", path(&recipe), "--out", path(&folder.path().join("other"))])
        .args(weights)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("someone/digits") && stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
}
