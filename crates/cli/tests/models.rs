//! Models by name in every command, fine-tuning in one line, and names that do not exist.

mod common;

use std::path::Path;

use common::{error, image_folder, json, mbconv, path, run, tiny_recipe, trained};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{Layout, NetworkOptions};
use mbconv_train::device;

/// Images for the tests, with the classes of the published weights.
fn photos(root: &Path) {
    for split in ["train", "val"] {
        image_folder(&root.join("photos").join(split), &["ant", "bee"], 8);
    }
}

/// Stores small weights in the cache as `timm/mobilenetv2_050.lamb_in1k`.
fn cache_weights(cache: &Path) {
    let network = NetworkOptions::new("mobilenet_v2_0.5", 2).architecture().unwrap();
    let network = network.init(&device::parse("cpu").unwrap());
    let weights = to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap();
    let snapshot = cache.join("huggingface/hub/models--timm--mobilenetv2_050.lamb_in1k/snapshots/main");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("model.safetensors"), weights).unwrap();
    let config = r#"{"architecture": "mobilenetv2_050", "label_names": ["ant", "bee"],
        "pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;
    std::fs::write(snapshot.join("config.json"), config).unwrap();
}

/// Runs the program in `root` with its own cache and without internet access; returns standard
/// output and standard error.
fn offline(root: &Path, arguments: &[&str]) -> (String, String) {
    let mut command = mbconv();
    for name in ["HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    let command = command.env("XDG_CACHE_HOME", root.join("cache")).env("HF_HUB_OFFLINE", "1");
    let output = command.current_dir(root).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    (stdout, stderr)
}

#[test]
fn every_command_accepts_published_weights_and_architectures() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    cache_weights(&root.join("cache"));
    photos(root);
    tiny_recipe(root);
    let picture = "photos/val/ant/0.png";
    // The name in timm, with and without a tag, and that of the architecture.
    for name in ["timm/mobilenetv2_050", "mobilenetv2_050", "mobilenetv2_050.lamb_in1k"] {
        let (_, stderr) = offline(root, &["predict", name, picture]);
        assert!(stderr.contains("mobilenet_v2_0.5 with 2 classes in timm's layout"), "{stderr}");
        assert_eq!(
            stderr.contains(": published weights timm/mobilenetv2_050.lamb_in1k"),
            !name.contains('/'),
            "{stderr}"
        );
    }
    let name = "timm/mobilenetv2_050";
    offline(root, &["eval", name, "--data", "photos"]);
    offline(root, &["export", name, "a.onnx"]);
    offline(root, &["import", name, "a.safetensors"]);
    offline(root, &["average", name, "a.safetensors", "mean.safetensors"]);
    offline(root, &["fetch", "mobilenetv2_050"]);
    offline(root, &["bench", name, "--seconds", "0.01", "--device", "cpu"]);
    let (info, _) = offline(root, &["info", name]);
    assert!(info.contains("ant, bee"), "{info}");
    let (svg, _) = offline(root, &["draw", name]);
    assert!(svg.contains("mobilenet_v2_0.5"), "{svg}");
    let small = ["--set", "input.size=32", "--set", "batch_size=8", "--device", "cpu"];
    let sweep = ["find-lr", "--weights", name, "--data", "photos", "--steps", "8", "--sweeps", "1"];
    offline(root, &[&sweep[..], &small].concat());
    let distill = ["train", "tiny.toml", "--data", "photos", "--out", "student", "--set", "epochs=1"];
    let teacher = ["--set", "distillation.teacher=timm/mobilenetv2_050"];
    let student = ["--set", "model.name=mobilenetv2_050", "--set", "finetune.weights=mobilenetv2_050"];
    offline(root, &[&distill[..], &teacher, &student, &small].concat());
    // A recipe's network has the name used here.
    let recipe = std::fs::read_to_string(root.join("student/recipe.toml")).unwrap();
    assert!(recipe.contains("name = \"mobilenet_v2_0.5\""), "{recipe}");
}

