//! `mbconv tune`.

mod common;

use std::fs;
use std::path::Path;

use common::{error, json, mbconv, path, run, tiny_recipe};

const RATE: &str = "optimizer.learning_rate=log(1e-3,0.3)";

/// Returns the arguments of a study of two epochs per trial.
fn study<'a>(recipe: &'a Path, out: &'a Path, further: &[&'a str]) -> Vec<&'a str> {
    [&["tune", path(recipe), "--out", path(out), "--device", "cpu", "--set", RATE], further].concat()
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn random_search_writes_table_chart_and_a_recipe_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("study"));
    let further = ["--trials", "3", "--epochs", "1", "--set", "optimizer.name=choice(sgd,adamw)"];
    let set = ["--set", "schedule.warmup_epochs=0"];
    let arguments = study(&recipe, &out, &[&further[..], &set].concat());
    let document = json(&[&arguments[..], &["--json"]].concat());
    let trials = document["trials"].as_array().unwrap();
    let top1: Vec<f64> = trials.iter().map(|trial| trial["top1"].as_f64().unwrap()).collect();
    assert!(trials.len() == 3 && top1.is_sorted_by(|a, b| a >= b), "{top1:?}");
    assert_eq!(document["best"], trials[0]["trial"]);

    let table = text(&out, "trials.csv");
    let header = "rank,trial,status,epoch,top1,loss,optimizer.learning_rate,optimizer.name,failure";
    assert!(table.starts_with(header) && table.lines().count() == 4, "{table}");
    let chart = text(&out, "tune.svg");
    assert!(chart.contains("optimizer.learning_rate") && chart.matches("<polyline").count() == 3, "{chart}");
    let best = text(&out, "best.toml");
    let rate = trials[0]["values"]["optimizer.learning_rate"].as_f64().unwrap();
    assert!(best.contains(&format!("learning_rate = {rate}")), "{best}");
    // Training the best recipe gives the result of the trial.
    let again = folder.path().join("again");
    run(0, &["train", path(&out.join("best.toml")), "--out", path(&again), "--device", "cpu"]);
    let trial = out.join(format!("trials/{:03}", trials[0]["trial"].as_u64().unwrap()));
    let losses = |folder: &Path| -> Vec<String> {
        text(folder, "metrics.csv").lines().map(|line| line.split(',').take(8).collect()).collect()
    };
    assert_eq!(losses(&again), losses(&trial));

    // A finished study is not repeated; further trials are added.
    assert!(error(&arguments).contains("already holds a study"));
    let resume = ["tune", path(&recipe), "--out", path(&out), "--device", "cpu", "--resume"];
    let (shown, log) = run(0, &resume);
    assert!(shown.contains("optimizer.name") && !log.contains("epoch"), "{shown}{log}");
    assert_eq!(text(&out, "trials.csv"), table);
    let (_, log) = run(0, &[&resume[..], &["--trials", "4"]].concat());
    assert!(log.contains("trial 4") && !log.contains("trial 3:"), "{log}");
    assert!(error(&[&resume[..], &["--epochs", "2"]].concat()).contains("`epochs` = 1, and has 2 now"));
}

#[test]
fn failed_trials_are_recorded_and_the_search_continues() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("study"));
    // Steps of 1e30 diverge, and batches of 100,000 images are more than the data.
    let set = ["--set", "optimizer.learning_rate=choice(0.1,1e30)", "--set", "batch_size=choice(64,100000)"];
    let arguments = [
        &["tune", path(&recipe), "--out", path(&out), "--device", "cpu", "--trials", "9", "--json", "--epochs", "1"],
        &set[..],
    ];
    let document = json(&arguments.concat());
    let trials = document["trials"].as_array().unwrap();
    let statuses: Vec<&str> = trials.iter().map(|trial| trial["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["finished", "failed", "failed", "failed"]);
    let table = text(&out, "trials.csv");
    assert!(table.contains("fewer than one batch of 100000"), "{table}");
    // All fail.
    let out = folder.path().join("failed");
    let set = ["--set", "batch_size=choice(90000,100000)", "--trials", "2"];
    let message = error(&[&["tune", path(&recipe), "--out", path(&out), "--device", "cpu"], &set[..]].concat());
    assert!(message.contains("all 2 trials failed, the first because: the training split has"), "{message}");
    assert!(!out.join("best.toml").exists());
}

#[test]
fn interrupted_halving_continues_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let further = ["--trials", "4", "--halving", "--eta", "2", "--epochs", "2", "--metric", "loss"];
    let (shown, log) = run(0, &study(&recipe, &whole, &further));
    assert!(shown.contains("stopped") && shown.contains("finished"), "{shown}");
    assert!(log.contains("[4/4] trial 4, to epoch 1:") && log.contains("[2/2]"), "{log}");
    let rows = text(&whole, "trials.csv");
    let finished = rows.lines().filter(|line| line.contains(",finished,")).count();
    assert_eq!((finished, rows.matches(",stopped,").count()), (2, 2), "{rows}");

    // Killed at different moments, then continued to the end.
    let arguments = study(&recipe, &parts, &further);
    let command = |begun: bool| if begun { [&arguments[..], &["--resume"]].concat() } else { arguments.clone() };
    for attempt in 0..6 {
        let mut killed = mbconv();
        let time = std::time::Duration::from_millis(500 + 300 * attempt);
        // It may also end before that.
        let _ = killed.args(command(parts.join("study.json").exists())).timeout(time).output();
    }
    run(0, &command(parts.join("study.json").exists()));
    for name in ["trials.csv", "tune.svg", "best.toml", "study.json"] {
        assert_eq!(text(&parts, name), text(&whole, name), "{name}");
    }
}

#[test]
fn invalid_spaces_are_errors_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("study"));
    let with = |further: &[&str]| error(&[&["tune", path(&recipe), "--out", path(&out)], further].concat());
    for (set, words) in [
        ("optimizer.learning_rate=log(0,1)", "write log(0.001,1)"),
        ("optimizer.learning_rate=log(1,0.1)", "write log(0.1,1)"),
        ("optimizer.learning_rat=log(0.1,1)", "did you mean `optimizer.learning_rate`?"),
        ("optimizer.name=choice(sgd,7)", "optimizer.name"),
        ("epochs=uniform(1,5)", "write int(1,5)"),
    ] {
        let message = with(&["--set", set]);
        assert!(message.contains(&format!("--set '{set}'")) && message.contains(words), "{message}");
    }
    assert!(with(&[]).contains("no --set has a range"));
    assert!(with(&["--set", RATE, "--halving", "--trials", "2"]).contains("at least 3 trials"));
    assert!(with(&["--set", RATE, "--metric", "f1"]).contains("f1"));
    assert!(with(&["--set", RATE, "--resume"]).contains("holds no study to resume"));
    assert!(with(&["--set", RATE, "--eta", "2"]).contains("--halving"));
    run(2, &["tune", path(&recipe), "--set", RATE, "--halving", "--eta", "1"]);
    assert!(!out.exists());
}
