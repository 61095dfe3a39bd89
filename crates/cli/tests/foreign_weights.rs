//! Weights of other projects: another number of channels or of classes, names that are asked for, what is said of them in and
//! out, and files that are none.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{error, image_folder, json, mbconv, path, run, tiny_recipe, trained};
use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{ArchitectureOptions, Layout};
use mbconv_train::device;

/// Freshly drawn weights in timm's layout, without a word of what they are.
fn weights(name: &str, classes: usize) -> Vec<u8> {
    let network = ArchitectureOptions::new(name, classes).architecture().unwrap().init(&device::parse("cpu").unwrap());
    to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn grey_networks_see_grey() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "weights.safetensors", &weights("mobilenet_v2_0.1", 4));
    let model = folder.path().join("grey.safetensors");
    let (_, stderr) = run(0, &["import", path(&file), path(&model), "--input-channels", "1"]);
    assert!(stderr.contains("the stem's weights are summed, for 1 input channel instead of 3"), "{stderr}");
    let info = run(0, &["info", path(&model)]).0;
    assert!(info.contains("preprocessing grey, resize 256 (bicubic)"), "{info}");

    // Colour that weighs as much as a grey is that grey.
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for (name, pixel) in [("colour.png", [10, 100, 50]), ("grey.png", [67, 67, 67]), ("white.png", [255; 3])] {
        image::RgbImage::from_pixel(40, 30, image::Rgb(pixel)).save(pictures.join(name)).unwrap();
    }
    image::GrayImage::from_pixel(40, 30, image::Luma([67])).save(pictures.join("luma.png")).unwrap();
    let logits = |model: &Path| {
        let found = json(&["predict", path(model), path(&pictures), "--logits", "--json"]);
        found.as_array().unwrap().iter().map(|row| row["logits"].clone()).collect::<Vec<_>>()
    };
    let [colour, grey, luma, white] = &logits(&model)[..] else { panic!("four pictures") };
    assert!(colour == grey && grey == luma && grey != white);

    // Written for others and read again, it is the same.
    let timm = folder.path().join("timm.safetensors");
    run(0, &["export", path(&model), path(&timm), "--layout", "timm"]);
    assert_eq!(logits(&timm), logits(&model));
    let onnx = folder.path().join("grey.onnx");
    run(0, &["export", path(&model), path(&onnx), "--with-preprocessing"]);

    // It is evaluated and trained on pictures of any colour.
    let data = folder.path().join("data");
    for split in ["train", "val"] {
        image_folder(&data.join(split), &["a", "b"], 8);
    }
    let out = folder.path().join("run");
    let finetune = ["finetune", "--weights", path(&file), "--input-channels", "1", "--data", path(&data)];
    let small = ["--set", "input.size=32", "--set", "input.eval_size=32", "--set", "input.eval_resize=32"];
    let (_, stderr) =
        run(0, &[&finetune[..], &["--out", path(&out), "--epochs", "1", "--device", "cpu"], &small].concat());
    // Once, and for later.
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    for text in [&stderr, &log] {
        for line in [
            &*format!("begins with {}", path(&file)),
            "mobilenet_v2_0.1 with 4 classes in timm's layout",
            "the stem's weights are summed, for 1 input channel instead of 3",
            "the classifier is new, for the data's 2 classes instead of the model's 4",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}: {text}");
        }
    }
    assert_eq!(json(&["eval", path(&out), "--data", path(&data), "--json"])["images"], 16);
    let info = run(0, &["info", path(&out)]).0;
    assert!(info.contains("preprocessing grey, resize 32"), "{info}");
}

#[test]
fn pictures_have_one_channel_or_three() {
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
        assert!(message.contains('7') && message.contains("3 ") && message.contains("grey"), "{message}");
    }
    // Programs that have such images can have the network.
    let onnx = folder.path().join("seven.onnx");
    run(0, &["export", path(&model), path(&onnx)]);
    let message = error(&["export", path(&model), path(&onnx), "--with-preprocessing"]);
    assert!(message.contains("not of 7") && message.contains("hint: "), "{message}");
    assert!(error(&["import", path(&file), path(&model), "--input-channels", "1000000"]).contains("input_channels"));
    run(2, &["import", path(&file), path(&model), "--input-channels", "0"]);
}

#[test]
fn what_shapes_leave_open_can_be_said_to_finetune_too() {
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
    assert!(message.contains("weights.safetensors may be efficientnet_b0's or tf_efficientnet_b0's"), "{message}");
    assert!(message.contains("hint: `--arch tf_efficientnet_b0`"), "{message}");
    run(0, &words(&finetune(&["--arch", "tf_efficientnet_b0", "--device", "cpu"])));
    let info = json(&["info", path(&out), "--json"]);
    assert_eq!(info["name"], "tf_efficientnet_b0");
}

#[test]
fn training_says_what_becomes_of_the_weights_it_begins_with() {
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
        assert!(text.contains(&format!("begins with {}", path(&model))), "{text}");
        assert!(text.contains("the classifier is the model's"), "{text}");
    }
}

