//! Hugging Face's `.parquet` shards: an image column, as bytes or as a struct `{bytes, path}`, and
//! a label column whose class names are in the file metadata.
//!
//! Rows are decoded in parts of some megabytes, which are kept until the epoch no longer needs them
//! (see [`Runs`](crate::source::Runs)).

mod file;
mod page;
#[cfg(test)]
mod tests;
pub(crate) mod thrift;
pub mod write;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::data::dataset::Dataset;
use rayon::prelude::*;
use serde_json::Value as Json;

use self::file::{Description, Leaf, Part};
use self::page::{Kind, Values};
use mbconv_files::text::enumerate;
use mbconv_image::DecodeError;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{DatasetFormat, Detected, Location};
use crate::label_lists::{Labels, list_text};
use crate::label_sets::LabelSets;
use crate::labels::{Vocabulary, listed_names};
use crate::options::{OpenOptions, TableOptions};
use crate::source::{Runs, Sample, Source, StoredImage};
use crate::split_names::Role;
use crate::splits::Assembly;
use crate::synsets::unique;

/// Usual column names, the most likely first.
const IMAGES: [&str; 10] = ["image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp", "pixel_values"];
const LABELS: [&str; 9] =
    ["label", "labels", "fine_label", "cls", "class", "target", "category", "label_id", "class_id"];

/// Decoded bytes per part, unless a single page is larger.
const PART: usize = 16 << 20;

/// Code of rows without a label.
const UNLABELED: u32 = u32::MAX;

/// Size of the cache of decoded rows in bytes. Half of it is for the runs that are read
/// concurrently.
const CACHE_BYTES: usize = 512 << 20;

/// Shards, and the folder that their names are relative to.
struct Shards {
    root: PathBuf,
    files: Vec<PathBuf>,
}

pub(crate) fn detect(location: &Location) -> Detected {
    if location.contains_image_folders()? {
        return Ok(None);
    }
    let files = location.files(&["parquet"])?;
    let found = Shards { root: location.root().into(), files };
    Ok((!found.files.is_empty()).then(|| Box::new(found) as Box<dyn DatasetFormat>))
}

/// Image and label columns of a file, and the class names.
struct Columns {
    image: usize,
    label: usize,
    names: Option<Vec<String>>,
}

impl Columns {
    fn find(description: &Description, options: &TableOptions) -> Result<Columns, String> {
        let Description { leaves, huggingface, .. } = description;
        let noted: Json = huggingface.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let features = &noted["info"]["features"];
        let of_type = |kind: &str| -> Vec<&str> {
            let all = features.as_object().into_iter().flatten();
            all.filter(|(_, feature)| feature["_type"] == kind).map(|(name, _)| name.as_str()).collect()
        };
        // Columns named in the metadata come before usual column names.
        let choose = |named: Vec<&str>, usual: &[&str], fits: &dyn Fn(&str) -> Option<usize>| {
            let named_and_usual = usual.iter().copied().filter(|name| named.contains(name));
            named_and_usual.chain(named.iter().copied()).chain(usual.iter().copied()).find_map(fits)
        };
        let image_leaf = |name: &str| {
            leaves.iter().position(|leaf| {
                leaf.kind() == Some(Kind::Bytes)
                    && match &leaf.path[..] {
                        [column] => **column == *name,
                        [column, field] => **column == *name && **field == *"bytes",
                        _ => false,
                    }
            })
        };
        // A column of numbers or texts, or of lists of them.
        let label_leaf = |name: &str| {
            let is_one = |leaf: &Leaf| leaf.path.len() == 1 || leaf.repeated == 1 && leaf.path.len() <= 3;
            leaves.iter().position(|leaf| leaf.kind().is_some() && is_one(leaf) && *leaf.path[0] == *name)
        };
        let columns = || {
            let mut names: Vec<&str> = leaves.iter().map(|leaf| &*leaf.path[0]).collect();
            names.dedup();
            enumerate(&names)
        };
        // Describes the type error of the first of these columns that exists.
        let wrong_type = |names: &[&str], wanted: &str| {
            let leaf = names.iter().find_map(|name| leaves.iter().find(|leaf| *leaf.path[0] == **name))?;
            let kind = if leaf.path.len() > 1 && leaf.repeated == 0 { "struct".into() } else { leaf.type_name() };
            Some(format!("column {:?} has type {kind}, but {wanted}", leaf.path[0]))
        };
        let image = match options.image.as_deref() {
            Some(name) => image_leaf(name),
            None => choose(of_type("Image"), &IMAGES, &image_leaf),
        };
        let image = image.ok_or_else(|| {
            let wanted = "images must be binary or a struct of bytes and path";
            match options.image.as_deref() {
                Some(name) => wrong_type(&[name], wanted)
                    .unwrap_or_else(|| format!("it has no column {name:?}, only {}", columns())),
                None => wrong_type(&IMAGES, wanted)
                    .unwrap_or_else(|| format!("no column is recognized as images; columns: {}", columns())),
            }
        })?;
        let label = match options.label.as_deref() {
            Some(name) => label_leaf(name),
            None => choose(of_type("ClassLabel"), &LABELS, &label_leaf).filter(|label| *label != image),
        };
        let label = label.ok_or_else(|| {
            let wanted = "labels must be integers, texts or Boolean values";
            match options.label.as_deref() {
                Some(name) => wrong_type(&[name], wanted)
                    .unwrap_or_else(|| format!("it has no column {name:?}, only {}", columns())),
                None => wrong_type(&LABELS, wanted)
                    .unwrap_or_else(|| format!("no column is recognized as labels; columns: {}", columns())),
            }
        })?;
        let feature = &features[&*leaves[label].path[0]];
        // Lists of class labels nest the feature.
        let feature =
            ["feature", "0"].iter().map(|key| &feature[key]).find(|inner| inner.is_object()).unwrap_or(feature);
        let names = match &feature["names"] {
            Json::Array(names) => Some(names.iter().filter_map(|name| name.as_str().map(String::from)).collect()),
            // Some writers use an object: `{"0": "cat", "1": "dog"}`.
            Json::Object(names) => {
                let all = (0..names.len()).map(|label| names.get(&label.to_string())?.as_str().map(String::from));
                all.collect::<Option<Vec<String>>>()
            }
            _ => None,
        };
        Ok(Columns { image, label, names: names.map(unique) })
    }
}

