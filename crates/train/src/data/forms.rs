//! Supported forms of data sets, each with a function that recognizes it.

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};

use super::assembly::Role;
use super::listing::{Listing, is_clutter};
use super::{
    DataError, DataSet, Form, LabelSource, OpenOptions, TableOptions, archive, cifar, folder, ilsvrc, parquet, pattern,
    shards, table,
};

/// A data set location given by the user, with the metadata needed to recognize its form.
pub(super) struct Place {
    /// The path; for several files, their common folder.
    pub path: PathBuf,
    pub kind: Kind,
    /// The columns and folders that the user specified.
    pub options: TableOptions,
    image_folders: OnceCell<bool>,
    notes: RefCell<Vec<String>>,
}

/// The kind of file at a [`Place`].
pub(super) enum Kind {
    Folder,
    File,
    /// The files of a pattern, such as `train-{000..146}.tar`.
    Files(Vec<PathBuf>),
}

/// A data set of a recognized form.
pub(super) trait Found {
    /// Lists the samples without decoding images.
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError>;
}

/// The result of recognition: `Some` for a data set of the form, `None` for another form, or an
/// error if reading fails or no form is possible.
pub(super) type Recognised = Result<Option<Box<dyn Found>>, DataError>;

/// All forms except image folders, tried in this order, the most specific first. They inspect names
/// and at most the beginning of a file.
const FORMS: [fn(&Place) -> Recognised; 6] =
    [cifar::recognise, ilsvrc::recognise, parquet::recognise, shards::recognise, table::recognise, archive::recognise];

/// Tries every form except image folders.
fn recognise(place: &Place) -> Recognised {
    let wanted = (place.options.form == LabelSource::Table).then_some(table::recognise as fn(&Place) -> Recognised);
    for recognise in wanted.into_iter().chain(FORMS) {
        if let Some(found) = recognise(place)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Opens the data set at `data`, a path or a pattern.
pub(super) fn open(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    let (path, table) = options.table.with_options_of(data)?;
    let options = OpenOptions { table, ..options.clone() };
    let place = Place { options: options.table.clone(), ..Place::find(path)? };
    let mut found = recognise(&place)?;
    let mut notes = place.notes.take();
    // Search inside wrapping folders. Image folders handle wrapping folders themselves.
    let mut inner = if found.is_none() { place.wrapped()? } else { None };
    while let Some(place) = inner {
        found = recognise(&place)?;
        notes.extend(place.notes.take());
        inner = if found.is_none() { place.wrapped()? } else { None };
    }
    let found = match found {
        None => folder::recognise(&place)?,
        found => found,
    };
    if let Some(found) = found {
        let mut set = found.open(&options)?;
        set.notes.extend(notes);
        set.notes.extend(unused(&set, &options.table, data.len() > path.len(), path)?);
        return Ok(set);
    }
    Err(match place.kind {
        _ if place.compressed() => DataError::Compressed { path: place.path },
        Kind::File => DataError::NotAFolder { path: place.path },
        _ => DataError::UnknownForm { path: place.path, found: "files of different kinds".into() },
    })
}

/// Returns a note if columns are specified for a data set without columns, for example by a recipe.
///
/// # Errors
/// `given`: the name of the data set itself specifies columns.
fn unused(set: &DataSet, options: &TableOptions, given: bool, path: &str) -> Result<Option<String>, DataError> {
    let names = TableOptions { form: LabelSource::Auto, ..options.clone() } != TableOptions::default();
    if !names || matches!(set.form, Form::Table | Form::Parquet) {
        return Ok(None);
    }
    let why = format!("it is read as {}, which has no columns", set.form);
    if given {
        return Err(DataError::Columns { path: path.into(), why });
    }
    Ok(Some(format!("the columns that the recipe names are not used: {path}: {why}")))
}

impl Place {
    fn new(path: PathBuf, kind: Kind) -> Self {
        Place {
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
    pub fn holds_image_folders(&self) -> Result<bool, DataError> {
        if let Some(&known) = self.image_folders.get() {
            return Ok(known);
        }
        let found = self.is_folder() && folder::holds_image_folders(&self.path)?;
        Ok(*self.image_folders.get_or_init(|| found))
    }

    fn find(data: &str) -> Result<Place, DataError> {
        let path = PathBuf::from(data);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Place::new(path, Kind::Folder)),
            Ok(_) => Ok(Place::new(path, Kind::File)),
            Err(_) if pattern::is_pattern(data) => {
                let files = pattern::expand(data)?;
                let path = common_folder(&files);
                Ok(Place::new(path, Kind::Files(files)))
            }
            Err(source) => Err(DataError::io(path, source)),
        }
    }

    /// Returns the only subfolder, unless there are images beside it or it is named like a split.
    fn wrapped(&self) -> Result<Option<Place>, DataError> {
        if !self.is_folder() {
            return Ok(None);
        }
        let listing = Listing::read(&self.path)?;
        Ok(match &listing.all_folders(&self.path)[..] {
            [only] if listing.images.is_empty() && Role::of_name(&only.to_string_lossy()).is_none() => {
                let place = Place::new(self.path.join(only), Kind::Folder);
                Some(Place { options: self.options.clone(), ..place })
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

    fn compressed(&self) -> bool {
        const COMPRESSED: [&str; 7] = ["gz", "tgz", "bz2", "xz", "zst", "7z", "rar"];
        has_extension(&self.path, &COMPRESSED)
    }
}

/// Maximum depth of shards below the given folder. Hugging Face's converted data sets use
/// `default/train/0000.parquet`.
const FOLDER_DEPTH: usize = 2;

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
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().and_then(|extension| extension.to_str());
    found.is_some_and(|found| extensions.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// Returns whether a file name ends in a dot and one of these endings, given in lower case:
/// `a.tar.gz` ends in `tar.gz`.
pub(super) fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    endings.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

/// Returns the innermost common folder of all files.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let mut folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&folder)) && folder.pop() {}
    folder
}
