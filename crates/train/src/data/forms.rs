//! The forms that data sets come in, each with the function that recognizes it.

use std::cell::{OnceCell, RefCell};
use std::path::{Path, PathBuf};

use super::assembly::Role;
use super::listing::{Listing, is_clutter};
use super::{
    DataError, DataSet, Form, LabelSource, OpenOptions, TableOptions, archive, cifar, folder, ilsvrc, parquet, pattern,
    shards, table,
};

/// What a user gave as a data set, after a first look.
pub(super) struct Place {
    /// The path; of several files, the folder that all of them lie in.
    pub path: PathBuf,
    pub kind: Kind,
    /// The columns and folders that the user names.
    pub options: TableOptions,
    image_folders: OnceCell<bool>,
    notes: RefCell<Vec<String>>,
}

/// What lies at a [`Place`].
pub(super) enum Kind {
    Folder,
    File,
    /// The files of a pattern, such as `train-{000..146}.tar`.
    Files(Vec<PathBuf>),
}

/// A data set whose form has been recognised.
pub(super) trait Found {
    /// Lists the samples; images are not decoded.
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError>;
}

/// What recognising gives: the data set if it is of the form, nothing if of another, an error if of none.
pub(super) type Recognised = Result<Option<Box<dyn Found>>, DataError>;

/// The forms besides image folders, each asked in turn by names and at most the beginning of a
/// file; the more certain ones come first.
const FORMS: [fn(&Place) -> Recognised; 6] =
    [cifar::recognise, ilsvrc::recognise, parquet::recognise, shards::recognise, table::recognise, archive::recognise];

/// Asks every form but image folders.
fn recognise(place: &Place) -> Recognised {
    let wanted = (place.options.form == LabelSource::Table).then_some(table::recognise as fn(&Place) -> Recognised);
    for recognise in wanted.into_iter().chain(FORMS) {
        if let Some(found) = recognise(place)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Opens what is at `data`, a path or a pattern of paths.
pub(super) fn open(data: &str, options: &OpenOptions) -> Result<DataSet, DataError> {
    let (path, table) = options.table.with_options_of(data)?;
    let options = OpenOptions { table, ..options.clone() };
    let place = Place { options: options.table.clone(), ..Place::find(path)? };
    let mut found = recognise(&place)?;
    let mut notes = place.notes.take();
    // A folder around the data set; image folders look through it by themselves.
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

/// A note of columns that are named though the data set has none, as those of a recipe are; an error if the name of the data
/// set itself has them.
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

    /// Adds a note for the user to the data set that is found here.
    pub fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// Whether it is a folder that has class folders in it, with or without splits: whatever else lies there, it is a data
    /// set of image folders.
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

    /// Returns the only folder in this one, unless images lie beside it or it is a split by its
    /// name.
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

    /// The file, if it is one and its name ends so, in whatever case.
    pub fn file(&self, extensions: &[&str]) -> Option<&Path> {
        (matches!(self.kind, Kind::File) && has_extension(&self.path, extensions)).then_some(&self.path)
    }

    /// The files whose names end so: the one given, those of the pattern if all do, or those in the folder and in its
    /// folders of splits, as paths below [`root`](Self::root).
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

    /// The folder against which names are told: that given, or that of the files.
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

/// How deep below the given folder shards may lie: Hugging Face's converted sets have them at `default/train/0000.parquet`.
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
    // A folder of shards has few folders in it, one of classes or photographs may have thousands.
    const MANY_FOLDERS: usize = 32;
    folders.sort_unstable();
    if folders.len() <= MANY_FOLDERS {
        folders.iter().try_for_each(|folder| find_files(folder, endings, depth - 1, files))?;
    }
    files[first..].sort_unstable();
    Ok(())
}

/// Whether a file's extension is one of these, lower case.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().and_then(|extension| extension.to_str());
    found.is_some_and(|found| extensions.iter().any(|known| known.eq_ignore_ascii_case(found)))
}

/// Whether a file's name ends in a dot and one of these, lower case, as `a.tar.gz` does in `tar.gz`.
pub(super) fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    endings.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')))
}

/// The innermost folder above all files.
fn common_folder(files: &[PathBuf]) -> PathBuf {
    let mut folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&folder)) && folder.pop() {}
    folder
}
