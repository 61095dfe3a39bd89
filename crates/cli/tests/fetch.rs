//! `mbconv fetch`: weights by name, without a network.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use common::mbconv;

/// Status, standard output and standard error with a cache of its own and no network.
fn fetch(cache: &Path, weights: &str, offline: bool) -> (i32, String, String) {
    let mut command = mbconv();
    for name in ["HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_ENDPOINT", "HF_TOKEN", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(name);
    }
    command.env("XDG_CACHE_HOME", cache).env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
    let output = command.args(["fetch", weights]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_in_the_cache_is_printed() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cache.path().join("huggingface/hub/models--timm--mobilenetv2_100.ra_in1k/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    let file = snapshot.join("model.safetensors");
    std::fs::write(&file, "weights").unwrap();
    let (status, stdout, stderr) = fetch(cache.path(), "timm/mobilenetv2_100", true);
    assert_eq!((status, stdout.trim()), (0, file.to_str().unwrap()), "{stderr}");
}

#[test]
fn without_a_network_the_place_by_hand_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = fetch(cache.path(), "torchvision/mobilenet_v2", true);
    assert_eq!((status, stdout.as_str()), (1, ""));
    let place = cache.path().join("torch/hub/checkpoints/mobilenet_v2-7ebf99e0.pth");
    assert!(stderr.contains("error: https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"), "{stderr}");
    assert!(stderr.contains("hint: ") && stderr.contains(place.to_str().unwrap()), "{stderr}");

    // What is put there is checked.
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, "not those weights").unwrap();
    let (status, _, stderr) = fetch(cache.path(), "torchvision/mobilenet_v2", true);
    assert!(status == 1 && stderr.contains("7ebf99e0 was published") && stderr.contains("delete"), "{stderr}");
}

#[test]
fn names_that_are_not_known_bring_up_others() {
    let cache = tempfile::tempdir().unwrap();
    let (status, _, stderr) = fetch(cache.path(), "torchvision/mobilenet_v4", true);
    assert!(status == 1 && stderr.contains("hint: there is torchvision/mobilenet_v2.imagenet1k_v2"), "{stderr}");
    let (status, _, stderr) = fetch(cache.path(), "gone.pth", true);
    assert!(status == 1 && stderr.contains("there is no file gone.pth"), "{stderr}");
}

#[test]
fn a_url_is_fetched() {
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
