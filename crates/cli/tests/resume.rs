//! Resuming with other settings or data, and the commands that hints suggest.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{error, image_folder, path, run, tiny_recipe, trained};

/// Trains one epoch on a small image folder; returns the arguments.
fn small_run(folder: &Path, out: &Path) -> Vec<String> {
    let data = folder.join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &["blue", "red"], 8);
    }
    let recipe = tiny_recipe(folder);
    let arguments: Vec<String> = ["train", path(&recipe), "--data", path(&data), "--out", path(out)]
        .into_iter()
        .chain(["--device", "cpu", "--set", "batch_size=8", "--set", "epochs=1"])
        .map(String::from)
        .collect();
    run(0, &refs(&arguments, &[]));
    arguments
}

fn refs<'a>(arguments: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

fn log(out: &Path) -> String {
    fs::read_to_string(out.join("log.txt")).unwrap()
}

fn epochs(out: &Path) -> usize {
    fs::read_to_string(out.join("metrics.csv")).unwrap().lines().count() - 1
}

#[test]
fn finished_runs_resume_for_more_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let train = small_run(folder.path(), &out);
    let recipe = train[1].as_str();
    // The run stores the settings and the data of the first command.
    let resume = ["train", recipe, "--out", path(&out), "--resume"];
    run(0, &[&resume[..], &["--set", "epochs=3"]].concat());
    assert_eq!(epochs(&out), 3);
    assert!(log(&out).contains("changed since it was begun: epochs from 1 to 3"), "{}", log(&out));
    let stored = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(stored.contains("epochs = 3") && stored.contains("batch_size = 8"), "{stored}");
    run(0, &resume);
    assert_eq!(epochs(&out), 3);
    assert_eq!(log(&out).matches("changed since it was begun").count(), 1);

    let fewer = error(&[&resume[..], &["--set", "epochs=2"]].concat());
    assert!(fewer.contains("completed 3 epochs") && fewer.contains("--set epochs=4"), "{fewer}");
    let other = error(&[&resume[..], &["--set", "model.dropout=0.5"]].concat());
    assert!(other.contains("`model.dropout` = not set, and the recipe has 0.5"), "{other}");
    assert!(other.contains("recipe.toml"), "{other}");
}

#[test]
fn diverged_runs_resume_with_the_suggested_settings() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let recipe = tiny_recipe(folder.path());
    let wild = ["train", path(&recipe), "--out", path(&out), "--set", "optimizer.learning_rate=1e30"];
    let text = error(&[&wild[..], &["--set", "schedule.warmup_epochs=0", "--set", "epochs=1"]].concat());
    assert!(text.contains("--resume") && text.contains("optimizer.learning_rate"), "{text}");
    let calmer = ["--set", "optimizer.learning_rate=0.05", "--set", "schedule.warmup_epochs=1"];
    let calmer = [&calmer[..], &["--set", "optimizer.clip_norm=1", "--on-nan", "skip"]].concat();
    run(0, &[&["train", path(&recipe), "--out", path(&out), "--resume"], &calmer[..]].concat());
    assert!(log(&out).contains("optimizer.learning_rate from 1e30 to 0.05"), "{}", log(&out));
    assert_eq!(epochs(&out), 1);
}

#[test]
fn changed_data_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let train = small_run(folder.path(), &out);
    let data = folder.path().join("data");
    let resume = ["--set", "epochs=2", "--resume"];

    // A later time with an unchanged size, as after copying.
    let touched = data.join("train/red/3.png");
    let later = SystemTime::now() + Duration::from_secs(100);
    fs::File::options().write(true).open(&touched).unwrap().set_modified(later).unwrap();
    let (_, text) = run(0, &refs(&train, &resume));
    let warning = "warning: files of the data changed since: 1 written since, with the same size (train/red/3.png)";
    assert!(text.contains(warning), "{text}");
    let (_, text) = run(0, &refs(&train, &resume));
    assert!(!text.contains("train/red/3.png"), "named once: {text}");

    image::RgbImage::from_fn(30, 30, |x, y| image::Rgb([x as u8, y as u8, 0]))
        .save(data.join("val/red/1.png"))
        .unwrap();
    let (_, text) = run(0, &refs(&train, &resume));
    assert!(text.contains("1 with another size (val/red/1.png)"), "{text}");

    fs::rename(data.join("train/red/2.png"), data.join("train/blue/20.png")).unwrap();
    let more = ["--set", "epochs=3", "--resume"];
    let text = error(&refs(&train, &more));
    for named in ["1 added (train/blue/20.png)", "1 removed (train/red/2.png)"] {
        assert!(text.contains(named), "{text}");
    }
    assert!(text.contains("--set data.may_change=true"), "{text}");
    assert_eq!(epochs(&out), 2);
    run(0, &refs(&train, &[&more[..], &["--set", "data.may_change=true"]].concat()));
    assert_eq!(epochs(&out), 3);
    assert!(log(&out).contains("note: the data changed since the checkpoint: 1 added"), "{}", log(&out));
    // The run now uses the changed data.
    run(0, &refs(&train, &["--set", "epochs=4", "--set", "data.may_change=false", "--resume"]));

    fs::rename(data.join("train/red"), data.join("train/green")).unwrap();
    fs::rename(data.join("val/red"), data.join("val/green")).unwrap();
    let text = error(&refs(&train, &["--set", "data.may_change=true", "--set", "epochs=9", "--resume"]));
    assert!(text.contains("other classes (2 then: red, 2 now: green)"), "{text}");
}

