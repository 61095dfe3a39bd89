//! Errors of opening and reading data sets.

use std::io;
use std::path::{Path, PathBuf};

use mbconv_files::shell::quoted_path;
use mbconv_image::{DecodeError, UnsupportedChannels};

use crate::form::Form;

/// Maximum fraction of unreadable images in a split; with more, results would not be comparable.
pub const MOST_UNREADABLE: f64 = 0.1;

/// An error of opening a data set or reading a sample.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The path does not exist.
    #[error("no data set found at {}", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The file is not of a supported form.
    #[error("{} is not a supported data-set file", path.display())]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// A compressed archive, which has no random access to images.
    #[error("{} is a compressed file, which does not allow random access to images", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A pattern of paths cannot be expanded.
    #[error("invalid pattern {pattern}: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// The reason.
        why: String,
    },
    /// An unknown option after a data set's path.
    #[error("{option:?} is not a data-set option")]
    Option {
        /// Key and value.
        option: String,
    },
    /// A text file in an unsupported encoding.
    #[error("{} is not valid UTF-8: line {line} looks like {likely}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The likely encoding, as named by iconv.
        likely: &'static str,
    },
    /// The images or labels of a table cannot be identified automatically.
    #[error("{}: {why}", path.display())]
    Columns {
        /// The table.
        path: PathBuf,
        /// The missing or ambiguous column or folder.
        why: String,
    },
    /// A folder has class folders and a table with different labels.
    #[error("in {}, the folder names and the table {} give different labels", path.display(), table.display())]
    TableOrFolders {
        /// The folder.
        path: PathBuf,
        /// The table.
        table: PathBuf,
    },
    /// Multi-label data where one class per image is required.
    #[error("{action} needs data with one class per image, but this data set is multi-label")]
    MultiLabel {
        /// The operation that needs one class per image.
        action: &'static str,
    },
    /// Shards contain images but no labels.
    #[error("the shards in {} contain {images} image(s) but no labels{}", path.display(), if found.is_empty() { String::new() } else { format!("; other files: .{}", found.join(", .")) })]
    NoLabelsIn {
        /// The folder of the shards.
        path: PathBuf,
        /// Number of images.
        images: usize,
        /// Extensions of the other files.
        found: Vec<String>,
    },
    /// A file is damaged or has unexpected contents.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// An invalid label.
    #[error("label {label:?} of {}: {why}", path.display())]
    Label {
        /// The file with the label.
        path: PathBuf,
        /// The label.
        label: String,
        /// The reason.
        why: String,
    },
    /// There is no label file for ImageNet's validation images, which are in a single folder.
    #[error("no labels found for the validation images in {}", path.display())]
    NoTruth {
        /// The folder of the images.
        path: PathBuf,
    },
    /// Two splits have images of different classes.
    #[error("{split} and {train} have different classes:{}", differences(split, train, missing, unknown))]
    ClassesDiffer {
        /// The compared split.
        split: String,
        /// The reference split.
        train: String,
        /// Classes that only `train` has.
        missing: Vec<String>,
        /// Classes that only `split` has.
        unknown: Vec<String>,
    },
    /// Reading a file or folder failed.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The network's number of input channels does not fit images.
    #[error(transparent)]
    Channels(#[from] UnsupportedChannels),
    /// The folder has no supported layout.
    #[error("{} does not contain a supported data set: {found}", path.display())]
    UnknownForm {
        /// The folder.
        path: PathBuf,
        /// Description of its contents.
        found: String,
    },
    /// Images are directly in the folder, so their classes are unknown.
    #[error("{} contains {images} image(s) but no class folders", path.display())]
    NoClassFolders {
        /// The folder.
        path: PathBuf,
        /// Number of images.
        images: usize,
    },
    /// The folder of a split has images but no class folders.
    #[error("{} is named like a split but contains no class folders", path.display())]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// Several folders are named like the same split.
    #[error("{} has several folders for the {split} split: {}", path.display(), folders.join(", "))]
    SeveralForSplit {
        /// Their parent folder.
        path: PathBuf,
        /// The split.
        split: &'static str,
        /// Their names.
        folders: Vec<String>,
    },
    /// Several sibling folders have the same class folders.
    #[error("{} contains {}, which are not named like splits but contain the same class folders: {}", path.display(), listed(folders), listed(classes))]
    SeveralSets {
        /// Their parent folder.
        path: PathBuf,
        /// Their names.
        folders: Vec<String>,
        /// Class folders of the first of them.
        classes: Vec<String>,
    },
    /// One of several sibling folders is a data set with splits.
    #[error("{} contains a data set with splits ({}) in {folder}, and other folders", path.display(), listed(splits))]
    Nested {
        /// Its parent folder.
        path: PathBuf,
        /// Its name.
        folder: String,
        /// Its split folders.
        splits: Vec<String>,
    },
    /// All training images have the same class.
    #[error("all {images} training image(s) have the same class, {class:?}")]
    SingleClass {
        /// The class.
        class: String,
        /// Number of training images.
        images: usize,
        /// The form of the data set.
        form: Form,
    },
    /// Too many images of a split could not be read.
    #[error("{unreadable} of {images} {split} images cannot be read, more than {} %{first}", 100.0 * MOST_UNREADABLE)]
    TooManyUnreadable {
        /// The split.
        split: &'static str,
        /// Number of unreadable images.
        unreadable: usize,
        /// Number of images in the split.
        images: usize,
        /// `: ` and the first unreadable image with the reason, if available.
        first: String,
    },
    /// A class folder without images.
    #[error("class folder {} contains no images{}", path.display(), if *other_files > 0 { format!(" ({other_files} other files)") } else { String::new() })]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
        /// Number of other files in it.
        other_files: usize,
    },
    /// A folder without images.
    #[error("{} contains no images", path.display())]
    NoImagesIn {
        /// The folder.
        path: PathBuf,
    },
    /// The validation split has a class that the training split lacks.
    #[error("validation folder {} has class {class:?}, which is missing from the training split", path.display())]
    UnknownClass {
        /// The class folder in the validation split.
        path: PathBuf,
        /// The class name.
        class: String,
    },
    /// A class folder's name is not valid Unicode, so it cannot be a class name.
    #[error("the name of class folder {} is not valid UTF-8", path.display())]
    ClassName {
        /// The class folder.
        path: PathBuf,
    },
    /// A required file is missing.
    #[error("{} is missing", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// The size of a CIFAR file is not a multiple of the record size.
    #[error("{} has {found} bytes, which is not a whole number of {record}-byte records: expected {expected} bytes ({records} records)", path.display())]
    RecordSize {
        /// The file.
        path: PathBuf,
        /// File size in bytes.
        found: u64,
        /// Bytes per record.
        record: usize,
        /// Official file size in bytes.
        expected: u64,
        /// The official number of records.
        records: usize,
    },
    /// A record's label is out of range.
    #[error("record {record} of {} has label {label}, but labels must be from 0 to {}", path.display(), classes.saturating_sub(1))]
    LabelRange {
        /// The file.
        path: PathBuf,
        /// Record index, from 0.
        record: usize,
        /// The label in the record.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A file of class names has the wrong number of names.
    #[error("{} lists {found} class names, but the data set has {expected} classes", path.display())]
    ClassNames {
        /// The file.
        path: PathBuf,
        /// Number of names.
        found: usize,
        /// Number of classes.
        expected: usize,
    },
    /// A sample's image could not be decoded.
    #[error("{name}: {source}")]
    Image {
        /// The sample: a file path, or a file and the record in it.
        name: String,
        /// The decoding error.
        source: DecodeError,
    },
    /// The fraction to hold out for validation is not in `[0, 1)`.
    #[error("the validation fraction is {0}, but must be at least 0 and less than 1")]
    ValFraction(f64),
    /// The requested split does not exist.
    #[error("the data set has no split {name:?}{}", if available.is_empty() { String::new() } else { format!(", only {}", available.join(", ")) })]
    NoSplit {
        /// The requested name.
        name: String,
        /// The existing splits.
        available: Vec<String>,
    },
    /// No image of a split could be read, or the split is empty.
    #[error("none of the {samples} image(s) of the split could be read{}", first.as_ref().map(|why| format!("; first error: {why}")).unwrap_or_default())]
    NoImages {
        /// Number of images tried.
        samples: usize,
        /// The error of the first image.
        first: Option<String>,
    },
    /// A worker thread could not be started.
    #[error("cannot start a data-loading thread: {0}")]
    Thread(io::Error),
}

