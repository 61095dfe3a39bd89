//! Tests of `mbconv data`.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{error, image_folder, json, path, run};
use image::{ImageFormat, RgbImage};

/// Returns a detailed image that differs for every number.
fn picture(width: u32, height: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |a: f32, b: f32| {
            let phase = (x as f32 / width as f32 * a + y as f32 / height as f32 * b + number as f32 * 2.4).sin();
            (127.0 + 120.0 * phase) as u8
        };
        let n = number as f32;
        image::Rgb([wave(3.0 + n, 2.0), wave(1.0, 4.0 + 2.0 * n), wave(5.0 * n, 1.0 + n)])
    })
}

/// Returns an image without fine details, so that resizing loses little.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let wave = (7.0 * x + 1.0).sin() * (5.0 * y * (1.0 + x)).cos();
        image::Rgb([(127.0 + 120.0 * wave) as u8, (x * 200.0) as u8, (y * 150.0) as u8])
    })
}

/// Writes JPEG images, all different: `train` per class in `train/` and `val` per class in `val/`.
fn photos(root: &Path, classes: &[&str], train: u32, val: u32) {
    let mut number = 0;
    for (split, images) in [("train", train), ("val", val)] {
        for class in classes {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for image in 0..images {
                picture(40, 30, number).save(folder.join(format!("{image}.jpg"))).unwrap();
                number += 1;
            }
        }
    }
}

/// Returns all files below a folder as relative path and contents.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn collect(root: &Path, folder: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, all);
            } else {
                all.push((path.strip_prefix(root).unwrap().into(), fs::read(&path).unwrap()));
            }
        }
    }
    let mut all = Vec::new();
    collect(root, root, &mut all);
    all.sort();
    all
}

fn names(root: &Path) -> Vec<String> {
    files(root).into_iter().map(|(path, _)| path.to_str().unwrap().into()).collect()
}

#[test]
fn inspect_reports_statistics() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 3, 1);
    picture(200, 50, 99).save(root.join("train/cat/wide.png")).unwrap();
    fs::write(root.join("train/dog/broken.jpg"), b"\xFF\xD8\xFF\xE0").unwrap();
    let sheet = top.path().join("sheet.png");
    let seen = json(&["data", "inspect", path(&root), "--json", "--sheet", path(&sheet)]);
    assert_eq!(seen["form"], "image folders with splits");
    assert_eq!((&seen["images"], &seen["unreadable"]), (&10.into(), &1.into()));
    assert_eq!((&seen["splits"]["train"]["images"], &seen["splits"]["val"]["smallest"]), (&8.into(), &1.into()));
    assert_eq!(seen["classes"][1]["label"], "dog");
    assert_eq!(seen["classes"][1]["images"], serde_json::json!({"train": 4, "val": 1}));
    assert_eq!(seen["formats"], serde_json::json!({"JPEG": 8, "PNG": 1}));
    assert_eq!(seen["sizes"]["largest"], serde_json::json!([200, 50]));
    assert_eq!(seen["sizes"]["common"][0], serde_json::json!({"width": 40, "height": 30, "images": 8}));
    assert!(seen["unreadable_images"][0]["name"].as_str().unwrap().ends_with("broken.jpg"));
    // Two rows for the classes with four columns of images.
    let sheet = image::open(&sheet).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (12 * 8 + 8 + 4 * 100, 4 + 2 * 100));

    let (text, _) = run(0, &["data", "inspect", path(&root)]);
    for words in ["10 in 2 classes", "JPEG 8, PNG 1", "cat", "32–63", "1 unreadable", "broken.jpg"] {
        if words != "32–63" {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    let digits = json(&["data", "inspect", "digits", "--json"]);
    assert_eq!((&digits["images"], &digits["formats"]["pixels"]), (&1797.into(), &1797.into()));
    assert!(error(&["data", "inspect", "/no/such"]).contains("/no/such"));
    assert!(error(&["data", "inspect", "data/cifar-10-batches-bin"]).contains("scripts/fetch_data.sh cifar10"));
}

#[test]
fn clipped_16_bit_gray_gives_a_warning() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("scans");
    for (class, base) in [("a", 9_000), ("b", 42_000)] {
        fs::create_dir_all(root.join(class)).unwrap();
        for number in 0..5u32 {
            let shade = |x, y| image::Luma([(base + 200 * number + 90 * (x + y)) as u16]);
            let scan = image::ImageBuffer::from_fn(16, 16, shade);
            scan.save(root.join(class).join(format!("{number}.png"))).unwrap();
        }
    }
    let note = "gray of more than 8 bits";
    assert!(run(0, &["data", "inspect", path(&root)]).0.contains(note));
    // Once clipped to white, all images of a class are equal.
    assert!(run(1, &["data", "verify", path(&root)]).0.contains(note));
    let recipe = common::tiny_recipe(top.path());
    let train = |name: &str, set: &[&str]| {
        let out = top.path().join(name);
        let mut arguments = vec!["train", path(&recipe), "--data", path(&root), "--out", path(&out), "--device", "cpu"];
        for set in ["epochs=1", "batch_size=4"].iter().chain(set) {
            arguments.extend(["--set", set]);
        }
        let (stdout, stderr) = run(0, &arguments);
        (stdout + &stderr, json(&["info", path(&out), "--json"])["preprocess"]["gray16"].clone())
    };
    let (output, _) = train("clipped", &[]);
    assert!(output.contains(note) && output.contains("data.gray16"), "{output}");
    let (output, stored) = train("scaled", &["data.gray16=\"image\""]);
    assert!(!output.contains(note), "{output}");
    // Evaluation and prediction read the setting from the model file.
    assert_eq!(stored, "image");
}

