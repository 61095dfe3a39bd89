//! ImageNet in its original form (ILSVRC2012; Russakovsky et al. 2015): archives of archives, a
//! flat folder of validation images with labels in the development kit, and WordNet IDs as classes.
//!
//! Training and validation images may each be in folders or archives, in any combination.

mod matfile;
mod truth;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use self::truth::Truth;
use mbconv_files::text::enumerate;
use mbconv_image::formats::is_image;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::archive::{Members, Packing, Stored, Tarball};
use crate::formats::image_folder::{self, Folder};
use crate::formats::location::{DatasetFormat, Detected, Kind, Location};
use crate::listing::{Tree, has_folders, has_images, is_in_clutter};
use crate::options::OpenOptions;
use crate::source::Source;
use crate::split_names::Role;
use crate::splits::Assembly;
use crate::synsets;

const TRAIN_ARCHIVE: &str = "ILSVRC2012_img_train.tar";
const VAL_ARCHIVE: &str = "ILSVRC2012_img_val.tar";
const TRAIN_FOLDERS: [&str; 2] = ["train", "ILSVRC2012_img_train"];
const VAL_FOLDERS: [&str; 4] = ["val", "valid", "validation", "ILSVRC2012_img_val"];

/// Subfolders that may contain the images: none, or those of Kaggle's archive.
const WITHIN: [&str; 3] = ["", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"];

/// Location of the training images.
enum Train {
    /// One folder per class.
    Folders(PathBuf),
    /// One archive that contains one archive per class.
    Archive(PathBuf),
    /// One archive per class in a folder.
    Archives(Vec<PathBuf>),
}

/// Location of the validation images.
enum Val {
    /// One folder per class.
    Folders(PathBuf),
    /// One folder with all images.
    Flat(PathBuf),
    /// One archive with all images.
    Archive(PathBuf),
}

struct Ilsvrc {
    /// The given folder.
    root: PathBuf,
    /// The folder that contains the images.
    base: PathBuf,
    train: Option<Train>,
    val: Option<Val>,
}

/// Detects ImageNet's archives or flat validation folder by name.
pub(crate) fn detect(location: &Location) -> Detected {
    let root = location.path.clone();
    match location.kind {
        Kind::File => {
            let is = |name: &str| location.path.file_name().is_some_and(|found| found == name);
            let base = location.root().to_path_buf();
            let (train, val) = match () {
                () if is(TRAIN_ARCHIVE) => (Some(Train::Archive(location.path.clone())), None),
                () if is(VAL_ARCHIVE) => (None, Some(Val::Archive(location.path.clone()))),
                () => return Ok(None),
            };
            Ok(Some(Box::new(Ilsvrc { root: base.clone(), base, train, val })))
        }
        Kind::Files(_) => Ok(None),
        Kind::Folder => {
            for within in WITHIN {
                let base = if within.is_empty() { root.clone() } else { root.join(within) };
                let (train, val) = (find_train(&base)?, find_val(&base)?);
                let nested = !within.is_empty() && (train.is_some() || val.is_some());
                let archives = matches!(train, Some(Train::Archive(_) | Train::Archives(_)))
                    || matches!(val, Some(Val::Archive(_)));
                let flat = match &val {
                    // Without training images, a folder of other images is handled as a table.
                    Some(Val::Flat(folder)) => train.is_some() || has_val_images(folder)?,
                    _ => false,
                };
                if nested || archives || flat {
                    return Ok(Some(Box::new(Ilsvrc { root, base, train, val })));
                }
            }
            Ok(None)
        }
    }
}

/// Finds the training images below `base`.
fn find_train(base: &Path) -> Result<Option<Train>, DataError> {
    for folder in TRAIN_FOLDERS.map(|name| base.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        if has_folders(&folder)? {
            return Ok(Some(Train::Folders(folder)));
        }
        let archives = class_archives(&folder)?;
        if !archives.is_empty() {
            return Ok(Some(Train::Archives(archives)));
        }
    }
    let archive = base.join(TRAIN_ARCHIVE);
    if archive.is_file() {
        return Ok(Some(Train::Archive(archive)));
    }
    let archives = if base.is_dir() { class_archives(base)? } else { Vec::new() };
    Ok((!archives.is_empty()).then_some(Train::Archives(archives)))
}

/// Finds the validation images below `base`.
fn find_val(base: &Path) -> Result<Option<Val>, DataError> {
    for folder in VAL_FOLDERS.map(|name| base.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        if has_folders(&folder)? {
            return Ok(Some(Val::Folders(folder)));
        }
        if has_images(&folder)? {
            return Ok(Some(Val::Flat(folder)));
        }
    }
    let archive = base.join(VAL_ARCHIVE);
    Ok(archive.is_file().then_some(Val::Archive(archive)))
}

/// Returns whether a folder contains images named like ImageNet's validation images.
fn has_val_images(folder: &Path) -> Result<bool, DataError> {
    let mut entries = std::fs::read_dir(folder).map_err(|source| DataError::io(folder, source))?;
    Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("ILSVRC2012_val_"))))
}

