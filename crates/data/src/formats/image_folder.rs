//! Image folders: one folder per class, with or without a folder per split above.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::Dataset;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{DatasetFormat, Detected, Location};
use crate::image_file::read_image;
use crate::layout::{self, Layout, below};
use crate::listing::{Images, Listing, Tree, has_images};
use crate::options::OpenOptions;
use crate::source::{Sample, Source, StoredImage};
use crate::split_names::Role;
use crate::splits::Assembly;
use crate::synsets;

/// A folder of class folders, or of splits that contain class folders.
struct Folders(PathBuf);

/// Accepts any folder.
pub(crate) fn detect(location: &Location) -> Detected {
    Ok(location.is_folder().then(|| Box::new(Folders(location.path.clone())) as Box<dyn DatasetFormat>))
}

impl DatasetFormat for Folders {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let path = &self.0;
        let Layout { base, parts, notes } = Layout::find(&OnDisk(path), path)?;
        match &parts[..] {
            [(Role::Whole, folder)] => open_flat(path, &below(path, folder), notes, options),
            _ => open_split(path, &below(path, &base), &parts, notes, options),
        }
    }
}

/// The folders below a path on disk.
struct OnDisk<'a>(&'a Path);

impl layout::Folders for OnDisk<'_> {
    fn folders(&self, at: &Path) -> Result<Vec<OsString>, DataError> {
        let path = below(self.0, at);
        Ok(Listing::read(&path)?.all_folders(&path))
    }

    fn has_images(&self, at: &Path) -> Result<bool, DataError> {
        has_images(&below(self.0, at))
    }
}

/// Opens a data set with one folder per split.
fn open_split(
    root: &Path,
    base: &Path,
    parts: &[(Role, PathBuf)],
    mut notes: Vec<String>,
    options: &OpenOptions,
) -> Result<DataSet, DataError> {
    let tree = Tree::open(root);
    let folders: Vec<(Role, PathBuf)> = parts.iter().map(|(role, folder)| (*role, root.join(folder))).collect();
    let (_, main) = &folders[0];
    let mut classes = class_folders(&tree, main, &mut notes)?;
    for (_, folder) in &folders[1..] {
        if options.classes_may_differ {
            classes.extend(class_folders(&tree, folder, &mut Vec::new())?);
        } else {
            check_classes(&tree, folder, &classes, options)?;
        }
    }
    classes.sort_unstable();
    classes.dedup();
    let mut read = |(role, folder): &(Role, PathBuf)| -> Result<(Role, Arc<dyn Source>), DataError> {
        Ok((*role, Arc::new(Folder::read(&tree, folder, &classes, &mut notes)?)))
    };
    let splits = folders.iter().map(&mut read).collect::<Result<Vec<_>, _>>()?;
    tree.keep();
    let (classes, aliases) = synsets::named(classes, &near(base))?;
    Assembly { form: Form::SplitFolders, classes, aliases, splits, notes }.finish(root, options)
}

/// Returns the folders that may contain a list of class names.
fn near(path: &Path) -> [&Path; 2] {
    [path, path.parent().unwrap_or(path)]
}

/// Opens a folder of class folders without splits.
fn open_flat(root: &Path, folder: &Path, mut notes: Vec<String>, options: &OpenOptions) -> Result<DataSet, DataError> {
    let tree = Tree::open(root);
    let classes = class_folders(&tree, folder, &mut notes)?;
    let whole: Arc<dyn Source> = Arc::new(Folder::read(&tree, folder, &classes, &mut notes)?);
    tree.keep();
    let (classes, aliases) = synsets::named(classes, &near(folder))?;
    let splits = vec![(Role::Whole, whole)];
    Assembly { form: Form::FlatFolder, classes, aliases, splits, notes }.finish(root, options)
}