/// Returns each finding as its kind and its files.
fn found(json: &serde_json::Value) -> BTreeSet<(String, String)> {
    let findings = json["findings"].as_array().unwrap();
    let rows = findings.iter().map(|finding| {
        let files = finding["files"].as_array().unwrap().iter().map(|file| {
            let name = Path::new(file["name"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_string();
            format!("{}/{}/{name}", file["split"].as_str().unwrap(), file["class"].as_str().unwrap())
        });
        (finding["kind"].as_str().unwrap().into(), files.collect::<Vec<_>>().join(" "))
    });
    rows.collect()
}

/// Writes a data set with one problem of each kind.
fn faulty(root: &Path) {
    photos(root, &["cat", "dog", "eel"], 10, 2);
    let train = root.join("train/cat");
    let whole = fs::read(train.join("0.jpg")).unwrap();
    fs::write(train.join("empty.jpg"), b"").unwrap();
    fs::write(train.join("text.jpg"), b"not a picture").unwrap();
    fs::write(train.join("cut.jpg"), &whole[..whole.len() / 2]).unwrap();
    let mut png = std::io::Cursor::new(Vec::new());
    picture(50, 40, 300).write_to(&mut png, ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    fs::write(train.join("really.jpg"), &png).unwrap();
    // A flipped byte in the compressed pixels, which the checksum detects.
    let middle = png.len() / 2;
    png[middle] ^= 0xFF;
    fs::write(train.join("flipped.png"), &png).unwrap();
    // Copies within a class, in another split and in another class; identical pixels in another
    // format.
    fs::copy(train.join("1.jpg"), train.join("1 again.jpg")).unwrap();
    fs::copy(train.join("2.jpg"), root.join("val/cat/leaked.jpg")).unwrap();
    fs::copy(train.join("3.jpg"), root.join("train/dog/no dog.jpg")).unwrap();
    picture(48, 36, 400).save(root.join("train/eel/lossless.png")).unwrap();
    picture(48, 36, 400).save(root.join("train/eel/lossless.bmp")).unwrap();
    // A smaller image of one scene.
    scene(400, 300).save(root.join("train/eel/scene.png")).unwrap();
    scene(200, 150).save(root.join("val/eel/scene small.jpg")).unwrap();
}

#[test]
fn verify_finds_every_problem_and_fix_moves_bad_files() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    faulty(&root);
    let before = files(&root);
    let (csv, report) = (top.path().join("report.csv"), top.path().join("report.txt"));
    let (stdout, _) = run(1, &["data", "verify", path(&root), "--near", "--json", "--report", path(&csv)]);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = [
        ("empty", "train/cat/empty.jpg"),
        ("not_an_image", "train/cat/text.jpg"),
        ("truncated", "train/cat/cut.jpg"),
        ("corrupt", "train/cat/flipped.png"),
        ("extension", "train/cat/really.jpg"),
        ("copy", "train/cat/1 again.jpg train/cat/1.jpg"),
        ("leak", "train/cat/2.jpg val/cat/leaked.jpg"),
        ("conflict", "train/cat/3.jpg train/dog/no dog.jpg"),
        ("copy", "train/eel/lossless.bmp train/eel/lossless.png"),
        ("near_leak", "train/eel/scene.png val/eel/scene small.jpg"),
    ];
    let expected: BTreeSet<_> = expected.iter().map(|(kind, files)| (kind.to_string(), files.to_string())).collect();
    assert_eq!(found(&result), expected);
    assert_eq!((&result["errors"], &result["warnings"]), (&6.into(), &4.into()));
    assert_eq!(result["images"], serde_json::json!({"train": 40, "val": 8}));
    let csv = fs::read_to_string(csv).unwrap();
    assert!(csv.starts_with("finding,severity,kind,split,class,name,detail\n") && csv.lines().count() == 16, "{csv}");
    assert_eq!(files(&root), before);

    let counts = serde_json::json!({"conflict": 1, "near_leak": 1, "leak": 1});
    for (kind, count) in counts.as_object().unwrap() {
        assert_eq!(&result["counts"][kind], count, "{kind}");
    }

    // The result does not depend on the number of threads.
    let (single, _) = run(1, &["data", "verify", path(&root), "--near", "--json", "--workers", "1"]);
    assert_eq!(single, stdout);

    let (text, _) = run(1, &["data", "verify", path(&root), "--fix", "--report", path(&report)]);
    let aside = top.path().join("photos-aside");
    assert!(text.contains("error: 1 truncated images") && text.contains("moved to"), "{text}");
    assert!(text.contains("1 label conflict(s) left: choose the correct class"), "{text}");
    assert!(fs::read_to_string(report).unwrap().contains("no dog.jpg"));
    let moved = [
        "moved.jsonl",
        "train/cat/1 again.jpg",
        "train/cat/2.jpg",
        "train/cat/cut.jpg",
        "train/cat/empty.jpg",
        "train/cat/flipped.png",
        "train/cat/text.jpg",
        "train/eel/lossless.png",
    ];
    assert_eq!(names(&aside), moved);
    // Label conflicts need a human decision, so they are left and are still errors.
    let (stdout, _) = run(1, &["data", "verify", path(&root), "--json"]);
    let left: Vec<String> = found(&serde_json::from_str(&stdout).unwrap()).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(left, ["conflict", "extension"]);

    let (text, _) = run(0, &["data", "verify", path(&root), "--undo"]);
    assert!(text.contains("7 file(s) moved back"), "{text}");
    assert_eq!(files(&root), before);
    assert!(!aside.exists());
    assert!(error(&["data", "verify", path(&root), "--undo"]).contains("moved.jsonl"));
}

#[test]
fn label_conflicts_and_leaks_are_reported_before_other_pairs() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("clothes");
    photos(&root, &["shorts", "skirt"], 10, 2);
    // A harmless pair that sorts first by name, then the same photograph in two classes and in two
    // splits.
    let turned = |quarters: u32| {
        let mut image = image::DynamicImage::ImageRgb8(scene(400, 300));
        (0..quarters).for_each(|_| image = image.rotate90());
        image
    };
    let small = |image: &image::DynamicImage| image.resize(200, 200, image::imageops::FilterType::Triangle).to_rgb8();
    for (quarters, first, second) in [
        (0, "train/shorts/a.png", "train/shorts/b.jpg"),
        (1, "train/shorts/c.png", "train/skirt/c.jpg"),
        (2, "train/skirt/d.png", "val/skirt/d.jpg"),
    ] {
        turned(quarters).save(root.join(first)).unwrap();
        small(&turned(quarters)).save(root.join(second)).unwrap();
    }
    let csv = top.path().join("report.csv");
    let arguments = ["data", "verify", path(&root), "--near", "--report", path(&csv)];
    let kinds = ["near_conflict", "near_leak", "near"];
    let found = json(&[&arguments[..], &["--json"]].concat());
    let findings = found["findings"].as_array().unwrap();
    assert_eq!(findings.iter().map(|finding| finding["kind"].as_str().unwrap()).collect::<Vec<_>>(), kinds);
    assert!(findings[0]["detail"].as_str().unwrap().contains("in several classes"), "{}", findings[0]);
    assert_eq!((&found["errors"], &found["warnings"]), (&0.into(), &3.into()));
    let table = fs::read_to_string(&csv).unwrap();
    let rows: Vec<&str> = table.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
    assert_eq!(rows, kinds.map(|kind| [kind; 2]).concat());
    let (text, _) = run(0, &arguments);
    let places =
        ["several classes", "several splits", "similar images within a class"].map(|words| text.find(words).unwrap());
    assert!(places.is_sorted(), "{text}");
    for kind in kinds {
        assert!(
            text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == [kind, "1", "warning"]),
            "{text}"
        );
    }
    // Only a human can decide which class is right.
    let before = files(&root);
    let (text, _) = run(0, &["data", "verify", path(&root), "--near", "--fix"]);
    assert!(text.contains("1 label conflict(s) left") && text.contains("1 possible leak(s) left"), "{text}");
    assert_eq!(files(&root), before);
}

