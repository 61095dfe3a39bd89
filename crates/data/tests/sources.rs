//! All forms of data sets can be opened, and malformed ones give helpful errors.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use mbconv_data::{DataError, DataSet, Form, OpenOptions, Source, StoredImage, open};
use tempfile::TempDir;

fn options() -> OpenOptions {
    OpenOptions::default()
}

fn open_at(path: &Path) -> Result<DataSet, DataError> {
    open(path.to_str().unwrap(), &options())
}

/// Writes empty files; opening a data set does not decode images.
fn touch(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
}

fn names(source: &dyn Source, root: &Path) -> Vec<String> {
    let prefix = format!("{}/", root.display());
    (0..source.len()).map(|i| source.name(i).strip_prefix(&prefix).unwrap().to_string()).collect()
}

fn labels(source: &dyn Source) -> Vec<usize> {
    (0..source.len()).map(|i| source.label(i)).collect()
}

fn noted(set: &DataSet, part: &str) -> bool {
    set.notes.iter().any(|note| note.contains(part))
}

/// Returns the error of opening a data set. Its text contains `part`.
fn refused(path: &Path, part: &str) -> DataError {
    let error = open_at(path).expect_err("opened");
    assert!(error.to_string().contains(part), "{error}");
    error
}

#[test]
fn split_folders_are_read() {
    let root = TempDir::new().unwrap();
    touch(
        root.path(),
        &[
            "train/cat/b.JPG",
            "train/cat/a.png",
            "train/cat/more/c.webp",
            "train/cat/.hidden.jpg",
            "train/cat/notes.txt",
            "train/Zebra/1.jpeg",
            "train/dog/1.jpg",
            "val/cat/1.jpg",
            "val/dog/1.jpg",
            "test/dog/2.jpg",
            ".cache/x/1.jpg",
        ],
    );
    let error = refused(root.path(), "val has no images of Zebra");
    assert!(
        matches!(&error, DataError::ClassesDiffer { missing, unknown, .. } if missing == &["Zebra"] && unknown.is_empty())
    );
    let allowed = OpenOptions { classes_may_differ: true, ..options() };
    let set = open(root.path().to_str().unwrap(), &allowed).unwrap();
    assert_eq!(set.form, Form::SplitFolders);
    // Sorted by bytes: capitals first.
    assert_eq!(set.classes, ["Zebra", "cat", "dog"]);
    let train = set.split("train").unwrap();
    assert_eq!(
        names(&*train, root.path()),
        ["train/Zebra/1.jpeg", "train/cat/a.png", "train/cat/b.JPG", "train/cat/more/c.webp", "train/dog/1.jpg"]
    );
    assert_eq!(labels(&*train), [0, 1, 1, 1, 2]);
    // Zebra is missing in val; the labels of the other classes are unchanged.
    assert_eq!(labels(&*set.split("valid").unwrap()), [1, 2]);
    assert!(noted(&set, "val has no images of Zebra"), "{:?}", set.notes);
    assert!(noted(&set, "ignored 2"), "{:?}", set.notes);
    // If there is a validation folder too, test/ is a separate split.
    assert_eq!(names(&*set.split("test").unwrap(), root.path()), ["test/dog/2.jpg"]);
    assert_eq!(set.split("all").unwrap().len(), 8);
    assert_eq!(set.select(None).unwrap().0, "val");
    let error = set.split("tset").err().unwrap();
    assert!(error.to_string().ends_with("only train, val, test, all"), "{error}");
}

#[test]
fn validation_split_has_the_name_of_its_folder() {
    for (folder, test) in [("val", false), ("Valid", false), ("validation", false), ("test", true), ("Testing", true)] {
        let root = TempDir::new().unwrap();
        let [one, other] = ["a", "b"].map(|class| format!("{folder}/{class}/2.png"));
        touch(root.path(), &["train/a/1.png", "train/b/1.png", &one, &other]);
        let set = open_at(root.path()).unwrap();
        for alias in ["val", "valid", "validation"] {
            assert_eq!(set.split(alias).unwrap().len(), 2, "{folder} {alias}");
        }
        // A validation folder does not provide a test split.
        assert_eq!(set.split("test").is_ok(), test, "{folder}");
        assert_eq!(set.select(None).unwrap().0, if test { "test" } else { "val" });
        assert_eq!(set.select(Some("val")).unwrap().0, if test { "test" } else { "val" });
        assert_eq!(noted(&set, "the test split is used for validation"), test);
    }
}

