//! `mbconv predict`: inputs, outputs, and unreadable files.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{error, image_folder, json, path, run, trained};
use serde_json::Value;

/// Writes two classes of three images, a text file, and a hidden file.
fn photos() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a", "b"], 3);
    fs::write(folder.path().join("a/notes.txt"), "notes").unwrap();
    fs::write(folder.path().join("a/._0.png"), "not an image").unwrap();
    folder
}

/// Writes the first half of an image.
fn truncated(file: &Path) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 99]));
    image.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let bytes = bytes.into_inner();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

/// Returns the paths of results, relative to `root`.
fn paths(results: &Value, root: &Path) -> Vec<String> {
    let relative = |result: &Value| {
        let path = PathBuf::from(result["path"].as_str().unwrap());
        path.strip_prefix(root).unwrap().to_str().unwrap().to_string()
    };
    results.as_array().unwrap().iter().map(relative).collect()
}

/// Starts the program with pipes on all sides.
fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mbconv"));
    command.arg("predict").arg(trained()).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn unreadable_files_are_named_and_the_others_classified() {
    let folder = photos();
    let bad = folder.path().join("a/1.jpg");
    truncated(&bad);
    fs::remove_file(folder.path().join("a/1.png")).unwrap();
    let arguments = ["predict", path(trained()), path(folder.path())];
    let good = ["a/0.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"];

    let (text, log) = run(1, &arguments);
    let names: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(names.len(), good.len());
    assert!(names.iter().zip(good).all(|(line, name)| line.ends_with(name)), "{text}");
    assert!(log.contains("error: ") && log.contains("a/1.jpg: the image is truncated"), "{log}");
    assert!(log.contains("1 of 6 images") && log.contains("--skip-bad-images"), "{log}");

    let (stdout, _) = run(1, &[&arguments[..], &["--json"]].concat());
    assert_eq!(paths(&serde_json::from_str(&stdout).unwrap(), folder.path()), good);
    let (stdout, log) = run(0, &[&arguments[..], &["--json", "--skip-bad-images"]].concat());
    assert_eq!(paths(&serde_json::from_str(&stdout).unwrap(), folder.path()), good);
    assert!(log.contains("skipped ") && log.contains("a/1.jpg") && !log.contains("error"), "{log}");

    // Files given by name may have any extension or be missing.
    let notes = folder.path().join("a/notes.txt");
    let first = folder.path().join("a/0.png");
    let (text, log) = run(1, &["predict", path(trained()), path(&notes), "gone.jpg", path(&first)]);
    assert!(text.starts_with(path(&first)), "{text}");
    assert!(log.contains("notes.txt: not an image of a known format") && log.contains("gone.jpg: "), "{log}");
    // It is an error if no image can be read.
    run(1, &["predict", path(trained()), "gone.jpg", "--skip-bad-images"]);
    let (stdout, _) = run(1, &["predict", path(trained()), "gone.jpg", "--json"]);
    assert_eq!(stdout, "[]\n");
}

#[test]
fn folders_patterns_and_lists_select_the_same_images() {
    let folder = photos();
    let root = folder.path();
    let of = |arguments: &[&str]| json(&[&["predict", path(trained())], arguments, &["--json"]].concat());
    let all = of(&[path(root)]);
    let names = ["a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"];
    assert_eq!(paths(&all, root), names);
    assert_eq!(all[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["path", "predictions"]);
    for pattern in ["**", "**/*.png", "*/*.png", "*", "[ab]/?.png"] {
        assert_eq!(of(&[&format!("{}/{pattern}", path(root))]), all, "{pattern}");
    }
    assert_eq!(
        paths(&of(&[&format!("{}/b/*.png", path(root)), path(&root.join("a/1.png"))]), root),
        ["b/0.png", "b/1.png", "b/2.png", "a/1.png"]
    );
    assert!(error(&["predict", path(trained()), &format!("{}/*.tif", path(root))]).contains("no image file matches"));

    for (separator, list) in [("\n", &names[..]), ("\0", &names), ("\r\n", &names), ("\n", &["a", "b"])] {
        let mut child = start(&["-", "--json"]);
        let list: String = list.iter().map(|name| format!("{}{separator}", path(&root.join(name)))).collect();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), all);
    }
}

