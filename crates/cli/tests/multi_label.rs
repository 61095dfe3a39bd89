//! Multi-label classification: training, evaluation, thresholds, prediction and export.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{TINY, error, json, mbconv, path, run, trained};
use serde_json::Value;

const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// Writes images whose color channels are bright for their classes, and a table with the classes.
fn table(folder: &Path) -> PathBuf {
    fs::create_dir_all(folder.join("img")).unwrap();
    let mut rows = String::from("path,label,split\n");
    for image in 0..96 {
        let present = [0, 1, 2].map(|class| image >> class & 1 == 1);
        let value = |class: usize| if present[class] { 200 + (image * 5 % 50) as u8 } else { (image * 7 % 60) as u8 };
        let color = image::Rgb([value(2), value(1), value(0)]);
        image::RgbImage::from_pixel(12, 10, color).save(folder.join(format!("img/{image}.png"))).unwrap();
        let labels: Vec<&str> = (0..3).filter(|&class| present[class]).map(|class| CLASSES[class]).collect();
        let split = if image < 64 { "train" } else { "val" };
        rows += &format!("img/{image}.png,{},{split}\n", labels.join("|"));
    }
    let table = folder.join("table.csv");
    fs::write(&table, rows).unwrap();
    table
}

fn recipe(folder: &Path) -> PathBuf {
    let file = folder.join("tiny.toml");
    fs::write(&file, TINY).unwrap();
    file
}

/// Returns the folder with the table and a run on it, in `run`; with the output of the training.
fn multi_label() -> &'static (tempfile::TempDir, String) {
    static RUN: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let arguments = train(folder.path(), &table, "run");
        let (_, log) = run(0, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        (folder, log)
    })
}

