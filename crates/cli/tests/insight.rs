//! `mbconv explain` and `mbconv embed`.

mod common;

use std::fs;

use common::{error, image_folder, json, path, run, trained};

#[test]
fn heatmaps_are_written_for_one_or_more_images() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a", "b"], 2);
    let at = |name: &str| folder.path().join(name);
    let (model, first, one) = (path(trained()), at("a/0.png"), at("one.png"));
    let (text, log) = run(0, &["explain", model, path(&first), "--out", path(&one)]);
    assert!(text.starts_with(path(&first)) && text.contains(" %") && log.contains("one.png"), "{text}{log}");
    // 12×10 pixels, enlarged by an integer factor.
    assert_eq!(image::open(&one).unwrap().to_rgb8().dimensions(), (768, 640));

    let sheet = at("sheet.png");
    run(0, &["explain", model, path(&at("a")), path(&at("b")), "--out", path(&sheet), "--method", "layer-cam"]);
    assert_eq!(image::open(&sheet).unwrap().to_rgb8().dimensions(), (8 + 2 * 232, 8 + 2 * 256));

    let cams = at("cams");
    let result =
        json(&["explain", model, path(&at("a")), path(&at("b")), "--out", path(&cams), "--class", "3", "--json"]);
    let names: Vec<&str> = result.as_array().unwrap().iter().map(|entry| entry["out"].as_str().unwrap()).collect();
    assert_eq!(names, ["0.png", "1.png", "0_2.png", "1_2.png"].map(|name| path(&cams.join(name)).to_string()));
    for entry in result.as_array().unwrap() {
        assert!(path(&cams).len() < entry["out"].as_str().unwrap().len());
        assert_eq!(entry["class"]["index"], 3);
        assert_eq!(entry["predictions"].as_array().unwrap().len(), 5);
        let values: Vec<f64> = entry["heatmap"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|value| value.as_f64().unwrap())
            .collect();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)), "{values:?}");
    }
    assert_eq!(fs::read_dir(&cams).unwrap().count(), 4);
}

#[test]
fn explain_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a"], 1);
    fs::write(folder.path().join("a/bad.png"), "not an image").unwrap();
    let at = |name: &str| folder.path().join(name);
    let (model, good, out) = (path(trained()), at("a/0.png"), at("out.png"));
    let with = |arguments: &[&str]| error(&[&["explain", model, path(&good), "--out", path(&out)], arguments].concat());
    assert!(with(&["--class", "10"]).contains("no class \"10\""));
    assert!(with(&["--class", "cat"]).contains("0 to 9 by index"));
    assert!(with(&["--stage", "9"]).contains("stages are 1 to 7"));
    assert!(error(&["explain", model, path(&good), "--out", "cam.jpg"]).contains(".png"));
    assert!(!out.exists());

    let (text, log) = run(1, &["explain", model, path(&at("a")), "--out", path(&out)]);
    assert!(text.contains("0.png") && out.exists(), "{text}");
    assert!(log.contains("bad.png: not an image") && log.contains("1 of 2 images"), "{log}");
    let (stdout, log) = run(1, &["explain", model, "gone.jpg", "--json"]);
    assert!(stdout == "[]\n" && log.contains("gone.jpg"), "{stdout}{log}");
    run(2, &["explain", model, path(&good)]);
}

#[test]
fn features_have_a_row_per_image() {
    let folder = tempfile::tempdir().unwrap();
    image_folder(folder.path(), &["a", "b"], 3);
    let [npy, csv] = ["e.npy", "f.csv"].map(|name| folder.path().join(name));
    // Images and results are not in the same folder.
    let data = tempfile::tempdir().unwrap();
    image_folder(data.path(), &["a", "b"], 3);
    let model = path(trained());
    let report = json(&["embed", model, path(data.path()), "--out", path(&npy), "--json"]);
    let (images, features) = (report["images"].as_u64().unwrap(), report["features"].as_u64().unwrap());
    assert_eq!(images, 6);
    assert_eq!(fs::metadata(&npy).unwrap().len(), 128 + images * features * 4);
    let rows = fs::read_to_string(npy.with_extension("csv")).unwrap();
    let labels: Vec<&str> = rows.lines().skip(1).map(|line| line.rsplit(',').next().unwrap()).collect();
    assert_eq!(labels, ["a", "a", "a", "b", "b", "b"]);

    // A folder of images without classes gives the same features.
    run(0, &["embed", model, path(&data.path().join("a")), "--out", path(&csv)]);
    let bytes = fs::read(&npy).unwrap();
    let matrix: Vec<f32> = bytes[128..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let table = fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 4);
    for (line, expected) in table.lines().skip(1).zip(matrix.chunks(features as usize)) {
        let mut cells = line.split(',').skip(1);
        assert_eq!(cells.next(), Some(""));
        let values: Vec<f32> = cells.map(|cell| cell.parse().unwrap()).collect();
        assert_eq!(values.len(), expected.len());
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert!(error(&["embed", model, path(data.path()), "--out", "e.feather"]).contains(".csv or .parquet"));
}

#[test]
fn similar_images_are_found() {
    let data = tempfile::tempdir().unwrap();
    image_folder(data.path(), &["a", "b"], 3);
    let at = |name: &str| data.path().join(name);
    fs::copy(at("a/1.png"), at("b/copy.png")).unwrap();
    let model = path(trained());
    let report = json(&["embed", model, path(data.path()), "--nearest", "2", "--json"]);
    let nearest = report["nearest"].as_array().unwrap();
    assert_eq!(nearest.len(), 7);
    // The copies are first.
    let first = &nearest[0];
    let pair = [&first["path"], &first["nearest"][0]["path"]].map(|path| path.as_str().unwrap().to_string());
    assert!(pair.contains(&path(&at("a/1.png")).to_string()) && pair.contains(&path(&at("b/copy.png")).to_string()));
    assert!(first["nearest"][0]["similarity"].as_f64().unwrap() > 0.9999);
    assert!(nearest.iter().all(|entry| entry["nearest"].as_array().unwrap().len() == 2));
    let (text, _) = run(0, &["embed", model, path(data.path()), "--nearest", "1"]);
    assert!(text.contains("(b instead of a)") || text.contains("(a instead of b)"), "{text}");

    let query = at("a/2.png");
    let report = json(&["embed", model, path(&at("b")), "--query", path(&query), path(&at("b")), "--json"]);
    let nearest = report["nearest"].as_array().unwrap();
    assert_eq!(nearest.len(), 5);
    assert_eq!(nearest[0]["path"], path(&query));
    assert_eq!(nearest[0]["nearest"].as_array().unwrap().len(), 4);
    assert_eq!(nearest[1]["path"], nearest[1]["nearest"][0]["path"]);
    assert!(error(&["embed", model, path(data.path()), "--query", "gone.jpg"]).contains("gone.jpg"));
}
