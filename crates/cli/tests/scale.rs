//! `scale`, `draw`, and stage tables in all commands.

mod common;

use std::path::Path;

use common::{TINY, error, image_folder, json, path, run};

/// A small network for the digits, unlike the named ones.
const POCKET: &str = r#"
name = "pocket"
stem = 8
stem_stride = 1
head = 48
resolution = 8
activation = "relu6"
squeeze_divisor = 2

[[stages]]
channels = 8
kernel = 5

[[stages]]
expansion = 2
stride = 2
channels = 16
repeats = 2

[[stages]]
expansion = 2
stride = 2
channels = 24
fused = true
"#;

fn pocket(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("pocket.toml");
    std::fs::write(&file, POCKET).unwrap();
    file
}

#[test]
fn stage_tables_work_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let table = pocket(folder.path());
    let info = json(&["info", path(&table), "--classes", "10", "--json"]);
    assert_eq!((info["name"].as_str(), info["input_size"].as_u64()), (Some("pocket"), Some(8)));
    // The model file contains the network, so the table is not needed after training.
    let recipe = folder.path().join("recipe.toml");
    let text = TINY.replace("name = \"mobilenet_v2_0.1\"", "table = \"pocket.toml\"");
    std::fs::write(&recipe, text.replace("strides = [1, 1, 2, 2, 1, 1, 1, 1]", "").replace("epochs = 2", "epochs = 1"))
        .unwrap();
    let out = folder.path().join("run");
    run(0, &["train", path(&recipe), "--out", path(&out), "--device", "cpu"]);
    std::fs::remove_file(&table).unwrap();
    let trained = json(&["info", path(&out), "--json"]);
    for key in ["name", "parameters", "macs", "strides"] {
        assert_eq!(trained[key], info[key], "{key}");
    }
    let eval = json(&["eval", path(&out), "--data", "digits", "--device", "cpu", "--json"]);
    assert!(eval["top1"].as_f64().is_some());
    for file in ["pocket.onnx", "pocket.bpk", "pocket.safetensors"] {
        run(0, &["export", path(&out), path(&folder.path().join(file))]);
    }
    assert_eq!(json(&["info", path(&folder.path().join("pocket.safetensors")), "--json"])["macs"], info["macs"]);
    // Fine-tuning accepts the model.
    let photos = folder.path().join("photos");
    image_folder(&photos, &["red", "blue"], 8);
    let tuned = folder.path().join("tuned");
    let weights = out.join("best.safetensors");
    run(
        0,
        &[
            "finetune",
            "--weights",
            path(&weights),
            "--data",
            path(&photos),
            "--out",
            path(&tuned),
            "--epochs",
            "1",
            "--device",
            "cpu",
        ],
    );
    assert_eq!(json(&["info", path(&tuned), "--json"])["name"], "pocket");
    run(0, &["bench", path(&tuned), "--seconds", "0.01", "--device", "cpu"]);
}

#[test]
fn invalid_stage_tables_are_errors_that_name_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    let table = path(&file);
    for (from, to, words) in [
        ("channels = 16", "channels = 0", "stage 2 of the table: `channels` is 0"),
        ("kernel = 5", "kernel = 4", "stage 1 of the table: `kernel` is 4, but must be odd"),
        ("resolution = 8", "resolution = 2", "stage 3 has stride 2, but its input is 1×1 pixels"),
        ("kernel = 5", "kernle = 5", "unknown field `kernle`"),
        ("\"relu6\"", "\"gelu\"", "gelu"),
    ] {
        std::fs::write(&file, POCKET.replacen(from, to, 1)).unwrap();
        for command in [&["info", table][..], &["draw", table], &["scale", "formula", "--base", table]] {
            let error = error(command);
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}

#[test]
fn formula_lists_published_networks_and_their_differences() {
    let rows = json(&["scale", "formula", "--phi", "1..7", "--json"]);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[0]["published"]["name"], "efficientnet_b1");
    assert_eq!(rows[6]["published"]["parameters"], 66_347_960);
    let (text, _) = run(0, &["scale", "formula", "--phi", "1..7"]);
    assert!(text.contains("published instead of formula: depth 1.100 for 1.200, width 1.000 for 1.100"), "{text}");
    let (text, _) = run(0, &["scale", "formula", "--phi", "1", "--alpha", "1.3"]);
    assert!(!text.contains("published"), "{text}");
    let (text, _) = run(0, &["scale", "formula", "--base", "efficientnet_lite0", "--phi", "0.5"]);
    assert!(text.contains("compound_phi0.5"), "{text}");
}

