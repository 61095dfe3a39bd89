//! WebDataset: `.tar` shards in which files of one name but for the extension are a sample, `000.jpg` with `000.cls` or
//! `000.json`.
//!
//! Shards are never unpacked and need not be read in order: their headers tell where each image lies. The order of an epoch
//! still goes through them run by run (see [`Runs`](super::Runs)), as disks and network file systems like it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::archive::{Members, Packing, Stored, Tarball};
use super::assembly::{Assembly, Role};
use super::forms::{Found, Place, Recognised};
use super::labels::{Vocabulary, listed_names};
use super::{DataError, DataSet, Form, OpenOptions, Source, enumerate};

/// Extensions of a sample's image, lower case.
const IMAGES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "ppm", "gif", "bmp", "tif", "tiff"];

/// Extensions of what says a sample's class, the surest first.
const LABELS: [&str; 4] = ["cls", "label", "class", "json"];

/// Keys of a `json` member that hold a class: a number, or a name.
const LABEL_KEYS: [&str; 8] = ["label", "cls", "class", "target", "class_id", "label_id", "fine_label", "category"];
/// Keys that hold the class's name where the former holds its number.
const NAME_KEYS: [&str; 5] = ["class_name", "label_name", "classname", "synset", "wnid"];

/// Shards, and the folder that names are told against.
struct Shards {
    root: PathBuf,
    files: Vec<PathBuf>,
}

pub(super) fn recognise(place: &Place) -> Recognised {
    if place.holds_image_folders()? {
        return Ok(None);
    }
    let files = place.files("tar")?;
    let Some(first) = files.first() else { return Ok(None) };
    if files.len() == 1 && !has_samples(&index(first)?.members) {
        // One archive of image folders.
        return Ok(None);
    }
    Ok(Some(Box::new(Shards { root: place.root().into(), files })))
}

/// Lists a shard's files, and what its labels say.
fn index(path: &Path) -> Result<Tarball, DataError> {
    Tarball::index(path, "samples", |name| extension_of(name, &LABELS).is_some())
}

/// The name that a sample's files share, and the rest: `a/b.c.jpg` is `a/b` and `c.jpg`.
fn key(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

/// Which of these a file's extension is, or ends in, as `image.jpg` does in `jpg`.
fn extension_of(name: &str, known: &[&str]) -> Option<usize> {
    let last = key(name).1.rsplit('.').next()?;
    known.iter().position(|known| known.eq_ignore_ascii_case(last))
}

/// Whether there is any image with a label beside it.
fn has_samples(members: &[super::archive::Member]) -> bool {
    Samples { members }.any(|sample| sample.image.is_some() && sample.label.is_some())
}

/// A sample's files.
struct Sample<'a> {
    key: &'a str,
    image: Option<&'a super::archive::Member>,
    /// Which of [`LABELS`], and the text.
    label: Option<(usize, &'a str)>,
    /// What its `json` says, if it has one besides.
    json: Option<&'a str>,
}

/// Neighbouring files of one name but for the extension.
struct Samples<'a> {
    members: &'a [super::archive::Member],
}

impl<'a> Iterator for Samples<'a> {
    type Item = Sample<'a>;

    fn next(&mut self) -> Option<Sample<'a>> {
        let (key, _) = key(&self.members.first()?.name);
        let count = self.members.iter().take_while(|member| self::key(&member.name).0 == key).count();
        let (files, rest) = self.members.split_at(count);
        self.members = rest;
        let image = files.iter().find(|file| extension_of(&file.name, &IMAGES).is_some());
        let labels = files.iter().filter_map(|file| Some((extension_of(&file.name, &LABELS)?, file.text.as_deref()?)));
        let json = labels.clone().find(|(kind, _)| LABELS[*kind] == "json").map(|(_, text)| text);
        Some(Sample { key, image, label: labels.min_by_key(|(kind, _)| *kind), json })
    }
}

/// The class that a label file tells, and the name beside it.
fn class_of(kind: usize, text: &str) -> Result<(String, Option<String>), String> {
    if LABELS[kind] != "json" {
        return Ok((text.trim().to_string(), None));
    }
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let text_of = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(text) = text_of(&json) {
        return Ok((text, None));
    }
    let find = |keys: &[&str]| keys.iter().find_map(|key| text_of(json.get(key)?));
    match (find(&LABEL_KEYS), find(&NAME_KEYS)) {
        (Some(label), name) => Ok((label, name)),
        (None, Some(name)) => Ok((name, None)),
        (None, None) => {
            let keys: Vec<&str> = json.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
            Err(format!("none of its keys tells a class: {}", enumerate(&keys)))
        }
    }
}

