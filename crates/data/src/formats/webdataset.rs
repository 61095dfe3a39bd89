//! WebDataset: `.tar` shards in which files with the same name except for the extension are a
//! sample, for example `000.jpg` with `000.cls`, `000.txt`, `000.index` or `000.json`.
//!
//! Only compressed shards are unpacked. Other shards allow random access, because their headers
//! give the offset of each image. An epoch still reads them in runs (see
//! [`Runs`](crate::source::Runs)), which is faster on disks and network file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;

use mbconv_files::text::enumerate;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::archive::{Member, Members, Packing, Stored, Tarball};
use crate::formats::location::{DatasetFormat, Detected, Location};
use crate::labels::{Vocabulary, listed_names};
use crate::options::OpenOptions;
use crate::source::Source;
use crate::split_names::Role;
use crate::splits::Assembly;

/// Extensions of images, in lower case.
const IMAGES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "ppm", "gif", "bmp", "tif", "tiff"];

/// Extensions of label files, the most reliable first.
const LABELS: [&str; 8] = ["cls", "label", "class", "index", "inx", "json", "txt", "text"];

/// Label extensions that Python's webdataset decodes as integers.
const NUMBERS: [&str; 4] = ["cls", "class", "index", "inx"];

/// Label extensions that contain captions in some data sets.
const CAPTIONS: [&str; 2] = ["txt", "text"];

/// Extensions of shards.
const ENDINGS: [&str; 3] = ["tar", "tar.gz", "tgz"];

/// Number of files and bytes read from a compressed shard to detect the format.
const DETECTION_FILES: usize = 64;
const DETECTION_BYTES: u64 = 256 << 20;

/// Returns the maximum number of bytes that a compressed shard of `packed` bytes may unpack to.
/// Images hardly compress.
fn max_unpacked(packed: u64) -> u64 {
    packed.saturating_mul(100).saturating_add(1 << 30)
}

/// Keys of a `json` member that contain a class: a number or a name.
const LABEL_KEYS: [&str; 8] = ["label", "cls", "class", "target", "class_id", "label_id", "fine_label", "category"];
/// Keys that contain the class name if one of `LABEL_KEYS` contains its number.
const NAME_KEYS: [&str; 5] = ["class_name", "label_name", "classname", "synset", "wnid"];

/// Shards, and the folder that their names are relative to.
struct Shards {
    root: PathBuf,
    files: Vec<PathBuf>,
}

/// Detects shards with labeled samples.
pub(crate) fn detect(location: &Location) -> Detected {
    if location.contains_image_folders()? {
        return Ok(None);
    }
    let files = location.files(&ENDINGS)?;
    let Some(first) = files.first() else { return Ok(None) };
    let members = || if is_compressed(first) { beginning(first) } else { Ok(index(first)?.members) };
    if files.len() == 1 && !has_samples(&members()?) {
        // One archive of image folders.
        return Ok(None);
    }
    Ok(Some(Box::new(Shards { root: location.root().into(), files })))
}

fn is_compressed(path: &Path) -> bool {
    !crate::formats::location::has_extension(path, &["tar"])
}

fn is_label(name: &str) -> bool {
    !key(name).0.is_empty() && extension_of(name, &LABELS).is_some()
}

/// Lists a shard's files and the contents of its label files.
fn index(path: &Path) -> Result<Tarball, DataError> {
    Tarball::index(path, "labels", is_label)
}

/// Returns the first files of a compressed shard.
fn beginning(path: &Path) -> Result<Vec<Member>, DataError> {
    let failed = |source| DataError::io(path, source);
    let file = File::open(path).map_err(failed)?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(file).take(DETECTION_BYTES));
    let Ok(entries) = archive.entries() else { return Ok(Vec::new()) };
    let names = entries.map_while(Result::ok).take(DETECTION_FILES).map(|entry| {
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").into();
        Member { name, offset: 0, size: 0, text: Some("".into()) }
    });
    Ok(names.collect())
}

