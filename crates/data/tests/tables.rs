//! Tables, shards and Parquet files in common layouts: images and labels are found, and unusable
//! files are rejected.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mbconv_data::{DataError, DataSet, Form, LabelSource, OpenOptions, TableOptions, open};
use tempfile::TempDir;

/// Creates a folder with these files. Each image contains its path.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new().unwrap();
    for (name, contents) in files {
        write(root.path().join(name), contents);
    }
    root
}

fn write(path: PathBuf, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

fn images(root: &Path, names: &[&str]) {
    names.iter().for_each(|name| write(root.join(name), name));
}

fn options() -> OpenOptions {
    OpenOptions { val_fraction: 0.0, classes_may_differ: true, ..OpenOptions::default() }
}

fn open_at(path: impl AsRef<Path>) -> Result<DataSet, DataError> {
    open(path.as_ref().to_str().unwrap(), &options())
}

/// Returns all images below `root` by path, with split and class.
fn samples(root: &Path, set: &DataSet) -> BTreeMap<String, (&'static str, String)> {
    let mut samples = BTreeMap::new();
    for (name, split) in [("train", &set.train), ("val", &set.val), ("test", &set.test)] {
        let Some(split) = split else { continue };
        for index in 0..split.len() {
            let path = split.path(index).unwrap();
            let path = path.canonicalize().unwrap_or(path);
            let path = path.strip_prefix(root.canonicalize().unwrap()).unwrap().to_str().unwrap().to_string();
            samples.insert(path, (name, set.classes[split.label(index)].clone()));
        }
    }
    samples
}

/// Returns all images as text: `path split class`.
fn listed(root: &Path, set: &DataSet) -> Vec<String> {
    samples(root, set).into_iter().map(|(path, (split, class))| format!("{path} {split} {class}")).collect()
}

fn noted(set: &DataSet, part: &str) -> bool {
    set.notes.iter().any(|note| note.contains(part))
}

/// Returns the error of opening a data set. Its text contains `part`.
fn refused(path: impl AsRef<Path>, part: &str) -> DataError {
    let error = open_at(path).expect_err("opened");
    assert!(error.to_string().contains(part), "{error}");
    error
}

#[test]
fn kaggle_competition_layouts_are_read() {
    let kaggle = folder(&[
        ("train.csv", "image_id,label\n000.jpg,0\n001.jpg,1\n"),
        ("sample_submission.csv", "image_id,label\n900.jpg,4\n"),
    ]);
    images(kaggle.path(), &["train_images/000.jpg", "train_images/001.jpg", "test_images/900.jpg"]);
    let expected = ["train_images/000.jpg train 0", "train_images/001.jpg train 1"];
    for data in [kaggle.path().to_path_buf(), kaggle.path().join("train.csv")] {
        let set = open_at(data).unwrap();
        assert_eq!((set.form, listed(kaggle.path(), &set)), (Form::Table, expected.map(String::from).to_vec()));
    }

    let breeds = folder(&[("labels.csv", "id,breed\n00a,pug\n00b,husky\n")]);
    images(breeds.path(), &["train/00a.jpg", "train/00b.jpg", "test/00a.jpg", "test/00c.jpg"]);
    let set = open_at(breeds.path()).unwrap();
    assert_eq!(listed(breeds.path(), &set), ["train/00a.jpg train pug", "train/00b.jpg train husky"]);

    // A table of test images has no labels.
    let aptos = folder(&[("train.csv", "id_code,diagnosis\n7,2\n8,0\n"), ("test.csv", "id_code\n9\n")]);
    images(aptos.path(), &["train_images/7.png", "train_images/8.png", "test_images/9.png"]);
    let set = open_at(aptos.path()).unwrap();
    assert_eq!(listed(aptos.path(), &set), ["train_images/7.png train 2", "train_images/8.png train 0"]);
    assert!(noted(&set, "test.csv is ignored"), "{:?}", set.notes);
}

#[test]
fn metadata_files_in_split_folders_are_read() {
    let root = folder(&[
        ("train/metadata.csv", "file_name,label\n0.jpg,cat\n1.jpg,dog\n"),
        (
            "test/metadata.jsonl",
            "{\"file_name\": \"0.jpg\", \"label\": \"dog\"}\n{\"file_name\": \"1.jpg\", \"label\": \"cat\"}\n",
        ),
    ]);
    images(root.path(), &["train/0.jpg", "train/1.jpg", "test/0.jpg", "test/1.jpg"]);
    let set = open_at(root.path()).unwrap();
    let expected = ["test/0.jpg val dog", "test/1.jpg val cat", "train/0.jpg train cat", "train/1.jpg train dog"];
    assert_eq!(listed(root.path(), &set), expected);
}

#[test]
fn common_column_names_are_recognized() {
    let root = TempDir::new().unwrap();
    images(root.path(), &["img/0.jpg", "img/1.jpg", "img/2.png"]);
    let file = root.path().join("t.csv");
    for (text, expected) in [
        ("path,label\nimg\\0.jpg,cat\nimg\\1.jpg,dog\n", "0.jpg train cat, 1.jpg train dog"),
        ("image,cat,dog\nimg/0,1.0,0.0\nimg/1,0.0,1.0\n", "0.jpg train cat, 1.jpg train dog"),
        ("path,label\nimg/0.jpg,001\nimg/1.jpg,002\n", "0.jpg train 001, 1.jpg train 002"),
        ("lesion_id,image_id,dx,dx_type,age\nH0,0,nv,histo,50\nH1,2,mel,histo,\n", "0.jpg train nv, 2.png train mel"),
        ("path,label,fold\nimg/0.jpg,cat,0\nimg/1.jpg,dog,1\n", "0.jpg val cat, 1.jpg train dog"),
        (
            "path,label,Usage\nimg/0.jpg,cat,Training\nimg/1.jpg,dog,PublicTest\nimg/2,dog,PrivateTest\n",
            "0.jpg train cat, 1.jpg val dog, 2.png test dog",
        ),
        ("fname,labels,is_valid\nimg/0.jpg,cat,False\nimg/1.jpg,dog,True\n", "0.jpg train cat, 1.jpg val dog"),
        ("path,label,class\nimg/0.jpg,1,cat\nimg/1.jpg,0,dog\n", "0.jpg train cat, 1.jpg train dog"),
        (
            "Width,Height,Roi.X1,ClassId,Path\n27,26,5,0,img/0.jpg\n27,26,5,1,img/1.jpg\n",
            "0.jpg train 0, 1.jpg train 1",
        ),
        (
            "Filename;Class Name\r\n\"img/0.jpg\";\"cat; wild\"\r\nimg/1.jpg;dog\r\n",
            "0.jpg train cat; wild, 1.jpg train dog",
        ),
        (
            ",img_path,label\n0,/home/me/set/img/0.jpg,cat\n1,/home/me/set/img/1.jpg,dog\n",
            "0.jpg train cat, 1.jpg train dog",
        ),
        ("img/0,cat\nimg/1,dog\n", "0.jpg train cat, 1.jpg train dog"),
        ("path,label\nimg/0.jpg,True\nimg/1.jpg,False\n", "0.jpg train True, 1.jpg train False"),
        ("path,label\nimg/0.jpg,1.0\nimg/1.jpg,0.0\n", "0.jpg train 1, 1.jpg train 0"),
        ("path,label\nimg/0.jpg,cat\n./img/0.jpg,cat\nimg/1.jpg,dog\n", "0.jpg train cat, 1.jpg train dog"),
        (
            "path,label\nimg/0.jpg,cat\nimg/1.jpg,dog\nimg/9.jpg,dog\n",
            "0.jpg train cat, 1.jpg train dog, 9.jpg train dog",
        ),
    ] {
        write(file.clone(), text);
        let set = open_at(&file).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(listed(root.path(), &set).join(", ").replace("img/", ""), expected, "{text}");
    }
    let with_notes = |text: &str, part: &str| {
        write(file.clone(), text);
        let set = open_at(&file).unwrap();
        assert!(noted(&set, part), "{text}: {:?}", set.notes);
    };
    with_notes("image,cat,dog\nimg/0,1,0\nimg/1,0,1\n", "the labels are 2 one-hot columns: cat, dog");
    with_notes(
        "path,label,fold\nimg/0.jpg,cat,0\nimg/1.jpg,dog,1\n",
        "fold 0 of column \"fold\" is used for validation",
    );
    with_notes("path,label,set\nimg/0.jpg,cat,A\nimg/1.jpg,dog,B\n", "\"set\" is ignored: A, B are not split names");
    with_notes("path,label,xmin\nimg/0.jpg,cat,1\nimg/1.jpg,dog,2\n", "bounding boxes are ignored");
    with_notes("path,label\nimg/0.jpg,cat\nimg/0.jpg,cat\nimg/1.jpg,dog\n", "ignored 1 row(s) that repeat");
    with_notes("path,label\nimg/0.jpg,cat\nimg/1.jpg,dog\nimg/9.jpg,dog\n", "1 of 3 images are missing, the first");
    with_notes("path,label\nimg/0.jpg,Cat\nimg/1.jpg,cat\n", "\"Cat\" and \"cat\" in");
    with_notes("path,label\nimg/0.jpg,cat\nimg/1.jpg,\n", "ignored 1 image(s) without a label");
    with_notes("path,label\n/home/me/img/0.jpg,cat\n/home/me/img/1.jpg,dog\n", "the prefix /home/me/ is removed");
}

#[test]
fn contradictory_tables_are_rejected() {
    let root = TempDir::new().unwrap();
    images(root.path(), &["img/0.jpg", "img/1.jpg", "img/2.jpg"]);
    let file = root.path().join("t.csv");
    for (text, part) in [
        ("path,label\nimg/0.jpg,cat\nimg/1.jpg,dog\nimg/0.jpg,dog\n", "img/0.jpg the label \"dog\", but line 2 of"),
        ("path,class,xmin,ymin\nimg/0.jpg,cat,1,2\nimg/0.jpg,dog,3,4\n", "the table contains bounding boxes"),
        ("path,label\nhttps://x.org/0.jpg,cat\n", "line 2 contains the URL https://x.org/0.jpg"),
        ("path,label,target\nimg/0.jpg,0,1\nimg/1.jpg,0,2\n", "both \"label\" and \"target\""),
        ("path,label\nimg/0.jpg,sea lion, eared\n", "line 2 has 3 columns, but the first row has 2"),
        ("path,label\nimg/0.jpg,\"cat\nimg/1.jpg,dog\n", "a closing quote is missing"),
        ("path,label\n,cat\n", "line 2 has no image"),
        ("id,label\nx,cat\ny,dog\n", "x is missing"),
        ("path,label\nimg/0.jpg,cat\nimg/8.jpg,dog\nimg/9.jpg,dog\n", "2 of 3 images are missing"),
        ("path\n0.jpg\n1.jpg\n", "no label column"),
    ] {
        write(file.clone(), text);
        refused(&file, part);
    }
}

#[test]
fn options_select_columns_folders_and_folds() {
    let root = folder(&[("t.csv", "id,species,other,part\n0,7000000,b,0\n1,9000000,a,1\n")]);
    images(root.path(), &["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]);
    let file = root.path().join("t.csv");
    let hint = refused(&file, "image folder may be").hint().unwrap();
    assert!(hint.contains("images=FOLDER") && hint.contains("data.image_folder"), "{hint}");
    let given = |options: &str| {
        let set = open(&format!("{}?{options}", file.display()), &self::options());
        set.map(|set| listed(root.path(), &set).join(", "))
    };
    assert_eq!(given("images=b&label=other").unwrap(), "b/0.jpg train b, b/1.jpg train a");
    assert_eq!(given("images=a&label=3&split=part&fold=1").unwrap(), "a/0.jpg train b, a/1.jpg val a");
    // Numeric ids are class names if the column is named explicitly.
    assert_eq!(given("images=a&label=species").unwrap(), "a/0.jpg train 7000000, a/1.jpg train 9000000");
    assert!(given("images=a").unwrap_err().to_string().contains("label \"9000000\""));
    assert!(given("images=c").unwrap_err().to_string().contains("no data set found at"));
    assert!(
        given("label=none&images=a").unwrap_err().to_string().contains("no column \"none\", only id, species, other")
    );
    assert!(matches!(given("labels=other"), Err(DataError::Option { .. })));
    // The options of the data set override those of the recipe.
    let table = TableOptions { images: Some("a".into()), label: Some("species".into()), ..TableOptions::default() };
    let options = OpenOptions { table, ..self::options() };
    let set = open(&format!("{}?label=other", file.display()), &options).unwrap();
    assert_eq!(listed(root.path(), &set), ["a/0.jpg train b", "a/1.jpg train a"]);
    // Forms without columns ignore the options of the recipe.
    let folders = open(root.path().to_str().unwrap(), &options);
    assert!(folders.is_ok_and(|set| set.form != Form::Table || set.classes == ["7000000", "9000000"]));
    let wrong = open(&format!("{}?label=other&form=folders", root.path().display()), &self::options()).unwrap_err();
    assert!(wrong.to_string().contains("has no columns"), "{wrong}");
}

#[test]
fn tables_are_read_by_pattern_and_relative_to_the_working_directory() {
    let root = folder(&[
        ("train.csv", "path,label\na/0.jpg,x\na/1.jpg,y\n"),
        ("val.csv", "path,label\na/2.jpg,x\na/3.jpg,y\n"),
    ]);
    images(root.path(), &["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"]);
    let both = format!("{}::{}", root.path().join("train.csv").display(), root.path().join("val.csv").display());
    let set = open(&both, &options()).unwrap();
    assert_eq!(listed(root.path(), &set), ["a/0.jpg train x", "a/1.jpg train y", "a/2.jpg val x", "a/3.jpg val y"]);
}

#[test]
fn table_next_to_storage_folders_is_used() {
    let storage = |table: &str, text: &str| {
        let root = folder(&[(table, text)]);
        images(root.path(), &["part_1/0.jpg", "part_2/1.jpg", "part_1/2.jpg", "part_2/3.jpg"]);
        root
    };
    let rows = "part_1/0.jpg,cat\npart_2/1.jpg,dog\npart_1/2.jpg,dog\npart_2/3.jpg,cat\n";
    let expected =
        ["part_1/0.jpg train cat", "part_1/2.jpg train dog", "part_2/1.jpg train dog", "part_2/3.jpg train cat"];
    let root = storage("metadata.csv", &format!("file_name,label\n{rows}"));
    let set = open_at(root.path()).unwrap();
    assert_eq!((set.form, listed(root.path(), &set)), (Form::Table, expected.map(String::from).to_vec()));
    assert!(noted(&set, "metadata.csv, not from the folder names part_1, part_2"), "{:?}", set.notes);
    let set = open(&format!("{}?form=folders", root.path().display()), &options()).unwrap();
    assert_eq!((set.form, set.classes), (Form::FlatFolder, vec!["part_1".to_string(), "part_2".into()]));

    // HAM10000: ids of images in several folders.
    let root = storage("HAM10000_metadata.csv", "lesion_id,image_id,dx\nH0,0,nv\nH1,1,mel\nH2,2,mel\nH3,3,nv\n");
    let set = open_at(root.path()).unwrap();
    assert_eq!((set.form, set.classes.join(" ")), (Form::Table, "mel nv".into()));

    // Folders may be genera and labels species.
    let fine = "part_1/0.jpg,a\npart_2/1.jpg,b\npart_1/2.jpg,c\npart_2/3.jpg,d\n";
    let root = storage("labels.csv", &format!("file_name,label\n{fine}"));
    let hint = refused(root.path(), "give different labels").hint().unwrap();
    assert!(hint.contains("?form=table'") && hint.contains("?form=folders'") && hint.contains("data.form"), "{hint}");
    for (form, classes) in [("table", "a b c d"), ("folders", "part_1 part_2")] {
        let set = open(&format!("{}?form={form}", root.path().display()), &options()).unwrap();
        assert_eq!(set.classes.join(" "), classes);
    }
    let table = TableOptions { form: LabelSource::Table, ..TableOptions::default() };
    assert_eq!(open(root.path().to_str().unwrap(), &OpenOptions { table, ..options() }).unwrap().classes.len(), 4);

    // A table with the folders as labels, one without labels, and one of other data.
    let same = "file_name,label\npart_1/0.jpg,part_1\npart_2/1.jpg,part_2\n";
    for (text, note) in
        [(same, ""), ("file_name,text,author\npart_1/0.jpg,a cat,me\n", "is ignored"), ("a,b\nx,y\n", "is ignored")]
    {
        let root = storage("metadata.csv", text);
        let set = open_at(root.path()).unwrap();
        assert_eq!((set.form, set.classes.len()), (Form::FlatFolder, 2), "{text}");
        assert!(note.is_empty() || noted(&set, note), "{:?}", set.notes);
    }
}

#[test]
fn tables_and_class_names_in_other_encodings_are_read() {
    let root = TempDir::new().unwrap();
    images(root.path(), &["0.jpg", "1.jpg"]);
    let file = root.path().join("t.csv");
    let text = "path,label\n0.jpg,кот\n1.jpg,пёс\n";
    let utf16 = |unit: fn(u16) -> [u8; 2]| format!("\u{feff}{text}").encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    for bytes in [text.into(), format!("\u{feff}{text}").into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)]
    {
        write(file.clone(), bytes);
        assert_eq!(open_at(&file).unwrap().classes, ["кот", "пёс"]);
    }
    write(file.clone(), b"path,label\n0.jpg,\xea\xee\xf2\n1.jpg,\xef\xb8\xf1\n");
    let hint = refused(&file, "t.csv is not valid UTF-8: line 2 looks like WINDOWS-1251").hint().unwrap();
    assert!(hint.contains("iconv -f WINDOWS-1251 -t UTF-8"), "{hint}");
    // The list of class names for numeric labels.
    write(file.clone(), "path,label\n0.jpg,0\n1.jpg,1\n");
    write(root.path().join("classes.txt"), b"caf\xe9\nth\xe9\n");
    refused(&file, "classes.txt is not valid UTF-8: line 1 looks like WINDOWS-1252");
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn archives_with_class_folders_in_other_encodings_are_rejected() {
    let root = TempDir::new().unwrap();
    let mut archive = tar(&[("train/c1/0.jpg", "A"), ("train/c2/0.jpg", "B")]);
    for (name, damaged) in [(b"train/c1", 0xaa), (b"train/c2", 0xaf)] {
        let at = archive.windows(8).position(|window| window == name).unwrap();
        archive[at + 7] = damaged;
        // The checksum of the header.
        let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(archive[at + i]) }).sum();
        archive[at + 148..at + 155].copy_from_slice(format!("{sum:07o}").as_bytes());
    }
    write(root.path().join("a.tar"), archive);
    refused(root.path().join("a.tar"), "is not valid UTF-8: unpack the archive");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Returns the class and the contents of each training image.
fn train(set: &DataSet) -> String {
    let train = set.split("train").unwrap();
    let sample = |index| match train.get(index).unwrap().image {
        mbconv_data::StoredImage::Encoded(bytes) => {
            format!("{} {}", String::from_utf8(bytes).unwrap(), set.classes[train.label(index)])
        }
        other => panic!("{other:?}"),
    };
    (0..train.len()).map(sample).collect::<Vec<_>>().join(", ")
}

#[test]
fn shards_are_read_as_by_the_webdataset_library() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("train-0.tar");
    for (files, expected) in [
        // As written by tar on macOS.
        (
            &[
                ("./._0.jpg", "x"),
                ("./0.jpg", "A"),
                ("./._0.cls", "x"),
                ("./0.cls", "1"),
                ("./1.jpg", "B"),
                ("./._1.cls", ""),
                ("./1.cls", "0"),
            ][..],
            "A 1, B 0",
        ),
        (&[("0.jpg", "A"), ("0.txt", "cat\n"), ("1.jpg", "B"), ("1.txt", "dog")], "A cat, B dog"),
        (&[("0.jpg", "A"), ("0.index", "1"), ("1.jpg", "B"), ("1.index", "000")], "A 1, B 0"),
        (&[("a/0.JPG", "A"), ("a/0.CLS", "1"), ("b/0.jpg", "B"), ("b/0.cls", "0")], "A 1, B 0"),
        (&[("a.b/0.jpg", "A"), ("a.b/0.cls", "1"), ("a.b/1.jpg", "B"), ("a.b/1.cls", "0")], "A 1, B 0"),
        // A caption and a label; metadata without a class and a text label.
        (&[("0.jpg", "A"), ("0.txt", "a long story"), ("0.cls", "0")], "A 0"),
        (&[("0.jpg", "A"), ("0.json", "{\"width\": 3}"), ("0.txt", "cat")], "A cat"),
        (&[("__meta__/0.json", "{}"), ("0.jpg", "A"), ("0.cls", "0")], "A 0"),
    ] {
        for (path, bytes) in [(file.clone(), tar(files)), (root.path().join("train-0.tar.gz"), gzip(&tar(files)))] {
            write(path.clone(), bytes);
            for data in [root.path(), path.as_path()] {
                let set = open_at(data).unwrap_or_else(|error| panic!("{files:?}: {error}"));
                assert_eq!((set.form, train(&set).as_str()), (Form::Shards, expected), "{files:?}");
            }
            fs::remove_file(path).unwrap();
        }
    }
    // More shards than are kept open, one of them truncated.
    let two = tar(&[("0.jpg", "A"), ("0.cls", "0"), ("1.jpg", "B"), ("1.cls", "1")]);
    write(root.path().join("train-0.tgz"), gzip(&two));
    let packed = gzip(&two);
    write(root.path().join("train-1.tar.gz"), &packed[..packed.len() - 20]);
    let set = open_at(root.path()).unwrap();
    assert!(
        noted(&set, "2 compressed shard(s) are unpacked") && noted(&set, "train-1.tar.gz is truncated"),
        "{:?}",
        set.notes
    );
    assert!(train(&set).starts_with("A 0, B 1"));
}

#[test]
fn shards_without_labels_give_errors() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("train-0.tar");
    write(root.path().join("train-1.tar"), tar(&[("0.jpg", "A"), ("0.mask.npy", "0")]));
    write(file.clone(), tar(&[("0.jpg", "A"), ("0.pyd", "x"), ("1.jpg", "B"), ("1.pyd", "x")]));
    refused(root.path(), "contain 3 image(s) but no labels; other files: .mask.npy, .pyd");
    write(file.clone(), tar(&[("0.jpg", "A"), ("0.cls", "0"), ("0.JPG", "B")]));
    refused(&file, "sample 0 has two files like 0.JPG");
    let names: Vec<[String; 2]> = (0..12).map(|n| [format!("{n}.jpg"), format!("{n}.txt")]).collect();
    let files: Vec<(&str, &str)> =
        names.iter().flat_map(|[i, t]| [(i.as_str(), "A"), (t.as_str(), t.as_str())]).collect();
    write(file.clone(), tar(&files));
    refused(&file, ".txt files contain captions instead of labels: 12 distinct texts in 12 images");
    // A label in another encoding.
    let mut damaged = tar(&[("0.jpg", "A"), ("0.txt", "cafe")]);
    let at = damaged.windows(4).position(|window| window == b"cafe").unwrap() + 3;
    damaged[at] = 0xe9;
    write(file.clone(), damaged);
    refused(&file, "0.txt is not valid UTF-8: line 1 looks like WINDOWS-1252");
}