#[test]
fn written_recipes_train() {
    let folder = tempfile::tempdir().unwrap();
    let table = pocket(folder.path());
    let template = common::tiny_recipe(folder.path());
    let out = folder.path().join("scaled");
    let rows = json(&[
        "scale",
        "formula",
        "--base",
        path(&table),
        "--recipe",
        path(&template),
        "--set",
        "epochs=1",
        "--phi",
        "0,1",
        "--classes",
        "10",
        "--out",
        path(&out),
        "--json",
    ]);
    let parameters = |row: usize| rows[row]["parameters"].as_u64().unwrap();
    assert!(parameters(1) > parameters(0));
    let recipe = out.join("compound_phi1.toml");
    assert_eq!(rows[1]["recipe"], path(&recipe));
    let info = json(&["info", path(&recipe), "--classes", "10", "--json"]);
    assert_eq!((&info["parameters"], &info["macs"]), (&rows[1]["parameters"], &rows[1]["macs"]));
    run(0, &["train", path(&recipe), "--out", path(&folder.path().join("run")), "--device", "cpu"]);
    assert_eq!(json(&["info", path(&folder.path().join("run")), "--json"])["parameters"], rows[1]["parameters"]);
}

#[test]
fn budget_returns_the_largest_network_within_the_limits() {
    let fit = json(&["scale", "budget", "--target-macs", "1G", "--json"]);
    let macs = fit["macs"].as_u64().unwrap();
    assert!(macs <= 1_000_000_000 && macs > 900_000_000, "{macs}");
    let fit = json(&[
        "scale",
        "budget",
        "--base",
        "mobilenet_v2",
        "--target-params",
        "5M",
        "--target-size",
        "18MB",
        "--json",
    ]);
    assert!(fit["size_bytes"].as_u64().unwrap() <= 18_000_000);
    let spent: f64 = ["depth", "width", "resolution"].iter().map(|key| fit["spent"][key].as_f64().unwrap()).product();
    assert!(spent > 1.0);
    let (text, _) = run(0, &["scale", "budget", "--target-macs", "200M", "--only", "width"]);
    assert!(text.contains("depth       ×1.000: MACs ×1.000"), "{text}");
    assert!(error(&["scale", "budget", "--target-params", "1k"]).contains("no network that small"));
    let folder = tempfile::tempdir().unwrap();
    let table = pocket(folder.path());
    let fit =
        json(&["scale", "budget", "--base", path(&table), "--target-latency", "3ms", "--device", "cpu", "--json"]);
    assert!(fit["latency_ms"].as_f64().unwrap() <= 3.0);
}

#[test]
fn search_trains_the_grid_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = common::tiny_recipe(folder.path());
    let out = folder.path().join("search");
    let count = json(&["scale", "search", "--step", "0.4", "--tolerance", "0.2", "--json"]).as_array().unwrap().len();
    let arguments = [
        "scale",
        "search",
        "--step",
        "0.4",
        "--tolerance",
        "0.2",
        "--run",
        path(&recipe),
        "--data",
        "digits",
        "--share",
        "0.2",
        "--set",
        "epochs=1",
        "--out",
        path(&out),
        "--device",
        "cpu",
        "--json",
    ];
    let trials = json(&arguments);
    assert_eq!(trials.as_array().unwrap().len(), count);
    assert!(trials[0]["top1"].as_f64() >= trials[1]["top1"].as_f64());
    assert!(out.join("search.svg").is_file() && out.join("search.csv").is_file());
    let started = std::time::Instant::now();
    assert_eq!(json(&arguments), trials, "complete runs are not trained again");
    assert!(started.elapsed().as_secs() < 30);
    let mut other = arguments;
    *other.iter_mut().find(|argument| **argument == "epochs=1").unwrap() = "epochs=2";
    assert!(error(&other).contains("begun with `epochs` = 1"));
}

#[test]
fn layers_are_printed_as_csv_and_drawn_as_svg() {
    let (csv, _) = run(0, &["info", "efficientnet_b0", "--csv"]);
    assert_eq!(
        csv.lines().count(),
        1 + json(&["info", "efficientnet_b0", "--layers", "--json"])["layers"].as_array().unwrap().len()
    );
    assert!(csv.contains("stem,convolution 3x3 /2,3,224,224,32,112,112,928,10838016,1605632,3"), "{csv}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b0.svg");
    run(0, &["draw", "efficientnet_b0", "--out", path(&file)]);
    assert!(std::fs::read_to_string(&file).unwrap().contains("MBConv6 ×4"));
    let (chart, _) = run(0, &["draw", "--chart"]);
    assert!(chart.contains("ImageNet top-1") && chart.contains("xmlns"));
    run(2, &["draw"]);
}

