//! What can go wrong between a path and a batch.

use std::io;
use std::path::{Path, PathBuf};

use super::{Form, MOST_UNREADABLE};
use crate::shell::quoted_path;

/// Why the bytes of an image gave no pixels.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are of no image format that this program reads (a text file named `.png`, an empty file …).
    #[error("not an image of a known format ({})", super::formats::names())]
    UnknownFormat,
    /// An image of a format, or of a kind of it, that is not read.
    #[error("{kind} is not supported (supported formats: {names})", kind = .0, names = super::formats::names())]
    Unsupported(String),
    /// The file ends before its image does, as after an interrupted download.
    #[error("the image is truncated: the file ends before its last pixel")]
    Truncated,
    /// The header announces more pixels than [`MAX_PIXELS`](super::MAX_PIXELS).
    #[error("the image has {width}×{height} pixels, more than the {limit} allowed (a decompression bomb?)")]
    TooLarge {
        /// Announced width in pixels.
        width: usize,
        /// Announced height in pixels.
        height: usize,
        /// The limit, in pixels.
        limit: usize,
    },
    /// The file is larger than [`MAX_IMAGE_BYTES`](super::MAX_IMAGE_BYTES).
    #[error("the file has {bytes} bytes, more than the {limit} that an image file may have")]
    TooManyBytes {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A device, a pipe or a folder.
    #[error("it is not a regular file")]
    NotAFile,
    /// The format is known but this kind of it is not read, or the file contradicts itself.
    #[error("the image is damaged or of an unsupported kind: {0}")]
    Damaged(String),
}

