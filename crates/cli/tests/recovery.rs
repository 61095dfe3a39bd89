//! Damaged or missing files of runs, and temporary files of killed runs.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{error, path, run, tiny_recipe, trained};

const CHECKPOINTS: [&str; 2] = ["checkpoint.safetensors", "checkpoint-previous.safetensors"];

/// A copy of the finished run of two epochs, and the arguments that resume it.
struct Copy {
    folder: tempfile::TempDir,
    recipe: PathBuf,
    out: PathBuf,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("run"));
        fs::create_dir(&out).unwrap();
        for entry in fs::read_dir(trained()).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), out.join(entry.file_name())).unwrap();
        }
        Self { folder, recipe, out }
    }

    fn resume(&self) -> Vec<&str> {
        vec!["train", path(&self.recipe), "--out", path(&self.out), "--device", "cpu", "--resume"]
    }

    /// Truncates a file to half its size.
    fn truncate(&self, name: &str) {
        let bytes = fs::read(self.out.join(name)).unwrap();
        fs::write(self.out.join(name), &bytes[..bytes.len() / 2]).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.out.join(name)).unwrap();
    }
}

/// Returns the contents of a model file, or of a table without the columns about speed.
fn contents(run: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(run.join(name)).unwrap();
    match name.ends_with(".csv") {
        true => {
            String::from_utf8(bytes).unwrap().lines().flat_map(|row| row.split(',').take(8)).collect::<String>().into()
        }
        false => bytes,
    }
}

#[test]
fn damaged_checkpoint_falls_back_to_the_previous_one() {
    for missing in [false, true] {
        let copy = Copy::new();
        if missing {
            copy.remove(CHECKPOINTS[0])
        } else {
            copy.truncate(CHECKPOINTS[0])
        }
        let (_, log) = run(0, &copy.resume());
        let what = if missing { "is missing" } else { "is damaged (" };
        assert!(log.contains(&format!("warning: checkpoint.safetensors {what}")), "{log}");
        assert!(log.contains("continues from checkpoint-previous.safetensors"), "{log}");
        assert!(log.contains("resumed after 1 epochs"), "{log}");
        for name in ["last.safetensors", "best.safetensors", "metrics.csv"] {
            assert!(contents(&copy.out, name) == contents(trained(), name), "{name} differs");
        }
        // The damaged file did not replace the intact one.
        let (_, log) = run(0, &copy.resume());
        assert!(log.contains("resumed after 2 epochs") && !log.contains("warning"), "{log}");
    }
}

#[test]
fn without_checkpoints_the_last_model_continues() {
    let copy = Copy::new();
    copy.remove(CHECKPOINTS[0]);
    copy.truncate(CHECKPOINTS[1]);
    let begin = error(&copy.resume()[..6]);
    assert!(begin.contains("already holds a run") && begin.contains("--resume"), "{begin}");
    let (_, log) = run(0, &[&copy.resume()[..], &["--set", "epochs=3"]].concat());
    let warning = "warning: checkpoint.safetensors is missing, checkpoint-previous.safetensors is damaged (";
    assert!(log.contains(warning) && log.contains("continues from last.safetensors without"), "{log}");
    let table = |run: &Path| fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(table(&copy.out).lines().count(), 4);
    assert!(table(&copy.out).starts_with(&table(trained())), "{}", table(&copy.out));
}

#[test]
fn unrecoverable_runs_name_the_lost_files() {
    let copy = Copy::new();
    for name in [CHECKPOINTS[0], CHECKPOINTS[1], "last.safetensors"] {
        copy.truncate(name);
    }
    let text = error(&copy.resume());
    for words in ["cannot continue", CHECKPOINTS[0], CHECKPOINTS[1], "last.safetensors", "--out", "mbconv finetune "] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The suggestion works.
    let other = copy.folder.path().join("other");
    let best = copy.out.join("best.safetensors");
    let finetune = ["finetune", "--weights", path(&best), "--data", "digits", "--out", path(&other), "--epochs", "1"];
    run(0, &finetune);

    // Without a completed epoch, the run starts again.
    for name in ["last.safetensors", "best.safetensors", "metrics.csv"] {
        copy.remove(name);
    }
    let (_, log) = run(0, &copy.resume());
    assert!(log.contains("is damaged (") && log.contains("begun anew"), "{log}");
    assert!(contents(&copy.out, "last.safetensors") == contents(trained(), "last.safetensors"));
}

#[test]
fn damaged_best_model_is_restored_or_replaced() {
    let copy = Copy::new();
    copy.truncate("best.safetensors");
    let last_is_best =
        fs::read(trained().join("best.safetensors")).unwrap() == fs::read(trained().join("last.safetensors")).unwrap();
    let (_, log) = run(0, &[&copy.resume()[..], &["--set", "epochs=3"]].concat());
    let outcome = if last_is_best { "restored from" } else { "takes its place" };
    assert!(log.contains("best.safetensors") && log.contains(outcome), "{log}");
    run(0, &["eval", path(&copy.out), "--data", "digits"]);
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let copy = Copy::new();
    fs::create_dir_all(copy.out.join("epochs")).unwrap();
    let left_over = [".mbconv-AbCdEf.tmp", "epochs/.mbconv-GhIjKl.tmp"].map(|name| copy.out.join(name));
    for path in &left_over {
        fs::write(path, "half a file").unwrap();
    }
    run(0, &copy.resume());
    assert!(left_over.iter().all(|path| !path.exists()));
}
