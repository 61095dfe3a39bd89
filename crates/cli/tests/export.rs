//! `mbconv export`: formats, layouts, and rejected options.

mod common;

use std::fs;

use common::{error, json, path, run, trained};

#[test]
fn exported_safetensors_keep_their_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |model: &std::path::Path| json(&["eval", path(model), "--data", "digits", "--json"])["top1"].clone();
    let expected = measure(trained());
    for (index, options) in
        [&["--layout", "timm"][..], &["--layout", "torchvision"], &["--layout", "timm", "--dtype", "f16"]]
            .iter()
            .enumerate()
    {
        let out = folder.path().join(format!("{index}.safetensors"));
        run(0, &[&["export", path(trained()), path(&out)][..], options].concat());
        let top1 = measure(&out);
        let drift = (top1.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
        assert!(drift < if options.len() > 2 { 0.02 } else { 1e-9 }, "{options:?}: {top1} {expected}");
    }
}

#[test]
fn extension_selects_the_format() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options, opening) in [
        // Field 1, IR version 8, then the producer's name.
        ("a.onnx", &[][..], &b"\x08\x08\x12\x06mbconv"[..]),
        ("b.bin", &["--format", "onnx", "--with-softmax", "--with-preprocessing", "--dtype", "f16"], b"\x08\x08"),
        ("c.bpk", &[], b""),
        ("d.bin", &["--format", "burnpack", "--dtype", "bf16"], b""),
        ("e.safetensors", &[], b""),
    ] {
        let out = folder.path().join(name);
        let (_, stderr) = run(0, &[&["export", path(trained()), path(&out)][..], options].concat());
        assert!(stderr.contains("wrote ") && stderr.contains(name), "{stderr}");
        let bytes = fs::read(&out).unwrap();
        assert!(bytes.starts_with(opening), "{name}: {:?}", &bytes[..16]);
        let safetensors = safetensors_header(&bytes);
        assert_eq!(safetensors, name.starts_with('e'), "{name}");
    }
}

/// Returns whether the file starts with a valid length and a JSON object.
fn safetensors_header(bytes: &[u8]) -> bool {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    length < bytes.len() as u64 && bytes[8] == b'{'
}

#[test]
fn options_of_another_format_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.safetensors");
    for (options, words) in [
        (&["--format", "onnx", "--layout", "timm"][..], "--layout is for --format safetensors"),
        (&["--format", "burnpack", "--layout", "torchvision"], "--layout is for --format safetensors"),
        (&["--with-softmax"], "--with-softmax is for --format onnx"),
        (&["--format", "burnpack", "--with-preprocessing"], "--with-preprocessing is for --format onnx"),
    ] {
        let (_, stderr) = run(2, &[&["export", path(trained()), path(&out)][..], options].concat());
        assert!(stderr.contains(words), "{stderr}");
    }
    let message = error(&["export", path(trained()), path(&out), "--format", "onnx", "--dtype", "bf16"]);
    assert!(message.contains("not bf16") && message.contains("--dtype f16"), "{message}");
    assert!(!out.exists());
    let message = error(&["export", path(trained()), path(folder.path()), "--format", "onnx"]);
    assert!(message.contains("is a folder") && message.contains("model.onnx"), "{message}");
}

#[test]
fn unsupported_extensions_are_rejected_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in [
        ("model.pth", "safetensors.torch.load_file"),
        ("model.PT", "safetensors.torch.load_file"),
        ("model.tflite", "write .onnx"),
        ("model.h5", "write .onnx"),
        ("model.engine", "write .onnx"),
        ("model.xyz", "--format"),
        ("model", "has no extension"),
        (".onnx", "has no extension"),
    ] {
        // The model does not exist.
        let message = error(&["export", "gone.safetensors", path(&folder.path().join(name))]);
        assert!(message.contains(words), "{name}: {message}");
        assert!(message.contains(".safetensors, .onnx, .bpk or .burnpack"), "{name}: {message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn output_extensions_must_match_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(&folder.path().join(name)).to_string();
    let model = path(trained());
    let recipe = at("gone.toml");
    for (arguments, words) in [
        (vec!["average", model, model, &at("mean.onnx")], ".safetensors"),
        (vec!["import", "gone.pth", &at("model.pth")], ".safetensors"),
        (vec!["draw", "mobilenet_v2", "--out", &at("network.png")], ".svg"),
        (vec!["find-lr", &recipe, "--out", &at("curve.pdf")], ".svg"),
        (vec!["data", "verify", "digits", "--report", &at("report.html")], ".json or .csv or .txt"),
        (vec!["data", "inspect", "digits", "--sheet", &at("sheet.jpg")], ".png"),
        (vec!["predict", model, "gone.jpg", "--out", &at("table.xlsx")], ".csv and .jsonl"),
    ] {
        let message = error(&arguments);
        assert!(message.contains(words), "{arguments:?}: {message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