/// Joins names for a message.
fn listed(names: &[String]) -> String {
    mbconv_files::text::enumerate(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Describes the differences between the classes of two splits.
fn differences(split: &str, train: &str, missing: &[String], unknown: &[String]) -> String {
    let lacks = |name: &str, classes: &[String]| {
        let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
        let listed = mbconv_files::text::enumerate(&classes);
        if classes.is_empty() { String::new() } else { format!(" {name} has no images of {listed};") }
    };
    let text = lacks(split, missing) + &lacks(train, unknown);
    text.trim_end_matches(';').to_string()
}

impl DataError {
    /// Creates the variant for an I/O error at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => DataError::NotFound { path },
            _ => DataError::Io { path, source },
        }
    }

    /// Returns advice on how to fix the error, if there is more than the message.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            DataError::NotFound { path } if fetched_by(path).is_some() => {
                format!("download it with `{}`", fetched_by(path).unwrap_or_default())
            }
            DataError::NotFound { .. } => "check the path and the working directory; `digits` is the embedded data set".into(),
            DataError::NotAFolder { .. } => {
                "use a folder, a .csv, .tsv, .jsonl or .txt table, .tar or .parquet shards, or a .zip or .tar archive".into()
            }
            DataError::Compressed { path } => {
                let name = path.to_string_lossy();
                if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
                    let name = quoted_path(path);
                    format!("unpack it and use the folder, or run `gunzip {name}` and use the .tar file")
                } else {
                    "unpack it and use the folder".into()
                }
            }
            DataError::Pattern { .. } => {
                "examples: 'shards/train-{000..146}.tar', 'shards/*.tar', 'train.tar::val.tar'; use quotes, so that the shell does not expand the pattern".into()
            }
            DataError::Label { .. } => {
                "labels are class names, or numbers from 0, for which a file classes.txt next to the data may list the names, one per line; to use numbers such as species IDs as names, specify the column: `--data 'TABLE?label=COLUMN'`".into()
            }
            DataError::Option { .. } => {
                "the options are image, label and split (columns, by name or number), fold, images (a folder) and form (auto, folders or table); example: 'table.csv?label=species&images=photos'".into()
            }
            DataError::Encoding { path, likely, .. } => {
                let name = path.to_string_lossy();
                let (from, to) = (quoted(&name), quoted(&format!("{name}.utf8")));
                format!("save it as UTF-8 (in Excel: \"CSV UTF-8\"), or convert it: iconv -f {likely} -t UTF-8 {from} > {to}")
            }
            DataError::Columns { .. } => {
                "specify the columns and the image folder with `--data 'table.csv?image=COLUMN&label=COLUMN&images=FOLDER'`, or with data.image_column, data.label_column and data.image_folder in a recipe".into()
            }
            DataError::TableOrFolders { path, .. } => {
                let path = path.display();
                format!("choose with `--data '{path}?form=table'` or `--data '{path}?form=folders'`, or with data.form in a recipe")
            }
            DataError::MultiLabel { .. } => {
                "if the labels are no lists of classes, add `?separator=none` to the data: `--data 'DATA?separator=none'`; or specify another label column: `--data 'DATA?label=COLUMN'`".into()
            }
            DataError::NoLabelsIn { .. } => {
                "labels are read from a file with the same name as the image: 000.cls, 000.txt, 000.index or 000.json for 000.jpg".into()
            }
            DataError::NoTruth { .. } => {
                "sort the images into class folders, as in the training split; for ImageNet, put its devkit (ILSVRC2012_devkit_t12.tar.gz or its data/ folder), Kaggle's LOC_val_solution.csv or a val.txt with lines `ILSVRC2012_val_00000001.JPEG 65` next to the images".into()
            }
            DataError::ClassesDiffer { .. } => {
                "check that no files are missing; if the difference is intended, set data.classes_may_differ = true".into()
            }
            DataError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "you do not have permission to read it: check its owner and mode".into()
            }
            DataError::UnknownForm { .. } => {
                "expected train/ and val/ folders of class folders, one folder of class folders, .tar or .parquet shards, a table of paths and labels, ImageNet's archives, or CIFAR's binary files (the archive named \"binary version\", not \"python version\")".into()
            }
            DataError::NoClassFolders { .. } => "create one folder per class and move its images there, as in DATA/cat/1.jpg".into(),
            DataError::NoClasses { .. } => {
                "create one folder per class in it, as in train/cat/1.jpg; if the classes are in a table, use the table as --data".into()
            }
            DataError::SeveralForSplit { .. } => "rename or move the folder that is not the split".into(),
            DataError::SeveralSets { path, folders, .. } => format!(
                "{}; if they are splits, rename them to train and val",
                give(path, folders.first().map_or("", String::as_str))
            ),
            DataError::Nested { path, folder, .. } => give(path, folder),
            DataError::SingleClass { form, .. } => single_class_hint(*form).into(),
            DataError::NoImages { .. } => "run `mbconv data verify DATA` to see the error of each image".into(),
            DataError::TooManyUnreadable { .. } => {
                "run `mbconv data verify DATA` to list them all, or with --fix to move them to another folder; then continue the run with --resume".into()
            }
            DataError::EmptyClass { .. } => "delete the folder, or add images of the class".into(),
            DataError::UnknownClass { .. } => {
                "class folders must have the same names in both splits: rename or delete it, or add the class to train/".into()
            }
            DataError::ClassName { .. } => "rename the folder".into(),
            DataError::MissingFile { .. } => {
                "check the file name; if it comes from an archive, unpack it again: the download may be incomplete".into()
            }
            DataError::RecordSize { .. } => "the file is damaged or from another data set: unpack the archive again".into(),
            DataError::LabelRange { .. } => {
                "the file is damaged, or CIFAR-10 and CIFAR-100 files are mixed up: unpack the archive again".into()
            }
            DataError::ClassNames { .. } => "restore the file from the archive, or delete it to use the official names".into(),
            DataError::Image { .. } => "remove or replace the file".into(),
            DataError::ValFraction(_) => "for example, 0.2 holds out a fifth of each class".into(),
            DataError::NoSplit { name, .. } if name == "train" => {
                "name the folder, table or shards of the training images `train`, or use images without splits".into()
            }
            DataError::NoSplit { .. } => "use one of these, or `all` for the images of all splits".into(),
            _ => return None,
        };
        Some(hint)
    }
}

/// Suggests a folder below `path`, which may be in an archive.
fn give(path: &Path, folder: &str) -> String {
    let folder = path.join(folder);
    match path.ancestors().find(|above| above.is_file()) {
        Some(archive) => {
            let inner = folder.strip_prefix(archive).unwrap_or(&folder);
            format!("unpack {} and use its folder {} as --data", archive.display(), inner.display())
        }
        None => format!("choose one data set, for example --data {}", folder.display()),
    }
}

/// Returns the likely cause of a data set with a single class.
fn single_class_hint(form: Form) -> &'static str {
    match form {
        Form::SplitFolders | Form::FlatFolder | Form::Archive => {
            "this may be the folder of a single class, or a parent of the data set: use the folder that contains the class folders"
        }
        Form::Table => "the labels may be in another column, or the table may list only part of the data",
        _ => "check that no files are missing and that the labels are correct",
    }
}

/// Quotes a path for a shell.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%".contains(c);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Returns the command that downloads the public data set of this name to this path.
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
    fn missing_public_data_set_hints_at_its_download_command() {
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