impl Found for Shards {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let mut notes = Vec::new();
        let mut by_role: BTreeMap<Role, Vec<&PathBuf>> = BTreeMap::new();
        for file in &self.files {
            let relative = file.strip_prefix(&self.root).unwrap_or(file);
            by_role.entry(Role::of_path(relative)).or_default().push(file);
        }
        let mut vocabulary = Vocabulary::default();
        let mut found = Vec::new();
        for (role, files) in by_role {
            let indexed: Vec<Tarball> = files.par_iter().map(|file| index(file)).collect::<Result<_, _>>()?;
            let mut members = Members::new(files.iter().map(|&file| file.clone()).collect());
            let (mut incomplete, mut unlabelled) = (0, 0);
            let mut codes = Vec::new();
            for (number, (file, tarball)) in (0..).zip(files.iter().zip(&indexed)) {
                let cut = tarball
                    .cut
                    .as_ref()
                    .map(|why| format!("{} is cut short: {why}; the samples before are used", file.display()));
                notes.extend(cut);
                for sample in (Samples { members: &tarball.members }) {
                    let (Some(image), Some((kind, text))) = (sample.image, sample.label) else {
                        incomplete += 1;
                        continue;
                    };
                    let (label, name) = class_of(kind, text).map_err(|why| {
                        let path = file.join(format!("{}.{}", sample.key, LABELS[kind]));
                        DataError::Malformed { path, why }
                    })?;
                    let Some(code) = vocabulary.code(&label) else {
                        unlabelled += 1;
                        continue;
                    };
                    let beside = || sample.json.and_then(|json| class_of(LABELS.len() - 1, json).ok()?.1);
                    if let Some(name) = name.or_else(beside) {
                        vocabulary.name(code, &name);
                    }
                    codes.push((image.name.clone(), code, number, image.offset, image.size));
                }
            }
            let left_out =
                [(incomplete, "without an image or a label"), (unlabelled, "whose labels say that they have none")];
            for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
                notes.push(format!("passed over {count} sample(s) {why}, in the shards of {}", role.name()));
            }
            found.push((role, codes, std::mem::take(&mut members)));
        }
        if found.iter().all(|(_, codes, _)| codes.is_empty()) {
            return Err(DataError::NoImagesIn { path: self.root.clone() });
        }
        let listed = listed_names(&[&self.root])?;
        let (classes, labels) = vocabulary.classes(listed.as_ref(), &self.root)?;
        let splits = found.into_iter().map(|(role, codes, mut members)| {
            for (name, code, file, offset, size) in codes {
                let label = labels[code as usize];
                members.push(name, Stored { file, label, offset, size, packing: Packing::Plain });
            }
            (role, Arc::new(members) as Arc<dyn Source>)
        });
        let splits = splits.collect();
        Assembly { form: Form::Shards, classes, aliases: Vec::new(), splits, notes }.finish(&self.root, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_name() {
        assert_eq!(key("a.b/c.seg.png"), ("a.b/c", "seg.png"));
        assert_eq!(key("c"), ("c", ""));
        assert_eq!(extension_of("a/b.JPG", &IMAGES), Some(0));
        assert_eq!(extension_of("a/b.left.png", &IMAGES), Some(2));
        assert_eq!(extension_of("a/jpg", &IMAGES), None);
    }

    #[test]
    fn json_tells_numbers_and_names() {
        let tell = |text| class_of(3, text).map(|(label, name)| (label, name.unwrap_or_default()));
        assert_eq!(tell(r#"{"label": 7, "class_name": "cat"}"#).unwrap(), ("7".into(), "cat".into()));
        assert_eq!(tell(r#"{"cls": "cat"}"#).unwrap(), ("cat".into(), String::new()));
        assert_eq!(tell("3").unwrap().0, "3");
        assert!(tell(r#"{"caption": "a cat"}"#).unwrap_err().contains("caption"));
        assert!(tell("{").is_err());
    }
}