/// Why a data set could not be opened or a sample not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Nothing is at the path.
    #[error("there is no data set at {}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A file that is no data set by its name.
    #[error("{} is a file of no known form", path.display())]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// A compressed archive: no image in it can be found without decompressing all before it.
    #[error("{} is a compressed file, in which no image can be read without all those before it", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A pattern of paths cannot be expanded.
    #[error("the pattern {pattern}: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// An option after a data set's path that is none.
    #[error("{option:?} is no option of a data set")]
    Option {
        /// The key and the value.
        option: String,
    },
    /// A text file in an encoding that is not read.
    #[error("{} is not valid UTF-8: line {line} seems to be in {likely}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The likely encoding, by iconv's name.
        likely: &'static str,
    },
    /// Images or labels of a table cannot be found without help.
    #[error("{}: {why}", path.display())]
    Columns {
        /// The table.
        path: PathBuf,
        /// What is missing, or could be two things.
        why: String,
    },
    /// A folder has class folders, and a table of other labels.
    #[error("in {}, the labels may be the names of the folders or those in {}, which differ", path.display(), table.display())]
    TableOrFolders {
        /// The folder.
        path: PathBuf,
        /// The table.
        table: PathBuf,
    },
    /// Images of several labels each.
    #[error("{}: {what}: multi-label data is not supported yet", path.display())]
    MultiLabel {
        /// The file.
        path: PathBuf,
        /// Where several labels are.
        what: String,
    },
    /// Shards of images without labels.
    #[error("the shards in {} hold {images} image(s), but no labels for them{}", path.display(), if found.is_empty() { String::new() } else { format!(": beside the images are only .{}", found.join(", .")) })]
    NoLabelsIn {
        /// The folder of the shards.
        path: PathBuf,
        /// How many images they hold.
        images: usize,
        /// Extensions of the other files.
        found: Vec<String>,
    },
    /// A file is not what its name says, or is damaged.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A label that is none.
    #[error("label {label:?} of {}: {why}", path.display())]
    Label {
        /// Where it stands.
        path: PathBuf,
        /// The label.
        label: String,
        /// What is wrong with it.
        why: String,
    },
    /// ImageNet's validation images lie in one folder, and no file tells their classes.
    #[error("nothing tells the classes of the validation images in {}", path.display())]
    NoTruth {
        /// Where the images are.
        path: PathBuf,
    },
    /// Two splits have images of different classes.
    #[error("{split} and {train} have different classes:{}", differences(split, train, missing, unknown))]
    ClassesDiffer {
        /// The split that is compared.
        split: String,
        /// The one that it is compared with.
        train: String,
        /// Classes that only `train` has.
        missing: Vec<String>,
        /// Classes that only `split` has.
        unknown: Vec<String>,
    },
    /// The operating system refused to read a file or folder.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A network for other images than pictures.
    #[error("the network takes images of {channels} channels, but pictures have 3 (colour) or 1 (grey)")]
    Channels {
        /// The network's input channels.
        channels: usize,
    },
    /// The folder holds none of the layouts that are known.
    #[error("{} holds no data set of a known form: {found}", path.display())]
    UnknownForm {
        /// The folder.
        path: PathBuf,
        /// What it does hold.
        found: String,
    },
    /// Images lie directly in the folder, so nothing says what class they are of.
    #[error("{} holds {images} image(s) directly but no class folders", path.display())]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// How many images lie in it.
        images: usize,
    },
    /// The folder of a split holds images but no class folders.
    #[error("{} is named as a split but holds no class folders", path.display())]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// Several folders are named as the same split.
    #[error("{} has several folders for the {split} split: {}", path.display(), folders.join(", "))]
    SeveralForSplit {
        /// The folder that holds them.
        path: PathBuf,
        /// The split.
        split: &'static str,
        /// Their names.
        folders: Vec<String>,
    },
    /// Several folders beside each other hold the same class folders.
    #[error("{} holds {}, which are no splits by their names but hold the same class folders: {}", path.display(), listed(folders), listed(classes))]
    SeveralSets {
        /// The folder that holds them.
        path: PathBuf,
        /// Their names.
        folders: Vec<String>,
        /// The class folders that the first of them holds.
        classes: Vec<String>,
    },
    /// A folder beside others holds a data set with splits.
    #[error("{} holds a data set with splits ({}) in {folder}, and other folders beside it", path.display(), listed(splits))]
    Nested {
        /// The folder that holds it.
        path: PathBuf,
        /// Its name.
        folder: String,
        /// The folders of its splits.
        splits: Vec<String>,
    },
    /// All training images are of one class.
    #[error("all {images} training image(s) are of one class, {class:?}: there is nothing to learn")]
    SingleClass {
        /// The class.
        class: String,
        /// How many images there are.
        images: usize,
        /// The form of the data set.
        form: Form,
    },
    /// More images of a split could not be read than is tolerated.
    #[error("{unreadable} of {images} {split} images cannot be read, more than {} %{first}", 100.0 * MOST_UNREADABLE)]
    TooManyUnreadable {
        /// The split.
        split: &'static str,
        /// How many cannot be read.
        unreadable: usize,
        /// How many there are.
        images: usize,
        /// `: ` and the first of them with the reason, if it is known here.
        first: String,
    },
    /// A class folder holds no images.
    #[error("class folder {} holds no images{}", path.display(), if *passed_over > 0 { format!(" ({passed_over} other files)") } else { String::new() })]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
        /// How many files of other kinds it holds.
        passed_over: usize,
    },
    /// A folder in which images were looked for holds none.
    #[error("{} holds no images", path.display())]
    NoImagesIn {
        /// The folder.
        path: PathBuf,
    },
    /// The validation split has a class that the training split lacks.
    #[error("validation folder {} is of class {class:?}, which the training split does not have", path.display())]
    UnknownClass {
        /// The class folder in the validation split.
        path: PathBuf,
        /// Its name.
        class: String,
    },
    /// A class folder's name is not valid Unicode, so it cannot be a class name.
    #[error("the name of class folder {} is not valid UTF-8", path.display())]
    ClassName {
        /// The class folder.
        path: PathBuf,
    },
    /// A file that the form needs is not there.
    #[error("{} is missing", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A CIFAR file is not a whole number of records.
    #[error("{} has {found} bytes, which is not a whole number of {record}-byte records: expected {expected} bytes ({records} records)", path.display())]
    RecordSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// Bytes a record.
        record: usize,
        /// The official size in bytes.
        expected: u64,
        /// The official number of records.
        records: usize,
    },
    /// A record's label is not that of a class.
    #[error("record {record} of {} has label {label}, but labels go from 0 to {}", path.display(), classes.saturating_sub(1))]
    LabelRange {
        /// The file.
        path: PathBuf,
        /// The record's number, from 0.
        record: usize,
        /// The label found.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A file of class names does not name each class once.
    #[error("{} names {found} classes, but the data set has {expected}", path.display())]
    ClassNames {
        /// The file.
        path: PathBuf,
        /// Number of names found.
        found: usize,
        /// Number of classes.
        expected: usize,
    },
    /// A sample's image could not be decoded.
    #[error("{name}: {source}")]
    Image {
        /// The sample: a file path, or a file and the record in it.
        name: String,
        /// What the decoder found.
        source: DecodeError,
    },
    /// The fraction to hold out for validation is not in `[0, 1)`.
    #[error("the validation fraction is {0}, but must be at least 0 and less than 1")]
    ValFraction(f64),
    /// A split was asked for that the data set lacks.
    #[error("the data set has no split {name:?}{}", if available.is_empty() { String::new() } else { format!(", only {}", available.join(", ")) })]
    NoSplit {
        /// The name asked for.
        name: String,
        /// The splits there are.
        available: Vec<String>,
    },
    /// A split holds no samples, or no sample of it could be read.
    #[error("none of the {samples} image(s) of the split could be read{}", first.as_ref().map(|why| format!("; the first: {why}")).unwrap_or_default())]
    NoImages {
        /// Number of samples tried.
        samples: usize,
        /// What went wrong with the first.
        first: Option<String>,
    },
    /// A worker thread could not be started.
    #[error("cannot start a data-loading thread: {0}")]
    Thread(io::Error),
}