#[test]
fn unusual_images_are_listed() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["ants", "bees"], 10, 2);
    let mut gif = std::io::Cursor::new(Vec::new());
    picture(40, 30, 500).write_to(&mut gif, ImageFormat::Gif).unwrap();
    fs::write(root.join("train/ants/placeholder.jpg"), gif.into_inner()).unwrap();
    image::DynamicImage::ImageRgb8(picture(40, 30, 501)).to_luma8().save(root.join("train/bees/gray.jpg")).unwrap();
    picture(3, 2, 502).save(root.join("val/ants/tiny.jpg")).unwrap();
    picture(400, 40, 503).save(root.join("val/bees/banner.jpg")).unwrap();
    picture(300, 200, 504).save(root.join("train/bees/huge.jpg")).unwrap();
    let seen = json(&["data", "inspect", path(&root), "--json"]);
    let odd = |what: &str, name: &str| {
        seen["odd"].as_array().unwrap().iter().any(|odd| {
            let examples = odd["examples"].as_array().unwrap();
            odd["what"] == what && odd["images"] == 1 && examples[0]["name"].as_str().unwrap().ends_with(name)
        })
    };
    for (what, name) in [
        ("format", "placeholder.jpg"),
        ("colour", "gray.jpg"),
        ("small", "tiny.jpg"),
        ("shape", "banner.jpg"),
        ("large", "huge.jpg"),
    ] {
        assert!(odd(what, name), "{what}: {}", seen["odd"]);
    }
    let (text, _) = run(0, &["data", "inspect", path(&root)]);
    assert!(text.contains("GIF: 1\n") && text.contains("placeholder.jpg (train, ants)"), "{text}");
}