#[test]
fn files_of_other_programs_lead_to_import() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/tests/fixtures/import");
    let timms = write(folder.path(), "timm.safetensors", &weights("mobilenet_v2_0.1", 2));
    let zip = write(folder.path(), "zip.pth", &fs::read(fixtures.join("zip.pth")).unwrap());
    let legacy = write(folder.path(), "legacy.pth", &fs::read(fixtures.join("legacy.pth")).unwrap());
    for file in [timms, zip, legacy] {
        let out = folder.path().join("out.onnx");
        for command in [
            &["predict", path(&file), "x.png"][..],
            &["eval", path(&file), "--data", "digits"],
            &["export", path(&file), path(&out)],
            &["info", path(&file)],
        ] {
            let message = error(command);
            assert!(message.contains(&format!("hint: `mbconv import {} MODEL.safetensors`", path(&file))), "{message}");
        }
    }
}

#[test]
fn exports_say_what_their_home_computes_otherwise() {
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
    let told = export(&tensorflows, "torchvision");
    assert!(
        told.contains("note: torchvision's efficientnet_b0 pads symmetrically, this network as TensorFlow"),
        "{told}"
    );
    assert!(told.contains("note: batch-norm's epsilon is 0.00001") && told.contains("eps = 0.001"), "{told}");
    assert!(!export(&tensorflows, "timm").contains("note: "));
    // Who asks for nobody's keys is told nothing.
    assert!(!run(0, &["export", path(&tensorflows), path(&out), "--dtype", "f16"]).1.contains("note: "));
    assert!(!export(&model("mobilenet_v2_0.35"), "torchvision").contains("note: "));
    // The tiny recipe has strides of its own.
    let told = export(trained(), "timm");
    assert!(told.contains("note: timm has no network like mobilenet_v2_0.1"), "{told}");
    let told = export(trained(), "torchvision");
    assert!(told.contains("[1, 1, 2, 2, 1, 1, 1, 1] in this network"), "{told}");
}

/// A zip file of one file, stored or said to be compressed by `method`; `size` is what it claims to unpack to.
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
fn hostile_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../train/tests/fixtures/import").join(name)).unwrap()
    };
    let whole = weights("mobilenet_v2_0.1", 2);
    let replaced = |from: &str, to: &str| {
        let text: Vec<u8> = whole.clone();
        let at = text.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat()
    };
    // The last tensor's last float; its batch counters stand before it.
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
        ("page.pth", b"<!DOCTYPE html><html><body>Not Found</body></html>".to_vec(), "neither"),
        (
            "cut.pth",
            {
                let bytes = fixture("zip.pth");
                bytes[..bytes.len() * 2 / 3].to_vec()
            },
            "cut short",
        ),
        (
            "cut_legacy.pth",
            {
                let bytes = fixture("legacy.pth");
                bytes[..bytes.len() * 2 / 3].to_vec()
            },
            "ends within",
        ),
        ("cut.safetensors", whole[..whole.len() / 2].to_vec(), "not a whole safetensors file"),
        ("huge.safetensors", huge, "not a whole safetensors file"),
        ("bomb.pth", zip("archive/data.pkl", &[0; 64], 8, u32::MAX - 1), "compressed"),
        ("lie.pth", zip("archive/data.pkl", &[0; 64], 0, u32::MAX - 1), "compressed"),
        ("shell.pth", zip("archive/data.pkl", shell.as_bytes(), 0, shell.len() as u32), "state_dict()"),
        ("shell.pickle", shell.clone().into_bytes(), "neither"),
        ("nan.safetensors", nan, "not finite"),
        ("negative.safetensors", negative, "`bn1.running_var` has a negative value"),
        ("whole_numbers.safetensors", replaced("\"F32\"", "\"I32\""), "whole numbers"),
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
        a_pipe_is_not_waited_for(folder.path(), &whole);
        paths_need_not_be_text(folder.path(), &whole);
    }
}

/// Nobody writes into it: who opens it waits for ever.
#[cfg(unix)]
fn a_pipe_is_not_waited_for(folder: &Path, weights: &[u8]) {
    let model = folder.join("model.safetensors");
    run(0, &["import", path(&write(folder, "weights.safetensors", weights)), path(&model)]);
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (pipe, out) = (path(&pipe), folder.join("run"));
    for command in [
        &["import", pipe, path(&out)][..],
        &["finetune", "--weights", pipe, "--data", "digits", "--out", path(&out)],
        &["info", pipe],
        &["export", pipe, path(&out)],
        &["predict", pipe, "x.png"],
        &["predict", path(&model), pipe],
    ] {
        let output = mbconv().args(command).timeout(std::time::Duration::from_secs(60)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains("error: ") && stderr.contains(pipe), "{command:?}: {stderr}");
    }
}

/// Bytes that are no UTF-8, as old archives have them in their names.
#[cfg(target_os = "linux")]
fn paths_need_not_be_text(folder: &Path, weights: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let file = folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9.safetensors"));
    fs::write(&file, weights).unwrap();
    let out = folder.join("imported.safetensors");
    assert!(mbconv().arg("import").arg(&file).arg(&out).output().unwrap().status.success());
    assert!(out.is_file());
    // A recipe is text.
    let run = folder.join("run");
    let finetune = ["--data", "digits", "--out", path(&run)];
    let output = mbconv().args(["finetune", "--weights"]).arg(&file).args(finetune).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("caf\\xE9.safetensors") && stderr.contains("is not UTF-8"), "{stderr}");
}

#[cfg(all(unix, not(target_os = "linux")))]
fn paths_need_not_be_text(_: &Path, _: &[u8]) {}

/// A file that is larger than the machine's memory, made of a hole.
#[test]
#[cfg(target_os = "linux")]
fn endless_files_take_no_memory() {
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