/// The contents of one file.
struct Shard {
    parts: Vec<Part>,
    /// The label of every row; empty if it is missing.
    labels: Vec<Arc<str>>,
    names: Option<Vec<String>>,
}

impl Shard {
    fn read(path: &PathBuf, options: &TableOptions) -> Result<Shard, DataError> {
        let malformed = |why: String| DataError::Malformed { path: path.clone(), why };
        let file = file::open(path)?;
        let description = Description::read(path, &file)?;
        let misnamed = |why: String| DataError::Columns { path: path.clone(), why };
        let columns = Columns::find(&description, options).map_err(misnamed)?;
        let mut parts = Vec::new();
        for chunk in description.chunks(columns.image) {
            parts.extend(chunk.parts(&file, PART).map_err(malformed)?);
        }
        let leaf = &description.leaves[columns.label];
        let column = &leaf.path[0];
        let mut labels = Vec::new();
        for chunk in description.chunks(columns.label) {
            let (values, starts) = chunk.read(&file).map_err(|why| malformed(format!("column {column:?}: {why}")))?;
            let texts = texts(values, leaf.kind() == Some(Kind::Bool)).map_err(|label| DataError::Label {
                path: path.clone(),
                why: format!("labels in column {column:?} must be integers or UTF-8 text"),
                label,
            })?;
            labels.extend(match starts {
                None => texts,
                Some(starts) => lists(&texts, &starts),
            });
        }
        let (rows, labeled) = (parts.iter().map(|part| part.rows).sum::<usize>(), labels.len());
        if rows != labeled {
            return Err(malformed(format!("it has {rows} images but {labeled} labels")));
        }
        Ok(Shard { parts, labels, names: columns.names })
    }
}

/// Returns the labels of rows as text. The error is a label that is neither an integer nor text.
fn texts(values: Values, truth: bool) -> Result<Vec<Arc<str>>, String> {
    match values {
        Values::Numbers(numbers) if truth => shared(numbers, |number| Ok((*number != 0).to_string())),
        Values::Numbers(numbers) => shared(numbers, |number| Ok(number.to_string())),
        Values::Floats(numbers) => {
            let whole = |label: Option<f64>| match label.filter(|label| !label.is_nan()) {
                None => Ok(None),
                Some(label) if label.fract() == 0.0 && label.abs() < 1e15 => Ok(Some(label as i64)),
                Some(label) => Err(label.to_string()),
            };
            let numbers: Vec<Option<i64>> = numbers.into_iter().map(whole).collect::<Result<_, _>>()?;
            shared(numbers, |number| Ok(number.to_string()))
        }
        Values::Bytes { data, ranges } => shared(ranges, |range| {
            let bytes = &data[range.clone()];
            str::from_utf8(bytes).map(String::from).map_err(|_| bytes.escape_ascii().to_string())
        }),
    }
}