/// Returns the names of the class folders in byte order.
///
/// # Errors
/// [`DataError::UnknownForm`], [`DataError::NoClassFolders`], [`DataError::ClassName`].
pub(crate) fn class_folders(tree: &Tree, path: &Path, notes: &mut Vec<String>) -> Result<Vec<String>, DataError> {
    let listing = tree.read(path)?;
    let folders = listing.all_folders(path);
    if folders.is_empty() {
        return Err(if listing.images.is_empty() {
            let found = match listing.ignored {
                0 => "it is empty".into(),
                files => format!("{files} file(s), no images and no folders"),
            };
            DataError::UnknownForm { path: path.into(), found }
        } else {
            DataError::NoClassFolders { path: path.into(), images: listing.images.len() }
        });
    }
    if !listing.images.is_empty() {
        notes.push(format!("ignored {} image(s) outside class folders in {}", listing.images.len(), path.display()));
    }
    let name = |name: OsString| name.into_string().map_err(|name| DataError::ClassName { path: path.join(name) });
    folders.into_iter().map(name).collect()
}

/// Returns an error if a validation folder has a class that is not in the sorted `classes`, unless
/// classes may differ. Missing classes are reported by [`Assembly::finish`].
pub(crate) fn check_classes(
    tree: &Tree,
    folder: &Path,
    classes: &[String],
    options: &OpenOptions,
) -> Result<(), DataError> {
    let found = class_folders(tree, folder, &mut Vec::new())?;
    match found.iter().find(|class| classes.binary_search(class).is_err()) {
        Some(class) if !options.classes_may_differ => {
            Err(DataError::UnknownClass { path: folder.join(class), class: class.clone() })
        }
        _ => Ok(()),
    }
}

/// Lists the images in a folder and its subfolders, as paths relative to the folder.
pub(crate) fn list_flat(tree: &Tree, folder: &Path, notes: &mut Vec<String>) -> Result<Vec<PathBuf>, DataError> {
    let mut found = tree.images(&[folder.to_path_buf()])?;
    Images::note(&found, folder, notes);
    Ok(found.pop().unwrap_or_default().images)
}

/// Images of class folders.
pub(crate) struct Folder {
    /// The class folders, by label.
    folders: Vec<PathBuf>,
    /// Label, and path relative to the class folder, which saves memory for millions of images.
    images: Vec<(u32, Box<OsStr>)>,
}

impl Folder {
    /// Lists the images of the class folders. A class without a folder has no images.
    ///
    /// # Errors
    /// [`DataError::EmptyClass`] and I/O errors.
    pub fn read(tree: &Tree, path: &Path, classes: &[String], notes: &mut Vec<String>) -> Result<Folder, DataError> {
        let folders: Vec<PathBuf> = classes.iter().map(|class| path.join(class)).collect();
        let found = tree.images(&folders)?;
        Images::note(&found, path, notes);
        for (folder, found) in folders.iter().zip(&found) {
            if found.images.is_empty() && folder.is_dir() {
                let other_files = found.ignored + found.broken.len() + found.repeated.len();
                return Err(DataError::EmptyClass { path: folder.clone(), other_files });
            }
        }
        let labeled =
            (0..).zip(found).flat_map(|(label, found)| found.images.into_iter().map(move |image| (label, image)));
        let images = labeled.map(|(label, image)| (label, image.into_os_string().into_boxed_os_str())).collect();
        Ok(Folder { folders, images })
    }

    /// Creates a source from images of one folder with their labels.
    pub fn flat(folder: &Path, classes: usize, images: impl Iterator<Item = (u32, PathBuf)>) -> Folder {
        let images = images.map(|(label, image)| (label, image.into_os_string().into_boxed_os_str())).collect();
        Folder { folders: vec![folder.into(); classes], images }
    }

    fn path(&self, index: usize) -> PathBuf {
        let (label, image) = &self.images[index];
        self.folders[*label as usize].join(image.as_ref())
    }
}

impl Dataset<Sample, DataError> for Folder {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.path(index);
        Ok(Sample { image: StoredImage::Encoded(read_image(&path)?), label: self.label(index) })
    }

    fn len(&self) -> usize {
        self.images.len()
    }
}

impl Source for Folder {
    fn name(&self, index: usize) -> String {
        self.path(index).to_string_lossy().into_owned()
    }

    fn label(&self, index: usize) -> usize {
        self.images[index].0 as usize
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.path(index))
    }
}
