//! Image folders: one folder a class, with or without a folder a split above.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::Dataset;
use rayon::prelude::*;

use super::{DataError, DataSet, Form, OpenOptions, Sample, Source, StoredImage, stratified};

/// What the validation folder may be called, the first found being taken.
const VALIDATION: [&str; 4] = ["val", "valid", "validation", "test"];

/// File name extensions of images, lower case.
const EXTENSIONS: [&str; 17] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "tga", "ico",
    "qoi",
];

/// Images of class folders.
struct Folder {
    /// The class folders, by label.
    folders: Vec<PathBuf>,
    /// Label and path below the class folder: millions of these are held, so the common part is not repeated.
    images: Vec<(u32, Box<OsStr>)>,
}

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    let is_folder = |name: &&str| path.join(name).is_dir();
    let train = Some("train").filter(is_folder);
    let mut others = VALIDATION.into_iter().filter(is_folder);
    match (train, others.next()) {
        (None, None) => open_flat(path, options),
        // `train` may be the class of that name, beside others; so may `val` or `test`.
        (Some(train), None) if has_other_folders(path)? && !has_folders(&path.join(train))? => open_flat(path, options),
        (None, Some(_)) if has_other_folders(path)? => open_flat(path, options),
        (train, val) => open_split(path, train, val, others.next_back().filter(|name| *name == "test")),
    }
}

fn has_folders(path: &Path) -> Result<bool, DataError> {
    Ok(!Listing::read(path)?.folders.is_empty())
}

/// Whether there are folders that are no split's by their names.
fn has_other_folders(path: &Path) -> Result<bool, DataError> {
    let is_split = |name: &OsString| name == "train" || VALIDATION.iter().any(|known| name == known);
    Ok(!Listing::read(path)?.folders.iter().all(is_split))
}

fn open_split(path: &Path, train: Option<&str>, val: Option<&str>, test: Option<&str>) -> Result<DataSet, DataError> {
    let mut notes = Vec::new();
    let main = train.or(val).unwrap_or("train");
    let classes = class_names(&path.join(main), &mut notes)?;
    let mut read = |name: Option<&str>| -> Result<Option<Arc<dyn Source>>, DataError> {
        let Some(name) = name else { return Ok(None) };
        let folder = path.join(name);
        if name != main {
            check_classes(&folder, &classes, &mut notes)?;
        }
        Ok(Some(Arc::new(Folder::read(&folder, &classes, &mut notes)?)))
    };
    let (train_split, val_split, test_split) = (read(train)?, read(val)?, read(test)?);
    match val {
        None => notes.push(format!("no validation split: {} has none of {}", path.display(), VALIDATION.join(", "))),
        Some("test") => notes.push("test/ is the validation split".into()),
        Some(_) => {}
    }
    if train.is_none() {
        notes.push(format!("no train/ in {}: classes are those of {main}/", path.display()));
    }
    Ok(DataSet { form: Form::SplitFolders, classes, train: train_split, val: val_split, test: test_split, notes })
}

fn open_flat(path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
    let mut notes = Vec::new();
    let classes = class_names(path, &mut notes)?;
    let Folder { folders, images } = Folder::read(path, &classes, &mut notes)?;
    let labels: Vec<usize> = images.iter().map(|(label, _)| *label as usize).collect();
    let (train, val) = stratified(&labels, classes.len(), options);
    if options.val_fraction > 0.0 {
        notes.push(format!(
            "no split folders: {} of {} images are held out for validation, chosen in each class by seed {}",
            val.len(),
            images.len(),
            options.seed
        ));
    }
    let split = |members: Vec<usize>| -> Option<Arc<dyn Source>> {
        let images = members.into_iter().map(|index| images[index].clone()).collect::<Vec<_>>();
        (!images.is_empty()).then(|| Arc::new(Folder { folders: folders.clone(), images }) as Arc<dyn Source>)
    };
    Ok(DataSet { form: Form::FlatFolder, classes, train: split(train), val: split(val), test: None, notes })
}

/// What lies directly in a folder, hidden entries apart.
#[derive(Default)]
struct Listing {
    folders: Vec<OsString>,
    images: Vec<OsString>,
    /// Number of files of other kinds and of hidden entries.
    passed_over: usize,
}

impl Listing {
    fn read(path: &Path) -> Result<Listing, DataError> {
        let mut listing = Listing::default();
        let failed = |source| DataError::io(path, source);
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            // `__MACOSX` is what macOS leaves in archives: shadows of the images, under the same names.
            if name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX" {
                listing.passed_over += 1;
                continue;
            }
            let mut kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                match fs::metadata(entry.path()) {
                    // A link to a folder above would be followed for ever.
                    Ok(target) if target.is_dir() && leads_back(&entry.path()) => {
                        listing.passed_over += 1;
                        continue;
                    }
                    Ok(target) => kind = target.file_type(),
                    Err(_) => {
                        listing.passed_over += 1;
                        continue;
                    }
                }
            }
            if kind.is_dir() {
                listing.folders.push(name);
            } else if kind.is_file() && is_image(Path::new(&name)) {
                listing.images.push(name);
            } else {
                listing.passed_over += 1;
            }
        }
        // The order of a listing is the file system's own.
        listing.folders.sort_unstable();
        listing.images.sort_unstable();
        Ok(listing)
    }
}

