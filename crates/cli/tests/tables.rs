//! Columns and folders of a table, named on the command line and in recipes; lists of class names
//! in other encodings.

mod common;

use std::fs;
use std::path::Path;

use mbconv_nets::weights::{Precision, to_safetensors_in};
use mbconv_nets::{Layout, NetworkOptions};
use mbconv_train::device;

use common::{error, image_folder, json, path, run, tiny_recipe};

/// A table whose labels and image folder cannot be guessed: `left/` and `right/` hold the same
/// names.
fn table(root: &Path) -> String {
    image_folder(root, &["left", "right"], 12);
    let row = |n: usize| format!("{n},{},{},{}\n", ["cat", "dog"][n % 2], n % 3, n / 2 % 3);
    let rows: String = (0..12).map(row).collect();
    fs::write(root.join("t.csv"), format!("id,animal,age,fold\n{rows}")).unwrap();
    root.join("t.csv").to_str().unwrap().into()
}

#[test]
fn every_command_takes_options_after_the_path() {
    let root = tempfile::tempdir().unwrap();
    let file = table(root.path());
    let refused = error(&["data", "inspect", &file]);
    assert!(
        refused.contains("recognized as labels; columns: id, animal, age, fold") && refused.contains("label=COLUMN"),
        "{refused}"
    );
    let refused = error(&["data", "inspect", &format!("{file}?label=animal")]);
    assert!(refused.contains("image folder may be") && refused.contains("images=FOLDER"), "{refused}");
    assert!(
        error(&["data", "inspect", &format!("{file}?animal=label")])
            .contains("\"animal=label\" is not a data-set option")
    );

    let data = format!("{file}?label=animal&images=left");
    let found = json(&["data", "inspect", &data, "--json"]);
    assert_eq!((&found["images"], &found["splits"]["val"]["images"]), (&12.into(), &4.into()));
    run(0, &["data", "verify", &data, "--few", "1"]);
    let out = root.path().join("packed");
    run(0, &["data", "pack", &data, path(&out), "--format", "wds"]);
    assert_eq!(fs::read_to_string(out.join("classes.txt")).unwrap(), "cat\ndog\n");
    let lists = root.path().join("lists");
    run(0, &["data", "split", &format!("{data}&fold=1"), path(&lists), "--list", "--pool"]);
    assert!(lists.join("train.csv").is_file());
}

#[test]
fn recipes_name_columns_and_eval_uses_them() {
    let root = tempfile::tempdir().unwrap();
    let file = table(root.path());
    let recipe = tiny_recipe(root.path());
    let out = root.path().join("run");
    let mut train = vec!["train", path(&recipe), "--data", &file, "--out", path(&out), "--device", "cpu"];
    for set in ["epochs=1", "batch_size=4", "data.label_column=animal", "data.image_folder=left", "data.fold=2"] {
        train.extend(["--set", set]);
    }
    let (_, log) = run(0, &train);
    assert!(log.contains("fold 2 of column \"fold\" is used for validation"), "{log}");
    let of_run = json(&["eval", path(&out), "--data", &file, "--json"]);
    assert_eq!((&of_run["images"], &of_run["split"]), (&4.into(), &"val".into()));
    let other = json(&["eval", path(&out), "--data", &format!("{file}?images=right&fold=0"), "--json"]);
    assert_eq!(other["images"], 4);
}

#[test]
fn lists_of_class_names_are_decoded_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let [names, file, out] =
        ["names.txt", "weights.safetensors", "model.safetensors"].map(|name| root.path().join(name));
    let architecture = NetworkOptions::new("mobilenet_v2_0.1", 2).architecture().unwrap();
    let network = architecture.init(&device::parse("cpu").unwrap());
    fs::write(&file, to_safetensors_in(&network, Layout::Timm, Precision::F32, None).unwrap()).unwrap();
    fs::write(&names, b"\xea\xee\xf2\n\xef\xb8\xf1\n").unwrap();
    let import = ["import", path(&file), path(&out), "--classes", path(&names)];
    let refused = error(&import);
    assert!(refused.contains("line 1 looks like WINDOWS-1251") && refused.contains("iconv"), "{refused}");
    let utf16: Vec<u8> = "\u{feff}кот\r\nпёс\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(&names, utf16).unwrap();
    run(0, &import);
    let (info, _) = run(0, &["info", path(&out), "--json"]);
    assert!(info.contains("пёс"), "{info}");
}