#[test]
fn short_form_and_subcommands_give_the_same_results() {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/cifar10_proxy.toml");
    let forms: [(&[&str], &[&str]); 8] = [
        (&[], &["formula"]),
        (&["--phi", "0..2"], &["formula", "--phi", "0..2"]),
        (
            &["--phi", "1", "--alpha", "1.3", "--classes", "10"],
            &["formula", "--phi", "1", "--alpha", "1.3", "--classes", "10"],
        ),
        (&["--only", "depth,width", "--phi", "-1"], &["formula", "--only", "depth,width", "--phi", "-1"]),
        (&["--target-macs", "600M"], &["budget", "--target-macs", "600M"]),
        (&["--target-params", "8M", "--only", "width"], &["budget", "--target-params", "8M", "--only", "width"]),
        (&["--grid", "--step", "0.2"], &["search", "--step", "0.2"]),
        (&["--recipe", recipe, "--base", recipe, "--phi", "1"], &["formula", "--base", recipe, "--phi", "1"]),
    ];
    for (short, long) in forms {
        let results = |arguments: &[&str]| json(&[&["scale"], arguments, &["--json"]].concat());
        assert_eq!(results(short), results(long), "{long:?}");
    }
}

#[test]
fn short_form_trains_with_run() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = common::tiny_recipe(folder.path());
    let out = folder.path().join("search");
    let options = ["--run", path(&recipe), "--data", "digits", "--share", "0.2", "--set", "epochs=1"];
    let options = [&options[..], &["--out", path(&out), "--device", "cpu", "--json"]].concat();
    // Without --grid or --phi, the network of φ = 1.
    let trials = json(&[&["scale"], &options[..]].concat());
    assert_eq!((trials.as_array().unwrap().len(), &trials[0]["name"]), (1, &"compound_phi1".into()));
    assert_eq!(json(&[&["scale", "search", "--phi", "1"], &options[..]].concat()), trials);
}

#[test]
fn invalid_usage_is_rejected() {
    for arguments in [
        &["scale", "--alpha", "0"][..],
        &["scale", "--target-macs", "many"],
        &["scale", "--grid", "--phi", "1"],
        &["scale", "--grid", "--only", "depth"],
        &["scale", "--grid", "--alpha", "1.3"],
        &["scale", "--target-macs", "1G", "--phi", "1"],
        &["scale", "--only", "depth", "--beta", "1.2"],
        &["scale", "--run", "x.toml"],
        &["scale", "--share", "0.5"],
        &["scale", "--phi", "1", "formula"],
        &["scale", "formula", "--target-macs", "1G"],
        &["scale", "formula", "--grid"],
        &["scale", "budget"],
        &["scale", "budget", "--target-macs", "1G", "--phi", "1"],
        &["scale", "budget", "--target-macs", "many"],
        &["scale", "search", "--run", "x.toml"],
        &["scale", "search", "--share", "0.5"],
        &["scale", "search", "--alpha", "1.3"],
        &["scale", "optimum"],
    ] {
        run(2, arguments);
    }
    assert!(error(&["scale", "--phi", "soon"]).contains("invalid φ in `--phi soon`"));
    assert!(error(&["scale", "search", "--step", "0"]).contains("`step` is 0"));
    assert!(error(&["scale", "formula", "--base", "resnet50"]).contains("resnet50"));
    assert!(error(&["scale", "formula", "--phi", "20"]).contains("`depth` is 38"));
    let twice = ["scale", "budget", "--target-macs", "1G", "--only", "depth", "--only", "width"];
    assert!(error(&twice).contains("--only once"));
}

#[test]
fn help_lists_subcommands_and_their_flags() {
    let (help, _) = run(0, &["scale", "--help"]);
    for name in ["formula", "budget", "search"] {
        assert!(help.contains(name), "{help}");
    }
    assert!(!help.contains("--alpha") && !help.contains("--tolerance"), "{help}");
    for (command, flags, absent) in [
        ("formula", &["--phi", "--only", "--alpha"][..], &["--target-macs", "--run", "--device"][..]),
        ("budget", &["--target-macs", "--target-latency", "--device"], &["--phi", "--run", "--step"]),
        ("search", &["--step", "--run", "--seeds", "--phi"], &["--target-macs"]),
    ] {
        let (help, _) = run(0, &["scale", command, "--help"]);
        assert!(flags.iter().all(|flag| help.contains(flag)), "{help}");
        assert!(!absent.iter().any(|flag| help.contains(&format!("      {flag}"))), "{help}");
    }
}