#[test]
fn data_without_splits_is_evaluated_as_a_whole() {
    let root = TempDir::new().unwrap();
    touch(root.path(), &["a/1.png", "b/1.png"]);
    let set = open_at(root.path()).unwrap();
    let (name, whole) = set.select(None).unwrap();
    assert_eq!((name, names(&*whole, root.path())), ("all", vec!["a/1.png".to_string(), "b/1.png".into()]));
    let error = set.select(Some("val")).err().unwrap();
    assert!(error.to_string().ends_with("only train, all"), "{error}");

    touch(root.path(), &["a/2.png", "b/2.png"]);
    let set = open_at(root.path()).unwrap();
    assert_eq!(set.select(None).unwrap().1.len(), 4);
    assert_eq!(set.select(Some("val")).unwrap().1.len(), 2);
    assert!(set.select(Some("test")).is_err());
    // A folder named train without other splits.
    let root = TempDir::new().unwrap();
    touch(root.path(), &["train/a/1.png", "train/b/1.png"]);
    assert_eq!(open_at(root.path()).unwrap().select(None).unwrap().0, "train");
}

#[test]
fn single_class_cannot_be_trained_on() {
    let root = TempDir::new().unwrap();
    touch(root.path(), &["one/cat/1.png", "one/cat/2.png", "two/a/1.png", "two/b/1.png"]);
    let set = open_at(&root.path().join("one")).unwrap();
    assert_eq!(set.classes, ["cat"]);
    assert!(noted(&set, "a single class"), "{:?}", set.notes);
    let error = set.check_trainable().unwrap_err();
    assert!(matches!(&error, DataError::SingleClass { class, .. } if class == "cat"));
    assert!(error.hint().unwrap().contains("the class folders"));
    assert!(open_at(&root.path().join("two")).unwrap().check_trainable().is_ok());
}

#[test]
fn unknown_validation_class_is_rejected() {
    let root = TempDir::new().unwrap();
    touch(root.path(), &["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"]);
    let error = refused(root.path(), "val/c");
    assert!(matches!(&error, DataError::UnknownClass { class, .. } if class == "c"));
    assert!(error.hint().is_some());
    let allowed = OpenOptions { classes_may_differ: true, ..options() };
    let set = open(root.path().to_str().unwrap(), &allowed).unwrap();
    assert_eq!(set.classes, ["a", "b", "c"]);
    assert_eq!((labels(&*set.train.clone().unwrap()), labels(&*set.val.clone().unwrap())), (vec![0, 1], vec![0, 2]));
    assert!(noted(&set, "val has no images of b") && noted(&set, "train has no images of c"), "{:?}", set.notes);
}