/// Returns a fixture written by `scripts/make_label_fixtures.py`.
fn parquet(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/labels").join(format!("{name}.parquet"))
}

#[test]
fn parquet_labels_of_all_types_are_read() {
    for (name, classes, labels) in [
        ("bool", "false true", [1, 0, 1, 0, 1, 0]),
        ("bool_v2", "false true", [1, 0, 1, 0, 1, 0]),
        ("float", "0 1 2", [0, 1, 2, 0, 1, 2]),
        ("double", "0 1 2", [0, 1, 2, 0, 1, 2]),
        ("int8", "0 1 2", [0, 1, 2, 0, 1, 2]),
        ("text", "cat dog eel", [0, 1, 2, 0, 1, 2]),
        ("dictionary", "cat dog eel", [0, 1, 2, 0, 1, 2]),
        ("list_of_one", "0 1 2", [0, 1, 2, 0, 1, 2]),
        ("list_of_one_v2", "cat dog eel", [0, 1, 2, 0, 1, 2]),
        ("class_label", "cat dog eel", [0, 1, 2, 0, 1, 2]),
        ("class_label_list", "cat dog eel", [0, 1, 2, 0, 1, 2]),
        ("plain_binary", "0 1 2", [0, 1, 2, 0, 1, 2]),
    ] {
        let set = open_at(parquet(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((set.form, set.classes.join(" ").as_str()), (Form::Parquet, classes), "{name}");
        let train = set.split("train").unwrap();
        let found: Vec<usize> = (0..train.len()).map(|index| train.label(index)).collect();
        assert_eq!(found, labels, "{name}");
        let pixels = train.get(1).unwrap().image.into_pixels().unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.data[0]), (4, 4, 40), "{name}");
    }
    let set = open_at(parquet("absent")).unwrap();
    assert_eq!(set.split("train").unwrap().len(), 3);
    assert!(noted(&set, "ignored 3 image(s) without a label"), "{:?}", set.notes);
}