/// Returns the label of each list of classes: one class alone, several joined, or an empty text.
/// Equal lists share the text.
fn lists(texts: &[Arc<str>], starts: &[usize]) -> Vec<Arc<str>> {
    let mut known: HashMap<Vec<&str>, Arc<str>> = HashMap::new();
    let ends = starts.iter().skip(1).copied().chain([texts.len()]);
    let of = |(&start, end): (&usize, usize)| {
        let classes: Vec<&str> = texts[start..end].iter().map(|text| &**text).filter(|text| !text.is_empty()).collect();
        match classes[..] {
            [] => "".into(),
            [_] => texts[start..end].iter().find(|text| !text.is_empty()).cloned().unwrap_or_default(),
            _ => known.entry(classes).or_insert_with_key(|classes| list_text(classes).into()).clone(),
        }
    };
    starts.iter().zip(ends).map(of).collect()
}

/// Returns the text of each value, or an empty one. Equal values share the text, which saves memory
/// for long labels in a dictionary.
fn shared<T: Hash + Eq>(
    values: impl IntoIterator<Item = Option<T>>,
    text: impl Fn(&T) -> Result<String, String>,
) -> Result<Vec<Arc<str>>, String> {
    let mut known: HashMap<Option<T>, Arc<str>> = HashMap::from([(None, "".into())]);
    let of = |value: Option<T>| match known.get(&value) {
        Some(text) => Ok(text.clone()),
        None => {
            let text: Arc<str> = value.as_ref().map_or(Ok(String::new()), &text)?.into();
            known.insert(value, text.clone());
            Ok(text)
        }
    };
    values.into_iter().map(of).collect()
}

impl DatasetFormat for Shards {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let mut by_role: BTreeMap<Role, Vec<&PathBuf>> = BTreeMap::new();
        for file in &self.files {
            let relative = file.strip_prefix(&self.root).unwrap_or(file);
            by_role.entry(Role::of_path(relative)).or_default().push(file);
        }
        let mut vocabulary = Vocabulary::new(options.table.label.is_some());
        let mut names: Option<(PathBuf, Vec<String>)> = None;
        let mut notes = Vec::new();
        let mut splits = Vec::new();
        for (role, files) in by_role {
            let shards: Vec<Shard> =
                files.par_iter().map(|file| Shard::read(file, &options.table)).collect::<Result<_, _>>()?;
            let mut rows = Rows::default();
            for (file, shard) in files.into_iter().zip(shards) {
                let Shard { parts, labels, names: here } = shard;
                match (&names, here) {
                    (None, Some(here)) => names = Some((file.clone(), here)),
                    (Some((first, names)), Some(here)) if *names != here => {
                        let why = format!("its class names differ from those in {}", first.display());
                        return Err(DataError::Malformed { path: file.clone(), why });
                    }
                    _ => {}
                }
                let number = rows.files.len() as u32;
                rows.files.push(file.clone());
                let mut row = 0;
                for part in parts {
                    for within in 0..part.rows {
                        let code = vocabulary.code(&labels[row]).unwrap_or(UNLABELED);
                        rows.rows.push((rows.parts.len() as u32, within as u32, code));
                        row += 1;
                    }
                    rows.first.push((row - part.rows) as u32);
                    rows.parts.push((number, part));
                }
            }
            splits.push((role, rows));
        }
        if splits.iter().all(|(_, rows)| rows.rows.iter().all(|row| row.2 == UNLABELED)) {
            return Err(DataError::NoImagesIn { path: self.root.clone() });
        }
        let listed = match names {
            None => listed_names(&[&self.root])?,
            names => names,
        };
        let labels = Labels::new(&vocabulary, options.table.separator.as_deref(), listed.as_ref(), &self.root)?;
        let splits = splits.into_iter().map(|(role, mut rows)| {
            let before = rows.rows.len();
            rows.rows.retain_mut(|(_, _, label)| {
                let found = labels.label(Some(*label).filter(|label| *label != UNLABELED));
                *label = found.unwrap_or(UNLABELED);
                found.is_some()
            });
            let unlabeled = before - rows.rows.len();
            if unlabeled > 0 {
                notes.push(format!("ignored {unlabeled} image(s) without a label in the {} shards", role.name()));
            }
            rows.sets = labels.sets.clone();
            let runs = rows.runs();
            let (found, mixed) = runs.classes(|index| rows.label(index));
            if role <= Role::Train && found < 0.5 * mixed && found * (runs.abreast as f64) < 0.5 * labels.classes.len() as f64
            {
                notes.push(format!(
                    "the {} shards are sorted by class, so batches contain few classes: write the shards in shuffled order",
                    role.name()
                ));
            }
            (role, Arc::new(rows) as Arc<dyn Source>)
        });
        let splits = splits.collect();
        let classes = labels.classes;
        Assembly { form: Form::Parquet, classes, aliases: Vec::new(), splits, notes }.finish(&self.root, options)
    }
}