#[test]
fn valid_data_set_passes_and_strict_counts_warnings() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 3, 1);
    let (text, _) = run(0, &["data", "verify", path(&root), "--few", "0"]);
    assert!(text.contains("8 images decoded (train 6, val 2)") && text.contains("no problems found"), "{text}");
    fs::remove_dir_all(root.join("val/dog")).unwrap();
    let arguments = ["data", "verify", path(&root), "--json"];
    let kinds: Vec<_> = found(&json(&arguments)).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["few_images", "missing_class"]);
    run(1, &[&arguments[..], &["--strict"]].concat());
    // After all errors are fixed, the exit status is 0.
    fs::write(root.join("train/cat/empty.jpg"), b"").unwrap();
    run(1, &arguments);
    let aside = top.path().join("bad");
    run(0, &[&arguments[..], &[&format!("--fix={}", path(&aside))]].concat());
    assert_eq!(names(&aside), ["moved.jsonl", "train/cat/empty.jpg"]);
    run(0, &["data", "verify", "digits"]);
}

#[test]
fn split_divides_every_class_and_does_not_overwrite() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("flat");
    image_folder(&root, &["cat", "dog"], 10);
    let before = files(&root);
    let out = |name: &str| top.path().join(name);
    let parts = ["--val", "0.2", "--test", "0.1", "--seed", "5"];
    let split = |name: &str, more: &[&str]| {
        let out = out(name);
        json(&[&["data", "split", path(&root), path(&out), "--json"], &parts[..], more].concat())
    };
    let counts = split("linked", &[]);
    assert_eq!(counts["images"], serde_json::json!({"test": 2, "train": 14, "val": 4}));
    let linked = files(&out("linked"));
    assert_eq!(linked.len(), 20);
    for class in ["cat", "dog"] {
        let all: BTreeSet<_> =
            ["train", "val", "test"].iter().flat_map(|s| names(&out("linked").join(s).join(class))).collect();
        assert_eq!(all.len(), 10, "{all:?}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(out("linked").join(&linked[0].0)).unwrap().nlink(), 2);
    }
    split("copied", &["--copy"]);
    assert_eq!(files(&out("copied")), linked);
    split("lists", &["--list"]);
    let csv = fs::read_to_string(out("lists").join("val.csv")).unwrap();
    assert!(csv.starts_with("path,label\n/") && csv.lines().count() == 5 && csv.contains("/dog/"), "{csv}");

    // Existing files are not overwritten, and no partial output is left.
    let message = error(&[&["data", "split", path(&root), path(&out("linked"))], &parts[..]].concat());
    assert!(message.contains("existing files are not overwritten"), "{message}");
    assert!(error(&["data", "split", path(&root), path(&out("no")), "--val", "1.5"]).contains("1.5"));
    assert!(fs::read_dir(top.path()).unwrap().all(|entry| !path(&entry.unwrap().path()).contains(".mbconv")));

    assert!(error(&["data", "split", path(&root), path(&root.join("x"))]).contains("is inside the data set"));

    // Existing splits are kept: training images are divided, and `test/` is unchanged.
    let again = out("again");
    fs::rename(out("copied").join("val"), top.path().join("unused")).unwrap();
    let counts = json(&["data", "split", path(&out("copied")), path(&again), "--val", "0.3", "--json"]);
    assert_eq!(counts["images"], serde_json::json!({"test": 2, "train": 10, "val": 4}));
    let message = error(&["data", "split", path(&again), path(&out("no")), "--val", "0.3"]);
    assert!(message.contains("already has val images") && message.contains("--pool"), "{message}");
    let counts = json(&["data", "split", path(&again), path(&out("pooled")), "--val", "0.5", "--pool", "--json"]);
    assert_eq!(counts["images"], serde_json::json!({"train": 8, "val": 8}));

    split("moved", &["--move"]);
    assert!(files(&root).is_empty());
    let moved = names(&out("moved"));
    assert_eq!(moved.iter().filter(|name| *name != "moved.jsonl").count(), 20);
    run(0, &["data", "verify", path(&root), &format!("--undo={}", path(&out("moved")))]);
    assert_eq!(files(&root), before);

    // Links are resolved to the files they point to.
    #[cfg(unix)]
    {
        let links = top.path().join("links");
        for (class, name) in [("cat", "0.png"), ("cat", "1.png"), ("dog", "2.png")] {
            fs::create_dir_all(links.join(class)).unwrap();
            std::os::unix::fs::symlink(Path::new("../../flat").join(class).join(name), links.join(class).join(name))
                .unwrap();
        }
        let through = top.path().join("through");
        run(0, &["data", "split", path(&links), path(&through), "--val", "0.5", "--follow-links"]);
        assert!(files(&through).iter().all(|(path, _)| !through.join(path).is_symlink()) && files(&through).len() == 3);
        let error_of = |root: &Path| error(&["data", "split", path(root), path(&out("not")), "--move", "--val", "0.5"]);
        assert!(error_of(&links).contains("files in other folders cannot be moved"));
        fs::copy(root.join("cat/1.png"), links.join("dog/own.png")).unwrap();
        for (class, name) in [("cat", "0.png"), ("cat", "1.png"), ("dog", "2.png")] {
            fs::remove_file(links.join(class).join(name)).unwrap();
            std::os::unix::fs::symlink("../dog/own.png", links.join(class).join(name)).unwrap();
        }
        assert!(error_of(&links).contains("is a link"));
    }
}

