//! Weights of other libraries: import, other numbers of channels and classes, export, and invalid
//! files.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{error, image_folder, json, mbconv, path, run, tiny_recipe, trained};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{Layout, NetworkOptions};
use mbconv_train::device;

/// Returns random weights in timm's layout, without metadata.
fn weights(name: &str, classes: usize) -> Vec<u8> {
    let network = NetworkOptions::new(name, classes).architecture().unwrap().init(&device::parse("cpu").unwrap());
    to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn gray_networks_convert_images_to_gray() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("mobilenet_v2_0.1", 4));
    let model = folder.path().join("gray.safetensors");
    let (_, stderr) = run(0, &["import", path(&file), path(&model), "--input-channels", "1"]);
    assert!(stderr.contains("the stem's weights are summed, for 1 input channel instead of 3"), "{stderr}");
    let info = run(0, &["info", path(&model)]).0;
    assert!(info.contains("preprocessing gray, resize 256 (bicubic)"), "{info}");

    // A color gives the same logits as its gray value.
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for (name, pixel) in [("color.png", [10, 100, 50]), ("gray.png", [67, 67, 67]), ("white.png", [255; 3])] {
        image::RgbImage::from_pixel(40, 30, image::Rgb(pixel)).save(pictures.join(name)).unwrap();
    }
    image::GrayImage::from_pixel(40, 30, image::Luma([67])).save(pictures.join("luma.png")).unwrap();
    let logits = |model: &Path| {
        let found = json(&["predict", path(model), path(&pictures), "--logits", "--json"]);
        found.as_array().unwrap().iter().map(|row| row["logits"].clone()).collect::<Vec<_>>()
    };
    let [color, gray, luma, white] = &logits(&model)[..] else { panic!("four images") };
    assert!(color == gray && gray == luma && gray != white);

    // Export and import do not change it.
    let timm = folder.path().join("timm.safetensors");
    run(0, &["export", path(&model), path(&timm), "--layout", "timm"]);
    assert_eq!(logits(&timm), logits(&model));
    let onnx = folder.path().join("gray.onnx");
    run(0, &["export", path(&model), path(&onnx), "--with-preprocessing"]);

    // Evaluation and training accept color images.
    let data = folder.path().join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &["a", "b"], 8);
    }
    let out = folder.path().join("run");
    let finetune = ["finetune", "--weights", path(&file), "--input-channels", "1", "--data", path(&data)];
    let small = ["--set", "input.size=32", "--set", "input.eval_size=32", "--set", "input.eval_resize=32"];
    let (_, stderr) =
        run(0, &[&finetune[..], &["--out", path(&out), "--epochs", "1", "--device", "cpu"], &small].concat());
    // The notes are printed once and logged.
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    for text in [&stderr, &log] {
        for line in [
            &*format!("starts from {}", path(&file)),
            "mobilenet_v2_0.1 with 4 classes in timm's layout",
            "the stem's weights are summed, for 1 input channel instead of 3",
            "the classifier is new, for the data's 2 classes instead of the model's 4",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
        }
    }
    assert_eq!(json(&["eval", path(&out), "--data", path(&data), "--json"])["images"], 16);
    let info = run(0, &["info", path(&out)]).0;
    assert!(info.contains("preprocessing gray, resize 32"), "{info}");
}

#[test]
fn images_have_one_or_three_channels() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("mobilenet_v2_0.1", 4));
    let model = folder.path().join("seven.safetensors");
    let (_, stderr) = run(0, &["import", path(&file), path(&model), "--input-channels", "7"]);
    assert!(stderr.contains("repeated and scaled, for 7 input channels instead of 3"), "{stderr}");
    assert_eq!(json(&["info", path(&model), "--json"])["input_channels"], 7);
    image_folder(folder.path(), &["class_0", "class_1"], 2);
    let picture = folder.path().join("class_0/0.png");
    for command in [
        &["predict", path(&model), path(&picture)][..],
        &["eval", path(&model), "--data", path(folder.path())],
        &[
            "finetune",
            "--weights",
            path(&model),
            "--data",
            path(folder.path()),
            "--out",
            path(&folder.path().join("run")),
        ],
    ] {
        let message = error(command);
        let channels = message.contains("must be 1 or 3") || message.contains("3 ") && message.contains("gray");
        assert!(message.contains('7') && channels, "{message}");
    }
    // The network can be exported for other programs.
    let onnx = folder.path().join("seven.onnx");
    run(0, &["export", path(&model), path(&onnx)]);
    let message = error(&["export", path(&model), path(&onnx), "--with-preprocessing"]);
    assert!(message.contains("not 7") && message.contains("hint: "), "{message}");
    assert!(error(&["import", path(&file), path(&model), "--input-channels", "1000000"]).contains("input_channels"));
    run(2, &["import", path(&file), path(&model), "--input-channels", "0"]);
}

