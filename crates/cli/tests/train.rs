//! `train`, `eval`, `predict` and `export` together.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{error, image_folder, json, mbconv, path, run, tiny_recipe, trained};

#[test]
fn run_folder_contains_all_files() {
    let folder = trained();
    for file in
        ["best.safetensors", "last.safetensors", "checkpoint.safetensors", "recipe.toml", "metrics.csv", "log.txt"]
    {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let metrics = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 3, "{metrics}");
    assert!(metrics.starts_with("epoch,learning_rate,train_loss"));
    let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
    assert!(log.contains("1438 training and 359 validation images") && log.contains("epoch   2"), "{log}");
    // No temporary files are left.
    assert!(
        std::fs::read_dir(folder).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with('.'))
    );
}

#[test]
fn eval_reproduces_the_results_of_the_run() {
    let model = trained();
    let result = json(&["eval", path(model), "--data", "digits", "--json"]);
    assert_eq!(result["images"], 359);
    let info = json(&["info", path(model), "--json"]);
    for key in ["top1", "top5", "loss"] {
        let [evaluated, stored] = [&result[key], &info["results"][key]].map(|value| value.as_f64().unwrap());
        assert!((evaluated - stored).abs() < 1e-6, "{key}: {evaluated} {stored}");
    }
    let top1 = result["top1"].as_f64().unwrap();
    let interval: Vec<f64> = serde_json::from_value(result["top1_interval"].clone()).unwrap();
    assert!(interval[0] < top1 && top1 < interval[1]);
    assert_eq!(result["classes"].as_array().unwrap().len(), 10);
    let (text, _) = run(0, &["eval", path(model), "--data", "digits"]);
    assert!(text.contains("top-1") && text.contains("95 % interval"), "{text}");
    assert!(error(&["eval", path(model), "--data", "digits", "--split", "tset"]).contains("tset"));
}

#[test]
fn predictions_do_not_depend_on_batch_or_precision() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a"], 40);
    let all = json(&["predict", path(trained()), path(folder.path()), "--logits", "--top-k", "3", "--json"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 40);
    let probabilities: Vec<f64> =
        all[0]["predictions"].as_array().unwrap().iter().map(|p| p["probability"].as_f64().unwrap()).collect();
    assert_eq!(probabilities.len(), 3);
    assert!(probabilities.is_sorted_by(|a, b| a >= b));
    assert_eq!(all[0]["logits"].as_array().unwrap().len(), 10);

    // A single image, and a half-precision file.
    let half = folder.path().join("half.safetensors");
    run(0, &["export", path(trained()), path(&half), "--dtype", "f16"]);
    assert!(half.metadata().unwrap().len() * 10 < trained().join("best.safetensors").metadata().unwrap().len() * 6);
    let file = all[7]["path"].as_str().unwrap();
    for (model, tolerance) in [(trained(), 1e-5), (half.as_path(), 0.05)] {
        let alone = json(&["predict", path(model), file, "--logits", "--json"]);
        let [a, b] =
            [&alone[0]["logits"], &all[7]["logits"]].map(|l| serde_json::from_value::<Vec<f64>>(l.clone()).unwrap());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < tolerance, "{a} {b}");
        }
    }
}

#[test]
fn image_folders_train_and_unreadable_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &["blue", "red", "teal"], 30);
    }
    std::fs::write(data.join("train/red/text.png"), "not an image").unwrap();
    std::fs::write(data.join("train/red/.hidden.png"), "x").unwrap();
    std::fs::write(data.join("train/red/notes.txt"), "x").unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let set = ["--set", "batch_size=16", "--set", "epochs=3"];
    let (_, log) = run(0, &[&["train", path(&recipe), "--data", path(&data), "--out", path(&out)], &set[..]].concat());
    assert!(log.contains("text.png"), "{log}");
    assert!(log.contains("3 classes, 91 training and 90 validation images"), "{log}");
    // Top-5 of three classes is always 1.
    let result = json(&["eval", path(&out), "--data", path(&data), "--json"]);
    assert_eq!(result["top5"], 1.0);

    // In evaluation an unreadable image is an error by default.
    std::fs::write(data.join("val/blue/bad.jpg"), [0xff, 0xd8, 0xff]).unwrap();
    assert!(error(&["eval", path(&out), "--data", path(&data)]).contains("bad.jpg"));
    let result = json(&["eval", path(&out), "--data", path(&data), "--skip-bad-images", "--json"]);
    assert_eq!((result["images"].as_u64(), result["skipped"].as_array().unwrap().len()), (Some(90), 1));
    // A class without images does not shift the others; a class unknown to the model is an error.
    std::fs::remove_file(data.join("val/blue/bad.jpg")).unwrap();
    std::fs::remove_dir_all(data.join("val/blue")).unwrap();
    let fewer = json(&["eval", path(&out), "--data", path(&data), "--json"]);
    assert_eq!(fewer["classes"][0]["images"], 0);
    assert_eq!(fewer["classes"][2]["top1"], result["classes"][2]["top1"]);
    let other = folder.path().join("other");
    image_folder(&other, &["blue", "green"], 5);
    assert!(error(&["eval", path(&out), "--data", path(&other)]).contains("`green`"));
}

