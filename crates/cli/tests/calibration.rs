//! Metrics, prediction tables and test-time augmentation of `eval`; `calibrate`;
//! `checkpoint.metric`.

mod common;

use std::fs;
use std::path::Path;

use common::{error, image_folder, json, path, run, tiny_recipe, trained};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn eval(model: &Path, options: &[&str]) -> Value {
    json(&[&["eval", path(model), "--data", "digits", "--json"], options].concat())
}

#[test]
fn eval_reports_class_metrics_and_top_k() {
    let result = eval(trained(), &["--top-k", "1,3,10"]);
    let top_k = &result["top_k"];
    assert_eq!((number(&top_k["1"]), number(&top_k["10"])), (number(&result["top1"]), 1.0));
    assert!(number(&top_k["3"]) >= number(&top_k["1"]) && number(&result["top5"]) >= number(&top_k["3"]));
    let matrix: Vec<Vec<usize>> = serde_json::from_value(result["confusion_matrix"].clone()).unwrap();
    assert_eq!(matrix.iter().flatten().sum::<usize>(), 359);
    let hits: usize = (0..10).map(|class| matrix[class][class]).sum();
    assert!((hits as f64 / 359.0 - number(&result["top1"])).abs() < 1e-9);
    let recalls: Vec<f64> =
        result["classes"].as_array().unwrap().iter().map(|class| number(&class["recall"])).collect();
    assert!((recalls.iter().sum::<f64>() / 10.0 - number(&result["balanced_accuracy"])).abs() < 1e-9);
    assert_eq!(result["reliability"].as_array().unwrap().len(), 15);
    assert!(number(&result["macro_auroc"]) > 0.5);

    let (text, _) = run(0, &["eval", path(trained()), "--data", "digits", "--top-k", "1,3"]);
    for words in ["top-3", "macro F1", "balanced accuracy", "macro AUROC", "ECE", "precision"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("top-5") && text.lines().count() < 30, "{text}");
    let report = tempfile::tempdir().unwrap();
    run(0, &["eval", path(trained()), "--data", "digits", "--report", path(report.path())]);
    let html = fs::read_to_string(report.path().join("report.html")).unwrap();
    assert!(html.contains("Reliability diagram") && html.contains("macro F1") && html.contains("AUROC"));
}

#[test]
fn classes_without_images_have_no_auroc() {
    let data = tempfile::tempdir().unwrap();
    image_folder(data.path(), &["3", "7"], 4);
    let arguments = ["eval", path(trained()), "--data", path(data.path())];
    let result = json(&[&arguments[..], &["--json"]].concat());
    let classes = result["classes"].as_array().unwrap();
    assert_eq!(classes.iter().filter(|class| class["auroc"].is_number()).count(), 2);
    assert!(classes[0]["auroc"].is_null() && result["macro_auroc"].is_number());
    let (text, _) = run(0, &arguments);
    assert!(text.contains("(8 classes without images left out)"), "{text}");
    fs::remove_dir_all(data.path().join("7")).unwrap();
    assert!(json(&[&arguments[..], &["--json"]].concat())["macro_auroc"].is_null());
}

#[test]
fn prediction_tables_agree_with_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let [csv, lines] = ["p.csv", "p.jsonl"].map(|name| folder.path().join(name));
    let result = eval(trained(), &["--predictions", path(&csv), "--top-k", "1,2"]);
    let table = fs::read_to_string(&csv).unwrap();
    let header = "path,true_label,true_index,correct,label,index,probability,label_2,index_2,probability_2";
    assert_eq!(table.lines().next().unwrap(), header);
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 359);
    let correct = rows.iter().filter(|row| row[3] == "true").count();
    assert!((correct as f64 / 359.0 - number(&result["top1"])).abs() < 1e-9);
    assert!(rows.iter().all(|row| (row[2] == row[5]) == (row[3] == "true")));

    eval(trained(), &["--predictions", path(&lines)]);
    let table = fs::read_to_string(&lines).unwrap();
    let mut loss = 0.0;
    for (line, row) in table.lines().zip(&rows) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["path"].as_str(), line["true_label"].as_str()), (Some(row[0]), Some(row[1])));
        let probabilities: Vec<f64> = serde_json::from_value(line["probabilities"].clone()).unwrap();
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5 && probabilities.len() == 10);
        loss -= probabilities[line["true_index"].as_u64().unwrap() as usize].ln();
    }
    assert!((loss / 359.0 - number(&result["loss"])).abs() < 1e-5);
    assert!(!folder.path().join("p.csv.part").exists());
    let message = error(&["eval", path(trained()), "--data", "digits", "--predictions", "p.xlsx"]);
    assert!(message.contains(".csv and .jsonl"), "{message}");
}

