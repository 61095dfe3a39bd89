//! The location of a data set, with the metadata needed to detect its format.

use std::cell::{OnceCell, RefCell};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::listing::{Listing, has_images, is_clutter};
use crate::options::{OpenOptions, TableOptions};
use crate::pattern;
use crate::split_names::Role;

/// A data set location given by the user, with the metadata needed to detect its format.
pub(crate) struct Location {
    /// The path; for several files, their common folder.
    pub path: PathBuf,
    pub kind: Kind,
    /// The columns and folders specified by the user.
    pub options: TableOptions,
    pub image_folders: OnceCell<bool>,
    pub notes: RefCell<Vec<String>>,
}

/// The kind of file at a [`Location`].
pub(crate) enum Kind {
    Folder,
    File,
    /// The files of a pattern, such as `train-{000..146}.tar`.
    Files(Vec<PathBuf>),
}

/// A data set of a recognized form.
pub(crate) trait DatasetFormat {
    /// Lists the samples without decoding images.
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError>;
}

/// The result of detection: `Some` for a data set in the format, `None` for another format, or an
/// error if reading fails or no format is possible.
pub(crate) type Detected = Result<Option<Box<dyn DatasetFormat>>, DataError>;

impl Location {
    fn new(path: PathBuf, kind: Kind) -> Self {
        Location {
            path,
            kind,
            options: TableOptions::default(),
            image_folders: OnceCell::new(),
            notes: RefCell::default(),
        }
    }

    /// Adds a note for the user, shown when the data set is opened.
    pub fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// Returns whether this is a folder with class folders, with or without splits. It is then a
    /// data set of image folders, whatever other files it contains.
    pub fn contains_image_folders(&self) -> Result<bool, DataError> {
        if let Some(&known) = self.image_folders.get() {
            return Ok(known);
        }
        let found = self.is_folder() && contains_image_folders(&self.path)?;
        Ok(*self.image_folders.get_or_init(|| found))
    }

    /// Resolves a path or a pattern.
    pub fn find(data: &str) -> Result<Location, DataError> {
        let path = PathBuf::from(data);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Location::new(path, Kind::Folder)),
            Ok(_) => Ok(Location::new(path, Kind::File)),
            Err(_) if pattern::is_pattern(data) => {
                let files = pattern::expand(data)?;
                let path = common_folder(&files);
                Ok(Location::new(path, Kind::Files(files)))
            }
            Err(source) => Err(DataError::io(path, source)),
        }
    }

    /// Returns the only subfolder, unless there are images in the folder itself or the subfolder is
    /// named like a split.
    pub fn wrapped(&self) -> Result<Option<Location>, DataError> {
        if !self.is_folder() {
            return Ok(None);
        }
        let listing = Listing::read(&self.path)?;
        Ok(match &listing.all_folders(&self.path)[..] {
            [only] if listing.images.is_empty() && Role::of_name(&only.to_string_lossy()).is_none() => {
                let location = Location::new(self.path.join(only), Kind::Folder);
                Some(Location { options: self.options.clone(), ..location })
            }
            _ => None,
        })
    }

    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder)
    }

    /// Returns the path of a single file with one of these extensions, in any case.
    pub fn file(&self, extensions: &[&str]) -> Option<&Path> {
        (matches!(self.kind, Kind::File) && has_extension(&self.path, extensions)).then_some(&self.path)
    }

    /// Returns the files with one of these endings: the given file, the files of the pattern if all
    /// match, or the files in the folder and up to two levels of subfolders. All are below
    /// [`root`](Self::root).
    pub fn files(&self, endings: &[&str]) -> Result<Vec<PathBuf>, DataError> {
        match &self.kind {
            Kind::File if ends_in(&self.path, endings) => Ok(vec![self.path.clone()]),
            Kind::Files(files) if files.iter().all(|file| ends_in(file, endings)) => Ok(files.clone()),
            Kind::File | Kind::Files(_) => Ok(Vec::new()),
            Kind::Folder => {
                let mut files = Vec::new();
                find_files(&self.path, endings, FOLDER_DEPTH, &mut files)?;
                Ok(files)
            }
        }
    }

    /// Returns the folder that names are relative to: the given folder, or that of the files.
    pub fn root(&self) -> &Path {
        match self.kind {
            Kind::File => self.path.parent().unwrap_or(Path::new("")),
            _ => &self.path,
        }
    }

    /// Returns whether this is a file with the extension of a compressed archive.
    pub fn compressed(&self) -> bool {
        const COMPRESSED: [&str; 7] = ["gz", "tgz", "bz2", "xz", "zst", "7z", "rar"];
        has_extension(&self.path, &COMPRESSED)
    }
}

/// Maximum depth of shards below the given folder. Hugging Face's converted data sets use
/// `default/train/0000.parquet`.
const FOLDER_DEPTH: usize = 2;

/// Collects the files with one of these endings in a folder and its subfolders.
fn find_files(folder: &Path, endings: &[&str], depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source| DataError::io(folder, source);
    let mut folders = Vec::new();
    let first = files.len();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if is_clutter(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if ends_in(&path, endings) && path.is_file() {
            files.push(path);
        } else if depth > 0 && entry.file_type().map_err(failed)?.is_dir() {
            folders.push(path);
        }
    }
    // Folders of shards have few subfolders; folders of classes or photographs may have thousands.
    const MANY_FOLDERS: usize = 32;
    folders.sort_unstable();
    if folders.len() <= MANY_FOLDERS {
        folders.iter().try_for_each(|folder| find_files(folder, endings, depth - 1, files))?;
    }
    files[first..].sort_unstable();
    Ok(())
}

/// Returns whether a file's extension is one of these, given in lower case.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().and_then(|extension| extension.to_str());
    found.is_some_and(|found| extensions.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// Returns whether a file name ends in a dot and one of these endings, given in lower case:
/// `a.tar.gz` ends in `tar.gz`.
pub(crate) fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    endings.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

/// Returns the innermost common folder of all files.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let mut folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&folder)) && folder.pop() {}
    folder
}

/// Returns whether a folder contains class folders with images, with or without splits.
pub(crate) fn contains_image_folders(path: &Path) -> Result<bool, DataError> {
    /// Number of class folders to check.
    const CHECKED: usize = 16;
    let folders = |path: &Path| -> Result<Vec<PathBuf>, DataError> {
        Ok(Listing::read(path)?.all_folders(path).into_iter().map(|name| path.join(name)).collect())
    };
    let mut classes = 0;
    for folder in folders(path)?.into_iter().take(CHECKED) {
        let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if Role::of_name(name).is_some() {
            for class in folders(&folder)?.iter().take(CHECKED) {
                if has_images(class)? {
                    return Ok(true);
                }
            }
        } else {
            classes += usize::from(has_images(&folder)?);
        }
    }
    // A single folder may contain the images of a table.
    Ok(classes > 1)
}