#[test]
fn flat_folder_is_split_by_seed() {
    let root = TempDir::new().unwrap();
    let mut files: Vec<String> = (0..10).map(|i| format!("a/{i}.jpg")).collect();
    files.extend((0..5).map(|i| format!("b/{i}.jpg")));
    files.extend(["c/0.jpg".to_string(), "d/0.jpg".into(), "d/1.jpg".into()]);
    touch(root.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    let set = open_at(root.path()).unwrap();
    assert_eq!((set.form, set.classes.len()), (Form::FlatFolder, 4));
    let (train, val) = (set.split("train").unwrap(), set.split("val").unwrap());
    let count =
        |source: &dyn Source| (0..4).map(|c| labels(source).iter().filter(|&&l| l == c).count()).collect::<Vec<_>>();
    assert_eq!(count(&*train), [8, 4, 1, 1]);
    assert_eq!(count(&*val), [2, 1, 0, 1]);
    let all: HashSet<String> = names(&*train, root.path()).into_iter().chain(names(&*val, root.path())).collect();
    assert_eq!(all, files.into_iter().collect());

    let again = open_at(root.path()).unwrap();
    assert_eq!(names(&*val, root.path()), names(&*again.split("val").unwrap(), root.path()));
    let held_out = |seed| {
        let set = open(root.path().to_str().unwrap(), &OpenOptions { seed, ..options() }).unwrap();
        names(&*set.split("val").unwrap(), root.path())
    };
    assert!((1..6).any(|seed| held_out(seed) != held_out(0)));

    let none = open(root.path().to_str().unwrap(), &OpenOptions { val_fraction: 0.0, ..options() }).unwrap();
    assert!(none.val.is_none());
    assert_eq!(none.split("train").unwrap().len(), 18);
    for fraction in [-0.1, 1.0, f64::NAN] {
        let options = OpenOptions { val_fraction: fraction, ..options() };
        assert!(matches!(open("digits", &options), Err(DataError::ValFraction(_))), "{fraction}");
    }
}

#[test]
fn classes_may_be_named_train_or_test() {
    let root = TempDir::new().unwrap();
    touch(root.path(), &["train/1.jpg", "car/1.jpg", "test/1.jpg"]);
    // `train` and `test` are splits only if they contain class folders.
    refused(root.path(), "no class folders");
    fs::remove_dir_all(root.path().join("test")).unwrap();
    assert_eq!(open_at(root.path()).unwrap().classes, ["car", "train"]);
}

#[test]
fn malformed_folders_give_errors() {
    let root = TempDir::new().unwrap();
    let missing = root.path().join("missing");
    assert!(matches!(refused(&missing, "missing"), DataError::NotFound { .. }));

    touch(root.path(), &["cifar-10-binary.tar.gz"]);
    let file = root.path().join("cifar-10-binary.tar.gz");
    assert!(refused(&file, "is a compressed file").hint().unwrap().contains("gunzip"));
    touch(root.path(), &["notes.pdf"]);
    assert!(matches!(
        refused(&root.path().join("notes.pdf"), "not a supported data-set file"),
        DataError::NotAFolder { .. }
    ));

    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(refused(&empty, "empty"), DataError::UnknownForm { .. }));

    touch(root.path(), &["loose/1.jpg", "loose/2.jpg"]);
    assert!(matches!(refused(&root.path().join("loose"), "loose"), DataError::NoClassFolders { images: 2, .. }));

    touch(root.path(), &["hollow/a/1.jpg", "hollow/b/readme.txt"]);
    assert!(matches!(refused(&root.path().join("hollow"), "hollow/b"), DataError::EmptyClass { other_files: 1, .. }));
}

#[cfg(unix)]
#[test]
fn link_to_a_parent_folder_is_not_followed() {
    let root = TempDir::new().unwrap();
    touch(root.path(), &["a/1.jpg", "b/1.jpg"]);
    std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
    let set = open(root.path().to_str().unwrap(), &OpenOptions { val_fraction: 0.0, ..options() }).unwrap();
    assert_eq!(set.split("train").unwrap().len(), 2);
}

/// Two folders that link to each other, a link to a class, and a broken link.
#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    use std::os::unix::fs::symlink;

    let root = TempDir::new().unwrap();
    touch(root.path(), &["data/a/1.jpg", "data/b/1.jpg", "elsewhere/more/1.JPG", "elsewhere/1.jpg"]);
    let data = root.path().join("data");
    symlink(data.join("b"), data.join("a/to_b")).unwrap();
    symlink(data.join("a"), data.join("b/to_a")).unwrap();
    symlink(root.path().join("elsewhere"), data.join("c")).unwrap();
    symlink(root.path().join("nowhere"), data.join("c/gone.jpg")).unwrap();
    symlink(data.join("a/1.jpg"), data.join("b/2.jpg")).unwrap();
    let set = open(data.to_str().unwrap(), &OpenOptions { val_fraction: 0.0, ..options() }).unwrap();
    assert_eq!(set.classes, ["a", "b", "c"]);
    let train = set.split("train").unwrap();
    let expected = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg", "c/more/1.JPG"];
    assert_eq!(names(&*train, &data), expected);
    for note in ["1 broken link(s)", "2 unused link(s) to folders that are already included"] {
        assert!(noted(&set, note), "{:?}", set.notes);
    }
}