/// Writes digit-like images, or their mirror images, with a bright left half.
fn halves(root: &Path, mirrored: bool) {
    fs::create_dir_all(root.join("3")).unwrap();
    for image in 0..3u32 {
        let pixel = |x: u32, y: u32| {
            let shade = if (x < 4) != mirrored { 200 + 6 * y } else { 60 * image };
            image::Rgb([shade as u8; 3])
        };
        image::RgbImage::from_fn(8, 8, pixel).save(root.join(format!("3/{image}.png"))).unwrap();
    }
}

#[test]
fn flips_make_predictions_independent_of_mirroring() {
    let folder = tempfile::tempdir().unwrap();
    let [left, right] = ["left", "right"].map(|name| folder.path().join(name));
    halves(&left, false);
    halves(&right, true);
    let loss = |data: &Path, tta: &str| {
        let result = json(&["eval", path(trained()), "--data", path(data), "--tta", tta, "--json"]);
        let views = [("none", 1), ("flip", 2), ("five-crop", 5), ("ten-crop", 10)];
        assert!(views.contains(&(tta, result["views"].as_i64().unwrap())), "{result}");
        number(&result["loss"])
    };
    assert!((loss(&left, "none") - loss(&right, "none")).abs() > 1e-3);
    for tta in ["flip", "ten-crop"] {
        assert!((loss(&left, tta) - loss(&right, tta)).abs() < 1e-5, "{tta}");
    }
    // The image is as large as the crop, so that all five crops are equal.
    assert!((loss(&left, "five-crop") - loss(&left, "none")).abs() < 1e-5);

    let predict = |tta: &str| {
        let result = json(&["predict", path(trained()), path(&left), "--tta", tta, "--json", "--logits"]);
        let logits: Vec<f64> = serde_json::from_value(result[0]["logits"].clone()).unwrap();
        let top = &result[0]["predictions"][0];
        (logits[top["index"].as_u64().unwrap() as usize], number(&top["probability"]))
    };
    let (logit, probability) = predict("ten-crop");
    assert!((logit.exp() - probability).abs() < 1e-5, "logits are logarithms of the mean probabilities");
    assert!((predict("five-crop").1 - predict("none").1).abs() < 1e-5);
}

