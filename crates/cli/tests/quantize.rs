//! `quantize`, and the commands that accept or refuse 8-bit models.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{error, image_folder, json, path, run, trained};
use serde_json::Value;

/// Returns the trained model in 8 bits, and the output of `quantize`.
fn quantized() -> &'static (tempfile::TempDir, PathBuf, Value) {
    static MODEL: OnceLock<(tempfile::TempDir, PathBuf, Value)> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model.int8.safetensors");
        let report = json(&["quantize", path(trained()), "--data", "digits", "--out", path(&out), "--json"]);
        (folder, out, report)
    })
}

fn model() -> &'static Path {
    &quantized().1
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn accuracy_is_kept_and_equals_that_of_eval() {
    let (_, _, report) = quantized();
    assert_eq!((report["calibration_images"].as_u64(), report["images"].as_u64()), (Some(500), Some(359)));
    let accuracy = |precision: &str| number(&report["top1"][precision]);
    assert!((accuracy("f32") - accuracy("int8")).abs() < 0.03, "{report}");
    assert!(number(&report["agreement"]) > 0.9 && number(&report["logit_error"]) < 0.1, "{report}");
    for (model, precision) in [(trained(), "f32"), (model(), "int8")] {
        let evaluation = json(&["eval", path(model), "--data", "digits", "--json"]);
        assert!((number(&evaluation["top1"]) - accuracy(precision)).abs() < 1e-9, "{precision}");
    }
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() > 50 && number(&layers[0]["error"]) >= number(&layers[1]["error"]));
}

#[test]
fn results_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("again.safetensors");
    run(0, &["quantize", path(trained()), "--data", "digits", "--out", path(&out), "--threads", "1"]);
    assert!(fs::read(&out).unwrap() == fs::read(model()).unwrap());
}

#[test]
fn methods_and_kept_layers_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.safetensors");
    for range in ["percentile", "minmax"] {
        let options = ["--range", range, "--keep", "stem,blocks.3.project", "--images", "40", "--no-equalization"];
        let arguments = ["quantize", path(trained()), "--data", "digits", "--out", path(&out)];
        let (text, _) = run(0, &[&arguments[..], &options, &["--no-bias-correction"]].concat());
        for words in ["40 images (train)", "top-1", "same prediction", "images per second", "blocks."] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let info = json(&["info", path(&out), "--json"]);
        let expected = serde_json::json!({ "range": range, "images": 40, "kept": ["stem", "blocks.3.project"] });
        assert_eq!(info["quantization"], expected);
        let (text, _) = run(0, &["info", path(&out)]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains("in f32: stem, blocks.3.project"), "{text}");
        run(0, &["eval", path(&out), "--data", "digits"]);
    }
}

#[test]
fn inference_commands_accept_8_bit_models() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["3"], 2);
    let images = folder.path().join("3");
    let predicted = json(&["predict", path(model()), path(&images), "--json", "--tta", "flip"]);
    assert_eq!(predicted.as_array().unwrap().len(), 2);
    let bench = json(&["bench", path(model()), "--seconds", "0.01", "--profile", "--json"]);
    assert_eq!(bench["precision"], "int8");
    assert_eq!(bench["profile"].as_array().unwrap().len(), 17 + 4);
    let onnx = folder.path().join("model.onnx");
    let (_, note) = run(0, &["export", path(model()), path(&onnx), "--with-softmax", "--with-preprocessing"]);
    assert!(note.contains("--weight-bits 7") && fs::metadata(&onnx).unwrap().len() > 100_000, "{note}");
    assert!(error(&["export", path(model()), path(&onnx), "--dtype", "f16"]).contains("exported in 8 bits"));
    let report = folder.path().join("report");
    let (_, notes) = run(0, &["eval", path(model()), "--data", "digits", "--report", path(&report)]);
    assert!(notes.contains("no heatmaps") && report.join("report.html").is_file(), "{notes}");
}

#[test]
fn other_commands_refuse_8_bit_models() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let (model, out) = (path(model()), path(&out));
    for arguments in [
        vec!["quantize", model, "--data", "digits", "--out", out],
        vec!["finetune", model, "digits", "--out", out],
        vec!["calibrate", model, "--data", "digits"],
        vec!["average", model, model, out],
        vec!["import", model, out],
        vec!["embed", model, "digits", "--out", "features.npy"],
        vec!["explain", model, "image.png", "--json"],
        vec!["export", model, out],
        vec!["bench", model, "--mode", "train"],
    ] {
        let message = error(&arguments);
        assert!(message.contains("is an 8-bit model"), "{arguments:?}: {message}");
    }
    assert!(error(&["predict", model, "x.png", "--dtype", "bf16"]).contains("computes in 8 bits"));
    assert!(error(&["predict", model, "x.png", "--device", "cuda"]).contains("run on the CPU"));
}

#[test]
fn unsuitable_images_and_layers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let data = folder.path().join("data");
    image_folder(&data, &["3", "4"], 3);
    let arguments = |data, options: &[&'static str]| {
        let arguments = ["quantize", path(trained()), "--data", data, "--out", path(&out)];
        [&arguments[..], options].concat()
    };
    // Every image has a single color.
    assert!(error(&arguments(path(&data), &[])).contains("single color"));
    let message = error(&arguments("digits", &["--keep", "blocks.99.project"]));
    assert!(message.contains("no layer `blocks.99.project`") && message.contains("blocks.0.depthwise"), "{message}");
    assert!(!out.exists());
    let (text, note) = run(0, &arguments("digits", &["--images", "1"]));
    assert!(note.contains("only 1 calibration image:") && text.contains("same prediction"), "{note}");
}

#[test]
fn images_without_the_models_classes_are_compared_without_labels() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    for name in ["a.png", "b.png"] {
        let picture = image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([(x * 20) as u8, (y * 25) as u8, 80]));
        picture.save(folder.path().join(name)).unwrap();
    }
    let arguments = ["quantize", path(trained()), "--data", path(folder.path()), "--out", path(&out), "--json"];
    let report = json(&arguments);
    assert!(report["top1"].is_null() && report["agreement"].is_number(), "{report}");
}