/// Unpacks a compressed shard into an unnamed temporary file and lists it. Of a damaged shard, the
/// readable part is listed.
///
/// # Errors
/// A file that cannot be read, unpacks to more than [`max_unpacked`] bytes, or is not an archive; a
/// full disk.
fn unpack(path: &Path) -> Result<(Tarball, File), DataError> {
    let failed = |source| DataError::io(path, source);
    let folder = std::env::temp_dir();
    let full = |error: io::Error| DataError::Malformed {
        path: path.into(),
        why: format!("it cannot be unpacked into {}: {error}", folder.display()),
    };
    let packed = File::open(path).map_err(failed)?;
    let most = max_unpacked(packed.metadata().map_err(failed)?.len());
    let mut packed = MultiGzDecoder::new(io::BufReader::new(packed));
    let mut file = tempfile::tempfile().map_err(full)?;
    let mut part = vec![0; 1 << 18];
    let mut length = 0;
    let cut = loop {
        match packed.read(&mut part) {
            Ok(0) => break None,
            Ok(count) => file.write_all(&part[..count]).map_err(full)?,
            Err(error) => break Some(error.to_string()),
        }
        length = file.stream_position().map_err(full)?;
        if length > most {
            let why =
                format!("it unpacks to more than {most} bytes: if this is correct, unpack it and use the .tar file");
            return Err(DataError::Malformed { path: path.into(), why });
        }
    };
    let mut found = Tarball::scan(&file, 0..length, is_label)
        .map_err(|error| DataError::Malformed { path: path.into(), why: cut.clone().unwrap_or(error.to_string()) })?;
    found.cut = cut.or(found.cut);
    Ok((found, file))
}

/// Splits a name into the key shared by a sample's files and the rest: `a/b.c.jpg` into `a/b` and
/// `c.jpg`. The key is empty for files outside samples: hidden files, and descriptions of the data
/// set in folders such as `__meta__`.
fn key(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let top = name.split('/').next().unwrap_or_default();
    let about = top.len() > 4 && top.starts_with("__") && top.ends_with("__") || top == "__MACOSX";
    match name[base..].find('.') {
        Some(dot) if dot > 0 && !about => (&name[..base + dot], &name[base + dot + 1..]),
        _ => ("", ""),
    }
}

/// Returns the index of a file's last extension in `known`, for example of `jpg` for `image.jpg`.
fn extension_of(name: &str, known: &[&str]) -> Option<usize> {
    let last = key(name).1.rsplit('.').next()?;
    known.iter().position(|known| known.eq_ignore_ascii_case(last))
}

/// Returns whether any sample has an image and a label.
fn has_samples(members: &[Member]) -> bool {
    Samples { members }.any(|sample| sample.image.is_some() && !sample.labels.is_empty())
}

/// A sample's files.
struct Sample<'a> {
    key: &'a str,
    image: Option<&'a Member>,
    /// Index in [`LABELS`] and contents of each label file, the most reliable first.
    labels: Vec<(usize, &'a str)>,
    files: Vec<&'a Member>,
}

/// Iterates over groups of adjacent files with the same key.
struct Samples<'a> {
    members: &'a [Member],
}

impl<'a> Iterator for Samples<'a> {
    type Item = Sample<'a>;

    fn next(&mut self) -> Option<Sample<'a>> {
        let first = self.members.iter().position(|member| !key(&member.name).0.is_empty())?;
        let (key, _) = key(&self.members[first].name);
        self.members = &self.members[first..];
        // Files outside samples may occur in between.
        let belongs = |member: &Member| [key, ""].contains(&self::key(&member.name).0);
        let count = self.members.iter().take_while(|member| belongs(member)).count();
        let (files, rest) = self.members.split_at(count);
        self.members = rest;
        let files: Vec<&Member> = files.iter().filter(|file| self::key(&file.name).0 == key).collect();
        let image = files.iter().copied().find(|file| extension_of(&file.name, &IMAGES).is_some());
        let labels = files.iter().filter_map(|file| Some((extension_of(&file.name, &LABELS)?, file.text.as_deref()?)));
        let mut labels: Vec<(usize, &str)> = labels.collect();
        labels.sort_by_key(|(kind, _)| *kind);
        Some(Sample { key, image, labels, files })
    }
}

impl Sample<'_> {
    /// Returns the class, its name if present, and the index in [`LABELS`] of its file.
    ///
    /// # Errors
    /// No label file contains a class.
    fn class(&self) -> Result<(String, Option<String>, usize), String> {
        let mut wrong = None;
        for &(kind, text) in &self.labels {
            match class_of(kind, text) {
                Ok((label, name)) => {
                    let json = self.labels.iter().filter(|(kind, _)| LABELS[*kind] == "json");
                    let in_json = || json.clone().find_map(|(kind, text)| class_of(*kind, text).ok()?.1);
                    return Ok((label, name.or_else(in_json), kind));
                }
                Err(why) => wrong = wrong.or(Some(format!("{}.{}: {why}", self.key, LABELS[kind]))),
            }
        }
        Err(wrong.unwrap_or_default())
    }

    /// Returns a file whose extension occurs twice in the sample.
    fn repeated(&self) -> Option<&str> {
        let extension = |file: &Member| key(&file.name).1.to_lowercase();
        let mut seen = std::collections::HashSet::new();
        self.files.iter().find(|file| !seen.insert(extension(file))).map(|file| &*file.name)
    }
}

