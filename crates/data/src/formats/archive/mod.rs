//! Image folders in a single `.zip` or `.tar` archive, read without unpacking. Also contains the
//! archive readers used by other formats.

mod members;
mod tarball;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use members::{MemberLocation as Stored, Members, Packing};
pub(crate) use tarball::{Member, Tarball};

use mbconv_files::zip::{self, ZipError};
use mbconv_image::formats::is_image;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{DatasetFormat, Detected, Location};
use crate::layout::{Layout, Paths};
use crate::listing::is_in_clutter;
use crate::options::OpenOptions;
use crate::source::Source;
use crate::split_names::Role;
use crate::splits::Assembly;
use crate::synsets;

/// The path of an archive.
struct Archive(PathBuf);

/// Detects a single archive by its extension.
pub(crate) fn detect(location: &Location) -> Detected {
    Ok(location.file(&["zip", "tar"]).map(|path| Box::new(Archive(path.into())) as Box<dyn DatasetFormat>))
}

/// An image in an archive, with its path there and the path's components.
struct Image<'a> {
    parts: Vec<&'a str>,
    name: &'a str,
    offset: u64,
    size: u64,
    packing: Packing,
}

impl DatasetFormat for Archive {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let path = &self.0;
        let mut notes = Vec::new();
        if crate::formats::location::has_extension(path, &["zip"]) {
            let entries = zip_entries(path)?;
            let files = entries.iter().map(|(entry, packing)| (&*entry.name, entry.header, entry.stored, *packing));
            return open(path, files, notes, options);
        }
        let Tarball { members, cut } = Tarball::index(path, "files", |_| false)?;
        notes.extend(cut.map(|why| format!("{} is truncated: {why}", path.display())));
        let files = members.iter().map(|member| (&*member.name, member.offset, member.size, Packing::Plain));
        open(path, files, notes, options)
    }
}

/// Lists the files in a zip archive and how each is stored.
///
/// # Errors
/// A file that cannot be read, is not a zip archive or is truncated; a member that is encrypted or
/// compressed with a method other than deflate.
fn zip_entries(path: &Path) -> Result<Vec<(zip::Entry, Packing)>, DataError> {
    let malformed = |why: String| DataError::Malformed { path: path.into(), why };
    let file = File::open(path).map_err(|source| DataError::io(path, source))?;
    let entries = zip::directory(&file).map_err(|error| match error {
        ZipError::Io(source) => DataError::io(path, source),
        ZipError::Malformed(why) => malformed(why.into()),
    })?;
    let packed = |mut entry: zip::Entry| {
        entry.name = entry.name.replace('\\', "/");
        let name = &entry.name;
        let packing = match entry.method {
            _ if entry.encrypted => return Err(malformed(format!("it contains the encrypted file {name}"))),
            0 => Packing::Stored,
            8 => Packing::Deflated { size: u32::try_from(entry.size).unwrap_or(u32::MAX), crc: entry.crc },
            method => {
                let why = format!(
                    "it contains {name}, compressed with method {method}; only deflate is supported: create the archive again"
                );
                return Err(malformed(why));
            }
        };
        Ok((entry, packing))
    };
    entries.into_iter().filter(|entry| !entry.name.ends_with(['/', '\\'])).map(packed).collect()
}

/// Orders paths by name. In each folder, images come before subfolders.
fn in_order_of_folders(a: &[&str], b: &[&str]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let is_image = |parts: &[&str]| same + 1 >= parts.len();
    is_image(b).cmp(&is_image(a)).then_with(|| a[same..].cmp(&b[same..]))
}

/// Opens image folders in an archive, given its files as name, offset, size and packing.
fn open<'a>(
    path: &Path,
    files: impl Iterator<Item = (&'a str, u64, u64, Packing)>,
    mut notes: Vec<String>,
    options: &OpenOptions,
) -> Result<DataSet, DataError> {
    let mut ignored = 0;
    let mut images: Vec<Image> = files
        .filter_map(|(name, offset, size, packing)| {
            let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            let wanted = !is_in_clutter(name) && is_image(Path::new(name));
            ignored += usize::from(!wanted);
            wanted.then_some(Image { parts, name, offset, size, packing })
        })
        .collect();
    if ignored > 0 {
        notes.push(format!("ignored {ignored} hidden or non-image file(s) in {}", path.display()));
    }
    if images.is_empty() {
        return Err(DataError::NoImagesIn { path: path.into() });
    }
    // Archives may have any order; use the order of folders on disk.
    images.sort_by(|a, b| in_order_of_folders(&a.parts, &b.parts));
    let mut paths = Paths::default();
    images.iter().for_each(|image| paths.add(&image.parts));
    let Layout { parts, notes: found, .. } = Layout::find(&paths, path)?;
    notes.extend(found);

    let parts: Vec<(Role, Vec<&str>)> =
        parts.iter().map(|(role, folder)| (*role, folder.iter().filter_map(|part| part.to_str()).collect())).collect();
    let mut placed: Vec<(Role, &str, &Image)> = Vec::with_capacity(images.len());
    for image in &images {
        let part = parts.iter().find(|(_, folder)| image.parts.starts_with(folder));
        // The class and the image name, relative to the split folder.
        if let Some((role, folder)) = part.filter(|(_, folder)| image.parts.len() > folder.len() + 1) {
            placed.push((*role, image.parts[folder.len()], image));
        }
    }
    let outside = images.len() - placed.len();
    if placed.is_empty() {
        return Err(DataError::NoClassFolders { path: path.into(), images: outside });
    }
    if outside > 0 {
        notes.push(format!("ignored {outside} image(s) outside class folders in {}", path.display()));
    }
    let mut by_class: BTreeMap<&str, u32> = placed.iter().map(|(_, class, _)| (*class, 0)).collect();
    // Invalid UTF-8 was replaced in names, so different classes may look the same.
    if let Some(class) = by_class.keys().find(|class| class.contains(char::REPLACEMENT_CHARACTER)) {
        let why = format!(
            "the name of its class folder {class:?} is not valid UTF-8: unpack the archive with the right encoding (for example unzip -O CP866) and use the folder"
        );
        return Err(DataError::Malformed { path: path.into(), why });
    }
    for (label, number) in (0..).zip(by_class.values_mut()) {
        *number = label;
    }
    let mut splits: BTreeMap<Role, Members> = BTreeMap::new();
    for (role, class, image) in placed {
        let Image { name, offset, size, packing, .. } = *image;
        let location = Stored { file: 0, label: by_class[class], offset, size, packing };
        splits.entry(role).or_insert_with(|| Members::new(vec![path.into()])).push(name.into(), location);
    }
    let folders: Vec<String> = by_class.into_keys().map(str::to_string).collect();
    let (classes, aliases) = synsets::named(folders, &[path.parent().unwrap_or(Path::new(""))])?;
    let splits = splits.into_iter().map(|(role, members)| (role, Arc::new(members) as Arc<dyn Source>)).collect();
    Assembly { form: Form::Archive, classes, aliases, splits, notes }.finish(path, options)
}