#[test]
fn finetune_accepts_the_architecture_of_ambiguous_weights() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("efficientnet_b0", 2));
    let data = folder.path().join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &["a", "b"], 4);
    }
    let out = folder.path().join("run");
    let finetune = |more: &[&'static str]| -> Vec<String> {
        let fixed = ["finetune", "--weights", path(&file), "--data", path(&data), "--out", path(&out), "--epochs", "1"];
        let small = ["--set", "input.size=32", "--set", "input.eval_size=32", "--set", "input.eval_resize=32"];
        [&fixed, &small[..], more].concat().iter().map(|word| word.to_string()).collect()
    };
    let words = |list: &[String]| -> Vec<&'static str> { list.iter().map(|word| &*word.clone().leak()).collect() };
    let message = error(&words(&finetune(&[])));
    assert!(message.contains("weights.safetensors match efficientnet_b0 and tf_efficientnet_b0"), "{message}");
    assert!(message.contains("hint: `--arch tf_efficientnet_b0`"), "{message}");
    run(0, &words(&finetune(&["--arch", "tf_efficientnet_b0", "--device", "cpu"])));
    let info = json(&["info", path(&out), "--json"]);
    assert_eq!(info["name"], "tf_efficientnet_b0");
}

#[test]
fn training_reports_its_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let weights = format!("finetune.weights={}", path(trained()));
    let out = folder.path().join("run");
    let (_, stderr) = run(
        0,
        &["train", path(&recipe), "--out", path(&out), "--device", "cpu", "--set", &weights, "--set", "epochs=1"],
    );
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    for text in [stderr, log] {
        let model = trained().join("best.safetensors");
        assert!(text.contains(&format!("starts from {}", path(&model))), "{text}");
        assert!(text.contains("the classifier is the model's"), "{text}");
    }
}

/// Writes a folder like `save_pretrained` does for timm's wrapper, with a network of two classes.
fn pretrained(folder: &Path) -> PathBuf {
    let place = folder.join("checkpoint-500");
    fs::create_dir(&place).unwrap();
    write(&place, "model.safetensors", &weights("mobilenet_v2_0.35", 2));
    let config = r#"{"model_type": "timm_wrapper", "architecture": "mobilenetv2_035", "label_names": ["ant", "bee"],
        "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
    write(&place, "config.json", config.as_bytes());
    write(&place, "training_args.bin", b"not weights");
    place
}

#[test]
fn every_command_accepts_weights_of_other_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let model = pretrained(folder.path());
    let model = path(&model);
    let at = |name: &str| folder.path().join(name);
    image_folder(&at("data/train"), &["ant", "bee"], 8);
    image_folder(&at("data/val"), &["ant", "bee"], 4);
    let (data, picture) = (at("data"), at("data/val/ant/0.png"));
    let imported = at("model.safetensors");
    let (_, stderr) = run(0, &["import", model, path(&imported)]);
    assert!(stderr.contains("mobilenet_v2_0.35 with 2 classes in timm's layout"), "{stderr}");

    let predict = |model: &str| json(&["predict", model, path(&picture), "--logits", "--json"]);
    assert_eq!(predict(model), predict(path(&imported)));
    assert_eq!(predict(model)[0]["predictions"].as_array().unwrap().len(), 2);
    assert_eq!(json(&["eval", model, "--data", path(&data), "--json"])["images"], 8);
    let info = json(&["info", model, "--json"]);
    assert_eq!((info["name"].as_str(), info["class_names"][1].as_str()), (Some("mobilenet_v2_0.35"), Some("bee")));
    let (_, stderr) = run(0, &["export", model, path(&at("model.onnx"))]);
    assert!(stderr.contains("mobilenet_v2_0.35 with 2 classes in timm's layout"), "{stderr}");
    run(0, &["bench", model, "--seconds", "0.01", "--batch-size", "1", "--device", "cpu"]);
    run(0, &["average", model, path(&imported), path(&at("mean.safetensors"))]);
    let out = at("run");
    let finetune = ["finetune", "--weights", model, "--data", path(&data), "--out", path(&out), "--epochs", "1"];
    run(0, &[&finetune[..], &["--device", "cpu"]].concat());
    assert_eq!(json(&["info", path(&out), "--json"])["preprocess"]["crop"], 32);

    // Ambiguous weights lead to `import`, which has the options to resolve them.
    let open = write(folder.path(), "weights.safetensors", &weights("efficientnet_b0", 2));
    for command in [&["predict", path(&open), path(&picture)][..], &["info", path(&open)]] {
        let message = error(command);
        let import = format!("`mbconv import {} MODEL.safetensors` and an option: `--arch", path(&open));
        assert!(message.contains(&import), "{message}");
    }
}