/// Returns the class in a label file, and its name if present.
fn class_of(kind: usize, text: &str) -> Result<(String, Option<String>), String> {
    if LABELS[kind] != "json" {
        let text = text.trim();
        let digits = NUMBERS.contains(&LABELS[kind]) && text.bytes().all(|byte| byte.is_ascii_digit());
        // Leading zeros are ignored, as by Python's `int`.
        let number = text.trim_start_matches('0');
        return Ok((
            if digits && number.is_empty() && !text.is_empty() {
                "0"
            } else if digits {
                number
            } else {
                text
            }
            .into(),
            None,
        ));
    }
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
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
            Err(format!("it has no key for a class, only {}", enumerate(&keys)))
        }
    }
}

/// A labeled image in a shard.
struct LabeledImage {
    name: Box<str>,
    /// Code of the label in the vocabulary.
    code: u32,
    /// Index of the shard in its split.
    shard: u32,
    offset: u64,
    size: u64,
}

/// The samples of one split.
struct Split {
    role: Role,
    images: Vec<LabeledImage>,
    members: Members,
    /// Number of samples without an image or a label file.
    incomplete: usize,
    /// Number of samples whose label marks a missing label.
    unlabeled: usize,
    /// Codes of the labels from files that may contain captions.
    captions: Vec<u32>,
}

/// Reads the samples of all shards.
#[derive(Default)]
struct ShardReader {
    vocabulary: Vocabulary,
    /// Number of images with and without labels.
    images: usize,
    /// Extensions of the other files in samples without a label.
    extensions: BTreeMap<String, usize>,
    /// Number of unpacked shards.
    unpacked: usize,
    notes: Vec<String>,
}

impl ShardReader {
    /// Reads the shards of a split.
    fn split(&mut self, role: Role, files: &[&PathBuf]) -> Result<Split, DataError> {
        let read = |file: &&PathBuf| match is_compressed(file) {
            true => unpack(file).map(|(tarball, contents)| (tarball, Some(contents))),
            false => index(file).map(|tarball| (tarball, None)),
        };
        let indexed: Vec<(Tarball, Option<File>)> = files.par_iter().map(read).collect::<Result<_, _>>()?;
        let members = Members::new(files.iter().map(|&file| file.clone()).collect());
        let mut split = Split { role, images: Vec::new(), members, incomplete: 0, unlabeled: 0, captions: Vec::new() };
        for (number, (file, (tarball, contents))) in (0..).zip(files.iter().zip(indexed)) {
            if let Some(contents) = contents {
                split.members.set_contents(number as usize, contents);
                self.unpacked += 1;
            }
            if let Some(why) = &tarball.cut {
                let file = file.display();
                self.notes.push(format!("{file} is truncated: {why}; the samples before that are used"));
            }
            for sample in (Samples { members: &tarball.members }) {
                let added = self.add(sample, number, &mut split);
                added.map_err(|why| DataError::Malformed { path: file.to_path_buf(), why })?;
            }
        }
        split.check_captions(files)?;
        self.note_ignored(&split);
        Ok(split)
    }

    /// Adds a sample of shard `shard` to the split.
    fn add(&mut self, sample: Sample, shard: u32, split: &mut Split) -> Result<(), String> {
        self.images += usize::from(sample.image.is_some());
        if let Some(name) = sample.repeated() {
            return Err(format!("sample {} has two files like {name}", sample.key));
        }
        let Some(image) = sample.image.filter(|_| !sample.labels.is_empty()) else {
            split.incomplete += 1;
            for file in sample.files.iter().filter(|file| extension_of(&file.name, &IMAGES).is_none()) {
                *self.extensions.entry(key(&file.name).1.to_lowercase()).or_default() += 1;
            }
            return Ok(());
        };
        let (label, name, kind) = sample.class()?;
        let Some(code) = self.vocabulary.code(&label) else {
            split.unlabeled += 1;
            return Ok(());
        };
        if let Some(name) = name {
            self.vocabulary.name(code, &name);
        }
        if CAPTIONS.contains(&LABELS[kind]) {
            split.captions.push(code);
        }
        let (offset, size) = (image.offset, image.size);
        split.images.push(LabeledImage { name: image.name.clone(), code, shard, offset, size });
        Ok(())
    }

