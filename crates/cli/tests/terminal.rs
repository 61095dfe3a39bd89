//! Runs with a closed terminal or closed output.
#![cfg(unix)]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{path, tiny_recipe};

/// Starts a run of two epochs in the folder `run`, from a shell that executes `first` before.
fn start(folder: &Path, first: &str, stderr: Stdio) -> Child {
    let recipe = tiny_recipe(folder);
    let script = format!("{first}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_mbconv"), "train", path(&recipe), "--out"]);
    command.arg(folder.join("run")).stderr(stderr).spawn().unwrap()
}

/// Waits for the run and checks that run and log are complete.
fn is_complete(mut child: Child, folder: &Path) {
    assert!(child.wait().unwrap().success());
    let log = fs::read_to_string(folder.join("run/log.txt")).unwrap();
    assert!(log.contains("epoch   1  train loss") && log.contains("epoch   2  train loss"), "{log}");
    assert!(folder.join("run/report.html").exists());
}

#[test]
fn run_continues_if_standard_error_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path(), ":", Stdio::piped());
    drop(child.stderr.take());
    is_complete(child, folder.path());
}

#[cfg(target_os = "linux")]
#[test]
fn run_continues_if_standard_error_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    is_complete(start(folder.path(), ":", full.into()), folder.path());
}

#[test]
fn ignored_signals_stay_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path(), "trap '' HUP INT", Stdio::null());
    let metrics = folder.path().join("run/metrics.csv");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !metrics.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    for signal in ["-HUP", "-INT", "-INT"] {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }
    is_complete(child, folder.path());
}