fn train(folder: &Path, data: &Path, out: &str) -> Vec<String> {
    let (recipe, out) = (recipe(folder), folder.join(out));
    let arguments = [
        "train",
        path(&recipe),
        "--data",
        path(data),
        "--out",
        path(&out),
        "--device",
        "cpu",
        "--set",
        "batch_size=16",
    ];
    arguments.map(String::from).into_iter().chain(["--set".into(), "epochs=8".into()]).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn close(a: &Value, b: &Value) {
    assert!((number(a) - number(b)).abs() < 1e-6, "{a} {b}");
}

#[test]
fn training_reports_the_mean_average_precision() {
    let (folder, log) = multi_label();
    let out = folder.path().join("run");
    assert!(
        log.contains("the data are multi-label: 3 classes, 1.50 per image on average, 12 image(s) without"),
        "{log}"
    );
    assert!(log.contains("mAP ") && !log.contains("top-1"), "{log}");
    assert!(log.contains("calibrate"), "{log}");
    let metrics = fs::read_to_string(out.join("metrics.csv")).unwrap();
    assert!(metrics.lines().next().unwrap().ends_with(",val_macro_f1,ema_macro_f1,val_map,ema_map"), "{metrics}");
    let info = json(&["info", path(&out), "--json"]);
    assert_eq!((&info["multi_label"], &info["thresholds"][0]), (&true.into(), &0.5.into()));
    let recipe = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(recipe.contains("name = \"bce\"") && recipe.contains("metric = \"map\""), "{recipe}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("mAP") && report.contains("Mean average precision") && !report.contains("Confusion"));

    let found = json(&["eval", path(&out), "--data", path(&folder.path().join("table.csv")), "--json"]);
    assert_eq!((&found["split"], &found["images"]), (&"val".into(), &32.into()));
    close(&found["map"], &info["results"]["map"]);
    close(&found["loss"], &info["results"]["loss"]);
    close(&found["macro_f1"], &info["results"]["macro_f1"]);
    assert!(number(&found["map"]) > 0.8, "{found}");
    for key in ["top1", "top_k", "confusion_matrix", "ece"] {
        assert!(found.get(key).is_none(), "{key}");
    }
}

#[test]
fn thresholds_are_stored_and_used() {
    let (folder, _) = multi_label();
    let (out, data) = (folder.path().join("run"), folder.path().join("table.csv"));
    let model = folder.path().join("calibrated.safetensors");
    let calibrate = ["calibrate", path(&out), "--data", path(&data), "--out", path(&model)];
    let (text, _) = run(0, &calibrate);
    assert!(text.contains("thresholds, fitted on 32 images of the split `val`") && text.contains("green "), "{text}");
    let fitted = json(&[&calibrate[..], &["--json"]].concat());
    assert!(number(&fitted["after"]["macro_f1"]) >= number(&fitted["before"]["macro_f1"]) - 1e-9, "{fitted}");
    assert!(number(&fitted["after"]["loss"]) <= number(&fitted["before"]["loss"]) + 1e-9, "{fitted}");
    assert_eq!(json(&["info", path(&model), "--json"])["thresholds"], fitted["thresholds"]);

    let predictions = folder.path().join("predictions.csv");
    let report = folder.path().join("report");
    let eval = ["eval", path(&model), "--data", path(&data)];
    let more = ["--predictions", path(&predictions), "--report", path(&report), "--json"];
    let found = json(&[&eval[..], &more].concat());
    close(&found["micro_f1"], &fitted["after"]["micro_f1"]);
    close(&found["macro_f1"], &fitted["after"]["macro_f1"]);
    for class in 0..3 {
        assert_eq!(found["classes"][class]["threshold"], fitted["thresholds"][class]);
    }
    assert!(fs::read_to_string(report.join("report.html")).unwrap().contains("average precision"));
    let rows = fs::read_to_string(&predictions).unwrap();
    let lines: Vec<Vec<&str>> = rows.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["path", "true_labels", "labels", "blue", "green", "red"]);
    assert_eq!(lines.len(), 33);
    for row in &lines[1..] {
        let above: Vec<&str> = (0..3)
            .filter(|&class| row[3 + class].parse::<f64>().unwrap() >= number(&fitted["thresholds"][class]))
            .map(|class| CLASSES[class])
            .collect();
        let mut labels: Vec<&str> = row[2].split('|').filter(|label| !label.is_empty()).collect();
        labels.sort_unstable();
        assert_eq!(labels, above, "{row:?}");
    }
    assert!(rows.contains("img/95.png,blue|green|red,"), "{rows}");
    let (text, notes) = run(0, &eval);
    assert!(text.contains("mAP  ") && text.contains("micro F1") && text.contains("threshold"), "{text}");
    assert!(!notes.contains("every threshold is 0.5"), "{notes}");
    let (_, notes) = run(0, &["eval", path(&out), "--data", path(&data)]);
    assert!(notes.contains("every threshold is 0.5"), "{notes}");
    run(2, &[&eval[..], &["--top-k", "1"]].concat());

    // Weights that are averaged need thresholds of their own.
    let average = folder.path().join("average.safetensors");
    run(0, &["average", path(&model), path(&out), path(&average)]);
    assert_eq!(json(&["info", path(&average), "--json"])["thresholds"], serde_json::json!([0.5, 0.5, 0.5]));
}

#[test]
fn predictions_are_the_classes_above_their_thresholds() {
    let (folder, _) = multi_label();
    let out = folder.path().join("run");
    let images = folder.path().join("img");
    let found = json(&["predict", path(&out), path(&images), "--json"]);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 96);
    let mut counts = std::collections::BTreeSet::new();
    for image in found {
        let predictions = image["predictions"].as_array().unwrap();
        assert!(predictions.iter().all(|class| number(&class["probability"]) >= 0.5), "{image}");
        counts.insert(predictions.len());
    }
    assert!(counts.len() > 1, "images have different numbers of classes: {counts:?}");
    let one = images.join("95.png");
    let all = json(&["predict", path(&out), path(&one), "--json", "--top-k", "3"]);
    assert_eq!(all[0]["predictions"].as_array().unwrap().len(), 3);
    let table = folder.path().join("predict.jsonl");
    run(0, &["predict", path(&out), path(&one), "--out", path(&table), "--tta", "flip"]);
    let row: Value = serde_json::from_str(fs::read_to_string(&table).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(row["probabilities"].as_array().unwrap().len(), 3);
    let (text, _) = run(0, &["predict", path(&out), path(&images.join("8.png"))]);
    assert!(text.contains("no class above its threshold") || text.contains(" %  "), "{text}");
}

#[test]
fn single_label_and_multi_label_do_not_mix() {
    let (folder, _) = multi_label();
    let (out, data) = (folder.path().join("run"), folder.path().join("table.csv"));
    for command in ["eval", "calibrate"] {
        let message = error(&[command, path(&out), "--data", "digits"]);
        assert!(
            message.contains("the model is multi-label, but every image of the data has exactly one class"),
            "{message}"
        );
        let message = error(&[command, path(trained()), "--data", path(&data)]);
        assert!(message.contains("the data are multi-label, but the model chooses one class"), "{message}");
        assert!(message.contains("?separator=none"), "{message}");
    }
    for (setting, words) in [
        ("loss.name=focal", "`loss.name` is focal, but must be bce for multi-label data"),
        ("checkpoint.metric=top1", "must be map, macro_f1 or loss for multi-label data"),
        ("sampling=balanced", "must be once or repeated"),
    ] {
        let arguments = train(folder.path(), &data, "refused");
        let output = mbconv().args(arguments).args(["--set", setting]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && message.contains(words), "{message}");
    }
    for command in [
        &["data", "pack", path(&data), path(&folder.path().join("shards")), "--format", "parquet"][..],
        &["data", "split", path(&data), path(&folder.path().join("parts"))],
    ] {
        let message = error(command);
        assert!(message.contains("needs data with one class per image"), "{message}");
    }
}

#[test]
fn multi_label_models_are_fine_tuned_and_exported() {
    let (folder, _) = multi_label();
    let (run_folder, data) = (folder.path().join("run"), folder.path().join("table.csv"));
    let out = folder.path().join("tuned");
    let arguments = ["finetune", path(&run_folder), path(&data), "--out", path(&out), "--device", "cpu"];
    let settings = ["--set", "epochs=2", "--set", "mix.mixup=0.2", "--set", "mix.cutmix=1.0"];
    let (_, log) = run(0, &[&arguments[..], &settings].concat());
    assert!(log.contains("the classifier is the model's") && log.contains("mAP "), "{log}");
    let recipe = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(recipe.contains("label_smoothing = 0.0"), "{recipe}");

    let onnx = folder.path().join("model.onnx");
    run(0, &["export", path(&out), path(&onnx), "--with-softmax"]);
    let bytes = fs::read(&onnx).unwrap();
    let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("Sigmoid") && !contains("Softmax") && contains("multi_label_classification"));
    let copy = folder.path().join("copy.safetensors");
    run(0, &["export", path(&out), path(&copy), "--dtype", "f16"]);
    assert_eq!(json(&["info", path(&copy), "--json"])["multi_label"], true);

    // A resumed run continues with the same loss and metric.
    let (_, log) = run(0, &[&arguments[..], &settings, &["--resume", "--set", "epochs=3"]].concat());
    assert!(log.contains("resumed after 2 epochs"), "{log}");
}
