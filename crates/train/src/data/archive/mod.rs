//! One archive, `.zip` or `.tar`, of image folders, read without unpacking; and what other forms need of archives.

mod members;
mod tarball;
mod zipfile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) use members::{Members, Packing, Place as Stored, read_exact_at};
pub(super) use tarball::{Member, Tarball};

use super::assembly::{Assembly, Role};
use super::folder::is_image;
use super::forms::{Found, Place, Recognised};
use super::{DataError, DataSet, Form, OpenOptions, Source, enumerate, ilsvrc};

/// An archive, by path.
struct Archive(PathBuf);

pub(super) fn recognise(place: &Place) -> Recognised {
    Ok(place.file(&["zip", "tar"]).map(|path| Box::new(Archive(path.into())) as Box<dyn Found>))
}

/// An image in an archive; its path there, in parts.
struct Image<'a> {
    parts: Vec<&'a str>,
    name: &'a str,
    offset: u64,
    size: u64,
    packing: Packing,
}

impl Found for Archive {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let path = &self.0;
        let mut notes = Vec::new();
        if super::forms::has_extension(path, &["zip"]) {
            let entries = zipfile::index(path)?;
            let files = entries.iter().map(|entry| (&*entry.name, entry.offset, entry.size, entry.packing));
            return open(path, files, notes, options);
        }
        let Tarball { members, cut } = Tarball::index(path, "files", |_| false)?;
        notes.extend(cut.map(|why| format!("{} is cut short: {why}", path.display())));
        let files = members.iter().map(|member| (&*member.name, member.offset, member.size, Packing::Plain));
        open(path, files, notes, options)
    }
}

fn open<'a>(
    path: &Path,
    files: impl Iterator<Item = (&'a str, u64, u64, Packing)>,
    mut notes: Vec<String>,
    options: &OpenOptions,
) -> Result<DataSet, DataError> {
    let mut passed_over = 0;
    let mut images: Vec<Image> = files
        .filter_map(|(name, offset, size, packing)| {
            let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
            let hidden = parts.iter().any(|part| part.starts_with('.') || *part == "__MACOSX");
            let wanted = !hidden && is_image(Path::new(name));
            passed_over += usize::from(!wanted);
            wanted.then_some(Image { parts, name, offset, size, packing })
        })
        .collect();
    if passed_over > 0 {
        notes.push(format!("passed over {passed_over} hidden or non-image file(s) in {}", path.display()));
    }
    let Some(depth) = images.iter().map(|image| image.parts.len()).min() else {
        return Err(DataError::NoImagesIn { path: path.into() });
    };
    // Folders around the data set itself: `photos/` of `photos/train/cat/1.jpg`.
    let first = images[0].parts.clone();
    let common = |level: usize| {
        Role::of_name(first[level]).is_none() && images.iter().all(|image| image.parts[level] == first[level])
    };
    let around = (0..depth.saturating_sub(2)).take_while(|&level| common(level)).count();
    images.iter_mut().for_each(|image| drop(image.parts.drain(..around)));

    let is_split = |image: &Image| image.parts.len() > 2 && Role::of_name(image.parts[0]).is_some();
    let split = images.iter().any(|image| is_split(image) && Role::of_name(image.parts[0]) == Some(Role::Train))
        || images.iter().all(is_split);
    let class_level = usize::from(split);
    let outside = images.len();
    images.retain(|image| image.parts.len() > class_level + 1 && (!split || Role::of_name(image.parts[0]).is_some()));
    let outside = outside - images.len();
    if images.is_empty() {
        return Err(DataError::NoClassFolders { path: path.into(), images: outside });
    }
    if outside > 0 {
        notes.push(format!("passed over {outside} image(s) outside of class folders, in {}", path.display()));
    }
    // The archive's order may be any; that of folders is by names.
    images.sort_by(|a, b| a.parts.cmp(&b.parts));

    let mut by_class: BTreeMap<&str, u32> = images.iter().map(|image| (image.parts[class_level], 0)).collect();
    for (label, number) in (0..).zip(by_class.values_mut()) {
        *number = label;
    }
    let mut splits: BTreeMap<Role, Members> = BTreeMap::new();
    let mut names: BTreeMap<Role, Vec<&str>> = BTreeMap::new();
    for image in &images {
        let role = if split { Role::of_name(image.parts[0]).unwrap_or(Role::Whole) } else { Role::Whole };
        let place = Stored {
            file: 0,
            label: by_class[image.parts[class_level]],
            offset: image.offset,
            size: image.size,
            packing: image.packing,
        };
        if split {
            let names = names.entry(role).or_default();
            if names.last() != Some(&image.parts[0]) {
                names.push(image.parts[0]);
            }
        }
        splits.entry(role).or_insert_with(|| Members::new(vec![path.into()])).push(image.name.into(), place);
    }
    if let Some(several) = names.values().find(|names| names.len() > 1) {
        let why = format!("it has several folders for one split: {}", enumerate(several));
        return Err(DataError::Malformed { path: path.into(), why });
    }
    let folders: Vec<String> = by_class.into_keys().map(str::to_string).collect();
    let (classes, aliases) = ilsvrc::named(folders, &[path.parent().unwrap_or(Path::new(""))])?;
    let splits = splits.into_iter().map(|(role, members)| (role, Arc::new(members) as Arc<dyn Source>)).collect();
    Assembly { form: Form::Archive, classes, aliases, splits, notes }.finish(path, options)
}