#[test]
fn records_are_split_into_files() {
    let top = tempfile::tempdir().unwrap();
    let out = top.path().join("digits");
    let counts = json(&["data", "split", "digits", path(&out), "--val", "0.1", "--json"]);
    assert_eq!(counts["images"]["train"].as_u64().unwrap() + counts["images"]["val"].as_u64().unwrap(), 1797);
    let seen = json(&["data", "inspect", path(&out), "--json"]);
    assert_eq!((&seen["formats"]["PNG"], &seen["sizes"]["largest"]), (&1797.into(), &serde_json::json!([8, 8])));
    run(0, &["data", "verify", path(&out)]);
    assert!(error(&["data", "split", "digits", path(&top.path().join("x")), "--list"]).contains("--copy"));
}

/// Returns the members of a tar file as name and contents.
fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_matches(['\0', ' ']).to_string();
    let mut members = Vec::new();
    let mut rest = tar;
    while rest[0] != 0 {
        let size = usize::from_str_radix(&text(&rest[124..136]), 8).unwrap();
        let sum: u32 = rest[..512]
            .iter()
            .enumerate()
            .map(|(i, &b)| u32::from(if (148..156).contains(&i) { b' ' } else { b }))
            .sum();
        assert_eq!(u32::from_str_radix(&text(&rest[148..156]), 8).unwrap(), sum);
        members.push((text(&rest[..100]), rest[512..512 + size].to_vec()));
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    assert_eq!(rest, [0; 1024]);
    members
}