/// Whether a link points to a folder that it lies in.
fn leads_back(link: &Path) -> bool {
    match (fs::canonicalize(link), link.parent().map(fs::canonicalize)) {
        (Ok(target), Some(Ok(parent))) => parent.starts_with(target),
        _ => true,
    }
}

fn is_image(name: &Path) -> bool {
    name.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// The class folders' names, in byte order.
fn class_names(path: &Path, notes: &mut Vec<String>) -> Result<Vec<String>, DataError> {
    let listing = Listing::read(path)?;
    if listing.folders.is_empty() {
        return Err(if listing.images.is_empty() {
            let found = match listing.passed_over {
                0 => "it is empty".into(),
                files => format!("{files} file(s), none of them an image, and no folders"),
            };
            DataError::UnknownForm { path: path.into(), found }
        } else {
            DataError::NoClassFolders { path: path.into(), images: listing.images.len() }
        });
    }
    if !listing.images.is_empty() {
        notes.push(format!(
            "passed over {} image(s) outside of class folders, in {}",
            listing.images.len(),
            path.display()
        ));
    }
    if listing.folders.len() == 1 {
        notes.push(format!("{} has a single class folder", path.display()));
    }
    let name = |name: OsString| name.into_string().map_err(|name| DataError::ClassName { path: path.join(name) });
    listing.folders.into_iter().map(name).collect()
}

/// Compares a validation folder's classes with those of training, so that no label can shift.
fn check_classes(folder: &Path, classes: &[String], notes: &mut Vec<String>) -> Result<(), DataError> {
    let found = class_names(folder, &mut Vec::new())?;
    if let Some(class) = found.iter().find(|class| !classes.contains(class)) {
        return Err(DataError::UnknownClass { path: folder.join(class), class: class.clone() });
    }
    let missing: Vec<&str> = classes.iter().filter(|class| !found.contains(class)).map(String::as_str).collect();
    if !missing.is_empty() {
        notes.push(format!("{} has no images of {}", folder.display(), enumerate(&missing)));
    }
    Ok(())
}

/// The image files in a folder and the folders below it, by their extensions; sorted, hidden files left out.
///
/// # Errors
/// [`DataError::NotFound`] and [`DataError::Io`].
pub fn list_images(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut images = Vec::new();
    list(path, Path::new(""), &mut images, &mut 0)?;
    Ok(images.into_iter().map(|image| path.join(image)).collect())
}

/// The first few names, and how many more.
fn enumerate(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

impl Folder {
    /// Lists the images of the classes' folders; a class without a folder has none.
    fn read(path: &Path, classes: &[String], notes: &mut Vec<String>) -> Result<Folder, DataError> {
        let folders: Vec<PathBuf> = classes.iter().map(|class| path.join(class)).collect();
        let listings: Vec<(Vec<PathBuf>, usize)> = folders
            .par_iter()
            .map(|folder| {
                let (mut images, mut passed_over) = (Vec::new(), 0);
                if folder.is_dir() {
                    list(folder, Path::new(""), &mut images, &mut passed_over)?;
                    if images.is_empty() {
                        return Err(DataError::EmptyClass { path: folder.clone(), passed_over });
                    }
                }
                Ok((images, passed_over))
            })
            .collect::<Result<_, DataError>>()?;
        let passed_over: usize = listings.iter().map(|(_, passed_over)| passed_over).sum();
        if passed_over > 0 {
            notes.push(format!("passed over {passed_over} hidden or non-image file(s) in {}", path.display()));
        }
        let images = listings
            .into_iter()
            .enumerate()
            .flat_map(|(label, (images, _))| {
                images.into_iter().map(move |image| (label as u32, image.into_os_string().into_boxed_os_str()))
            })
            .collect();
        Ok(Folder { folders, images })
    }

    fn path(&self, index: usize) -> PathBuf {
        let (label, image) = &self.images[index];
        self.folders[*label as usize].join(image.as_ref())
    }
}

/// Collects the images below `root`/`below`, as paths below `root`, sorted folder by folder.
fn list(root: &Path, below: &Path, images: &mut Vec<PathBuf>, passed_over: &mut usize) -> Result<(), DataError> {
    let listing = Listing::read(&root.join(below))?;
    *passed_over += listing.passed_over;
    images.extend(listing.images.iter().map(|name| below.join(name)));
    for name in &listing.folders {
        list(root, &below.join(name), images, passed_over)?;
    }
    Ok(())
}

impl Dataset<Sample, DataError> for Folder {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.path(index);
        let bytes = fs::read(&path).map_err(|source| DataError::Io { path, source })?;
        Ok(Sample { image: StoredImage::Encoded(bytes), label: self.label(index) })
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
