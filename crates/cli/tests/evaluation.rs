//! Tests of the split that `eval` uses, and of training with unreadable images.

mod common;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{error, image_folder, json, path, run, tiny_recipe};
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["blue", "red", "teal"];

/// Returns the folder of a run trained on a flat folder of 3 × 10 images, in `data`.
fn flat_run() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        image_folder(&data, &CLASSES, 10);
        let (_, log) = train(folder.path(), &data, 0);
        assert!(log.contains(&format!("--data {} --split val", data.display())), "{log}");
        folder
    })
    .path()
}

/// Trains on `data`, with the run in `folder`.
fn train(folder: &Path, data: &Path, status: i32) -> (String, String) {
    let recipe = tiny_recipe(folder);
    let out = folder.join("run");
    let set = ["--set", "batch_size=8", "--set", "epochs=1", "--device", "cpu"];
    run(status, &[&["train", path(&recipe), "--data", path(data), "--out", path(&out)], &set[..]].concat())
}

#[test]
fn data_without_splits_is_evaluated_as_a_whole() {
    let model = flat_run().join("run");
    let data = flat_run().join("data");
    let eval = |split: &[&str]| json(&[&["eval", path(&model), "--data", path(&data), "--json"], split].concat());
    let whole = eval(&[]);
    assert_eq!((&whole["images"], &whole["split"]), (&30.into(), &"all".into()));
    assert!(whole["seconds"].as_f64().unwrap() > 0.0 && whole["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(eval(&["--split", "all"])["images"], 30);
    // The images held out by the run, with the stored results.
    let held_out = eval(&["--split", "val"]);
    assert_eq!((&held_out["images"], &held_out["split"]), (&6.into(), &"val".into()));
    let info = json(&["info", path(&model), "--json"]);
    let [evaluated, stored] = [&held_out["loss"], &info["results"]["loss"]].map(|loss| loss.as_f64().unwrap());
    assert!((evaluated - stored).abs() < 1e-6, "{evaluated} {stored}");

    let (text, notes) = run(0, &["eval", path(&model), "--data", path(&data)]);
    assert!(text.contains("30 images of the whole data set (it has no splits), none skipped"), "{text}");
    assert!(text.contains("images per second"), "{text}");
    assert!(notes.contains("was trained on") && notes.contains("--split val"), "{notes}");

    let other = tempfile::tempdir().unwrap();
    image_folder(other.path(), &CLASSES, 1);
    let (text, notes) = run(0, &["eval", path(&model), "--data", path(other.path())]);
    assert!(text.contains("3 images of the whole data set"), "{text}");
    assert_eq!(notes, "");

    let table = other.path().join("list.csv");
    std::fs::write(&table, "path,label\nblue/0.png,blue\nred/0.png,red\n").unwrap();
    assert_eq!(json(&["eval", path(&model), "--data", path(&table), "--json"])["images"], 2);
}

#[test]
fn missing_split_is_an_error_that_lists_the_existing_splits() {
    let model = flat_run().join("run");
    let data = tempfile::tempdir().unwrap();
    image_folder(&data.path().join("train"), &CLASSES, 2);
    image_folder(&data.path().join("val"), &CLASSES, 1);
    let eval = ["eval", path(&model), "--data", path(data.path())];
    let message = error(&[&eval[..], &["--split", "test"]].concat());
    assert!(message.contains("\"test\", only train, val, all"), "{message}");
    let (text, _) = run(0, &eval);
    assert!(text.contains("3 images of the split `val`"), "{text}");
    let (text, _) = run(0, &[&eval[..], &["--split", "all"]].concat());
    assert!(text.contains("9 images of all splits"), "{text}");

    std::fs::rename(data.path().join("val"), data.path().join("Testing")).unwrap();
    for split in ["val", "test"] {
        let (text, _) = run(0, &[&eval[..], &["--split", split]].concat());
        assert!(text.contains("3 images of the split `test`"), "{text}");
    }
}

#[test]
fn skipped_images_are_counted_and_listed() {
    let model = flat_run().join("run");
    let data = tempfile::tempdir().unwrap();
    image_folder(data.path(), &CLASSES, 2);
    std::fs::write(data.path().join("red/bad.png"), "no image").unwrap();
    let (text, notes) = run(0, &["eval", path(&model), "--data", path(data.path()), "--skip-bad-images"]);
    assert!(text.contains("6 images of the whole data set (it has no splits), 1 skipped"), "{text}");
    assert!(notes.contains("bad.png") && notes.contains("warning: 1 of 7 images cannot be read"), "{notes}");
}

/// Writes a folder with splits in which `unreadable` of 30 validation images are not images.
fn partly_unreadable(folder: &Path, unreadable: usize) -> PathBuf {
    let data = folder.join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &CLASSES, 10);
    }
    for image in 0..unreadable {
        let class = CLASSES[image % CLASSES.len()];
        std::fs::write(data.join("val").join(class).join(format!("{}.png", image / CLASSES.len())), "bad").unwrap();
    }
    data
}