#[test]
fn packing_is_complete_deterministic_and_resumable() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 8, 2);
    picture(90, 60, 77).save(root.join("train/dog/large.png")).unwrap();
    let out = |name: &str| top.path().join(name);
    let pack = |name: &str, more: &[&str]| {
        let out = out(name);
        json(
            &[&["data", "pack", path(&root), path(&out), "--format", "wds", "--shard-size", "6", "--json"], more]
                .concat(),
        )
    };
    // Left over from a process that was killed immediately.
    let left_over = out("a").join(".mbconv-AbCdEf.tmp");
    fs::create_dir(out("a")).unwrap();
    fs::write(&left_over, "half a file").unwrap();
    let manifest = pack("a", &[]);
    assert!(!left_over.exists());
    let shards: Vec<&str> =
        manifest["splits"][0]["shards"].as_array().unwrap().iter().map(|s| s["file"].as_str().unwrap()).collect();
    assert_eq!(shards, ["train-000000.tar", "train-000001.tar", "train-000002.tar"]);
    assert_eq!(manifest["splits"][0]["images"], serde_json::json!([8, 9]));
    assert_eq!(fs::read_to_string(out("a").join("classes.txt")).unwrap(), "cat\ndog\n");
    assert_eq!(fs::read_to_string(out("a").join("manifest.json")).unwrap(), format!("{manifest:#}\n"));

    // Every image is stored once, bit for bit, with its label.
    let mut stored = BTreeSet::new();
    for shard in &shards {
        for pair in members(&fs::read(out("a").join(shard)).unwrap()).chunks(2) {
            let [(image, bytes), (label, class)] = pair else { panic!("a single member") };
            assert_eq!(image.rsplit_once('.').unwrap().0, label.strip_suffix(".cls").unwrap());
            stored.insert((bytes.clone(), class.clone()));
        }
    }
    let expected: BTreeSet<_> = files(&root.join("train"))
        .into_iter()
        .map(|(path, bytes)| (bytes, if path.starts_with("cat") { b"0".to_vec() } else { b"1".to_vec() }))
        .collect();
    assert_eq!(stored, expected);

    // The output is the same with another number of threads or from another folder, and differs
    // with another seed.
    pack("b", &["--workers", "1"]);
    assert_eq!(files(&out("b")), files(&out("a")));
    let moved = out("moved photos");
    fs::rename(&root, &moved).unwrap();
    run(0, &["data", "pack", path(&moved), path(&out("c")), "--format", "wds", "--shard-size", "6"]);
    fs::rename(&moved, &root).unwrap();
    assert_eq!(files(&out("c")), files(&out("a")));
    pack("d", &["--seed", "1"]);
    assert_ne!(files(&out("d")), files(&out("a")));

    // A missing and a damaged shard are written again and the others are kept; shards packed with
    // other options are not changed.
    let whole = files(&out("a"));
    let touched = |name: &str| fs::metadata(out("a").join(name)).unwrap().modified().unwrap();
    let first = touched("train-000000.tar");
    fs::remove_file(out("a").join("train-000001.tar")).unwrap();
    let mut damaged = fs::read(out("a").join("val-000000.tar")).unwrap();
    damaged[600] ^= 1;
    fs::write(out("a").join("val-000000.tar"), damaged).unwrap();
    let (text, _) = run(0, &["data", "pack", path(&root), path(&out("a")), "--format", "wds", "--shard-size", "6"]);
    assert!(text.contains("2 existed already"), "{text}");
    assert_eq!(files(&out("a")), whole);
    assert_eq!(touched("train-000000.tar"), first);
    let message = error(&["data", "pack", path(&root), path(&out("a")), "--format", "wds", "--size", "20"]);
    assert!(message.contains("with different options: --size is none there, but 20 is requested"), "{message}");
    assert!(
        error(&["data", "pack", path(&root), path(&root), "--format", "wds"])
            .contains("existing files are not overwritten")
    );
    assert_eq!(files(&out("a")), whole);

    // With a size limit, only the large image is resized.
    let small = pack("small", &["--size", "30"]);
    assert_eq!((&small["size"], &small["quality"]), (&30.into(), &95.into()));
    let mut sizes: Vec<(u32, u32)> = Vec::new();
    for shard in &shards {
        for (name, bytes) in members(&fs::read(out("small").join(shard)).unwrap()) {
            if name.ends_with(".jpg") {
                let image = image::load_from_memory(&bytes).unwrap();
                sizes.push((image.width(), image.height()));
            }
        }
    }
    sizes.sort_unstable();
    assert_eq!((sizes.len(), sizes[0], sizes[16]), (17, (40, 30), (45, 30)));
}