fn listed(names: &[String]) -> String {
    super::enumerate(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Names the classes by which two splits differ.
fn differences(split: &str, train: &str, missing: &[String], unknown: &[String]) -> String {
    let lacks = |name: &str, classes: &[String]| {
        let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
        let listed = super::enumerate(&classes);
        if classes.is_empty() { String::new() } else { format!(" {name} has no images of {listed};") }
    };
    let text = lacks(split, missing) + &lacks(train, unknown);
    text.trim_end_matches(';').to_string()
}

impl DataError {
    /// Builds the variant that fits an error of the operating system at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => DataError::NotFound { path },
            _ => DataError::Io { path, source },
        }
    }

    /// What would mend it, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            DataError::NotFound { path } if fetched_by(path).is_some() => {
                format!("`{}` fetches it", fetched_by(path).unwrap_or_default())
            }
            DataError::NotFound { .. } => "check the spelling and the working directory; `digits` names the embedded data set".into(),
            DataError::NotAFolder { .. } => {
                "give a folder, a .csv, .tsv or .txt list, .tar or .parquet shards, or a .zip or .tar archive".into()
            }
            DataError::Compressed { path } => {
                let name = path.to_string_lossy();
                if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
                    let name = quoted_path(path);
                    format!("unpack it and give the folder it holds, or `gunzip {name}` and give the .tar")
                } else {
                    "unpack it and give the folder it holds".into()
                }
            }
            DataError::Pattern { .. } => {
                "such as 'shards/train-{000..146}.tar', 'shards/*.tar', or 'train.tar::val.tar'; in quotes, so that the shell leaves it".into()
            }
            DataError::Label { .. } => {
                "labels are class names, or numbers from 0; names of numbered classes can stand in classes.txt beside the data, one a line; numbers that are names, such as ids of species, are taken if the column is given: `--data 'TABLE?label=COLUMN'`".into()
            }
            DataError::Option { .. } => {
                "options are image, label, split (columns by name or number), fold, images (a folder) and form (auto, folders or table), as in 'table.csv?label=species&images=photos'".into()
            }
            DataError::Encoding { path, likely, .. } => {
                let name = path.to_string_lossy();
                let (from, to) = (quoted(&name), quoted(&format!("{name}.utf8")));
                format!("save it as UTF-8 (in Excel: \"CSV UTF-8\"), or convert it: iconv -f {likely} -t UTF-8 {from} > {to}")
            }
            DataError::Columns { .. } => {
                "name columns and the folder of images, as in `--data 'table.csv?image=COLUMN&label=COLUMN&images=FOLDER'`, or by data.image_column, data.label_column and data.image_folder in a recipe".into()
            }
            DataError::TableOrFolders { path, .. } => {
                let path = path.display();
                format!("choose by `--data '{path}?form=table'` or `--data '{path}?form=folders'`, or by data.form in a recipe")
            }
            DataError::MultiLabel { .. } => {
                "keep one label an image, or name another column of labels: `--data 'DATA?label=COLUMN'`".into()
            }
            DataError::NoLabelsIn { .. } => {
                "labels are read from files beside each image: 000.jpg with 000.cls, 000.txt, 000.index or 000.json".into()
            }
            DataError::NoTruth { .. } => {
                "make class folders in it, as in the training split; for ImageNet, place its devkit (ILSVRC2012_devkit_t12.tar.gz or its data/ folder), Kaggle's LOC_val_solution.csv or a val.txt of lines `ILSVRC2012_val_00000001.JPEG 65` beside them".into()
            }
            DataError::ClassesDiffer { .. } => {
                "check that nothing is missing; if it is meant so, set data.classes_may_differ = true".into()
            }
            DataError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the file or folder exists but may not be read: check its owner and mode".into()
            }
            DataError::UnknownForm { .. } => {
                "expected train/ and val/ folders of class folders, one folder of class folders, .tar or .parquet shards, a table of paths and labels, ImageNet's archives, or CIFAR's binary files (the archive named \"binary version\", not \"python version\")".into()
            }
            DataError::NoClassFolders { .. } => "make one folder a class and move its images there, as in DATA/cat/1.jpg".into(),
            DataError::NoClasses { .. } => {
                "make one folder a class in it, as in train/cat/1.jpg; if the classes are in a table, give the table".into()
            }
            DataError::SeveralForSplit { .. } => "rename the folder that is not the split, or move it elsewhere".into(),
            DataError::SeveralSets { path, folders, .. } => format!(
                "{}; rename them train and val if they are splits",
                give(path, folders.first().map_or("", String::as_str))
            ),
            DataError::Nested { path, folder, .. } => give(path, folder),
            DataError::SingleClass { form, .. } => single_class_hint(*form).into(),
            DataError::NoImages { .. } => "`mbconv data verify DATA` names what is wrong with each".into(),
            DataError::TooManyUnreadable { .. } => {
                "`mbconv data verify DATA` names them all, and with --fix moves them aside; --resume then continues the run".into()
            }
            DataError::EmptyClass { .. } => "remove the folder if the class is not wanted, or put its images there".into(),
            DataError::UnknownClass { .. } => {
                "class folders must have the same names in both splits: rename or remove it, or add the class to train/".into()
            }
            DataError::ClassName { .. } => "rename the folder".into(),
            DataError::MissingFile { .. } => {
                "check the name; if it came in an archive, unpack that again: the download may be incomplete".into()
            }
            DataError::RecordSize { .. } => "the file is damaged or of another data set: unpack the archive again".into(),
            DataError::LabelRange { .. } => {
                "the file is damaged, or CIFAR-10 and CIFAR-100 files are mixed up: unpack the archive again".into()
            }
            DataError::ClassNames { .. } => "restore the file from the archive, or remove it to use the official names".into(),
            DataError::Image { .. } => "remove or replace the file".into(),
            DataError::ValFraction(_) => "0.2 holds out a fifth of each class".into(),
            DataError::NoSplit { name, .. } if name == "train" => {
                "name the folder, table or shards of training images `train`, or give images without splits".into()
            }
            DataError::NoSplit { .. } => "name one of these; `all` is the images of all splits together".into(),
            _ => return None,
        };
        Some(hint)
    }
}

