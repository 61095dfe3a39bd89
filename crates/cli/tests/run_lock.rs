//! Simultaneous runs, and the lock of a run folder.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{error, json, path, run, tiny_recipe};

/// Starts the program in `folder`.
fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mbconv"));
    command.current_dir(folder).args(arguments).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(file: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !file.exists() {
        assert!(Instant::now() < deadline, "no {}", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn simultaneous_runs_get_separate_folders() {
    let folder = tempfile::tempdir().unwrap();
    tiny_recipe(folder.path());
    let seeds = ["seed=1", "seed=2", "seed=3"];
    let train = |seed| start(folder.path(), &["train", "tiny.toml", "--set", "epochs=1", "--set", seed]);
    let children = seeds.map(train);
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let mut trained = Vec::new();
    for name in ["tiny", "tiny-2", "tiny-3"] {
        let run = folder.path().join("runs").join(name);
        let best = format!("best model: runs/{name}/best.safetensors");
        let text = outputs.iter().map(|output| String::from_utf8_lossy(&output.stderr)).find(|log| log.contains(&best));
        assert!(text.is_some_and(|text| text.contains(&format!("run folder runs/{name}\n"))), "{outputs:?}");
        assert_eq!(fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count(), 2);
        assert!(!run.join(".lock").exists(), "the lock file is removed");
        let recipe = fs::read_to_string(run.join("recipe.toml")).unwrap();
        trained.extend(seeds.iter().position(|seed| recipe.contains(&seed.replace('=', " = "))));
    }
    trained.sort_unstable();
    assert_eq!(trained, [0, 1, 2]);
}

#[test]
fn run_folder_is_locked_until_its_process_ends() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let train = ["train", path(&recipe), "--out", path(&out), "--set", "epochs=1000"];
    let mut first = start(folder.path(), &train);
    let best = out.join("best.safetensors");
    wait_for(&best);
    let in_use = format!("error: {} is in use by process {} on ", out.display(), first.id());
    for resume in [&[][..], &["--resume"]] {
        let text = error(&[&train[..], resume].concat());
        assert!(text.contains(&in_use) && text.contains("hint: ") && text.contains("--out"), "{text}");
    }
    let finetune = ["finetune", "--weights", path(&best), "--data", "digits", "--out", path(&out)];
    assert!(error(&finetune).contains(&in_use));
    // The folder of a run in progress can be read.
    assert!(json(&["eval", path(&out), "--data", "digits", "--json"])["top1"].is_f64());

    first.kill().unwrap();
    first.wait().unwrap();
    let done = fs::read_to_string(out.join("metrics.csv")).unwrap().lines().count();
    let text = error(&train);
    assert!(text.contains("already holds a run") && text.contains("--resume"), "{text}");
    let (_, text) = run(0, &[&train[..4], &["--resume", "--set", &format!("epochs={done}")]].concat());
    assert!(text.contains("resumed after"), "{text}");
    assert!(!out.join(".lock").exists());
}

#[test]
fn immediate_failures_leave_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let text = error(&["train", path(&recipe), "--out", path(&out), "--set", "batch_size=100000"]);
    assert!(text.contains("fewer than one batch"), "{text}");
    assert!(!out.exists());
    assert!(error(&["train", path(&recipe), "--out", path(&out), "--resume"]).contains("holds no run to resume"));
    assert!(!out.exists());
}
