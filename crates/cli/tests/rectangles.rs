//! Rectangular images, from training to exports.

mod common;

use std::fs;
use std::path::Path;

use common::{error, json, mbconv, path, run};
use serde_json::json as value;

const RECIPE: &str = r#"
epochs = 2
batch_size = 4
[model]
name = "tf_mobilenet_v2_0.35"
[input]
size = [32, 56]
progressive = { start = 16, stages = 2 }
[mix]
cutmix = 1.0
mixup = 0.2
[augment]
policy = "ta_wide"
[optimizer]
name = "sgd"
learning_rate = 0.05
"#;

/// Writes two classes of wide images with a mark at the left or at the right end, which a center
/// crop would cut off.
fn wide_images(root: &Path) {
    for (class, mark) in [("left", 0..20u32), ("right", 80..100)] {
        for split in ["train", "val"] {
            fs::create_dir_all(root.join(split).join(class)).unwrap();
            for number in 0..6u8 {
                let pixel = |x, y| {
                    if mark.contains(&x) { [250, 40, y as u8] } else { [20 + 9 * number, 90, x as u8] }
                };
                let image = image::RgbImage::from_fn(100, 50, |x, y| image::Rgb(pixel(x, y)));
                image.save(root.join(split).join(class).join(format!("{number}.png"))).unwrap();
            }
        }
    }
}

#[test]
fn rectangles_are_trained_evaluated_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    wide_images(&at("data"));
    fs::write(at("wide.toml"), RECIPE).unwrap();
    let (recipe, data, model) = (at("wide.toml"), at("data"), at("run"));
    let (recipe, data, model) = (path(&recipe), path(&data), path(&model));

    assert!(run(0, &["recipe", "check", recipe]).0.contains("32×56 pixels"));
    let sheet = at("sheet.png");
    run(0, &["data", "inspect", data, "--sheet", path(&sheet), "--recipe", recipe]);
    let (_, log) = run(0, &["train", recipe, "--data", data, "--out", model, "--device", "cpu"]);
    assert!(log.contains("input 32×56 px"), "{log}");
    let info = json(&["info", model, "--json"]);
    assert_eq!((&info["input_size"], &info["preprocess"]["crop"]), (&value!([32, 56]), &value!([32, 56])));
    assert!(run(0, &["info", model]).0.contains("at 32×56 px"));

    let of = |arguments: &[&str]| json(&[arguments, &["--device", "cpu", "--json"]].concat());
    for tta in ["none", "flip", "five-crop", "ten-crop"] {
        assert_eq!(of(&["eval", model, "--data", data, "--tta", tta])["images"], 12, "{tta}");
    }
    let images = at("data/val/left");
    let predictions = of(&["predict", model, path(&images), "--logits"]);
    assert_eq!(predictions.as_array().unwrap().len(), 6);
    let embedded = at("features.csv");
    run(0, &["embed", model, data, "--out", path(&embedded), "--device", "cpu"]);
    let calibrated = at("calibrated.safetensors");
    run(0, &["calibrate", model, "--data", data, "--out", path(&calibrated), "--device", "cpu"]);
    run(0, &["eval", path(&calibrated), "--data", data, "--report", path(&at("report")), "--device", "cpu"]);
    assert!(fs::read_to_string(at("report/report.html")).unwrap().contains("input 32×56 px"));
    // The heatmap covers the image, without a darkened border. It has 1×2 cells.
    let overlay = at("cam.png");
    let cam = of(&["explain", model, path(&at("data/val/left/0.png")), "--out", path(&overlay)]);
    let rows = cam[0]["heatmap"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0].as_array().unwrap().len()), (1, 2));
    assert_eq!(image::open(&overlay).unwrap().to_rgb8().dimensions(), (700, 350));

    run(0, &["export", model, path(&at("model.onnx"))]);
    let (timm, hf) = (at("timm"), at("hf"));
    run(0, &["export", model, path(&timm), "--layout", "timm"]);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(timm.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["pretrained_cfg"]["input_size"], value!([3, 32, 56]));
    assert!(run(0, &["export", model, path(&hf), "--layout", "hf"]).1.contains("keep the aspect ratio"));
    assert_eq!(of(&["predict", path(&timm), path(&images), "--logits"]), predictions);

    // Fine-tuning keeps the shape, and evaluates images of another shape in it.
    let (same, tall) = (at("same"), at("tall"));
    let tune = |out: &Path, setting: &str| {
        run(0, &["finetune", model, data, "--out", path(out), "--epochs", "1", "--set", setting, "--device", "cpu"]);
        json(&["info", path(out), "--json"])["preprocess"]["crop"].clone()
    };
    assert_eq!(tune(&same, "seed=1"), value!([32, 56]));
    assert_eq!(tune(&tall, "input.size=[64,32]"), value!([64, 32]));
}

#[test]
fn squares_are_written_as_numbers() {
    let shown = run(0, &["recipe", "show", "digits", "--resolved"]).0;
    assert!(shown.contains("\nsize = 16\n"), "{shown}");
    assert_eq!(json(&["info", "mobilenet_v2", "--input-size", "96", "--json"])["input_size"], 96);
    assert_eq!(json(&["info", "mobilenet_v2", "--input-size", "96x160", "--json"])["input_size"][1], 160);
}

#[test]
fn wrong_sizes_name_the_key_or_option() {
    for (size, words) in [
        ("0", "`input.size` is 0, but must be between 1 and 8192"),
        ("[0, 32]", "`input.size` is [0, 32]"),
        ("[32, 9000]", "`input.size` is [32, 9000]"),
        ("-5", "expected a size in pixels: a whole number for a square, or [height, width]\nin `input.size`"),
        ("[1, 2, 3]", "invalid length 3"),
        ("'224'", "in `input.size`"),
        ("[32, 16]", "`input.progressive.start` is 24, but must be at most input.size (16)"),
    ] {
        let settings = [format!("input.size={size}"), "input.progressive={start=24}".into()];
        let message = error(&["train", "digits", "--set", &settings[0], "--set", &settings[1]]);
        assert!(message.contains(words), "{size}: {message}");
    }
    let output = mbconv().args(["bench", "mobilenet_v2", "--input-size", "32x"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && message.contains("height and width such as 192x320"), "{message}");
    let wide = "input.size=[64, 96]";
    let message = error(&["scale", "formula", "--phi", "1", "--recipe", "photos_mobilenet_v2", "--set", wide]);
    assert!(message.contains("scaling needs square images, not 64×96"), "{message}");
}