/// Returns the archives in a folder that are named like classes, sorted.
fn class_archives(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::io(folder, source);
    let mut archives = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if class_of_archive(&path.to_string_lossy()).is_some() {
            archives.push(path);
        }
    }
    archives.sort_unstable();
    Ok(archives)
}

/// Returns the class of an archive: `n01440764` for `…/n01440764.tar`.
fn class_of_archive(name: &str) -> Option<&str> {
    let id = name.rsplit(['/', '\\']).next()?.strip_suffix(".tar")?;
    synsets::is_id(id).then_some(id)
}

impl DatasetFormat for Ilsvrc {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let mut notes = Vec::new();
        let tree = Tree::open(&self.root);
        let truth = match &self.val {
            Some(Val::Folders(_)) | None => None,
            Some(Val::Flat(folder)) => Some(Truth::find(&[folder, &self.base, &self.root])?),
            Some(Val::Archive(archive)) => {
                Some(Truth::find(&[archive.parent().unwrap_or(Path::new("")), &self.base, &self.root])?)
            }
        };
        // List the archives first, because their names are the classes.
        let inner = match &self.train {
            Some(Train::Archive(archive)) => archives_within(archive, &mut notes)?,
            Some(Train::Archives(archives)) => {
                archives.iter().map(|path| whole_archive(path)).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        let ids = match (&self.train, &self.val) {
            (Some(Train::Folders(folder)), _) | (None, Some(Val::Folders(folder))) => {
                image_folder::class_folders(&tree, folder, &mut notes)?
            }
            (Some(_), _) => inner.iter().map(|archive| archive.class.clone()).collect(),
            (None, _) => truth.as_ref().map(Truth::classes).transpose()?.unwrap_or_default(),
        };

        let mut splits: Vec<(Role, Arc<dyn Source>)> = Vec::new();
        match &self.train {
            Some(Train::Folders(folder)) => {
                splits.push((Role::Train, Arc::new(Folder::read(&tree, folder, &ids, &mut notes)?)));
            }
            Some(_) => splits.push((Role::Train, Arc::new(read_archives(&inner, &mut notes)?))),
            None => {}
        }
        match (&self.val, &truth) {
            (Some(Val::Folders(folder)), _) => {
                image_folder::check_classes(&tree, folder, &ids, options)?;
                splits.push((Role::Val, Arc::new(Folder::read(&tree, folder, &ids, &mut notes)?)));
            }
            (Some(Val::Flat(folder)), Some(truth)) => {
                splits.push((Role::Val, Arc::new(read_flat(&tree, folder, truth, &ids, &mut notes)?)));
            }
            (Some(Val::Archive(archive)), Some(truth)) => {
                splits.push((Role::Val, Arc::new(read_flat_archive(archive, truth, &ids, &mut notes)?)));
            }
            _ => {}
        }
        tree.keep();
        notes.extend(
            truth.map(|truth| format!("the labels of the validation images are read from {}", truth.path().display())),
        );
        let parent = self.root.parent().unwrap_or(Path::new(""));
        let (classes, aliases) = synsets::named(ids, &[&self.base, &self.root, parent])?;
        Assembly { form: Form::Ilsvrc, classes, aliases, splits, notes }.finish(&self.root, options)
    }
}

/// The archive of one class.
struct ClassArchive {
    class: String,
    file: PathBuf,
    /// Byte range in the file.
    bytes: std::ops::Range<u64>,
}

/// Lists the class archives in the archive of training images.
fn archives_within(path: &Path, notes: &mut Vec<String>) -> Result<Vec<ClassArchive>, DataError> {
    let Tarball { members, cut } = Tarball::index(path, "archives", |_| false)?;
    notes.extend(cut.map(|why| format!("{} is truncated: {why}", path.display())));
    let mut archives: Vec<ClassArchive> = members
        .iter()
        .filter_map(|member| {
            let class = class_of_archive(&member.name)?.to_string();
            Some(ClassArchive { class, file: path.into(), bytes: member.offset..member.offset + member.size })
        })
        .collect();
    if archives.is_empty() {
        let why = "it contains no class archives such as n01440764.tar".into();
        return Err(DataError::Malformed { path: path.into(), why });
    }
    archives.sort_unstable_by(|a, b| a.class.cmp(&b.class));
    Ok(archives)
}

/// Returns a class archive that is a file of its own.
fn whole_archive(path: &Path) -> Result<ClassArchive, DataError> {
    let length = std::fs::metadata(path).map_err(|source| DataError::io(path, source))?.len();
    let class = class_of_archive(&path.to_string_lossy()).unwrap_or_default().to_string();
    Ok(ClassArchive { class, file: path.into(), bytes: 0..length })
}

/// Lists the images of all class archives; archives are in label order.
fn read_archives(archives: &[ClassArchive], notes: &mut Vec<String>) -> Result<Members, DataError> {
    let list = |archive: &ClassArchive| -> Result<Tarball, DataError> {
        let failed = |source| DataError::io(&archive.file, source);
        let file = File::open(&archive.file).map_err(failed)?;
        Tarball::scan(&file, archive.bytes.clone(), |_| false).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => DataError::Malformed {
                path: archive.file.join(format!("{}.tar", archive.class)),
                why: source.to_string(),
            },
            _ => failed(source),
        })
    };
    let listed: Vec<Tarball> = archives.par_iter().map(list).collect::<Result<_, _>>()?;
    let mut files: Vec<PathBuf> = archives.iter().map(|archive| archive.file.clone()).collect();
    files.dedup();
    let one = files.len() == 1;
    let mut members = Members::new(files);
    for (label, (archive, tarball)) in (0..).zip(archives.iter().zip(listed)) {
        let Tarball { members: images, cut } = tarball;
        notes.extend(cut.map(|why| format!("{}.tar in {} is truncated: {why}", archive.class, archive.file.display())));
        for image in images.into_iter().filter(|image| is_wanted(&image.name)) {
            let file = if one { 0 } else { label };
            let location = Stored { file, label, offset: image.offset, size: image.size, packing: Packing::Plain };
            members.push(image.name, location);
        }
    }
    Ok(members)
}