#[test]
fn unreadable_validation_set_selects_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = partly_unreadable(folder.path(), 15);
    let (_, log) = train(folder.path(), &data, 1);
    assert!(log.contains("15 of 30 validation images cannot be read, more than 10 %"), "{log}");
    assert!(log.contains("data verify") && log.contains("skipped "), "{log}");
    assert!(!folder.path().join("run/best.safetensors").exists());
    // The epoch is not lost: resuming only repeats its validation.
    std::fs::remove_dir_all(data.join("val")).unwrap();
    image_folder(&data.join("val"), &CLASSES, 10);
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let resumed = ["train", path(&recipe), "--data", path(&data), "--out", path(&out), "--resume", "--device", "cpu"];
    run(0, &[&resumed[..], &["--set", "batch_size=8", "--set", "epochs=1"]].concat());
    assert!(out.join("best.safetensors").is_file());
}

#[test]
fn few_unreadable_validation_images_give_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let data = partly_unreadable(folder.path(), 3);
    let (_, log) = train(folder.path(), &data, 0);
    assert!(log.contains("warning: 3 of 30 validation images so far cannot be read"), "{log}");
    let log = std::fs::read_to_string(folder.path().join("run/log.txt")).unwrap();
    assert!(log.contains("warning: 3 of 30") && log.matches("skipped ").count() == 3, "{log}");
}

#[test]
fn single_class_is_an_error_in_training_and_a_note_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    image_folder(&data, &["cat"], 8);
    let (_, message) = train(folder.path(), &data, 1);
    assert!(message.contains("the same class, \"cat\"") && message.contains("hint: "), "{message}");
    assert!(!folder.path().join("run").exists());
    let recipe = tiny_recipe(folder.path());
    let svg = folder.path().join("curve.svg");
    let message = error(&["find-lr", path(&recipe), "--data", path(&data), "--out", path(&svg), "--device", "cpu"]);
    assert!(message.contains("the same class"), "{message}");
    let weights = flat_run().join("run");
    let out = folder.path().join("tuned");
    let message = error(&["finetune", "--weights", path(&weights), "--data", path(&data), "--out", path(&out)]);
    assert!(message.contains("the same class"), "{message}");
    let (text, _) = run(0, &["data", "inspect", path(&data)]);
    assert!(text.contains("single class"), "{text}");

    // It can be evaluated.
    let measured = folder.path().join("measured");
    image_folder(&measured, &["red"], 4);
    assert_eq!(json(&["eval", path(&weights), "--data", path(&measured), "--json"])["images"], 4);
}

#[test]
fn wrapping_folders_of_a_data_set_are_searched() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("download/PetImages");
    for split in ["Training", "Testing"] {
        image_folder(&inner.join(split), &CLASSES, 8);
    }
    let (_, log) = train(folder.path(), &folder.path().join("download"), 0);
    assert!(log.contains("3 classes, 24 training and 24 validation images"), "{log}");
}