#[test]
fn bad_images_stop_packing_or_are_skipped() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 2, 1);
    fs::write(root.join("train/cat/bad.jpg"), b"").unwrap();
    let out = top.path().join("shards");
    let arguments = ["data", "pack", path(&root), path(&out), "--format", "wds"];
    let message = error(&arguments);
    assert!(message.contains("bad.jpg") && message.contains("data verify DATA --fix"), "{message}");
    let (text, stderr) = run(0, &[&arguments[..], &["--skip-bad-images"]].concat());
    assert!(stderr.contains("skipped ") && text.contains("4 images"), "{text}{stderr}");
    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("bad.jpg") && !names(&out).iter().any(|name| name.ends_with(".partial")), "{manifest}");
}

#[test]
fn parquet_shards_follow_the_names_of_hugging_face_datasets() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 4, 1);
    let pack = |name: &str| {
        let out = top.path().join(name);
        run(0, &["data", "pack", path(&root), path(&out), "--format", "parquet", "--shard-size", "5"]);
        files(&out)
    };
    let packed = pack("a");
    assert_eq!(
        packed.iter().map(|(path, _)| path.to_str().unwrap()).collect::<Vec<_>>(),
        [
            "classes.txt",
            "manifest.json",
            "train-00000-of-00002.parquet",
            "train-00001-of-00002.parquet",
            "validation-00000-of-00001.parquet"
        ]
    );
    let shard = &packed[2].1;
    assert!(shard.starts_with(b"PAR1") && shard.ends_with(b"PAR1"));
    assert!(shard.windows(9).any(|part| part == b"ClassLabe"));
    assert_eq!(pack("b"), packed);
}

#[test]
fn packed_shards_are_read_back() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 5, 2);
    // From folders to WebDataset, to Parquet, and back.
    let pack = |from: &Path, name: &str, format: &str| {
        let out = top.path().join(name);
        run(0, &["data", "pack", path(from), path(&out), "--format", format, "--shard-size", "4"]);
        out
    };
    let wds = pack(&root, "a", "wds");
    let parquet = pack(&wds, "b", "parquet");
    let again = pack(&parquet, "c", "wds");
    let images = |folder: &Path, split: &str| -> BTreeSet<_> {
        let shards = files(folder).into_iter().filter(|(path, _)| path.to_str().unwrap().starts_with(split));
        let pairs = shards.flat_map(|(_, shard)| members(&shard)).map(|(_, bytes)| bytes).collect::<Vec<_>>();
        pairs.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    };
    for (split, number) in [("train", 10), ("val", 4)] {
        assert_eq!(images(&wds, split).len(), number);
        assert_eq!(images(&again, split), images(&wds, split));
    }
    let classes = |folder: &Path| fs::read_to_string(folder.join("classes.txt")).unwrap();
    assert_eq!(classes(&again), classes(&wds));
    let inspected = |data: &Path| json(&["data", "inspect", path(data), "--json"]);
    let folder = inspected(&root);
    for packed in [&wds, &parquet] {
        let packed = inspected(packed);
        for key in ["images", "classes"] {
            assert_eq!(packed[key], folder[key]);
        }
    }
}