/// Returns a safetensors file with tensors of zeros.
fn zeros(shapes: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (key, shape) in shapes {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(key.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat()
}

#[test]
fn weights_without_a_classifier_get_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = NetworkOptions::new("mobilenet_v2_0.1", 2).architecture().unwrap();
    let body: Vec<_> = Layout::Timm
        .tensors(&architecture)
        .into_iter()
        .filter(|info| !info.key.starts_with("classifier."))
        .map(|info| (format!("backbone.{}", info.key), info.shape))
        .collect();
    let file = write(folder.path(), "body.safetensors", &zeros(&body));
    let out = folder.path().join("model.safetensors");
    let message = error(&["import", path(&file), path(&out)]);
    assert!(message.contains("have no classifier") && message.contains("--classes FILE"), "{message}");
    assert!(!out.exists());
    let names = write(folder.path(), "names.txt", b"ant\nbee\nwasp\n");
    let (_, stderr) = run(0, &["import", path(&file), path(&out), "--classes", path(&names)]);
    assert!(stderr.contains("prefix `backbone.`, without a classifier"), "{stderr}");
    assert!(stderr.contains("the classifier is new, for 3 classes: train it"), "{stderr}");
    assert_eq!(json(&["info", path(&out), "--json"])["class_names"][2], "wasp");
    let one = write(folder.path(), "one.txt", b"ant\n");
    assert!(error(&["import", path(&file), path(&out), "--classes", path(&one)]).contains("a single name"));

    image_folder(&folder.path().join("data/train"), &["a", "b"], 8);
    image_folder(&folder.path().join("data/val"), &["a", "b"], 2);
    let (data, run_folder) = (folder.path().join("data"), folder.path().join("run"));
    let small = ["--set", "input.size=32", "--set", "input.eval_size=32", "--set", "input.eval_resize=32"];
    let finetune = ["finetune", "--weights", path(&file), "--data", path(&data), "--out", path(&run_folder)];
    let prefix = ["--prefix", "backbone.", "--epochs", "1", "--device", "cpu"];
    let (_, stderr) = run(0, &[&finetune[..], &prefix, &small].concat());
    assert!(stderr.contains("the classifier is new, for the data's 2 classes"), "{stderr}");
    assert!(fs::read_to_string(run_folder.join("recipe.toml")).unwrap().contains("prefix = \"backbone.\""));
}

#[test]
fn networks_with_one_output_have_two_classes() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("mobilenet_v2_0.1", 1));
    let out = folder.path().join("model.safetensors");
    let names = write(folder.path(), "names.txt", b"sound\nbroken\n");
    let (_, stderr) = run(0, &["import", path(&file), path(&out), "--classes", path(&names)]);
    assert!(stderr.contains("note: the single output is read as a sigmoid"), "{stderr}");
    image_folder(folder.path(), &["x"], 1);
    let found = json(&["predict", path(&out), path(&folder.path().join("x/0.png")), "--logits", "--json"]);
    let logit = found[0]["logits"][1].as_f64().unwrap();
    let broken = found[0]["predictions"].as_array().unwrap().iter().find(|row| row["label"] == "broken").unwrap();
    assert_eq!(found[0]["logits"][0], 0.0);
    assert!((broken["probability"].as_f64().unwrap() - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
}

#[cfg(unix)]
#[test]
fn control_characters_of_files_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("mobilenet_v2_0.1", 2));
    let names = write(folder.path(), "names.txt", "\u{1b}[2Jant\u{1b}]0;owned\u{7}\nb\u{9b}31mee\u{7f}\n".as_bytes());
    let model = folder.path().join("model.safetensors");
    run(0, &["import", path(&file), path(&model), "--classes", path(&names)]);
    image_folder(&folder.path().join("data"), &["\u{1b}[2Jant\u{1b}]0;owned\u{7}", "b\u{9b}31mee\u{7f}"], 4);
    let data = folder.path().join("data");
    let pictures = data.join("b\u{9b}31mee\u{7f}");
    let quiet = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n');
    for command in [
        &["info", path(&model)][..],
        &["info", path(&model), "--json"],
        &["predict", path(&model), path(&pictures)],
        &["predict", path(&model), path(&pictures), "--json"],
        &["eval", path(&model), "--data", path(&data), "--split", "train"],
        &["data", "inspect", path(&data)],
    ] {
        let (stdout, stderr) = run(0, command);
        assert!(quiet(&stdout) && quiet(&stderr), "{command:?}: {stdout:?} {stderr:?}");
        assert!(stdout.contains("\\u001b[2Jant") || stdout.contains("b\\u009b31mee"), "{command:?}: {stdout}");
    }
    let labels = json(&["info", path(&model), "--json"])["class_names"].clone();
    assert_eq!(labels[1], "b\u{9b}31mee\u{7f}");
    let other = folder.path().join("\u{1b}[2Jgone.safetensors");
    for command in [&["predict", path(&other), "x.png"][..], &["import", path(&other), path(&model)]] {
        let message = error(command);
        assert!(quiet(&message) && message.contains("\\u001b[2Jgone"), "{message:?}");
    }
}

