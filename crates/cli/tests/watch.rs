//! Reports and TensorBoard curves, `compare` and `find-lr`.

mod common;

use std::fs;

use common::{error, json, path, run, tiny_recipe, trained};

/// Parts of pages that load external resources.
const FOREIGN: [&str; 5] = ["http://", "https://", "<script", "<link", "@import"];

#[test]
fn run_writes_report_and_tensorboard_events() {
    let page = fs::read_to_string(trained().join("report.html")).unwrap();
    for words in ["Confusion", "Worst mistakes", "Learning rate", "mobilenet_v2_0.1", "data:image/png;base64"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(FOREIGN.iter().all(|word| !page.contains(word)), "the page loads external resources");
    let events = fs::read_dir(trained())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);
}

#[test]
fn eval_writes_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/page");
    let model = trained().join("best.safetensors");
    let arguments = ["eval", path(&model), "--data", "digits", "--report", path(&out), "--json", "--device", "cpu"];
    let results = json(&arguments);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    let top1 = format!("{:.2} %", 100.0 * results["top1"].as_f64().unwrap());
    assert!(page.contains(&top1) && page.contains("split val"), "{top1}");
}

#[test]
fn compare_lists_results_and_recipe_differences() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let other = folder.path().join("other");
    let set = ["--set", "epochs=1", "--set", "augment.policy=ta_wide", "--set", "mix.mixup=0.2"];
    let mut arguments = vec!["train", path(&recipe), "--out", path(&other), "--device", "cpu"];
    arguments.extend(set);
    run(0, &arguments);
    let both = ["compare", path(trained()), path(&other)];
    let (text, _) = run(0, &both);
    for words in ["top-1", "2/2", "1/1", "augment.policy", "\"ta_wide\"", "mix.mixup"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let document = json(&[&both[..], &["--json"]].concat());
    assert_eq!(document["runs"][0]["epochs"], 2);
    assert_eq!(document["differences"]["epochs"], serde_json::json!(["2", "1"]));
    assert!(error(&["compare", path(folder.path())]).contains("is no training run"));
}

#[test]
fn compare_writes_a_page_with_all_curves() {
    let folder = tempfile::tempdir().unwrap();
    // A name with markup, an epoch less, and no validation.
    let other = folder.path().join("a <b> & c");
    fs::create_dir(&other).unwrap();
    fs::copy(trained().join("recipe.toml"), other.join("recipe.toml")).unwrap();
    fs::write(other.join("metrics.csv"), "epoch,train_loss\n1,2.5\n").unwrap();
    let out = folder.path().join("compare.html");
    let arguments = ["compare", path(trained()), path(&other), "--out", path(&out)];
    let (text, log) = run(0, &arguments);
    assert!(text.contains("top-1") && log.contains("compare.html"), "{text}{log}");
    let page = fs::read_to_string(&out).unwrap();
    for words in ["Training loss", "Validation loss", "Validation top-1", "Learning rate", "a &lt;b&gt; &amp; c"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<b>") && FOREIGN.iter().all(|word| !page.contains(word)));
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "only the run and the page: {names:?}");
    assert_eq!(json(&[&arguments[..], &["--json"]].concat())["runs"][1]["epochs"], 1);
    let other = folder.path().join("compare.pdf");
    assert!(error(&["compare", path(trained()), "--out", path(&other)]).contains(".html"));
    assert!(error(&["compare", path(trained()), "--out", path(folder.path())]).contains("is a folder"));
    assert!(!other.exists());
}

#[test]
fn find_lr_suggests_a_learning_rate() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let svg = folder.path().join("curve.svg");
    let arguments = ["find-lr", path(&recipe), "--steps", "200", "--out", path(&svg), "--device", "cpu"];
    let document = json(&[&arguments[..], &["--json"]].concat());
    let points = document["points"].as_array().unwrap();
    let suggestion = document["suggestion"].as_f64().unwrap();
    assert!(points.len() > 10 && (2e-3..0.1).contains(&suggestion), "{suggestion}");
    assert_eq!(document["sweeps"].as_array().unwrap().len(), 3);
    assert!(fs::read_to_string(&svg).unwrap().contains("</svg>"));
    let (text, _) = run(0, &arguments);
    assert!(text.contains("--set optimizer.learning_rate="), "{text}");
    // Too low learning rates give no suggestion.
    let low = ["--steps", "40", "--from", "1e-9", "--to", "1e-6", "--sweeps", "2"];
    let arguments = ["find-lr", path(&recipe), "--out", path(&svg), "--device", "cpu"];
    let document = json(&[&arguments[..], &low, &["--json"]].concat());
    assert!(document["suggestion"].is_null(), "{document}");
    let (text, _) = run(0, &[&arguments[..], &low].concat());
    assert!(text.contains("no suggestion") && !text.contains("--set"), "{text}");
    // With a model's weights, without and with a recipe.
    let short = ["--steps", "5", "--sweeps", "1", "--json"];
    let first = |more: &[&str]| json(&[more, &short].concat())["points"][0]["loss"].as_f64().unwrap();
    first(&["find-lr", "--weights", path(trained()), "--data", "digits", "--out", path(&svg)]);
    let weights = ["--weights", path(trained())];
    let fresh = first(&arguments);
    let whole = first(&[&arguments[..], &weights].concat());
    let frozen = first(&[&arguments[..], &weights, &["--freeze", "body"]].concat());
    assert!(fresh != whole && whole != frozen, "{fresh} {whole} {frozen}");
    assert!(error(&[&arguments[..], &["--freeze", "99"]].concat()).contains("finetune.freeze"));
    assert!(error(&["find-lr", path(&recipe), "--from", "1", "--to", "0.1"]).contains("--from"));
}

/// Augmentation, mixing, losses and distillation work in one run; invalid settings are named.
#[test]
fn all_training_options_work_together() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let teacher = format!("distillation.teacher='{}'", path(trained()));
    let settings = [
        "epochs=2",
        "augment.policy=rand-m9-mstd0.5-inc1",
        "augment.color_jitter=0.2",
        "augment.erasing.probability=0.25",
        "augment.erasing.mode=pixel",
        "mix.mixup=0.2",
        "mix.cutmix=1.0",
        "mix.mode=pair",
        "mix.off_epochs=1",
        "label_smoothing=0.1",
        "loss.name=bce",
        "loss.target_threshold=0.2",
        "loss.class_weights=balanced",
        "sampling=balanced",
        "input.progressive={start=7,stages=2}",
        &teacher,
        "distillation.alpha=0.3",
        "distillation.temperature=2.0",
        "gradient_checkpointing=true",
    ];
    let out = folder.path().join("run");
    let mut arguments = vec!["train", path(&recipe), "--out", path(&out), "--device", "cpu"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    run(0, &arguments);
    assert_eq!(fs::read_to_string(out.join("metrics.csv")).unwrap().lines().count(), 3);

    let other = folder.path().join("other");
    let wrong = |setting: &str| error(&["train", path(&recipe), "--out", path(&other), "--set", setting]);
    assert!(wrong("distillation.teacher=nothing.safetensors").contains("distillation.teacher: there is no model"));
    assert!(wrong("loss.class_weights=[1, 2]").contains("one a class"));
    assert!(!other.exists(), "no run was started");
}