#[test]
fn finetune_needs_a_model_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    cache_weights(&root.join("cache"));
    photos(root);
    let finetune = ["finetune", "mobilenetv2_050", "photos", "--device", "cpu", "--set", "batch_size=8"];
    let (_, stderr) = offline(root, &[&finetune[..], &["--epochs", "1"]].concat());
    let (_, ending) = stderr.split_once("best model: ").unwrap_or_else(|| panic!("{stderr}"));
    let lines: Vec<&str> = ending.lines().collect();
    assert_eq!(lines[0], "runs/photos-mobilenetv2_050/best.safetensors, epoch 1");
    assert!(lines[1].starts_with("top-1 ") && lines[1].contains(" % (95 % interval "), "{ending}");
    assert!(lines[1].ends_with(") of 16 validation images"), "{ending}");
    for (line, command) in lines[3..].iter().zip(["eval", "predict", "export"]) {
        assert!(line.contains(&format!("mbconv {command} runs/photos-mobilenetv2_050 ")), "{ending}");
    }
    // A second run has a folder of its own, which is the one to resume.
    let (_, stderr) = offline(root, &[&finetune[..], &["--epochs", "1"]].concat());
    assert!(stderr.contains("run folder runs/photos-mobilenetv2_050-2"), "{stderr}");
    let (_, stderr) = offline(root, &[&finetune[..], &["--epochs", "2", "--resume"]].concat());
    assert!(stderr.contains("run folder runs/photos-mobilenetv2_050-2"), "{stderr}");
    let metrics = |run: &str| std::fs::read_to_string(root.join("runs").join(run).join("metrics.csv")).unwrap();
    assert_eq!(metrics("photos-mobilenetv2_050-2").lines().count(), 3);
    assert_eq!(metrics("photos-mobilenetv2_050").lines().count(), 2);
}

#[test]
fn finetune_arguments_are_given_once() {
    for (arguments, words) in [
        (&["a", "b", "--weights", "c"][..], "--weights"),
        (&["a", "b", "--data", "c"], "--data"),
        (&["a"], "DATA"),
        (&["--data", "a"], "MODEL"),
        (&["--weights", "a", "--data", "b", "c"], "--weights"),
    ] {
        let (_, stderr) = run(2, &[&["finetune"][..], arguments].concat());
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
}

#[test]
fn names_of_other_libraries_are_accepted_for_architectures() {
    let named = |name: &str| json(&["info", name, "--json"])["name"].as_str().unwrap().to_string();
    for (theirs, ours) in [
        ("mobilenetv2_100", "mobilenet_v2"),
        ("efficientnet_b0.ra_in1k", "efficientnet_b0"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("efficientnet-b3", "efficientnet_b3"),
        ("mobilenetv2_120d", "mobilenet_v2_120d"),
    ] {
        assert_eq!(named(theirs), ours);
    }
    assert_eq!(run(0, &["draw", "mobilenetv2_035"]).0, run(0, &["draw", "mobilenet_v2_0.35"]).0);
    run(0, &["bench", "mobilenetv2_035", "--input-size", "32", "--seconds", "0.01", "--device", "cpu"]);
}

#[test]
fn misspelled_names_have_suggestions() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    for (command, unknown, suggested) in [
        (&["info", "efficientnet_lite00"][..], "`efficientnet_lite00`", "did you mean `efficientnet_lite0`?"),
        (&["bench", "mobilenetv2_10"], "`mobilenetv2_10`", "did you mean `mobilenetv2_100`?"),
        (&["finetune", "efficentnet_b0", "digits"], "`efficentnet_b0`", "did you mean `efficientnet_b0`?"),
        (
            &["eval", "torchvison/mobilenet_v2", "--data", "digits"],
            "`torchvison/mobilenet_v2`",
            "did you mean `torchvision/mobilenet_v2`?",
        ),
        (&["predict", "timm/mobilenetv2_10", "x.png"], "`timm/mobilenetv2_10`", "did you mean `timm/mobilenetv2_100`?"),
        (
            &["train", path(&recipe), "--set", "model.name=eficientnet_b0"],
            "`eficientnet_b0`",
            "did you mean `efficientnet_b0`?",
        ),
        (
            &["import", path(&trained().join("best.safetensors")), "x.safetensors", "--preprocess", "timm_tff"],
            "timm_tff",
            "'timm_tf'",
        ),
    ] {
        let output = mbconv().args(command).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(unknown) && stderr.contains(suggested),
            "{command:?}: {stderr}"
        );
    }
    let message = error(&["eval", "gone.safetensors", "--data", "digits"]);
    assert!(message.contains("there is no model or architecture `gone.safetensors`"), "{message}");
    for words in ["run folder", ".pth", "mbconv list", "hf:owner/name"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let message = error(&["predict", "mobilenet_v2_0.6", "x.png"]);
    assert!(message.contains("no weights of the architecture `mobilenet_v2_0.6` are published"), "{message}");
}
