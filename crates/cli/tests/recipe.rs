//! `recipe`, recipes by name, and short forms of recipe keys.

mod common;

use std::path::Path;

use common::{TINY, error, json, mbconv, path, run, tiny_recipe};

/// Runs the program in `folder` and returns exit status, standard output and standard error.
fn run_in(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = mbconv().current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn recipes_are_listed_and_shown() {
    let (list, _) = run(0, &["recipe", "list"]);
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    assert!(list.starts_with("digits  ") && list.contains("MobileNetV2 on your own photographs"), "{list}");
    let rows = json(&["recipe", "list", "--json"]);
    let digits = &rows[0];
    assert_eq!(digits["name"], "digits");
    assert_eq!(digits["network"], "mobilenet_v2_0.25");
    assert_eq!(digits["data"], "digits");
    assert_eq!(digits["input_size"], 16);

    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/digits.toml");
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(run(0, &["recipe", "show", "digits"]).0, text);
    assert_eq!(run(0, &["recipe", "show", file]).0, text);
    let (resolved, _) = run(0, &["recipe", "show", "digits", "--resolved"]);
    assert!(resolved.contains("seed = 0") && resolved.contains("[checkpoint]"), "{resolved}");
    let message = error(&["recipe", "show", "digts"]);
    assert!(message.contains("did you mean `digits`?") && message.contains("mbconv recipe list"), "{message}");
}

#[test]
fn recipe_is_trained_by_name_in_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = ["--epochs", "1", "--set", "model.name=mobilenet_v2_0.1", "--device", "cpu"];
    let (status, _, stderr) = run_in(folder.path(), &[&["train", "digits"], &tiny[..]].concat());
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("run folder runs/digits"), "{stderr}");
    assert!(folder.path().join("runs/digits/best.safetensors").is_file());

    // The path of the same recipe continues the run.
    let text = run(0, &["recipe", "show", "digits"]).0;
    std::fs::create_dir(folder.path().join("configs")).unwrap();
    std::fs::write(folder.path().join("configs/digits.toml"), text).unwrap();
    for recipe in ["digits", "configs/digits.toml"] {
        let (status, _, stderr) =
            run_in(folder.path(), &["train", recipe, "--resume", "--epochs", "1", "--device", "cpu"]);
        assert_eq!(status, 0, "{stderr}");
        assert!(stderr.contains("run folder runs/digits\n"), "{stderr}");
    }

    // An existing file takes precedence over a name, and a run folder is a recipe.
    std::fs::write(folder.path().join("digits"), "epochs = \"many\"").unwrap();
    let (status, _, stderr) = run_in(folder.path(), &["train", "digits"]);
    assert!(status == 1 && stderr.contains("many"), "{stderr}");
    let (status, resolved, _) = run_in(folder.path(), &["recipe", "show", "runs/digits"]);
    assert!(status == 0 && resolved.contains("mobilenet_v2_0.1"), "{resolved}");

    let message = error(&["train", "digitz"]);
    assert!(message.contains("no recipe `digitz`") && message.contains("did you mean `digits`?"), "{message}");
}

#[test]
fn other_commands_take_recipe_names() {
    let info = json(&["info", "cifar10_proxy", "--json"]);
    assert_eq!(info["name"], "efficientnet_b0");
    assert_eq!(info["width"], 0.25);
    assert!(run(0, &["draw", "digits"]).0.starts_with("<svg"));
    let scaled = json(&["scale", "formula", "--base", "cifar10_proxy", "--phi", "1", "--json"]);
    assert!(scaled.to_string().contains("efficientnet_b0"), "{scaled}");
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("lr.svg");
    let arguments = ["find-lr", "digits", "--steps", "3", "--sweeps", "1", "--batch-size", "8", "--out", path(&svg)];
    run(0, &[&arguments[..], &["--device", "cpu"]].concat());
    assert!(svg.is_file());
}