#[test]
fn finetune_resumes_for_more_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    image_folder(&data, &["blue", "red"], 20);
    let out = folder.path().join("run");
    let finetune = ["finetune", "--weights", path(trained()), "--data", path(&data), "--out", path(&out)];
    run(0, &[&finetune[..], &["--epochs", "2", "--set", "early_stopping=0"]].concat());
    run(0, &[&finetune[..], &["--epochs", "4", "--resume"]].concat());
    assert_eq!(epochs(&out), 4);
    let other = folder.path().join("other.safetensors");
    fs::copy(trained().join("last.safetensors"), &other).unwrap();
    let others = ["finetune", "--weights", path(&other), "--data", path(&data), "--out", path(&out), "--resume"];
    let text = error(&others);
    assert!(text.contains("`finetune.weights`") && text.contains("other.safetensors"), "{text}");
}

#[test]
fn images_that_fill_no_batch_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    image_folder(&data.join("train"), &["blue", "red", "teal"], 5);
    image_folder(&data.join("val"), &["blue", "red", "teal"], 2);
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let train = ["train", path(&recipe), "--data", path(&data), "--out", path(&out), "--set", "epochs=1"];
    let (_, text) = run(0, &[&train[..], &["--set", "batch_size=8"]].concat());
    assert!(text.contains("note: 7 of 15 images are left out of each epoch"), "{text}");
    assert!(text.contains("--set batch_size=5"), "{text}");
    let other = folder.path().join("other");
    let train = ["train", path(&recipe), "--data", path(&data), "--out", path(&other), "--set", "epochs=1"];
    let (_, text) = run(0, &[&train[..], &["--set", "batch_size=5"]].concat());
    assert!(!text.contains("left out"), "{text}");
}

/// Runs each line after `hint` in `text` as a shell command in `folder`; returns their number.
#[cfg(unix)]
fn follow(text: &str, hint: &str, folder: &Path) -> usize {
    let (_, commands) = text.split_once(hint).unwrap_or_else(|| panic!("no {hint:?} in {text}"));
    let commands = commands.lines().map(str::trim).filter(|line| line.contains("mbconv"));
    let mut count = 0;
    for command in commands {
        let output = std::process::Command::new("sh").args(["-c", command]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
        count += 1;
    }
    count
}

/// Suggested commands work for unusual folder names.
#[cfg(unix)]
#[test]
fn suggested_commands_are_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let recipe: PathBuf = root.join("my recipe.toml");
    fs::rename(tiny_recipe(root), &recipe).unwrap();
    for split in ["train", "val"] {
        image_folder(&root.join("it's (data)").join(split), &["blue", "red"], 8);
    }
    for out in ["--out=r s", "--out=it's", "--out=-run", "--out=$HOME"] {
        let settings = ["--set", "epochs=1", "--set", "batch_size=8"];
        let output = common::mbconv()
            .current_dir(root)
            .args([&["train", "my recipe.toml", "--data", "it's (data)", out], &settings[..]].concat())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert_eq!(follow(&text, "try next:", root), 3, "{text}");
    }
}

/// With two images, none are left for validation.
#[cfg(unix)]
#[test]
fn two_images_train_and_evaluate() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    image_folder(&root.join("two"), &["blue", "red"], 1);
    let output = common::mbconv()
        .current_dir(root)
        .args(["train", path(&tiny_recipe(root)), "--data", "two", "--out", "run"])
        .args(["--set", "epochs=2", "--set", "batch_size=2"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(follow(&text, "try next:", root), 3, "{text}");
}

#[cfg(unix)]
#[test]
fn suggested_command_resumes_an_interrupted_run() {
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let child = Command::new(env!("CARGO_BIN_EXE_mbconv"))
        .current_dir(folder.path())
        .args(["train", path(&recipe), "--out=- run", "--set", "epochs=3", "--set", "data.workers=1"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = folder.path().join("- run");
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while !out.join("metrics.csv").exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Not SIGINT, which background processes of a shell ignore.
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert_eq!(follow(&text, "continue with", folder.path()), 1, "{text}");
    assert_eq!(epochs(&out), 3);
    assert!(!log(&out).contains("changed since"), "{}", log(&out));
}
