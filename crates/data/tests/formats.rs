//! All forms of a data set give the same images and labels, and malformed ones give helpful errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mbconv_data::{DataError, DataSet, Form, Loader, LoaderConfig, OnBadImage, OpenOptions, Transform, open};
use mbconv_data::{Preprocess, Sampling, Source};
use tempfile::TempDir;

const CLASSES: [&str; 3] = ["hammerhead", "bulbul", "spotted salamander"];
const IDS: [&str; 3] = ["n01494475", "n01560419", "n01632458"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/forms").join(name)
}

fn options() -> OpenOptions {
    OpenOptions::default()
}

fn open_at(path: impl AsRef<Path>) -> Result<DataSet, DataError> {
    open(path.as_ref().to_str().unwrap(), &options())
}

/// Returns the error of opening a data set. Its text contains `part`.
fn refused(path: impl AsRef<Path>, part: &str) -> DataError {
    let error = open_at(path).expect_err("opened");
    assert!(error.to_string().contains(part), "{error}");
    error
}

fn noted(set: &DataSet, part: &str) -> bool {
    set.notes.iter().any(|note| note.contains(part))
}

/// Split, class and pixels of each sample.
type Contents = BTreeSet<(&'static str, String, Vec<u8>)>;

fn contents(set: &DataSet) -> Contents {
    let mut contents = Contents::new();
    for (name, split) in [("train", &set.train), ("val", &set.val), ("test", &set.test)] {
        let Some(split) = split else { continue };
        for index in 0..split.len() {
            let sample = split.get(index).unwrap();
            assert_eq!(sample.label, split.label(index));
            let pixels = sample.image.into_pixels().unwrap();
            contents.insert((name, set.classes[sample.label].clone(), pixels.data));
        }
    }
    contents
}

fn write(path: PathBuf, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &contents[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image of the fixture: split, label, name without extension, bytes.
#[derive(Clone)]
struct Photo {
    split: &'static str,
    label: usize,
    name: String,
    bytes: Vec<u8>,
}

/// Returns all images of the fixture, sorted by name within a split.
fn photos() -> Vec<Photo> {
    let mut photos = Vec::new();
    for split in ["train", "val"] {
        for (label, id) in IDS.iter().enumerate() {
            for entry in fs::read_dir(fixture("folders").join(split).join(id)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_string();
                photos.push(Photo { split, label, name, bytes: fs::read(&path).unwrap() });
            }
        }
    }
    photos.sort_by_key(|photo| (photo.split, photo.name.clone()));
    assert_eq!(photos.len(), 6);
    photos
}

fn of_split(split: &str) -> Vec<Photo> {
    photos().into_iter().filter(|photo| photo.split == split).collect()
}

/// Returns the extension and the contents of a sample's label file.
type Label = dyn Fn(&Photo) -> (&'static str, String);

/// Returns a shard with image and label files.
fn shard(photos: &[Photo], label: impl Fn(&Photo) -> (&'static str, String)) -> Vec<u8> {
    let files = photos.iter().flat_map(|photo| {
        let (extension, text) = label(photo);
        [
            (format!("{}.jpg", photo.name), photo.bytes.clone()),
            (format!("{}.{extension}", photo.name), text.into_bytes()),
        ]
    });
    tar(&files.collect::<Vec<_>>())
}

fn cls(photo: &Photo) -> (&'static str, String) {
    ("cls", photo.label.to_string())
}

/// Writes the training images as an archive of one archive per class, or as folders.
fn write_ilsvrc_train(root: &Path, archives: bool) {
    let mut inner = Vec::new();
    for (label, id) in IDS.iter().enumerate() {
        let photos: Vec<Photo> = of_split("train").into_iter().filter(|photo| photo.label == label).collect();
        for photo in &photos {
            if !archives {
                write(root.join(format!("train/{id}/{}.JPEG", photo.name)), &photo.bytes);
            }
        }
        let files: Vec<_> = photos.into_iter().map(|photo| (format!("{}.JPEG", photo.name), photo.bytes)).collect();
        inner.push((format!("{id}.tar"), tar(&files)));
    }
    if archives {
        // Puts the archives in another order than the labels.
        inner.reverse();
        write(root.join("ILSVRC2012_img_train.tar"), tar(&inner));
    }
}

fn write_ilsvrc_val(root: &Path, folder: &str) {
    for photo in of_split("val") {
        write(root.join(folder).join(format!("{}.JPEG", photo.name)), &photo.bytes);
    }
}

fn expected() -> Contents {
    let expected = contents(&open_at(fixture("folders")).unwrap());
    assert_eq!(expected.len(), 6);
    assert_eq!(expected.iter().map(|(_, class, _)| class.as_str()).collect::<BTreeSet<_>>(), BTreeSet::from(CLASSES));
    expected
}

#[test]
fn wordnet_id_folders_have_class_names() {
    let set = open_at(fixture("folders")).unwrap();
    assert_eq!((set.form, set.classes), (Form::SplitFolders, CLASSES.map(String::from).to_vec()));
    assert!(set.aliases[0].contains(&"n01494475".to_string()));
}

#[test]
fn pyarrow_parquet_files_are_read() {
    let set = open_at(fixture("parquet")).unwrap();
    assert_eq!((set.form, set.classes.clone()), (Form::Parquet, CLASSES.map(String::from).to_vec()));
    assert_eq!(contents(&set), expected());
    let train = set.split("train").unwrap();
    assert!(train.name(2).ends_with("train-00001-of-00002.parquet[0]"), "{}", train.name(2));
    assert_eq!(train.runs().ends, [2, 3]);
    // A single file, whose folder is not named after a split.
    let one = open_at(fixture("parquet/data/train-00000-of-00002.parquet")).unwrap();
    assert_eq!(one.split("train").unwrap().len(), 2);
    let pattern = fixture("parquet/data/{train,validation}-{00000..00001}-of-00002.parquet");
    assert_eq!(contents(&open_at(pattern).unwrap()), expected());
}

#[test]
fn malformed_parquet_files_give_errors() {
    let root = TempDir::new().unwrap();
    let whole = fs::read(fixture("parquet/data/train-00000-of-00002.parquet")).unwrap();
    let path = root.path().join("train.parquet");
    for length in [0, 4, 11, 12, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(open_at(&path), Err(DataError::Malformed { .. })), "{length}");
    }
    refused(&path, "truncated");
    // A damaged byte gives an error or a possibly damaged image, but no panic.
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        if let Ok(set) = open_at(&path) {
            let train = set.split("train").unwrap();
            (0..train.len()).for_each(|index| drop(train.get(index)));
        }
    }
}

#[test]
fn webdataset_shards_are_read() {
    let json = |photo: &Photo| {
        ("json", format!("{{\"label\": {}, \"class_name\": \"{}\"}}", photo.label, CLASSES[photo.label]))
    };
    let name = |photo: &Photo| ("cls", CLASSES[photo.label].to_string());
    let labels: [&Label; 3] = [&cls, &json, &name];
    for (number, label) in labels.into_iter().enumerate() {
        let root = TempDir::new().unwrap();
        let train = of_split("train");
        write(root.path().join("some-train-000000.tar"), shard(&train[..2], label));
        write(root.path().join("some-train-000001.tar"), shard(&train[2..], label));
        write(root.path().join("some-val-000000.tar"), shard(&of_split("val"), label));
        if number == 0 {
            write(root.path().join("classes.txt"), CLASSES.join("\n"));
        }
        let set = open_at(root.path()).unwrap();
        assert_eq!(set.form, Form::Shards);
        assert_eq!(contents(&set), expected(), "{number}");
        for pattern in [
            "some-{train-{000000..000001},val-000000}.tar".to_string(),
            "some-*.tar".into(),
            format!("some-train-{{000000..000001}}.tar::{}/some-val-00000?.tar", root.path().display()),
        ] {
            let set = open_at(root.path().join(pattern)).unwrap();
            assert_eq!(contents(&set), expected(), "{number}");
        }
        let missing = refused(root.path().join("some-train-{000000..000002}.tar"), "some-train-000002.tar is missing");
        assert!(matches!(missing, DataError::MissingFile { .. }));
        refused(root.path().join("none-*.tar"), "no file matches");

        // Folders of splits with one shard each.
        let nested = root.path().join("nested");
        write(nested.join("train/0.tar"), shard(&train, label));
        write(nested.join("test/0.tar"), shard(&of_split("val"), label));
        let listed = CLASSES.join("\n");
        write(nested.join("classes.txt"), &listed);
        let set = open_at(&nested).unwrap();
        assert_eq!(contents(&set), expected(), "{number}");
        assert!(noted(&set, "the test split is used for validation"));
    }
}

#[test]
fn truncated_shard_gives_its_complete_samples() {
    let root = TempDir::new().unwrap();
    let whole = shard(&of_split("train"), cls);
    // Ends within the third image. An image takes three blocks including its header, its label two.
    write(root.path().join("train-0.tar"), &whole[..512 * 11]);
    write(root.path().join("train-1.tar"), shard(&of_split("val"), cls));
    let set = open_at(root.path()).unwrap();
    assert_eq!(set.split("train").unwrap().len(), 5);
    assert!(noted(&set, "train-0.tar is truncated"), "{:?}", set.notes);
    assert!(noted(&set, "after 4 complete file(s)"), "{:?}", set.notes);

    // An image without its label is not a complete sample.
    write(root.path().join("train-0.tar"), &whole[..512 * 13]);
    let set = open_at(root.path()).unwrap();
    assert_eq!(set.split("train").unwrap().len(), 5);
    assert!(noted(&set, "ignored 1 sample(s) without an image or a label"), "{:?}", set.notes);
}

#[test]
fn samples_without_labels_are_skipped() {
    let root = TempDir::new().unwrap();
    write(root.path().join("train.tar"), shard(&of_split("train"), cls));
    write(root.path().join("val.tar"), shard(&of_split("val"), cls));
    write(root.path().join("test.tar"), shard(&of_split("val"), |_| ("cls", "-1".into())));
    let set = open_at(root.path()).unwrap();
    assert!(set.test.is_none());
    assert!(noted(&set, "test of"), "{:?}", set.notes);
    write(root.path().join("test.tar"), shard(&of_split("val"), |_| ("json", "{\"caption\": \"?\"}".into())));
    refused(root.path(), "it has no key for a class, only caption");
}

#[test]
fn ilsvrc_is_read_as_downloaded() {
    let expected = expected();
    for (train_archives, val) in [(true, "archive"), (true, "val"), (false, "archive"), (false, "ILSVRC2012_img_val")] {
        let root = TempDir::new().unwrap();
        write_ilsvrc_train(root.path(), train_archives);
        if val == "archive" {
            let files: Vec<_> =
                of_split("val").into_iter().map(|photo| (format!("{}.JPEG", photo.name), photo.bytes)).collect();
            write(root.path().join("ILSVRC2012_img_val.tar"), tar(&files));
        } else {
            write_ilsvrc_val(root.path(), val);
        }
        let error = refused(root.path(), "no labels found");
        assert!(error.hint().unwrap().contains("devkit"));

        let kit = root.path().join("ILSVRC2012_devkit_t12/data");
        let truth = fs::read(fixture("devkit/ILSVRC2012_validation_ground_truth.txt")).unwrap();
        write(kit.join("ILSVRC2012_validation_ground_truth.txt"), &truth);
        assert!(matches!(refused(root.path(), "meta.mat is missing"), DataError::MissingFile { .. }));
        write(kit.join("meta.txt"), format!("1 {}\n2 {}\n3 {}\n", IDS[1], IDS[2], IDS[0]));
        assert_eq!(contents(&open_at(root.path()).unwrap()), expected);
        fs::remove_file(kit.join("meta.txt")).unwrap();
        let meta = fs::read(fixture("devkit/meta.mat")).unwrap();
        write(kit.join("meta.mat"), &meta);
        let set = open_at(root.path()).unwrap();
        assert_eq!((set.form, set.classes.clone()), (Form::Ilsvrc, CLASSES.map(String::from).to_vec()));
        assert_eq!(contents(&set), expected, "{train_archives} {val}");

        // The development kit as downloaded.
        fs::remove_dir_all(root.path().join("ILSVRC2012_devkit_t12")).unwrap();
        let name = |file: &str| format!("ILSVRC2012_devkit_t12/data/{file}");
        let files = [(name("meta.mat"), meta), (name("ILSVRC2012_validation_ground_truth.txt"), truth)];
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &tar(&files)).unwrap();
        write(root.path().join("ILSVRC2012_devkit_t12.tar.gz"), packed.finish().unwrap());
        assert_eq!(contents(&open_at(root.path()).unwrap()), expected);
        fs::remove_file(root.path().join("ILSVRC2012_devkit_t12.tar.gz")).unwrap();

        let of_val = of_split("val");
        let lines = |line: &dyn Fn(&Photo) -> String| of_val.iter().map(line).collect::<String>();
        for (file, text) in [
            ("val.txt", lines(&|photo| format!("{}.JPEG {}\n", photo.name, photo.label))),
            ("val.csv", lines(&|photo| format!("val/{}.JPEG,{}\n", photo.name, IDS[photo.label]))),
            (
                "LOC_val_solution.csv",
                "ImageId,PredictionString\n".to_string()
                    + &lines(&|photo| format!("{},{} 1 2 3 4 \n", photo.name, IDS[photo.label])),
            ),
            ("imagenet_2012_validation_synset_labels.txt", lines(&|photo| format!("{}\n", IDS[photo.label]))),
        ] {
            write(root.path().join(file), text);
            assert_eq!(contents(&open_at(root.path()).unwrap()), expected, "{file}");
            fs::remove_file(root.path().join(file)).unwrap();
        }
    }
}

#[test]
fn ilsvrc_is_read_with_the_outer_archive_unpacked() {
    let expected: Contents = expected().into_iter().filter(|(split, ..)| *split == "train").collect();
    for folder in ["", "train", "ILSVRC2012_img_train"] {
        let root = TempDir::new().unwrap();
        for photo in of_split("train") {
            let name = format!("{}.tar", IDS[photo.label]);
            write(root.path().join(folder).join(name), tar(&[(format!("{}.JPEG", photo.name), photo.bytes)]));
        }
        let set = open_at(root.path()).unwrap();
        assert_eq!((set.form, contents(&set)), (Form::Ilsvrc, expected.clone()), "{folder}");
        assert!(noted(&set, "no validation split"));
    }
}

#[test]
fn ilsvrc_is_read_in_kaggles_layout() {
    let root = TempDir::new().unwrap();
    let images = root.path().join("ILSVRC/Data/CLS-LOC");
    write_ilsvrc_train(&images, false);
    write_ilsvrc_val(&images, "val");
    write(images.join("test/ILSVRC2012_test_00000001.JPEG"), b"");
    let solution: String =
        of_split("val").iter().map(|photo| format!("{},{} 1 2 3 4 \n", photo.name, IDS[photo.label])).collect();
    write(root.path().join("LOC_val_solution.csv"), format!("ImageId,PredictionString\n{solution}"));
    let words: String = (0..3).map(|label| format!("{} word {label}, other\n", IDS[label])).collect();
    write(root.path().join("LOC_synset_mapping.txt"), words);
    let set = open_at(root.path()).unwrap();
    assert_eq!(
        (set.form, set.classes.clone()),
        (Form::Ilsvrc, ["word 0", "word 1", "word 2"].map(String::from).to_vec())
    );
    assert_eq!(set.aliases[1], ["n01560419", "bulbul", "word 1, other"]);
    let pixels =
        |contents: Contents| contents.into_iter().map(|(split, _, data)| (split, data)).collect::<BTreeSet<_>>();
    assert_eq!(pixels(contents(&set)), pixels(expected()));
}

#[test]
fn missing_ilsvrc_class_is_an_error() {
    let root = TempDir::new().unwrap();
    write_ilsvrc_train(root.path(), false);
    write_ilsvrc_val(root.path(), "val");
    let lines: String = of_split("val").iter().map(|photo| format!("{}.JPEG {}\n", photo.name, photo.label)).collect();
    write(root.path().join("val.txt"), lines);
    fs::remove_dir_all(root.path().join("train").join(IDS[1])).unwrap();
    refused(root.path(), "labels for 3 classes, but the data set has 2");
    write(root.path().join("val.txt"), "ILSVRC2012_val_00000001.JPEG n01494475\n");
    refused(root.path(), "has no label for ILSVRC2012_val_00000002.JPEG, ILSVRC2012_val_00000003.JPEG");
}

#[test]
fn tables_and_lists_are_read() {
    let root = TempDir::new().unwrap();
    for photo in photos() {
        write(root.path().join(format!("images/{} {}.jpg", photo.split, photo.name)), &photo.bytes);
    }
    let rows = |row: &dyn Fn(&Photo, String) -> String| -> String {
        photos().iter().map(|photo| row(photo, format!("images/{} {}", photo.split, photo.name))).collect()
    };
    let expected = expected();
    let with_header = |header: &str, rows: String| format!("{header}\n{rows}");
    let tables = [
        (
            "a.csv",
            with_header("path,label,split", rows(&|p, path| format!("{path}.jpg,{},{}\n", CLASSES[p.label], p.split))),
        ),
        (
            "b.csv",
            with_header(
                "Split;Image_ID;Label;class_name",
                rows(&|p, path| format!("{};\"{path}\";{};{}\n", p.split.to_uppercase(), p.label, CLASSES[p.label])),
            ),
        ),
        (
            "c.tsv",
            with_header(
                "\u{feff}file\tclass\tset",
                rows(&|p, path| format!("{path}.jpg\t{}\t{}\r\n", CLASSES[p.label], p.split)),
            ),
        ),
        (
            "d.csv",
            with_header("split,where,what", rows(&|p, path| format!("{},{path}.jpg,{}\n", p.split, CLASSES[p.label]))),
        ),
    ];
    for (name, text) in tables {
        write(root.path().join(name), text);
        let set = open_at(root.path().join(name)).unwrap();
        assert_eq!((set.form, contents(&set)), (Form::Table, expected.clone()), "{name}");
    }

    // A folder with one list per split. Paths may contain spaces, labels may not.
    let lists = root.path();
    for split in ["train", "val"] {
        let lines =
            of_split(split).iter().map(|p| format!("images/{split} {}.jpg {}\n", p.name, p.label)).collect::<String>();
        write(lists.join(format!("{split}.txt")), lines);
    }
    write(lists.join("classes.txt"), CLASSES.join("\r\n"));
    let set = open_at(lists).unwrap();
    assert_eq!((set.form, contents(&set)), (Form::Table, expected.clone()));

    // A list without splits and labels: the folders are the classes, and part of the images is used
    // for validation.
    let paths: String =
        IDS.iter().map(|id| format!("{}\n", fixture(&format!("folders/train/{id}")).display())).collect();
    let images: String = photos()
        .iter()
        .map(|p| format!("{}\n", fixture(&format!("folders/{}/{}/{}.JPEG", p.split, IDS[p.label], p.name)).display()))
        .collect();
    drop(paths);
    let alone = TempDir::new().unwrap();
    write(alone.path().join("all.txt"), images);
    let set = open_at(alone.path().join("all.txt")).unwrap();
    assert_eq!(set.classes, IDS);
    assert_eq!((set.split("train").unwrap().len(), set.split("val").unwrap().len()), (3, 3));
    assert!(noted(&set, "holds out"));
}

#[test]
fn malformed_tables_give_errors() {
    let root = TempDir::new().unwrap();
    write(root.path().join("a.jpg"), b"");
    let file = root.path().join("t.csv");
    for (text, part) in [
        ("", "the file is empty"),
        ("path,label\n", "lists no images"),
        ("path,label\na.jpg\n", "line 2 has only 1 column(s)"),
        ("path,label\nmissing.jpg,3\n", "missing.jpg is missing"),
        ("path,label,split\na.jpg,0,holdout\n", "unknown split \"holdout\""),
        ("path,x,y\na.jpg,0,1\n", "not labels"),
        ("path,one,two\na.jpg,0,1\n", "no column is recognized as labels; columns: path, one, two"),
        ("path,label\na.jpg,-1\n", "none of its images has a label"),
        ("path,label\na.jpg,70000\n", "only 1 distinct numbers occur"),
        ("path,label,split\na.jpg,cat,train\nb.jpg,dog,train\na.jpg,cat,val\n", "val has no images of dog"),
    ] {
        if part == "not labels" {
            // `y` is a common name of label columns.
            write(file.clone(), text);
            assert_eq!(open_at(&file).unwrap().classes.len(), 2);
            continue;
        }
        write(file.clone(), text);
        refused(&file, part);
    }
}

#[test]
fn archive_of_class_folders_is_read() {
    let expected = expected();
    let set = open_at(fixture("sample.zip")).unwrap();
    assert_eq!((set.form, contents(&set)), (Form::Archive, expected.clone()));

    let root = TempDir::new().unwrap();
    let path = root.path().join("sample.tar");
    let files = |prefix: &str| -> Vec<(String, Vec<u8>)> {
        let name = |photo: &Photo| format!("{prefix}{}/{}/{}.JPG", photo.split, CLASSES[photo.label], photo.name);
        photos().into_iter().map(|photo| (name(&photo), photo.bytes)).collect()
    };
    for prefix in ["", "./", "some/where/", "./photos/"] {
        let mut all = files(prefix);
        all.push((format!("{prefix}README.txt"), b"text".to_vec()));
        all.push((format!("{prefix}__MACOSX/train/bulbul/1.jpg"), b"shadow".to_vec()));
        write(path.clone(), tar(&all));
        let set = open_at(&path).unwrap();
        assert_eq!((set.form, contents(&set)), (Form::Archive, expected.clone()), "{prefix}");
        assert!(noted(&set, "ignored 2"), "{:?}", set.notes);
    }
    // All images without splits.
    let flat: Vec<(String, Vec<u8>)> =
        photos().into_iter().map(|p| (format!("{}/{}{}.jpg", CLASSES[p.label], p.split, p.name), p.bytes)).collect();
    write(path.clone(), tar(&flat));
    let set = open_at(&path).unwrap();
    assert_eq!((set.classes.len(), set.split("train").unwrap().len(), set.split("val").unwrap().len()), (3, 3, 3));

    write(path.clone(), tar(&[("1.jpg".into(), vec![1])]));
    refused(&path, "no class folders");
    write(path.clone(), tar(&[("1.txt".into(), vec![1])]));
    refused(&path, "contains no images");
    write(path.clone(), b"nothing like an archive, though long enough to be one".repeat(20));
    refused(&path, "not a tar archive");

    let zip = fs::read(fixture("sample.zip")).unwrap();
    let path = root.path().join("sample.zip");
    for length in [0, 10, zip.len() / 2, zip.len() - 30] {
        write(path.clone(), &zip[..length]);
        refused(&path, "truncated");
    }
    for at in (0..zip.len()).step_by(5) {
        let mut damaged = zip.clone();
        damaged[at] ^= 0x2a;
        write(path.clone(), &damaged);
        if let Ok(set) = open_at(&path) {
            for split in [set.train, set.val].into_iter().flatten() {
                (0..split.len()).for_each(|index| drop(split.get(index)));
            }
        }
    }
}

/// Writes the files into folders and into an archive, and returns both paths.
fn folders_and_archive(root: &Path, files: &[(String, Vec<u8>)]) -> [PathBuf; 2] {
    files.iter().for_each(|(name, bytes)| write(root.join("set").join(name), bytes));
    let archive = root.join("set.tar");
    write(archive.clone(), tar(files));
    [root.join("set"), archive]
}

#[test]
fn folders_and_archives_have_the_same_splits() {
    let expected = expected();
    for (train, val) in [
        ("Training", "Validation"),
        ("TRAIN", "dev"),
        ("seg_train/seg_train", "seg_val/seg_val"),
        ("pets/PetImages/train_images", "pets/PetImages/valid_images"),
        ("birds_train", "birds_val"),
        ("train2017", "val2017"),
    ] {
        let root = TempDir::new().unwrap();
        let files = photos().into_iter().map(|photo| {
            let split = if photo.split == "train" { train } else { val };
            (format!("{split}/{}/{}.JPG", CLASSES[photo.label], photo.name), photo.bytes)
        });
        for path in folders_and_archive(root.path(), &files.collect::<Vec<_>>()) {
            let set = open_at(&path).unwrap();
            assert_eq!(contents(&set), expected, "{}", path.display());
            assert!(!set.divided);
        }
    }
}

#[test]
fn folders_and_archives_use_the_same_validation_images() {
    let root = TempDir::new().unwrap();
    let names =
        ["x/a", "x/a/b", "x/c", "x/c/a/b"].iter().flat_map(|folder| (0..9).map(move |i| format!("{folder}/{i}.jpg")));
    let files: Vec<_> = names.map(|name| (name, vec![1])).collect();
    let held_out = folders_and_archive(root.path(), &files).map(|path| {
        let val = open_at(&path).unwrap().val.unwrap();
        (0..val.len()).map(|index| val.name(index).replace(path.to_str().unwrap(), "")).collect::<Vec<_>>()
    });
    assert_eq!(held_out[0].len(), 8);
    assert_eq!(held_out[0], held_out[1]);
}

#[test]
fn system_files_and_hidden_folders_are_ignored() {
    const CLUTTER: [&str; 10] = [
        "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/._1.jpg",
        ".ipynb_checkpoints/1-checkpoint.jpg",
        "Thumbs.db",
        "$RECYCLE.BIN/$R1.jpg",
        "lost+found/1.jpg",
        ".hidden/1.jpg",
        "._1.jpg",
        "desktop.ini",
        "#recycle/1.jpg",
    ];
    let expected = expected();
    let root = TempDir::new().unwrap();
    let mut files: Vec<(String, Vec<u8>)> = photos()
        .into_iter()
        .map(|photo| (format!("all/{}/{}/{}.JPG", photo.split, CLASSES[photo.label], photo.name), photo.bytes))
        .collect();
    for name in CLUTTER {
        for folder in ["", "all/", "all/train/", "all/val/", "all/train/bulbul/"] {
            files.push((format!("{folder}{name}"), b"not to be read".to_vec()));
        }
    }
    for path in folders_and_archive(root.path(), &files) {
        let set = open_at(&path).unwrap();
        assert_eq!(contents(&set), expected, "{}", path.display());
        assert!(noted(&set, "ignored"), "{:?}", set.notes);
    }
}

#[test]
fn several_data_sets_in_a_folder_are_rejected() {
    let root = TempDir::new().unwrap();
    let files: Vec<_> = ["Dataset", "Examples"]
        .into_iter()
        .flat_map(|set| ["cat", "dog"].map(|class| (format!("{set}/{class}/1.jpg"), vec![1])))
        .collect();
    for path in folders_and_archive(root.path(), &files) {
        let error = refused(&path, "Dataset, Examples");
        assert!(error.hint().unwrap().contains("Dataset"), "{:?}", error.hint());
    }
}

#[test]
fn other_forms_are_found_in_a_wrapping_folder() {
    let root = TempDir::new().unwrap();
    let inner = root.path().join("download/set");
    write(inner.join("shards/train-000.tar"), shard(&of_split("train"), cls));
    write(inner.join("shards/val-000.tar"), shard(&of_split("val"), cls));
    let set = open_at(root.path()).unwrap();
    assert_eq!((set.form, contents(&set).len()), (Form::Shards, 6));
}

/// Returns the results of an epoch: indices in order, the pixels, and the number of skipped images.
fn epoch(source: std::sync::Arc<dyn Source>, workers: usize, on_bad_image: OnBadImage) -> (Vec<usize>, Vec<u8>, usize) {
    let preprocess = Preprocess { resize: 16.into(), crop: 16.into(), ..Preprocess::default() };
    let config = LoaderConfig {
        batch_size: 2,
        workers,
        seed: 5,
        shuffle: true,
        sampling: Sampling::Once,
        on_bad_image,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(source, Transform::Eval(preprocess), config);
    let (mut indices, mut pixels) = (Vec::new(), Vec::new());
    for batch in loader.epoch(1) {
        let batch = batch.unwrap();
        indices.extend(batch.indices);
        pixels.extend(batch.images);
    }
    (indices, pixels, loader.skipped().len())
}

#[test]
fn shards_load_the_same_on_any_number_of_threads() {
    for path in ["parquet", "sample.zip"] {
        let train = open_at(fixture(path)).unwrap().split("train").unwrap();
        let one = epoch(train.clone(), 1, OnBadImage::Fail);
        assert_eq!(one, epoch(train, 4, OnBadImage::Fail), "{path}");
        assert_eq!(one.0.len(), 3);
    }
}

#[test]
fn files_missing_during_training_are_skipped() {
    let root = TempDir::new().unwrap();
    for photo in photos() {
        write(root.path().join(format!("{}/{}/{}.jpg", photo.split, photo.label, photo.name)), &photo.bytes);
    }
    let train = open_at(root.path()).unwrap().split("train").unwrap();
    fs::remove_file(train.name(1)).unwrap();
    let (indices, _, skipped) = epoch(train, 2, OnBadImage::Skip);
    assert_eq!((indices.len(), skipped), (2, 1));

    // A shard that is truncated after it was listed.
    let path = root.path().join("train.tar");
    let whole = shard(&of_split("train"), cls);
    write(path.clone(), &whole);
    let train = open_at(root.path().join("train.ta?")).unwrap().split("train").unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(600).unwrap();
    let error = train.get(0).unwrap_err();
    assert!(matches!(error, DataError::Image { .. }), "{error}");
}

/// Uses enough files that the listing is cached.
#[test]
fn cached_listing_follows_changes() {
    let root = TempDir::new().unwrap();
    let class = |n: usize| root.path().join(format!("data/class_{n:02}"));
    for n in 0..20 {
        fs::create_dir_all(class(n)).unwrap();
        for image in 0..510 {
            fs::write(class(n).join(format!("{image}.jpg")), b"").unwrap();
        }
    }
    let data = root.path().join("data");
    let count = || {
        let set = open(data.to_str().unwrap(), &OpenOptions { val_fraction: 0.0, ..options() }).unwrap();
        set.split("train").unwrap().len()
    };
    assert_eq!(count(), 10_200);
    let kept = data.join(".mbconv/folders");
    // Recently written folders may change again within the resolution of the clock, so their
    // listing is not cached yet.
    let settled = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    for n in 0..20 {
        fs::File::open(class(n)).unwrap().set_modified(settled).unwrap();
    }
    assert_eq!(count(), 10_200);
    assert!(kept.metadata().unwrap().len() > 50_000);
    assert_eq!(count(), 10_200);
    fs::write(class(3).join("new.jpg"), b"").unwrap();
    assert_eq!(count(), 10_201);
    fs::remove_file(class(4).join("0.jpg")).unwrap();
    fs::remove_dir_all(class(5)).unwrap();
    assert_eq!(count(), 9_690);
    // A damaged cache is ignored.
    let bytes = fs::read(&kept).unwrap();
    for length in [0, 10, 30, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&kept, &bytes[..length]).unwrap();
        assert_eq!(count(), 9_690, "{length}");
    }
    fs::write(&kept, [&bytes[..17], &[0xff; 200]].concat()).unwrap();
    assert_eq!(count(), 9_690);
}

#[test]
fn stray_archives_do_not_hide_image_folders() {
    let root = TempDir::new().unwrap();
    for photo in photos() {
        write(root.path().join(format!("{}/{}/{}.jpg", photo.split, photo.label, photo.name)), &photo.bytes);
    }
    write(root.path().join("backup.tar"), shard(&of_split("train"), cls));
    write(root.path().join("labels.csv"), "path,label\n");
    write(root.path().join("notes.parquet"), "");
    assert_eq!(open_at(root.path()).unwrap().form, Form::SplitFolders);
}

/// Run with `MBCONV_FORMS=OUT cargo test --release --test data_forms --
/// --ignored` after `scripts/make_sample_forms.py PHOTOS OUT`.
#[test]
#[ignore = "reads what scripts/make_sample_forms.py made"]
fn all_sample_forms_give_the_same_pixels() {
    let root = PathBuf::from(std::env::var("MBCONV_FORMS").expect("MBCONV_FORMS"));
    let expected = contents(&open_at(root.join("folders")).unwrap());
    for (path, form) in [
        ("ilsvrc", Form::Ilsvrc),
        ("ilsvrc-flat", Form::Ilsvrc),
        ("kaggle", Form::Ilsvrc),
        ("wds", Form::Shards),
        ("wds-json", Form::Shards),
        ("wds/sample-{train,val}-{000..001}.tar", Form::Shards),
        ("parquet", Form::Parquet),
        ("table/all.csv", Form::Table),
        ("list", Form::Table),
        ("sample.tar", Form::Archive),
        ("sample.zip", Form::Archive),
    ] {
        let set = open_at(root.join(path)).unwrap();
        assert_eq!(set.form, form, "{path}");
        let found = contents(&set);
        assert!(found == expected, "{path}: {} images instead of {}", found.len(), expected.len());
        println!("{path}: {} images of {} classes", found.len(), set.classes.len());
    }
}

/// Run with `cargo test --release --test data_forms -- --ignored --nocapture listing`. Writes 1000
/// folders of 1280 links each into the temporary folder and prints the time for listing them.
#[test]
#[ignore = "writes 1.28 million directory entries"]
fn listing_of_imagenet() {
    let root = TempDir::new().unwrap();
    for class in 0..1000 {
        let folder = root.path().join(format!("train/n{class:08}"));
        fs::create_dir_all(&folder).unwrap();
        let first = folder.join(format!("n{class:08}_0.JPEG"));
        fs::write(&first, b"").unwrap();
        (1..1280).for_each(|image| fs::hard_link(&first, folder.join(format!("n{class:08}_{image}.JPEG"))).unwrap());
        let settled = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::open(&folder).unwrap().set_modified(settled).unwrap();
    }
    for what in ["listed", "recalled", "recalled again"] {
        let begun = std::time::Instant::now();
        let set = open_at(root.path()).unwrap();
        println!("{what} {} images in {:.2?}", set.split("train").unwrap().len(), begun.elapsed());
    }
}
