//! `mbconv export`: formats, layouts, and rejected options.

mod common;

use std::fs;
use std::path::Path;

use common::{error, image_folder, json, path, run, trained};
use mbconv_nets::NetworkOptions;
use mbconv_nets::weights::Precision;
use mbconv_train::data::{Preprocess, ResizeMode};
use mbconv_train::{Model, ModelCard, device};

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

#[test]
fn folders_are_written_for_timm_and_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = at("model.safetensors");
    let options = NetworkOptions::new("mobilenet_v2_0.35", 2);
    let network = options.architecture().unwrap().init(&device::parse("cpu").unwrap());
    let card = ModelCard::new(options, vec!["ant".into(), "bee".into()], Preprocess::default());
    Model::save(&network, &card, Precision::F32, &model).unwrap();
    image_folder(&at("images"), &["x"], 2);
    let logits = |model: &Path| {
        let found = json(&["predict", path(model), path(&at("images/x")), "--logits", "--json"]);
        found.as_array().unwrap().iter().map(|row| row["logits"].clone()).collect::<Vec<_>>()
    };
    for (layout, name, files) in [
        ("timm", "published", &["README.md", "config.json", "model.safetensors"][..]),
        ("hf", "published.v2", &["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]),
        ("hf", "published", &["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]),
    ] {
        let out = at(name);
        let (_, stderr) = run(0, &["export", path(&model), path(&out), "--layout", layout]);
        assert!(stderr.contains("wrote the folder ") && stderr.contains(name), "{stderr}");
        let mut found: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        assert_eq!(found, files);
        assert_eq!(logits(&out), logits(&model));
        assert!(fs::read_to_string(out.join("README.md")).unwrap().contains(&format!("# {name}\n")));
    }
    // A file has only the weights.
    let weights = at("weights.safetensors");
    run(0, &["export", path(&model), path(&weights), "--layout", "hf"]);
    let bytes = fs::read(&weights).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..20_000]).contains("mobilenet_v2.conv_stem.first_conv.convolution.weight"));
    assert_eq!(logits(&weights), logits(&model));
    // Other files are not lost, and other options are rejected.
    fs::write(at("published/LICENSE"), "precious").unwrap();
    let message = error(&["export", path(&model), path(&at("published")), "--layout", "timm"]);
    assert!(message.contains("LICENSE"), "{message}");
    run(2, &["export", path(&model), path(&at("other")), "--layout", "timm", "--with-softmax"]);
    assert!(
        error(&["export", path(trained()), path(&at("other")), "--layout", "hf"]).contains("transformers has no such")
    );
    assert!(error(&["export", path(&model), path(&at("a.pth")), "--layout", "timm"]).contains("safetensors.torch"));
    assert!(!at("other").exists());
}

#[test]
fn letterbox_is_kept_in_files_and_noted_where_a_library_lacks_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let options = NetworkOptions::new("mobilenet_v2_0.35", 2);
    let network = options.architecture().unwrap().init(&device::parse("cpu").unwrap());
    let preprocess =
        Preprocess { resize_mode: ResizeMode::Letterbox, resize: 32.into(), crop: 32.into(), ..Preprocess::default() };
    let card = ModelCard::new(options, vec!["a".into(), "b".into()], preprocess);
    let model = at("model.safetensors");
    Model::save(&network, &card, Precision::F32, &model).unwrap();
    assert_eq!(json(&["info", path(&model), "--json"])["preprocess"]["resize_mode"], "letterbox");
    run(0, &["export", path(&model), path(&at("model.onnx"))]);
    let onnx = String::from_utf8_lossy(&fs::read(at("model.onnx")).unwrap()).into_owned();
    assert!(onnx.contains("\"resize_mode\":\"letterbox\""));
    let (_, log) = run(0, &["export", path(&model), path(&at("hf")), "--layout", "hf"]);
    assert!(log.contains("note: transformers has no letterbox"), "{log}");
    assert!(fs::read_to_string(at("hf/README.md")).unwrap().contains("no letterbox"));
    let (_, log) = run(0, &["export", path(&model), path(&at("timm")), "--layout", "timm"]);
    assert!(!log.contains("letterbox"), "{log}");
    // A long image: the network receives bars of the mean color instead of a crop.
    image::RgbImage::from_pixel(64, 16, image::Rgb([255, 0, 0])).save(at("long.png")).unwrap();
    let logits = |model: &Path| {
        json(&["predict", path(model), path(&at("long.png")), "--json", "--logits"])[0]["logits"].clone()
    };
    let mut padded = image::RgbImage::from_pixel(32, 32, image::Rgb([124, 116, 104]));
    image::imageops::overlay(&mut padded, &image::RgbImage::from_pixel(32, 8, image::Rgb([255, 0, 0])), 0, 12);
    let expected = logits(&model);
    padded.save(at("long.png")).unwrap();
    assert_eq!(logits(&model), expected);
}