#[test]
fn digits_are_embedded() {
    let set = open("digits", &options()).unwrap();
    assert_eq!(set.form, Form::Digits);
    assert_eq!(set.classes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let (train, val) = (set.split("train").unwrap(), set.split("val").unwrap());
    assert_eq!(train.len() + val.len(), 1797);
    assert!((355..365).contains(&val.len()), "{}", val.len());
    // The first row of scikit-learn's table is a zero that starts with 0 0 5 13 9 1 0 0.
    let find = |source: &dyn Source| {
        (0..source.len()).find(|&i| source.name(i) == "digits[0]").map(|i| source.get(i).unwrap())
    };
    let first = find(&*train).or_else(|| find(&*val)).unwrap();
    assert_eq!(first.label, 0);
    let StoredImage::Pixels(image) = first.image else { panic!("encoded") };
    assert_eq!((image.width, image.height), (8, 8));
    let row: Vec<u8> = image.data.chunks(3).take(8).map(|pixel| pixel[0]).collect();
    assert_eq!(row, [0, 0, 80, 207, 143, 16, 0, 0]);
    assert!(image.data.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    let brightest = (0..train.len()).flat_map(|i| match train.get(i).unwrap().image {
        StoredImage::Pixels(image) => image.data,
        StoredImage::Encoded(_) => panic!("encoded"),
    });
    assert_eq!(brightest.max(), Some(255));
}

/// Returns records with these leading labels. Their planes contain 10, 20 and 30 plus the record's
/// index.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, labels) in labels.iter().enumerate() {
        bytes.extend_from_slice(labels);
        for plane in [10, 20, 30] {
            bytes.extend([plane + number as u8; 1024]);
        }
    }
    bytes
}

fn write_cifar10(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for batch in 1..=5u8 {
        fs::write(folder.join(format!("data_batch_{batch}.bin")), records(&[&[batch], &[9]])).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), records(&[&[3]])).unwrap();
}

#[test]
fn cifar10_is_read() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("cifar-10-batches-bin");
    write_cifar10(&folder);
    for path in [root.path(), &folder] {
        let set = open_at(path).unwrap();
        assert_eq!((set.form, set.classes[3].as_str()), (Form::Cifar10, "cat"));
        let train = set.split("train").unwrap();
        assert_eq!(labels(&*train), [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
        assert_eq!(train.name(3), "data_batch_2.bin[1]");
        let StoredImage::Pixels(image) = train.get(3).unwrap().image else { panic!("encoded") };
        assert_eq!((image.width, image.height, image.data.len()), (32, 32, 3072));
        assert!(image.data.chunks(3).all(|pixel| pixel == [11, 21, 31]));
        assert_eq!(labels(&*set.split("test").unwrap()), [3]);
        assert!(noted(&set, "official file contains 10000"));
    }
    fs::write(folder.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
    assert_eq!(open_at(&folder).unwrap().classes[9], "j");
}

#[test]
fn cifar100_uses_fine_labels() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("train.bin"), records(&[&[1, 99], &[2, 0]])).unwrap();
    fs::write(root.path().join("test.bin"), records(&[&[19, 42]])).unwrap();
    let set = open_at(root.path()).unwrap();
    assert_eq!((set.form, set.classes.len()), (Form::Cifar100, 100));
    assert_eq!((set.classes[0].as_str(), set.classes[99].as_str()), ("apple", "worm"));
    assert!(set.classes.is_sorted());
    assert_eq!(labels(&*set.split("train").unwrap()), [99, 0]);
}

#[test]
fn malformed_cifar_files_give_errors() {
    let root = TempDir::new().unwrap();
    write_cifar10(root.path());
    let batch = root.path().join("data_batch_4.bin");

    let good = fs::read(&batch).unwrap();
    fs::write(&batch, &good[..good.len() - 1]).unwrap();
    let error = refused(root.path(), "data_batch_4.bin has 6145 bytes");
    assert!(error.to_string().contains("expected 30730000 bytes"), "{error}");

    fs::write(&batch, records(&[&[0], &[10]])).unwrap();
    let error = refused(root.path(), "record 1 of");
    assert!(matches!(error, DataError::LabelRange { record: 1, label: 10, classes: 10, .. }));

    fs::remove_file(&batch).unwrap();
    assert!(matches!(refused(root.path(), "data_batch_4.bin"), DataError::MissingFile { .. }));

    fs::write(&batch, good).unwrap();
    fs::write(root.path().join("batches.meta.txt"), "cat\ndog\n").unwrap();
    assert!(matches!(refused(root.path(), "lists 2 class names"), DataError::ClassNames { expected: 10, .. }));
}
