//! `scripts/fetch_data.sh`, with a server on this machine.
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{error, path};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/fetch_data.sh");

/// Serves `/cifar-10-binary.tar.gz` and records the first byte of each request. The first response
/// is cut in half.
fn serve(archive: Vec<u8>) -> (String, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut from = 0;
            let mut found = false;
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                found |= line.starts_with("GET /cifar-10-binary.tar.gz ");
                if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let (status, rest) = match archive.get(from..) {
                _ if !found => ("404 Not Found", &[][..]),
                Some(rest) if from > 0 => ("206 Partial Content", rest),
                Some(rest) => ("200 OK", rest),
                None => ("416 Range Not Satisfiable", &[][..]),
            };
            let first = notes.lock().unwrap().is_empty();
            notes.lock().unwrap().push(from);
            let range = format!("Content-Range: bytes {from}-{}/{}", archive.len() - 1, archive.len());
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nConnection: close\r\n{range}\r\nContent-Length: {}\r\n\r\n",
                rest.len()
            );
            let _ = stream.write_all(if first { &rest[..rest.len() / 2] } else { rest });
        }
    });
    (url, asked)
}

#[test]
fn a_fetch_is_resumed_checked_and_unpacked_whole() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("made/cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("test_batch.bin"), (0..3073u32).map(|i| (i * i % 251) as u8).collect::<Vec<_>>()).unwrap();
    let archive = top.path().join("archive");
    let tar = Command::new("tar").args(["-czf", path(&archive), "-C", path(&top.path().join("made")), "."]).status();
    assert!(tar.unwrap().success());
    let content = fs::read(&archive).unwrap();
    let (url, asked) = serve(content.clone());

    // A checksum program that takes this archive for the official one.
    let programs = top.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let md5 = programs.join("md5sum");
    fs::write(
        &md5,
        format!(
            "#!/bin/sh\ncmp -s \"$1\" '{}' && echo c32a1d4ab5d03f1284b67883e8d87530 || echo wrong\n",
            path(&archive)
        ),
    )
    .unwrap();
    fs::set_permissions(&md5, fs::Permissions::from_mode(0o755)).unwrap();
    let to = top.path().join("data");
    let fetch = |names: &[&str]| {
        let search = format!("{}:{}", path(&programs), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.arg(SCRIPT).args(names).args(["--to", path(&to)]).env("PATH", search).env("MBCONV_DATA_URL", &url);
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let entries = || -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };

    let (status, output) = fetch(&["cifar10"]);
    assert!(status == 1 && output.contains("goes on where it stopped"), "{output}");
    assert_eq!(entries(), ["cifar-10-binary.tar.gz.partial"]);
    let (status, output) = fetch(&["cifar10"]);
    assert!(status == 0 && output.contains("cifar-10-batches-bin is ready"), "{output}");
    assert_eq!(entries(), ["cifar-10-batches-bin"]);
    assert_eq!(*asked.lock().unwrap(), [0, content.len() / 2]);
    let unpacked = to.join("cifar-10-batches-bin/test_batch.bin");
    assert_eq!(fs::read(&unpacked).unwrap(), fs::read(folder.join("test_batch.bin")).unwrap());

    // An existing data set is not downloaded again. Unknown names and other archives are errors.
    assert!(fetch(&["cifar10"]).1.contains("there already"));
    assert_eq!(fetch(&["cifar100"]).0, 1);
    assert_eq!(fetch(&["nonsense"]).0, 1);
    fs::remove_dir_all(to.join("cifar-10-batches-bin")).unwrap();
    fs::write(&archive, "another").unwrap();
    let (status, output) = fetch(&["cifar10"]);
    assert!(status == 1 && output.contains("the MD5 wrong"), "{output}");
    assert!(entries().is_empty(), "{:?}", entries());
    assert!(fetch(&["imagenet"]).1.contains("ILSVRC2012_img_train.tar"));
}

#[test]
fn missing_public_data_set_hints_at_its_download_command() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = common::tiny_recipe(folder.path());
    let message = error(&["train", path(&recipe), "--data", "data/cifar-100-binary"]);
    assert!(message.contains("hint: download it with `scripts/fetch_data.sh cifar100`"), "{message}");
    let message = error(&["train", path(&recipe), "--data", "/no/imagenette2-160"]);
    assert!(message.contains("scripts/fetch_data.sh imagenette-160 --to /no"), "{message}");
}
