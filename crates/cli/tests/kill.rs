//! Killed runs, diverging runs, fine-tuning and averaging.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{error, image_folder, json, mbconv, path, run, tiny_recipe, trained};

/// Returns the tensors of a model file without the header, which contains times.
fn tensors(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

/// Kills a run repeatedly with SIGKILL and resumes it.
#[test]
fn resume_after_kill_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let settings = [
        "epochs=4",
        "accumulate=3", // 22 batches: the last update of an epoch has one
        "model.dropout=0.2",
        "model.drop_path=0.1",
        "optimizer.name=rmsprop_tf",
        "optimizer.learning_rate=0.005",
        "optimizer.clip_norm=1",
        "schedule.name=plateau",
        "schedule.patience=1",
        "ema.decay=0.9",
        "checkpoint.minutes=0.001",
        "checkpoint.keep_last=2",
        "checkpoint.keep_best=1",
    ];
    let arguments = |out: &Path| -> Vec<String> {
        let begin = ["train", path(&recipe), "--device", "cpu", "--out", path(out)].map(String::from);
        begin.into_iter().chain(settings.iter().flat_map(|set| ["--set".into(), set.to_string()])).collect()
    };
    let whole = folder.path().join("whole");
    mbconv().args(arguments(&whole)).assert().success();

    let killed = folder.path().join("killed");
    let mut kills = 0;
    loop {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mbconv"));
        command.args(arguments(&killed)).stderr(Stdio::null());
        if killed.join("recipe.toml").exists() {
            command.arg("--resume");
        }
        let mut child = command.spawn().unwrap();
        // Later each time, so that the run proceeds on slow machines.
        std::thread::sleep(Duration::from_millis(60 + 50 * kills));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 3, "killed {kills} times only");

    let checkpoints = |run: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(run.join("epochs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name.to_string_lossy().starts_with("epoch-"));
        names.sort();
        names
    };
    assert_eq!(checkpoints(&whole), checkpoints(&killed));
    assert!((2..=3).contains(&checkpoints(&whole).len()));
    for file in ["last.safetensors", "last_ema.safetensors", "best.safetensors"] {
        assert!(tensors(&whole.join(file)) == tensors(&killed.join(file)), "{file} differs after {kills} kills");
    }
    assert!(tensors(&whole.join("last.safetensors")) != tensors(&whole.join("last_ema.safetensors")));
    let scores = |run: &Path| -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
        let columns = |line: &str| line.split(',').map(String::from).collect::<Vec<_>>();
        // All columns except the two about speed.
        text.lines().map(columns).map(|row| [&row[..8], &row[10..]].concat()).collect()
    };
    assert_eq!(scores(&whole), scores(&killed));
    assert!(scores(&whole)[0].contains(&"ema_top1".to_string()));
}

#[test]
fn nan_loss_ends_the_run_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let wild = ["train", path(&recipe), "--out", path(&out), "--set", "schedule.warmup_epochs=0"];
    let wild = [&wild[..], &["--set", "optimizer.learning_rate=1e30", "--set", "epochs=4"]].concat();
    let text = error(&wild);
    assert!(text.contains("epoch 1") && text.contains("step 2") && text.contains("--on-nan skip"), "{text}");
    assert!(out.join("checkpoint.safetensors").is_file());
    // The checkpoint precedes the NaN, so the resumed run fails too. Skipping every update also
    // ends.
    assert!(error(&[&wild[..], &["--resume"]].concat()).contains("step 2"));
    let text = error(&[&wild[..], &["--resume", "--on-nan", "skip"]].concat());
    assert!(text.contains("consecutive updates were skipped"), "{text}");
}

#[test]
fn finetune_needs_only_weights_data_and_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    image_folder(&data, &["blue", "red"], 20);
    image_folder(&data, &["blue", "red", "teal"], 5);
    let out = folder.path().join("run");
    let finetune = ["finetune", "--weights", path(trained()), "--data", path(&data)];
    let (_, log) = run(0, &[&finetune[..], &["--out", path(&out), "--epochs", "6"]].concat());
    assert!(log.contains("uneven") && log.contains("teal") && log.contains("--set sampling=balanced"), "{log}");
    // Top-5 of three classes is always 100 %. Prefetching is described only in the log file.
    assert!(!log.contains("top-5") && !log.contains("batches ahead"), "{log}");
    assert!(std::fs::read_to_string(out.join("log.txt")).unwrap().contains("batches ahead"));
    let (table, _) = run(0, &["eval", path(&out), "--data", path(&data)]);
    assert!(table.contains("top-1") && !table.contains("top-5"), "{table}");
    // A short run is not stopped before the body is trained.
    let short = folder.path().join("short");
    run(0, &[&finetune[..], &["--out", path(&short), "--epochs", "3"]].concat());
    assert_eq!(std::fs::read_to_string(short.join("metrics.csv")).unwrap().lines().count(), 1 + 3);
    let info = json(&["info", path(&out), "--json"]);
    assert_eq!(info["classes"].as_array().map_or_else(|| info["classes"].as_u64().unwrap(), |c| c.len() as u64), 3);
    let result = json(&["eval", path(&out), "--data", path(&data), "--json"]);
    assert!(result["top1"].as_f64().unwrap() > 0.4, "{result}");

    // A linear probe does not change the body, including running statistics.
    let probe = folder.path().join("probe");
    run(0, &[&finetune[..], &["--out", path(&probe), "--epochs", "6", "--freeze", "body"]].concat());
    let stem = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        ["features.0.0.weight", "features.0.1.running_mean", "features.18.0.weight"].map(|key| {
            let [from, to] = [0, 1].map(|i| json[key]["data_offsets"][i].as_u64().unwrap() as usize + 8 + header);
            bytes[from..to].to_vec()
        })
    };
    let original = stem(&trained().join("best.safetensors"));
    assert!(stem(&probe.join("last.safetensors")) == original);
    assert!(stem(&out.join("last.safetensors")) != original);

    assert!(error(&[&finetune[..], &["--out", path(&probe)]].concat()).contains("already holds a run"));
    let other = folder.path().join("x");
    let bad = [&finetune[..], &["--out", path(&other), "--freeze", "99"]].concat();
    assert!(error(&bad).contains("finetune.freeze"));
    let foreign = [&finetune[..], &["--out", path(&other), "--set", "model.name=mobilenet_v2"]].concat();
    let text = error(&foreign);
    assert!(text.contains("mobilenet_v2_0.1") && text.contains("hint"), "{text}");
}

#[test]
fn average_writes_the_mean_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mean.safetensors");
    let [best, last] = ["best", "last"].map(|name| trained().join(format!("{name}.safetensors")));
    // The mean of a model and itself is that model.
    run(0, &["average", path(&last), path(&last), path(&out)]);
    assert!(tensors(&out) == tensors(&last));
    run(0, &["average", path(&best), path(trained()), path(&last), path(&out)]);
    assert!(json(&["eval", path(&out), "--data", "digits", "--json"])["top1"].as_f64().unwrap() > 0.1);
    assert!(error(&["average", path(&last), path(&out), path(folder.path())]).contains("is a folder"));
    let missing = folder.path().join("none.safetensors");
    assert!(error(&["average", path(&last), path(&missing), path(&out)]).contains("none.safetensors"));
}