#[test]
fn runs_are_not_overwritten_and_resume_needs_the_same_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let taken = error(&["train", path(&recipe), "--out", path(trained())]);
    assert!(taken.contains("already holds a run") && taken.contains("--resume"), "{taken}");
    let changed = error(&["train", path(&recipe), "--out", path(trained()), "--resume", "--set", "batch_size=32"]);
    assert!(changed.contains("`batch_size`"), "{changed}");
    let missing = folder.path().join("nothing");
    assert!(error(&["train", path(&recipe), "--out", path(&missing), "--resume"]).contains("no run to resume"));
    // Resuming a finished run does nothing.
    run(0, &["train", path(&recipe), "--out", path(trained()), "--resume"]);
}

/// A command without a step to finish ends at the first signal.
#[cfg(unix)]
#[test]
fn bench_ends_at_the_first_signal() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mbconv"))
        .args(["bench", "mobilenet_v2_0.1", "--input-size", "32", "--seconds", "600"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            None => {
                child.kill().unwrap();
                panic!("still running");
            }
        }
    };
    // The signal ended it, not an error of its own.
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{status}");
}

/// Interrupts a run within an epoch and resumes it with another number of workers.
#[cfg(unix)]
#[test]
fn resume_after_interrupt_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let set = ["--set", "epochs=6", "--set", "model.dropout=0.2", "--set", "model.drop_path=0.1"];
    let train = |out: &Path, more: &[&str]| {
        [&["train", path(&recipe), "--out", path(out)], &set[..], more]
            .concat()
            .into_iter()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let whole = folder.path().join("whole");
    mbconv().args(train(&whole, &[])).assert().success();

    let halves = folder.path().join("halves");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mbconv"))
        .args(train(&halves, &["--set", "data.workers=1"]))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !halves.join("metrics.csv").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Somewhere in the second epoch.
    std::thread::sleep(Duration::from_millis(60));
    // Not SIGINT, which a shell ignores for commands in the background.
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let log = std::fs::read_to_string(halves.join("log.txt")).unwrap();
    assert!(log.contains("interrupted"), "{log}");

    mbconv().args(train(&halves, &["--resume"])).assert().success();
    let read = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    let weights = |run: &Path| {
        let bytes = read(run, "last.safetensors");
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    assert!(weights(&whole) == weights(&halves), "the weights differ");
    let losses = |run: &Path| -> Vec<String> {
        let text = String::from_utf8(read(run, "metrics.csv")).unwrap();
        text.lines().map(|line| line.split(',').take(8).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(losses(&whole), losses(&halves));
}

#[cfg(target_os = "linux")]
#[test]
fn automatic_batch_size_is_printed_stored_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("run"));
    let text = std::fs::read_to_string(&recipe).unwrap().replace("batch_size = 64", "batch_size = \"auto\"");
    std::fs::write(&recipe, text).unwrap();
    assert!(run(0, &["recipe", "check", path(&recipe)]).0.contains("batches that fit in memory"));
    let (resolved, _) = run(0, &["recipe", "show", path(&recipe), "--resolved"]);
    assert!(resolved.contains("batch_size = \"auto\""), "{resolved}");
    let train = ["train", path(&recipe), "--out", path(&out), "--device", "cpu"];
    let stored = || std::fs::read_to_string(out.join("recipe.toml")).unwrap().contains("batch_size = 128");

    assert!(error(&[&train[..], &["--set", "accumulate=2"]].concat()).contains("accumulate = 2"));
    let (_, log) = run(0, &[&train[..], &["--epochs", "1"]].concat());
    assert!(log.contains("batch size 128 (auto): training needs about 0.") && stored(), "{log}");
    let (_, log) = run(0, &[&train[..], &["--epochs", "2", "--resume"]].concat());
    assert!(log.contains("epoch   2") && !log.contains("(auto)") && stored(), "{log}");
    let other = error(&[&train[..], &["--epochs", "2", "--resume", "--batch-size", "32"]].concat());
    assert!(other.contains("`batch_size` = 128"), "{other}");

    let tuned = folder.path().join("tuned");
    let finetune = ["finetune", path(&out), "digits", "--out", path(&tuned), "--device", "cpu"];
    let (_, log) = run(0, &[&finetune[..], &["--batch-size", "auto", "--epochs", "1"]].concat());
    assert!(log.contains("batch size 128 (auto)"), "{log}");
    let (_, log) = run(0, &[&finetune[..], &["--batch-size", "auto", "--epochs", "2", "--resume"]].concat());
    assert!(!log.contains("(auto)"), "{log}");
    run(2, &[&train[..], &["--batch-size", "all"]].concat());
}

#[test]
fn training_images_are_shown_on_a_sheet() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    image_folder(&root, &["a", "b"], 5);
    let sheet = top.path().join("batches.png");
    let inspect = |code: i32, more: &[&str]| {
        let arguments = ["data", "inspect", path(&root), "--sheet", path(&sheet), "--recipe", "digits"];
        run(code, &[&arguments[..], &["--set", "batch_size=4"], more].concat()).1
    };
    let log = inspect(0, &["--set", "mix.mixup=0.5"]);
    assert!(log.contains("first 8 training images of 16×16 pixels, in 2 batches of epoch 1"), "{log}");
    let first = std::fs::read(&sheet).unwrap();
    assert_eq!(image::load_from_memory(&first).unwrap().to_rgb8().dimensions(), (8 + 3 * 232, 8 + 3 * 256));
    inspect(0, &["--set", "mix.mixup=0.5", "--workers", "1"]);
    assert_eq!(std::fs::read(&sheet).unwrap(), first);
    inspect(0, &["--set", "seed=7"]);
    assert_ne!(std::fs::read(&sheet).unwrap(), first);
    assert!(inspect(1, &["--set", "batch_size=40"]).contains("batch_size"));
    inspect(2, &["--seed", "3"]);
}