/// Advises to give a folder below `path`, which may be in an archive.
fn give(path: &Path, folder: &str) -> String {
    let folder = path.join(folder);
    match path.ancestors().find(|above| above.is_file()) {
        Some(archive) => {
            let inner = folder.strip_prefix(archive).unwrap_or(&folder);
            format!("unpack {} and give the folder {} in it as --data", archive.display(), inner.display())
        }
        None => format!("give one data set, as in --data {}", folder.display()),
    }
}

/// The likely cause of a data set with a single class.
fn single_class_hint(form: Form) -> &'static str {
    match form {
        Form::SplitFolders | Form::FlatFolder | Form::Archive => {
            "the folder given may be that of a class, or one above the data set: give the folder that holds one folder a class, at least two"
        }
        Form::Table => "another column may hold the labels, or the table lists a part of the data only",
        _ => "check that all files of the data set are there, and where its labels are",
    }
}

/// A path as a shell reads it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%".contains(c);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// The command that fetches the public data set that a path is named after, to that place.
fn fetched_by(path: &Path) -> Option<String> {
    const SETS: [(&[&str], &str); 5] = [
        (&["cifar-100", "cifar100", "cifar_100"], "cifar100"),
        (&["cifar-10", "cifar10", "cifar_10"], "cifar10"),
        (&["imagenette2-160", "imagenette-160"], "imagenette-160"),
        (&["imagenette2-320", "imagenette-320"], "imagenette-320"),
        (&["imagenette"], "imagenette"),
    ];
    let name = path.file_name()?.to_str()?.to_lowercase();
    let (_, set) = SETS.iter().find(|(names, _)| names.iter().any(|known| name.contains(known)))?;
    let folder = match path.parent()?.to_str()? {
        "" => " --to .".into(),
        "data" => String::new(),
        folder => format!(" --to {}", quoted_path(folder)),
    };
    Some(format!("scripts/fetch_data.sh {set}{folder}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_public_data_set_says_what_fetches_it() {
        for (path, command) in [
            ("data/cifar-10-batches-bin", Some("scripts/fetch_data.sh cifar10")),
            ("data/cifar-100-binary", Some("scripts/fetch_data.sh cifar100")),
            ("/sets/CIFAR10", Some("scripts/fetch_data.sh cifar10 --to /sets")),
            ("imagenette2-160", Some("scripts/fetch_data.sh imagenette-160 --to .")),
            ("imagenette2", Some("scripts/fetch_data.sh imagenette --to .")),
            ("photos", None),
        ] {
            assert_eq!(fetched_by(Path::new(path)).as_deref(), command, "{path}");
        }
    }
}