#[test]
fn results_are_printed_before_the_list_ends() {
    let folder = photos();
    let mut child = start(&["-"]);
    let mut list = child.stdin.take().unwrap();
    let mut results = BufReader::new(child.stdout.take().unwrap()).lines();
    for name in ["a/0.png", "b/2.png"] {
        writeln!(list, "{}", path(&folder.path().join(name))).unwrap();
        // Would wait forever if results were buffered.
        assert!(results.next().unwrap().unwrap().ends_with(name));
        for _ in 0..5 {
            assert!(results.next().unwrap().unwrap().contains(" % "));
        }
    }
    drop(list);
    assert!(results.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn closed_pipe_ends_the_program_without_an_error() {
    let folder = photos();
    for arguments in [&["-"][..], &["-", "--json"]] {
        let mut child = start(arguments);
        drop(child.stdout.take());
        let mut list = child.stdin.take().unwrap();
        let line = format!("{}\n", path(&folder.path().join("a/0.png")));
        // The list is never closed: the program must end by itself.
        while list.write_all(line.as_bytes()).is_ok() {}
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn tables_have_a_row_per_image() {
    let folder = photos();
    truncated(&folder.path().join("b/1.jpg"));
    let all = json(&["predict", path(trained()), path(folder.path()), "--json", "--skip-bad-images", "--logits"]);
    let [csv, lines] = ["table.csv", "table.jsonl"].map(|name| folder.path().join(name));
    let arguments = ["predict", path(trained()), path(folder.path()), "--skip-bad-images", "--out"];
    let (stdout, log) = run(0, &[&arguments[..], &[path(&csv), "--top-k", "2"]].concat());
    assert!(stdout.is_empty() && log.contains("table.csv (6 rows)"), "{log}");
    let table = fs::read_to_string(&csv).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0].join(","), "path,label,index,probability,label_2,index_2,probability_2");
    assert_eq!(rows.len(), 7);
    for (row, result) in rows[1..].iter().zip(all.as_array().unwrap()) {
        assert_eq!(row[0], result["path"]);
        for (columns, candidate) in row[1..].chunks(3).zip(result["predictions"].as_array().unwrap()) {
            assert_eq!(
                (columns[0], columns[1]),
                (candidate["label"].as_str().unwrap(), &*candidate["index"].to_string())
            );
            let probability: f64 = columns[2].parse().unwrap();
            assert!((probability - candidate["probability"].as_f64().unwrap()).abs() < 1e-6);
        }
    }

    run(0, &[&arguments[..], &[path(&lines), "--logits"]].concat());
    let table = fs::read_to_string(&lines).unwrap();
    let rows: Vec<Value> = table.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::from(rows), all);
    // Both at once; a bad image changes the status, not the table.
    let (stdout, _) =
        run(1, &["predict", path(trained()), path(folder.path()), "--json", "--logits", "--out", path(&lines)]);
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), all);
    assert_eq!(fs::read_to_string(&lines).unwrap(), table);

    let (_, log) = run(2, &["predict", path(trained()), path(folder.path()), "--logits", "--out", path(&csv)]);
    assert!(log.contains("--logits needs --json"), "{log}");
    assert!(error(&["predict", path(trained()), "x.jpg", "--out", "/no/such/t.csv"]).contains("/no/such/t.csv"));
    assert!(!folder.path().join("table.csv.part").exists());
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a", "b"], 50);
    let arguments = ["predict", path(trained()), path(folder.path()), "--json", "--threads"];
    let one = json(&[&arguments[..], &["1"]].concat());
    let more = json(&[&arguments[..], &["2"]].concat());
    assert_eq!(one.as_array().unwrap().len(), 100);
    assert_eq!(paths(&one, folder.path()), paths(&more, folder.path()));
    for (a, b) in one.as_array().unwrap().iter().zip(more.as_array().unwrap()) {
        assert_eq!(a["predictions"][0]["index"], b["predictions"][0]["index"]);
    }
}