#[test]
fn keys_are_described() {
    let (all, _) = run(0, &["recipe", "keys"]);
    assert!(all.lines().all(|line| line.chars().count() <= 80), "{all}");
    for key in ["epochs", "model.table.stages.channels", "input.size", "augment.erasing.count", "finetune.freeze"] {
        assert!(all.lines().any(|line| line.split(' ').next() == Some(key)), "{key}: {all}");
    }
    let (optimizer, _) = run(0, &["recipe", "keys", "optimizer"]);
    assert!(optimizer.starts_with("[optimizer]  The optimizer and gradient clipping.\n"), "{optimizer}");
    assert!(optimizer.contains("optimizer.momentum = 0.9  (number, at least 0 and below 1)"), "{optimizer}");
    assert!(optimizer.contains("    \"sgd\": SGD as in PyTorch, without dampening.\n"), "{optimizer}");
    assert!(!optimizer.contains("[schedule]"), "{optimizer}");
    let (rate, _) = run(0, &["recipe", "keys", "optimizer.learning_rate"]);
    assert!(rate.contains("optimizer.learning_rate  (number, above 0, required)"), "{rate}");
    let keys = json(&["recipe", "keys", "sampling", "--json"]);
    assert_eq!(keys[0]["default"], "once");
    assert_eq!(keys[0]["choices"][1]["value"], "{ repeated = N }");
    for (misspelled, hint) in [
        ("optimiser", "did you mean `optimizer`?"),
        ("optimizer.learning_rat", "did you mean `optimizer.learning_rate`?"),
        ("learning_rate", "did you mean `optimizer.learning_rate`?"),
        ("xyz", "the sections are model, "),
    ] {
        let message = error(&["recipe", "keys", misspelled]);
        assert!(message.contains(hint), "{misspelled}: {message}");
    }
}

#[test]
fn documented_keys_are_current() {
    let page = include_str!("../../../docs/recipes.md");
    let (current, _) = run(0, &["recipe", "keys", "--markdown"]);
    for (line, documented) in current.lines().zip(page.lines()) {
        assert_eq!(line, documented, "write docs/recipes.md with `just recipe-keys`");
    }
    assert_eq!(current.len(), page.len());
}

#[test]
fn recipes_are_checked_without_training() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_recipe(folder.path());
    let (text, _) = run(0, &["recipe", "check", path(&recipe), "digits", "imagenet_efficientnet_b0"]);
    assert!(text.contains("tiny.toml: OK") && text.contains("digits: OK"), "{text}");
    assert!(text.contains("mobilenet_v2_0.1, 8×8 pixels, total stride 4"), "{text}");
    assert!(text.contains("learning rate 0.128") && text.contains("set by --data"), "{text}");

    let invalid = folder.path().join("invalid.toml");
    for (from, to, expected) in [
        ("learning_rate = 0.1", "learning_rate = -1", "line 17: the recipe's `optimizer.learning_rate` is -1"),
        ("padding = 1", "pading = 1", "did you mean `input.padding`?"),
        ("padding = 1", "padding = ", "line 13"),
        ("mobilenet_v2_0.1", "vgg", "unknown architecture `vgg`"),
    ] {
        std::fs::write(&invalid, TINY.replace(from, to)).unwrap();
        let (text, stderr) = run(1, &["recipe", "check", path(&invalid), path(&recipe)]);
        assert!(stderr.contains(expected) && stderr.contains("invalid.toml"), "{expected}: {stderr}");
        assert!(text.contains("tiny.toml: OK"), "{text}");
    }
    let piped = mbconv().args(["recipe", "check", "-"]).write_stdin(TINY).output().unwrap();
    assert!(piped.status.success());
    assert!(String::from_utf8_lossy(&piped.stdout).contains("standard input: OK"));
}

#[test]
fn schema_describes_the_recipe() {
    let schema = json(&["recipe", "schema"]);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let rate = &schema["properties"]["optimizer"]["properties"]["learning_rate"];
    assert_eq!(rate["exclusiveMinimum"], 0);
    assert_eq!(schema["additionalProperties"], false);
    assert!(!schema.to_string().contains("null"), "{schema}");
}

#[test]
fn short_forms_set_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, out) = (tiny_recipe(folder.path()), folder.path().join("run"));
    let short = ["--epochs", "1", "--lr", "0.05", "--batch-size", "32", "--device", "cpu"];
    run(0, &[&["train", path(&recipe), "--out", path(&out)], &short[..]].concat());
    let resolved = std::fs::read_to_string(out.join("recipe.toml")).unwrap();
    for line in ["epochs = 1", "learning_rate = 0.05", "batch_size = 32"] {
        assert!(resolved.lines().any(|found| found == line), "{line}: {resolved}");
    }
    let (_, message) = run(2, &["train", path(&recipe), "--set", "optimizer.learning_rate=0.1", "--lr", "0.2"]);
    assert!(message.contains("--lr 0.2 and --set optimizer.learning_rate=0.1 set the same key"), "{message}");
    let tuned = folder.path().join("tuned");
    let arguments = ["finetune", "--weights", path(&out), "--data", "digits", "--out", path(&tuned)];
    run(0, &[&arguments[..], &["--epochs", "1", "--lr", "0.002", "--batch-size", "64", "--device", "cpu"]].concat());
    let resolved = std::fs::read_to_string(tuned.join("recipe.toml")).unwrap();
    assert!(resolved.contains("learning_rate = 0.002") && resolved.contains("batch_size = 64"), "{resolved}");
}