#[test]
fn undo_ignores_an_incomplete_log_line() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("photos");
    photos(&root, &["cat", "dog"], 3, 1);
    for number in 0..5 {
        fs::write(root.join(format!("train/cat/bad{number}.jpg")), "").unwrap();
    }
    let before = names(&root);
    run(0, &["data", "verify", path(&root), "--fix"]);
    let log = top.path().join("photos-aside/moved.jsonl");
    let mut lines = fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 5);
    lines.push_str("{\"from\":\"/data/photos/train/c");
    fs::write(&log, lines).unwrap();
    assert!(run(0, &["data", "verify", path(&root), "--undo"]).0.contains("5 file(s) moved back"));
    assert_eq!(names(&root), before);
}

#[cfg(unix)]
#[test]
fn split_and_pack_reject_files_outside_the_data_set() {
    use std::os::unix::fs::symlink;
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    photos(&at("photos"), &["cat", "dog"], 4, 1);
    fs::remove_dir_all(at("photos/val")).unwrap();
    fs::write(at("passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    picture(40, 30, 99).save(at("private.jpg")).unwrap();
    symlink(at("private.jpg"), at("photos/train/cat/9.jpg")).unwrap();
    symlink(at("nowhere.jpg"), at("photos/train/cat/broken.jpg")).unwrap();
    let root = path(&at("photos")).to_string();
    let out = path(&at("out")).to_string();
    let split = ["data", "split", &root, &out];
    let pack = ["data", "pack", &root, &out, "--format", "wds"];
    for command in [&split[..], &pack[..], &[&split[..], &["--move"]].concat()] {
        let error = error(command);
        assert!(error.contains("cat/9.jpg is a link to "), "{error}");
        assert!(error.contains("--follow-links") && !at("out").exists(), "{error}");
    }
    assert!(run(0, &["data", "inspect", &root]).0.contains("1 broken link(s)"));
    run(0, &[&split[..], &["--follow-links"]].concat());
    assert_eq!(names(&at("out")).len(), 9);
    fs::remove_dir_all(at("out")).unwrap();

    // Files that are not images are not included, even with `--follow-links`.
    fs::remove_file(at("photos/train/cat/9.jpg")).unwrap();
    symlink(at("passwd"), at("photos/train/cat/passwd.jpg")).unwrap();
    let error_of = |more: &[&str]| error(&[&split[..], more].concat());
    assert!(error_of(&["--follow-links"]).contains("passwd.jpg"));
    assert!(!at("out").exists());
    let (_, stderr) = run(0, &[&split[..], &["--follow-links", "--skip-bad-images"]].concat());
    assert!(stderr.contains("skipped ") && stderr.contains("passwd.jpg: not an image"), "{stderr}");
    assert_eq!(names(&at("out")).len(), 8);
    fs::remove_dir_all(at("out")).unwrap();

    // Paths in a table: training may use them, but they are not copied.
    let rows: String = (0..4).flat_map(|n| ["cat", "dog"].map(|c| format!("train/{c}/{n}.jpg,{c}\n"))).collect();
    for image in ["../private.jpg".to_string(), path(&at("private.jpg")).to_string()] {
        fs::write(at("photos/t.csv"), format!("path,label\n{rows}{image},cat\n")).unwrap();
        let table = path(&at("photos/t.csv")).to_string();
        assert_eq!(json(&["data", "inspect", &table, "--json"])["images"], 9);
        for command in ["split", "pack"] {
            let format = if command == "pack" { &["--format", "wds"][..] } else { &[] };
            let error = error(&[&["data", command, &table, &out][..], format].concat());
            assert!(error.contains("private.jpg") && error.contains("outside the data set"), "{error}");
        }
        run(0, &["data", "split", &table, &out, "--list"]);
        fs::remove_dir_all(at("out")).unwrap();
    }
}