#[test]
fn files_of_other_formats_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    for (name, bytes, words) in [
        ("model.h5", &b"\x89HDF\r\n\x1a\n"[..], "a Keras or other HDF5 file"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        ("model.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("saved_model.pb", b"\x08\x01\x12", "a TensorFlow model or checkpoint"),
        ("model.ckpt.index", b"\0\0\0\0", "a TensorFlow model or checkpoint"),
        ("model.gguf", b"GGUF\x03\0", "a GGUF file"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("weights.npy", b"\x93NUMPY\x01\0", "a NumPy file"),
    ] {
        let file = write(folder.path(), name, bytes);
        for command in [
            &["import", path(&file), path(&out)][..],
            &["finetune", "--weights", path(&file), "--data", "digits", "--out", path(&folder.path().join("run"))],
            &["predict", path(&file), "x.png"],
        ] {
            let message = error(command);
            assert!(message.contains(words) && message.contains(name) && message.contains("hint: "), "{message}");
        }
    }
    // Compressed archives too.
    for (member, words) in [
        ("model.weights.h5", "a Keras or other HDF5 file"),
        ("arr_0.npy", "a NumPy file"),
        ("archive_format", "an exported PyTorch program"),
        ("model/constants.pkl", "a TorchScript archive"),
    ] {
        let file = write(folder.path(), "archive.pt", &zip(member, b"{}", 8, 9));
        let message = error(&["import", path(&file), path(&out)]);
        assert!(message.contains(words) && message.contains("archive.pt"), "{message}");
    }
    assert!(!out.exists());
}

#[test]
fn exports_list_differences_to_the_target_library() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let export = |model: &Path, layout: &str| {
        run(0, &["export", path(model), path(&out), "--layout", layout]).1.replace(path(folder.path()), "")
    };
    let model = |name: &str| {
        let file = write(folder.path(), "weights.safetensors", &weights(name, 2));
        let model = folder.path().join("model.safetensors");
        run(0, &["import", path(&file), path(&model), "--arch", name]);
        model
    };
    let tensorflows = model("tf_efficientnet_b0");
    let notes = export(&tensorflows, "torchvision");
    assert!(
        notes.contains("note: torchvision's efficientnet_b0 pads symmetrically, this network like TensorFlow"),
        "{notes}"
    );
    assert!(notes.contains("note: batch-norm's epsilon is 0.00001") && notes.contains("eps = 0.001"), "{notes}");
    assert!(!export(&tensorflows, "timm").contains("note: "));
    // Without --layout, no notes are printed.
    assert!(!run(0, &["export", path(&tensorflows), path(&out), "--dtype", "f16"]).1.contains("note: "));
    assert!(!export(&model("mobilenet_v2_0.35"), "torchvision").contains("note: "));
    // The tiny recipe has its own strides.
    let notes = export(trained(), "timm");
    assert!(notes.contains("note: timm has no network like mobilenet_v2_0.1"), "{notes}");
    let notes = export(trained(), "torchvision");
    assert!(notes.contains("[1, 1, 2, 2, 1, 1, 1, 1] in this network"), "{notes}");
}

/// Returns a zip archive of one file; its header contains `method` and the uncompressed `size`.
fn zip(name: &str, content: &[u8], method: u16, size: u32) -> Vec<u8> {
    let packed = content.len() as u32;
    let sizes = [&[0; 4][..], &packed.to_le_bytes(), &size.to_le_bytes(), &(name.len() as u16).to_le_bytes(), &[0; 2]];
    let head = [&20u16.to_le_bytes()[..], &[0; 2], &method.to_le_bytes(), &[0; 4]].concat();
    let local = [b"PK\x03\x04", &head[..], &sizes.concat(), name.as_bytes(), content].concat();
    let central = [b"PK\x01\x02\x14\0", &head[..], &sizes.concat(), &[0; 14], name.as_bytes()].concat();
    let end = [&[0; 4][..], &[1, 0, 1, 0], &(central.len() as u32).to_le_bytes(), &(local.len() as u32).to_le_bytes()];
    [&local[..], &central, b"PK\x05\x06", &end.concat(), &[0; 2]].concat()
}

#[test]
fn damaged_and_malicious_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/tests/fixtures/import").join(name)).unwrap()
    };
    let whole = weights("mobilenet_v2_0.1", 2);
    let replaced = |from: &str, to: &str| {
        let text: Vec<u8> = whole.clone();
        let at = text.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat()
    };
    // Replaces the last float of the last tensor.
    let nan = [&whole[..whole.len() - 4], &f32::NAN.to_le_bytes()].concat();
    let huge = [&(1u64 << 60).to_le_bytes(), &whole[8..]].concat();
    let negative = {
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let tensors: serde_json::Value = serde_json::from_slice(&whole[8..header]).unwrap();
        let at = header + tensors["bn1.running_var"]["data_offsets"][0].as_u64().unwrap() as usize;
        [&whole[..at], &(-1f32).to_le_bytes(), &whole[at + 4..]].concat()
    };
    let touched = folder.path().join("touched");
    let shell = format!("cposix\nsystem\n(S'touch {}'\ntR.", touched.display());
    for (name, bytes, words) in [
        ("empty.pth", vec![], "neither"),
        ("page.pth", b"<!DOCTYPE html><html><body>Not Found</body></html>".to_vec(), "a web page"),
        (
            "cut.pth",
            {
                let bytes = fixture("zip.pth");
                bytes[..bytes.len() * 2 / 3].to_vec()
            },
            "truncated",
        ),
        (
            "cut_legacy.pth",
            {
                let bytes = fixture("legacy.pth");
                bytes[..bytes.len() * 2 / 3].to_vec()
            },
            "ends within",
        ),
        ("cut.safetensors", whole[..whole.len() / 2].to_vec(), "the safetensors file is damaged or incomplete"),
        ("huge.safetensors", huge, "the safetensors file is damaged or incomplete"),
        ("bomb.pth", zip("archive/data.pkl", &[0; 64], 8, u32::MAX - 1), "compressed"),
        ("lie.pth", zip("archive/data.pkl", &[0; 64], 0, u32::MAX - 1), "compressed"),
        ("shell.pth", zip("archive/data.pkl", shell.as_bytes(), 0, shell.len() as u32), "state_dict()"),
        ("shell.pickle", shell.clone().into_bytes(), "neither"),
        ("nan.safetensors", nan, "not finite"),
        ("negative.safetensors", negative, "`bn1.running_var` has a negative value"),
        ("integers.safetensors", replaced("\"F32\"", "\"I32\""), "integers"),
        ("other.safetensors", replaced("conv_stem.weight", "conv_root.weight"), "conv_stem.weight"),
    ] {
        let file = write(folder.path(), name, &bytes);
        let (out, run) = (folder.path().join("out.safetensors"), folder.path().join("run"));
        for command in [
            &["import", path(&file), path(&out)][..],
            &["finetune", "--weights", path(&file), "--data", "digits", "--out", path(&run)],
        ] {
            let message = error(command);
            assert!(message.contains(name) && message.contains(words), "{name}: {message}");
            assert!(message.len() < 4000, "{name}: an error of {} bytes", message.len());
        }
        assert!(!out.exists() && !run.exists() && !touched.exists(), "{name}");
    }
    let import = |file: &Path| error(&["import", path(file), path(&folder.path().join("out.safetensors"))]);
    assert!(import(folder.path()).contains(path(folder.path())));
    assert!(import(&folder.path().join("gone.pth")).contains("gone.pth"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("nowhere"), folder.path().join("dangling.pth")).unwrap();
        assert!(import(&folder.path().join("dangling.pth")).contains("dangling.pth"));
        assert!(import(Path::new("/dev/zero")).contains("/dev/zero is not a file"));
        assert!(error(&["info", "/dev/zero"]).contains("/dev/zero"));
        assert!(error(&["predict", "/dev/zero", "x.png"]).contains("/dev/zero"));
        check_pipes_are_rejected(folder.path(), &whole);
        check_non_utf8_paths(folder.path(), &whole);
    }
}