/// The images of a part, decoded from Parquet but still encoded as JPEG or PNG.
struct Images {
    data: Vec<u8>,
    ranges: Vec<Option<std::ops::Range<usize>>>,
}

/// A cache entry for a part. The first thread that needs it decodes the part; other threads wait.
type Slot = Arc<OnceLock<Result<Images, String>>>;

/// Returns the memory used by a slot's images in bytes; 0 until they are decoded.
fn size_of_slot(slot: &Slot) -> usize {
    match slot.get() {
        Some(Ok(Images { data, ranges })) => data.len() + size_of_val(&ranges[..]),
        _ => 0,
    }
}

/// The rows of a split's files.
#[derive(Default)]
struct Rows {
    files: Vec<PathBuf>,
    /// File index and part of each part.
    parts: Vec<(u32, Part)>,
    /// Index in its file of the first row of each part.
    first: Vec<u32>,
    /// Part, row in the part, and label of each sample.
    rows: Vec<(u32, u32, u32)>,
    /// The sets of classes of multi-label data.
    sets: Option<Arc<LabelSets>>,
    /// The parts decoded last.
    cache: Mutex<VecDeque<(u32, Slot)>>,
}

impl Rows {
    /// Returns the number of runs to read concurrently.
    fn abreast(&self) -> usize {
        let largest = self.parts.iter().map(|(_, part)| part.size).max().unwrap_or(0);
        (CACHE_BYTES / 2 / largest.max(1)).max(1)
    }

    fn path(&self, part: u32) -> &Path {
        &self.files[self.parts[part as usize].0 as usize]
    }

    /// Returns the images of a part from the cache, or decodes them.
    fn images(&self, part: u32) -> Slot {
        let slot = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            match cache.iter().position(|(number, _)| *number == part) {
                Some(location) => cache[location].1.clone(),
                None => {
                    let size =
                        |cache: &VecDeque<(u32, Slot)>| cache.iter().map(|(_, slot)| size_of_slot(slot)).sum::<usize>();
                    // Metadata may claim fewer bytes than the pages decode to.
                    while cache.len() >= 2 * self.abreast() || size(&cache) > CACHE_BYTES {
                        cache.pop_front();
                    }
                    cache.push_back((part, Slot::default()));
                    cache[cache.len() - 1].1.clone()
                }
            }
        };
        slot.get_or_init(|| {
            let file = File::open(self.path(part)).map_err(|error| error.to_string())?;
            match self.parts[part as usize].1.read(&file)? {
                Values::Bytes { data, ranges } => Ok(Images { data, ranges }),
                Values::Numbers(_) | Values::Floats(_) => Err("the image column contains numbers".into()),
            }
        });
        if let Some(Err(_)) = slot.get() {
            // Drop the error, so that the next access tries again.
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.retain(|(number, _)| *number != part);
        }
        slot
    }
}

impl Dataset<Sample, DataError> for Rows {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (part, row, label) = self.rows[index];
        let wrong = |why: String| DataError::Image { name: self.name(index), source: DecodeError::Damaged(why) };
        let slot = self.images(part);
        let images = match slot.get() {
            Some(Ok(images)) => images,
            Some(Err(why)) => return Err(wrong(why.clone())),
            None => return Err(wrong("the row was not decoded".into())),
        };
        let range = images.ranges[row as usize].clone();
        let range = range.ok_or_else(|| wrong("the row has no image bytes".into()))?;
        Ok(Sample { image: StoredImage::Encoded(images.data[range].to_vec()), label: label as usize })
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Source for Rows {
    fn name(&self, index: usize) -> String {
        let (part, row, _) = self.rows[index];
        format!("{}[{}]", self.path(part).display(), self.first[part as usize] + row)
    }

    fn label(&self, index: usize) -> usize {
        self.rows[index].2 as usize
    }

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.sets.as_ref()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn runs(&self) -> Runs {
        let ends =
            (1..=self.rows.len()).filter(|&end| self.rows.get(end).map(|row| row.0) != Some(self.rows[end - 1].0));
        Runs { ends: ends.collect(), abreast: self.abreast() }
    }
}
