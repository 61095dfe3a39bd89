//! Training in several processes with MPI. Needs `mpirun`:
//! `cargo test --release --features mbconv/mpi --test mpi`.
#![cfg(all(unix, feature = "mpi"))]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{json, mbconv, path, tiny_recipe};

/// Settings for comparisons: no augmentation, synchronized batch-norm, smooth activations and small
/// steps, so that rounding errors stay small.
const SAME: [&str; 10] = [
    "sync_batch_norm=true",
    "input.crop=centre",
    "model.name=efficientnet_b0",
    "model.strides=[2, 1, 2, 1, 1, 1, 1, 1]",
    "model.dropout=0",
    "model.drop_path=0",
    "optimizer.learning_rate=0.001",
    "optimizer.momentum=0.5",
    "optimizer.clip_norm=5",
    "epochs=1",
];

/// Returns the command `mpirun -np PROCESSES mbconv …`, for any machine and user.
fn mpirun(processes: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["-np", &processes.to_string(), "--oversubscribe", "--bind-to", "none"]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.arg(env!("CARGO_BIN_EXE_mbconv")).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn train<'a>(recipe: &'a Path, out: &'a Path, settings: &[&'a str]) -> Vec<&'a str> {
    let begin = ["train", path(recipe), "--device", "cpu", "--out", path(out)];
    begin.into_iter().chain(settings.iter().flat_map(|set| ["--set", set])).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns a column of metrics.csv.
fn column(run: &Path, index: usize) -> Vec<f64> {
    let csv = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    csv.lines().skip(1).map(|line| line.split(',').nth(index).unwrap().parse().unwrap()).collect()
}

/// Waits until a process ends by itself.
fn end_of(mut child: Child, limit: Duration) -> Output {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > limit {
            let _ = child.kill();
            panic!("still running after {limit:?}\n{}", text(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// Waits until a run has completed an epoch.
fn wait_for_epoch(run: &Path) {
    let started = Instant::now();
    while !run.join("metrics.csv").is_file() {
        assert!(started.elapsed() < Duration::from_secs(120), "no epoch was completed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the process ids of the ranks of `run`, found by its folder on their command lines.
fn ranks(run: &Path) -> Vec<String> {
    let pattern = format!("^{}.*{}", env!("CARGO_BIN_EXE_mbconv"), path(run));
    let found = Command::new("pgrep").args(["-f", &pattern]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn four_processes_train_like_one_and_rank_0_prints() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let [one, four] = ["one", "four"].map(|name| folder.path().join(name));
    mbconv().args(train(&recipe, &one, &SAME)).assert().success();
    let output = mpirun(4, &train(&recipe, &four, &SAME)).output().unwrap();
    let log = text(&output);
    assert!(output.status.success(), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("epoch   1")).count(), 1, "{log}");
    assert!(log.contains("4 processes, 16 of 64 images each"), "{log}");
    // 22 updates; losses of training and validation, and accuracies.
    for (index, tolerance) in [(2, 1e-5), (5, 1e-4), (6, 0.01), (7, 0.01)] {
        let [a, b] = [&one, &four].map(|run| column(run, index)[0]);
        assert!((a - b).abs() <= tolerance * a, "column {index}: {a} and {b}");
    }
    let eval = json(&["eval", path(&four), "--data", "digits", "--json"]);
    assert!((eval["top1"].as_f64().unwrap() - column(&four, 6)[0]).abs() < 1e-6);
}

#[test]
fn killed_process_ends_the_run_which_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let settings = ["epochs=40", "checkpoint.minutes=0.001"];
    let child = mpirun(3, &train(&recipe, &out, &settings)).spawn().unwrap();
    wait_for_epoch(&out);
    let victim = ranks(&out).pop().unwrap();
    assert!(Command::new("kill").args(["-9", &victim]).status().unwrap().success());
    let output = end_of(child, Duration::from_secs(15));
    assert!(!output.status.success());
    assert!(ranks(&out).is_empty(), "processes are left");
    // The checkpoint is complete and can be resumed with another number of processes.
    let before = column(&out, 0).len();
    let mut resumed = train(&recipe, &out, &settings);
    resumed.push("--resume");
    let child = mpirun(2, &resumed).spawn().unwrap();
    let started = Instant::now();
    while column(&out, 0).len() <= before && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Interrupting `mpirun` ends it the same way.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    end_of(child, Duration::from_secs(15));
    assert!(ranks(&out).is_empty(), "processes are left");
    assert!(column(&out, 0).len() > before);
    let log = std::fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(log.contains("the run had 3 processes before and has 2 now"), "{log}");
    assert!(mbconv().args(["info", path(&out)]).output().unwrap().status.success(), "the model is whole");
}

#[test]
fn errors_are_printed_once() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    // An error of all processes.
    let output = mpirun(3, &train(&recipe, &out, &["optimizer.learning_rat=1"])).output().unwrap();
    let log = text(&output);
    assert!(!output.status.success());
    assert_eq!(log.matches("error: ").count(), 1, "{log}");
    // An error of rank 0 only.
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(out.join("last.safetensors"), b"").unwrap();
    let log = text(&mpirun(3, &train(&recipe, &out, &[])).output().unwrap());
    assert!(log.contains("already holds a run"), "{log}");
    assert_eq!(log.matches("error: ").count(), 1, "{log}");
    // An error during training.
    let other = folder.path().join("other");
    let wild = ["optimizer.learning_rate=1e30", "schedule.warmup_epochs=0", "epochs=4"];
    let child = mpirun(3, &train(&recipe, &other, &wild)).spawn().unwrap();
    let log = text(&end_of(child, Duration::from_secs(60)));
    assert_eq!(log.matches("error: ").count(), 1, "{log}");
    assert!(log.contains("step 2"), "{log}");
}

#[test]
fn differing_recipes_of_processes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    // Two programs in one launch; the second has another seed.
    let mut command = mpirun(1, &train(&recipe, &out, &[]));
    command.args([":", "-np", "1", env!("CARGO_BIN_EXE_mbconv")]).args(train(&recipe, &out, &["seed=9"]));
    let log = text(&command.output().unwrap());
    assert!(log.contains("rank 1 on ") && log.contains("has another recipe than rank 0"), "{log}");
    assert_eq!(log.matches("error: ").count(), 1, "{log}");
}
