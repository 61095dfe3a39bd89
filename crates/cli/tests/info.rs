//! `info`, `list`, `devices`, and usage errors.

mod common;

use common::{error, json, run};

#[test]
fn info_prints_parameters_and_size() {
    let (text, _) = run(0, &["info", "mobilenet_v2", "--classes", "10"]);
    assert!(text.contains("2,236,682") && text.contains("8.947 MB"), "{text}");
    let (text, _) = run(0, &["info", "efficientnet_b0", "--classes", "10"]);
    assert!(text.contains("4,020,358") && text.contains("16.081 MB"), "{text}");
}

#[test]
fn info_prints_json() {
    let info = json(&["info", "mobilenet_v2", "--json"]);
    assert_eq!(info["macs"], 300_774_272);
    assert_eq!(info["parameters"], 3_504_872);
    assert_eq!(info["size_bytes"], 4 * 3_504_872);
    assert!(info.get("layers").is_none());
    let info = json(&["info", "mobilenet_v2", "--layers", "--strides", "cifar", "--input-size", "32", "--json"]);
    assert_eq!(info["strides"], serde_json::json!([1, 1, 1, 2, 2, 1, 2, 1]));
    assert_eq!(info["layers"].as_array().unwrap().len(), 17 * 3 - 1 + 3);
}

#[test]
fn info_lists_layers() {
    let (text, _) = run(0, &["info", "efficientnet_b0", "--layers"]);
    assert!(text.contains("blocks.0.squeeze_excitation") && text.contains("32×112×112"), "{text}");
}

#[test]
fn info_accepts_recipes() {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/digits.toml");
    assert_eq!(json(&["info", recipe, "--classes", "10", "--json"])["name"], "mobilenet_v2_0.25");
}

#[test]
fn list_and_devices_print_json() {
    let list = json(&["list", "--json"]);
    let b0 = list.as_array().unwrap().iter().find(|row| row["name"] == "efficientnet_b0").unwrap();
    assert_eq!(b0["parameters"], 5_288_548);
    let (devices, _) = run(0, &["devices"]);
    assert!(devices.lines().any(|line| line.starts_with("cpu") && line.contains("in this build")), "{devices}");
    assert!(devices.contains("`auto` selects"), "{devices}");
    let devices = json(&["devices", "--json"]);
    let kinds = devices["kinds"].as_array().unwrap();
    let kind = |name: &str| kinds.iter().find(|kind| kind["kind"] == name).unwrap();
    assert_eq!(kind("cpu")["compiled"], true);
    assert_eq!(kind("cpu")["present"][0]["name"], "cpu");
    assert_eq!(kind("cuda")["compiled"], cfg!(feature = "cuda"));
    assert!(devices["auto"].is_string() && devices["reason"].is_string());
}

#[test]
fn published_weights_are_listed() {
    let list = json(&["list", "--pretrained", "--json"]);
    let row = |name: &str| list.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(row("torchvision/mobilenet_v2.imagenet1k_v2")["top1"], 0.72154);
    assert_eq!(row("timm/tf_efficientnet_l2.ns_jft_in1k")["resolution"], 800);
    let b0 = row("lukemelas/efficientnet-b0");
    assert!(b0["top1"] == 0.763 && b0["top5"].is_null());
    assert!(row("lukemelas/adv-efficientnet-b8")["top1"].is_null());
    let (text, _) = run(0, &["list", "--pretrained"]);
    assert!(text.contains("hf:google/mobilenet_v2_1.0_224") && text.contains("71.80 %"), "{text}");
}

#[test]
fn unknown_networks_and_files_are_named() {
    assert!(error(&["info", "resnet50"]).contains("there is no model or architecture `resnet50`"));
    assert!(error(&["info", "mobilenet_v2", "--strides", "1,2"]).contains("give 8 numbers"));
    assert!(error(&["info", "gone.safetensors"]).contains("gone.safetensors"));
    assert!(error(&["info", "gone.toml"]).contains("gone.toml"));
}

#[test]
fn wrong_usage_exits_with_2() {
    run(2, &["train"]);
    run(2, &["info", "mobilenet_v2", "--classes", "0"]);
    run(2, &["predict", "model.safetensors"]);
    run(2, &["frobnicate"]);
}