    /// Adds notes about the ignored samples of a split.
    fn note_ignored(&mut self, split: &Split) {
        let ignored = [
            (split.incomplete, "without an image or a label"),
            (split.unlabeled, "with a label that means \"no label\""),
        ];
        for (count, why) in ignored.into_iter().filter(|(count, _)| *count > 0) {
            self.notes.push(format!("ignored {count} sample(s) {why} in the {} shards", split.role.name()));
        }
    }
}

impl Split {
    /// Checks that text files are not captions: most of their labels must occur more than once.
    fn check_captions(&mut self, files: &[&PathBuf]) -> Result<(), DataError> {
        let samples = self.captions.len();
        self.captions.sort_unstable();
        self.captions.dedup();
        let distinct = self.captions.len();
        if samples < 10 || 2 * distinct <= samples {
            return Ok(());
        }
        let why =
            format!(".txt files contain captions instead of labels: {distinct} distinct texts in {samples} images");
        Err(DataError::Malformed { path: files[0].clone(), why })
    }

    /// Returns the source of the split; `labels` maps codes to labels.
    fn into_source(mut self, labels: &[u32]) -> (Role, Arc<dyn Source>) {
        for LabeledImage { name, code, shard, offset, size } in self.images {
            let label = labels[code as usize];
            self.members.push(name, Stored { file: shard, label, offset, size, packing: Packing::Plain });
        }
        (self.role, Arc::new(self.members))
    }
}

impl DatasetFormat for Shards {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let mut by_role: BTreeMap<Role, Vec<&PathBuf>> = BTreeMap::new();
        for file in &self.files {
            let relative = file.strip_prefix(&self.root).unwrap_or(file);
            by_role.entry(Role::of_path(relative)).or_default().push(file);
        }
        let mut reader = ShardReader::default();
        let mut splits = Vec::new();
        for (role, files) in by_role {
            splits.push(reader.split(role, &files)?);
        }
        let ShardReader { vocabulary, images, extensions, unpacked, mut notes } = reader;
        if unpacked > 0 {
            let folder = std::env::temp_dir();
            notes.push(format!(
                "{unpacked} compressed shard(s) are unpacked into {} whenever the data set is opened; .tar shards need \
                 no unpacking",
                folder.display()
            ));
        }
        if splits.iter().all(|split| split.images.is_empty()) {
            let path = self.root.clone();
            if images == 0 {
                return Err(DataError::NoImagesIn { path });
            }
            let found = extensions.into_keys().take(5).collect();
            return Err(DataError::NoLabelsIn { path, images, found });
        }
        let listed = listed_names(&[&self.root])?;
        let (classes, labels) = vocabulary.classes(listed.as_ref(), &self.root)?;
        let splits = splits.into_iter().map(|split| split.into_source(&labels)).collect();
        Assembly { form: Form::Shards, classes, aliases: Vec::new(), splits, notes }.finish(&self.root, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_base_name() {
        assert_eq!(key("a.b/c.seg.png"), ("a.b/c", "seg.png"));
        // As in Python's webdataset, these belong to no sample.
        for name in ["c", "._000.jpg", "a/._000.cls", ".hidden.jpg", "__meta__/a.json", "__MACOSX/a.jpg"] {
            assert_eq!(key(name).0, "", "{name}");
        }
        assert_eq!(extension_of("a/b.JPG", &IMAGES), Some(0));
        assert_eq!(extension_of("a/b.left.png", &IMAGES), Some(2));
        assert_eq!(extension_of("a/jpg", &IMAGES), None);
    }

    #[test]
    fn json_labels_are_numbers_or_names() {
        let parse = |text| class_of(5, text).map(|(label, name)| (label, name.unwrap_or_default()));
        assert_eq!(parse(r#"{"label": 7, "class_name": "cat"}"#).unwrap(), ("7".into(), "cat".into()));
        assert_eq!(parse(r#"{"cls": "cat"}"#).unwrap(), ("cat".into(), String::new()));
        assert_eq!(parse("3").unwrap().0, "3");
        assert!(parse(r#"{"caption": "a cat"}"#).unwrap_err().contains("caption"));
        assert!(parse("{").is_err());
    }
}