/// Opening a pipe without a writer would wait forever.
#[cfg(unix)]
fn check_pipes_are_rejected(folder: &Path, weights: &[u8]) {
    let model = folder.join("model.safetensors");
    run(0, &["import", path(&write(folder, "weights.safetensors", weights)), path(&model)]);
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (pipe, out) = (path(&pipe), folder.join("run"));
    for command in [
        &["import", pipe, path(&out)][..],
        &["finetune", "--weights", pipe, "--data", "digits", "--out", path(&out)],
        &["info", pipe],
        &["export", pipe, path(&out), "--format", "onnx"],
        &["predict", pipe, "x.png"],
        &["predict", path(&model), pipe],
    ] {
        let output = mbconv().args(command).timeout(std::time::Duration::from_secs(60)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains("error: ") && stderr.contains(pipe), "{command:?}: {stderr}");
    }
}

/// Paths that are not UTF-8, as in old archives.
#[cfg(target_os = "linux")]
fn check_non_utf8_paths(folder: &Path, weights: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let file = folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9.safetensors"));
    fs::write(&file, weights).unwrap();
    let out = folder.join("imported.safetensors");
    assert!(mbconv().arg("import").arg(&file).arg(&out).output().unwrap().status.success());
    assert!(out.is_file());
    // Recipes are UTF-8.
    let run = folder.join("run");
    let finetune = ["--data", "digits", "--out", path(&run)];
    let output = mbconv().args(["finetune", "--weights"]).arg(&file).args(finetune).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("caf\\xE9.safetensors") && stderr.contains("is not UTF-8"), "{stderr}");
}

#[cfg(all(unix, not(target_os = "linux")))]
fn check_non_utf8_paths(_: &Path, _: &[u8]) {}

/// Sparse files that are larger than the machine's memory.
#[test]
#[cfg(target_os = "linux")]
fn huge_files_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let program = assert_cmd::cargo::cargo_bin("mbconv");
    for (name, beginning) in
        [("hole.pth", &b""[..]), ("zip.pth", b"PK\x03\x04"), ("tensors.safetensors", b"\x10\0\0\0\0\0\0\0{")]
    {
        let file = write(folder.path(), name, beginning);
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 38).unwrap();
        for arguments in [
            &["import", path(&file), path(&folder.path().join("out"))][..],
            &["predict", path(&file), "x.png"],
            &["info", path(&file)],
        ] {
            let output = std::process::Command::new(&program).args(arguments).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains("error: ") && stderr.contains(name), "{stderr}");
        }
    }
}