#[test]
fn calibrated_models_give_calibrated_probabilities_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("calibrated.safetensors");
    let calibrate =
        |model: &Path, more: &[&str]| json(&[&["calibrate", path(model), "--data", "digits", "--json"], more].concat());
    let fitted = calibrate(trained(), &["--out", path(&model)]);
    assert_eq!((&fitted["split"], &fitted["images"]), (&"val".into(), &359.into()));
    let before = eval(trained(), &[]);
    let after = eval(&model, &[]);
    for (result, side) in [(&before, "before"), (&after, "after")] {
        for key in ["loss", "ece", "brier"] {
            let [measured, printed] = [&result[key], &fitted[side][key]].map(number);
            assert!((measured - printed).abs() < 1e-5, "{side} {key}: {measured} {printed}");
        }
    }
    assert!(number(&after["loss"]) < number(&before["loss"]));
    assert_eq!((&before["top1"], &before["temperature"]), (&after["top1"], &Value::Null));
    assert_eq!(after["temperature"], fitted["temperature"]);
    let (text, _) = run(0, &["info", path(&model)]);
    assert!(text.contains("temperature"), "{text}");

    // Exports contain the temperature in the weights, and no model is calibrated twice.
    let exported = folder.path().join("exported.safetensors");
    let (_, log) = run(0, &["export", path(&model), path(&exported)]);
    assert!(log.contains("divided by the temperature"), "{log}");
    let again = eval(&exported, &[]);
    assert!((number(&again["loss"]) - number(&after["loss"])).abs() < 1e-6 && again["temperature"].is_null());
    let copy = folder.path().join("copy.safetensors");
    fs::copy(&model, &copy).unwrap();
    let second = calibrate(&copy, &[]);
    assert!((number(&second["temperature"]) - number(&fitted["temperature"])).abs() < 1e-6);
    assert!(fs::read(&copy).unwrap() == fs::read(&model).unwrap(), "equal models are equal files");

    // A temperature belongs to one set of weights.
    let average = folder.path().join("average.safetensors");
    run(0, &["average", path(&model), path(&exported), path(&average)]);
    assert!(json(&["info", path(&average), "--json"])["temperature"].is_null());
}

#[test]
fn perfect_images_stop_at_the_limit_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    image_folder(&data, &["3"], 4);
    // Renames the class to the one that the model predicts, and keeps only its images.
    let shown = json(&["predict", path(trained()), path(&data), "--json"]);
    let label = shown[0]["predictions"][0]["label"].as_str().unwrap();
    for image in shown.as_array().unwrap() {
        if image["predictions"][0]["label"] != label {
            fs::remove_file(image["path"].as_str().unwrap()).unwrap();
        }
    }
    if label != "3" {
        fs::rename(data.join("3"), data.join(label)).unwrap();
    }
    let out = folder.path().join("out.safetensors");
    let (text, log) =
        run(0, &["calibrate", path(trained()), "--data", path(&data), "--split", "all", "--out", path(&out)]);
    assert!(text.contains("temperature 0.05") && log.contains("at its limit 0.05"), "{text}{log}");
    for (arguments, words) in [
        (&["--out", path(folder.path())][..], "is a folder"),
        (&["--out", "model.onnx"], ".safetensors"),
        (&["--split", "test"], "test"),
    ] {
        let message = error(&[&["calibrate", path(trained()), "--data", path(&data)], arguments].concat());
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn best_model_follows_the_metric() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let out = folder.path().join("run");
    let train = ["train", path(&recipe), "--out", path(&out), "--device", "cpu"];
    run(0, &[&train[..], &["--set", "epochs=1"]].concat());
    let metrics = || fs::read_to_string(out.join("metrics.csv")).unwrap();
    let before = metrics();
    assert!(before.lines().next().unwrap().ends_with(",ema_top5"), "{before}");

    let resumed = ["--resume", "--set", "epochs=2", "--set", "checkpoint.metric=macro_f1"];
    let (_, log) = run(0, &[&train[..], &resumed].concat());
    assert!(log.contains("macro F1"), "{log}");
    let after = metrics();
    let [header, first, second] = after.lines().collect::<Vec<_>>()[..] else { panic!("{after}") };
    assert!(header.starts_with(before.lines().next().unwrap()) && header.ends_with(",val_macro_f1,ema_macro_f1"));
    assert_eq!(first, format!("{},,", before.lines().nth(1).unwrap()));
    let info = json(&["info", path(&out), "--json"]);
    assert_eq!(info["results"]["epoch"], 2, "an epoch without the metric is worse than one with it");
    let value = number(&info["results"]["macro_f1"]);
    let column = second.split(',').rev().nth(1).unwrap().parse::<f64>().unwrap();
    assert!((value - column).abs() < 1e-6, "{second}");
    assert!((number(&eval(&out, &[])["macro_f1"]) - value).abs() < 1e-9);
    let message = error(&[&train[..], &["--set", "checkpoint.metric=auc"]].concat());
    assert!(message.contains("balanced_accuracy"), "{message}");
}