#[test]
fn unsupported_parquet_labels_are_rejected() {
    for (name, part) in [
        ("fractions", "label \"0.5\""),
        ("timestamp", "column \"label\" has type timestamp, but labels must be"),
        ("decimal", "column \"label\" has type decimal"),
        ("struct", "column \"label\" has type struct"),
        ("nested", "column \"label\" has type list of list of int64"),
        ("two_columns", "no column is recognized as labels; columns: image, species, age"),
        ("no_image", "column \"image\" has type int64, but images must be binary"),
    ] {
        refused(parquet(name), part);
    }
    let given = |options: &str| open(&format!("{}?{options}", parquet("two_columns").display()), &self::options());
    assert_eq!(given("label=species").unwrap().classes, ["cat", "dog", "eel"]);
    assert!(given("label=breed").unwrap_err().to_string().contains("no column \"breed\", only image, species, age"));
}

/// Returns the names of the classes of each image, in order.
fn label_names(set: &DataSet) -> Vec<String> {
    let all = set.split("all").unwrap();
    (0..all.len()).map(|index| set.label_name(all.label(index)).into_owned()).collect()
}

#[test]
fn labels_with_several_classes_are_multi_label() {
    let root = TempDir::new().unwrap();
    let names = ["img/0.jpg", "img/1.jpg", "img/2.jpg", "img/3.jpg"];
    images(root.path(), &names);
    let open = |name: &str, text: &str, option: &str| {
        std::fs::write(root.path().join(name), text).unwrap();
        let data = format!("{}{option}", root.path().join(name).display());
        mbconv_data::open(&data, &OpenOptions { val_fraction: 0.0, ..OpenOptions::default() }).unwrap()
    };
    let expected = ["cat|dog", "eel", "", "dog|eel"];
    for (name, text) in [
        ("bar.csv", "path,label\nimg/0.jpg,dog|cat\nimg/1.jpg,eel\nimg/2.jpg,\nimg/3.jpg,dog | eel\n"),
        ("semicolon.tsv", "path\tlabel\nimg/0.jpg\tcat;dog\nimg/1.jpg\teel\nimg/2.jpg\t\nimg/3.jpg\tdog;eel\n"),
        ("comma.csv", "path,tags\nimg/0.jpg,\"cat, dog\"\nimg/1.jpg,eel\nimg/2.jpg,\nimg/3.jpg,\"dog,eel,cat,dog\"\n"),
        (
            "python.csv",
            "path,labels\nimg/0.jpg,\"['cat', 'dog']\"\nimg/1.jpg,['eel']\nimg/2.jpg,[]\nimg/3.jpg,\"['dog', 'eel']\"\n",
        ),
        ("columns.csv", "path,cat,dog,eel\nimg/0.jpg,1,1,0\nimg/1.jpg,0,0,1\nimg/2.jpg,0,0,0\nimg/3.jpg,0,1,1\n"),
        (
            "lists.jsonl",
            "{\"path\": \"img/0.jpg\", \"label\": [\"cat\", \"dog\"]}\n{\"path\": \"img/1.jpg\", \"label\": [\"eel\"]}\n\
             {\"path\": \"img/2.jpg\", \"label\": []}\n{\"path\": \"img/3.jpg\", \"label\": [\"dog\", \"eel\"]}\n",
        ),
    ] {
        let set = open(name, text, "");
        let mut expected = expected.map(String::from);
        if name == "comma.csv" {
            expected[3] = "cat|dog|eel".into();
        }
        assert_eq!((set.classes.join(" "), label_names(&set)), ("cat dog eel".into(), expected.to_vec()), "{name}");
        assert!(noted(&set, "the data are multi-label: 3 classes"), "{name}: {:?}", set.notes);
        assert!(noted(&set, "per image on average, 1 image(s) without a class"), "{name}: {:?}", set.notes);
    }

    // The option decides if the contents do not.
    let text = "path,label\nimg/0.jpg,cat/dog\nimg/1.jpg,eel\nimg/2.jpg,cat|dog\n";
    let set = open("option.csv", text, "?separator=/");
    assert_eq!(label_names(&set), ["cat|dog", "eel", "cat|dog"]);
    assert_eq!(set.classes, ["cat", "cat|dog", "dog", "eel"]);
    let single = open("option.csv", text, "?separator=none");
    assert!(single.label_sets().is_none() && single.classes == ["cat/dog", "cat|dog", "eel"]);
    let error = single.check_single_label("this");
    assert!(
        error.is_ok() && set.check_single_label("this").unwrap_err().to_string().contains("this needs data with one")
    );

    // Splits share the classes, and held-out images contain every class.
    let rows: String =
        (0..20).map(|row| format!("img/{row}.jpg,{}\n", ["cat|dog", "dog|eel", "cat"][row % 3])).collect();
    (0..20).for_each(|row| images(root.path(), &[&format!("img/{row}.jpg")]));
    std::fs::write(root.path().join("held.csv"), format!("path,label\n{rows}")).unwrap();
    let set = mbconv_data::open(root.path().join("held.csv").to_str().unwrap(), &OpenOptions::default()).unwrap();
    let [train, val] = [&set.train, &set.val].map(|split| split.clone().unwrap());
    assert_eq!((train.len(), val.len()), (16, 4));
    assert_eq!(mbconv_data::class_counts(&*val, 3).iter().filter(|count| **count > 0).count(), 3);
    assert_eq!(train.label_sets(), val.label_sets());
}

#[test]
fn parquet_lists_are_multi_label() {
    for name in ["list", "list_v2"] {
        let set = open_at(parquet(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let train = set.split("all").unwrap();
        let mut found: Vec<String> =
            (0..train.len()).map(|index| set.label_name(train.label(index)).into_owned()).collect();
        found.sort_unstable();
        assert_eq!(found, ["", "0", "0", "1", "1|2", "2"], "{name}");
        assert_eq!(set.classes, ["0", "1", "2"]);
        assert!(noted(&set, "the data are multi-label"), "{name}: {:?}", set.notes);
    }
}