/// Returns whether a member of an archive is an image and not clutter.
fn is_wanted(name: &str) -> bool {
    is_image(Path::new(name)) && !is_in_clutter(name)
}

/// Returns the class of every image in a flat split.
///
/// # Errors
/// The label file lacks an image.
fn labels(truth: &Truth, names: &[&str], ids: &[String]) -> Result<Vec<u32>, DataError> {
    let found = truth.labels(names, ids)?;
    let mut unknown: Vec<&str> = Vec::new();
    for (name, label) in names.iter().zip(&found) {
        if label.is_none() {
            unknown.push(name);
        }
    }
    if !unknown.is_empty() {
        let why = format!("it has no label for {}", enumerate(&unknown));
        return Err(DataError::Malformed { path: truth.path().into(), why });
    }
    Ok(found.into_iter().flatten().collect())
}

/// Reads a folder of validation images with their labels.
fn read_flat(
    tree: &Tree,
    folder: &Path,
    truth: &Truth,
    ids: &[String],
    notes: &mut Vec<String>,
) -> Result<Folder, DataError> {
    let images = image_folder::list_flat(tree, folder, notes)?;
    let names: Vec<String> = images.iter().map(|image| image.to_string_lossy().into_owned()).collect();
    let labels = labels(truth, &names.iter().map(String::as_str).collect::<Vec<_>>(), ids)?;
    Ok(Folder::flat(folder, ids.len(), labels.into_iter().zip(images)))
}

/// Reads an archive of validation images with their labels.
fn read_flat_archive(
    path: &Path,
    truth: &Truth,
    ids: &[String],
    notes: &mut Vec<String>,
) -> Result<Members, DataError> {
    let Tarball { mut members, cut } = Tarball::index(path, "files", |_| false)?;
    notes.extend(cut.map(|why| format!("{} is truncated: {why}", path.display())));
    members.retain(|member| is_wanted(&member.name));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
    let labels = labels(truth, &names, ids)?;
    let mut found = Members::new(vec![path.into()]);
    for (label, member) in labels.into_iter().zip(members) {
        let location = Stored { file: 0, label, offset: member.offset, size: member.size, packing: Packing::Plain };
        found.push(member.name, location);
    }
    Ok(found)
}
