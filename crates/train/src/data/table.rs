//! A CSV or TSV file of paths and labels, or a list of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::Dataset;

use super::assembly::{Assembly, Role};
use super::folder::is_image;
use super::forms::{Found, Place, Recognised, has_extension};
use super::labels::{Vocabulary, listed_names, read_text};
use super::{DataError, DataSet, Form, OpenOptions, Sample, Source, StoredImage, enumerate};

/// Extensions of tables; a `.txt` or `.lst` is a list, with white space between path and label.
const EXTENSIONS: [&str; 4] = ["csv", "tsv", "txt", "lst"];

/// Names that columns of paths, labels, class names and splits go by, in lower case; the first found is taken.
const PATHS: [&str; 12] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
    "image",
    "img",
    "image_id",
    "imageid",
    "id",
];
const LABELS: [&str; 10] =
    ["label", "class", "target", "category", "cls", "y", "class_id", "label_id", "class_index", "labels"];
const NAMES: [&str; 6] = ["class_name", "label_name", "classname", "category_name", "label_text", "name"];
const SPLITS: [&str; 6] = ["split", "set", "subset", "partition", "fold", "usage"];

/// Tables that a folder may hold instead of splits: one for all …
const WHOLE: [&str; 4] = ["metadata", "labels", "annotations", "dataset"];
/// … or one a split.
const OF_SPLITS: [&str; 5] = ["train", "val", "valid", "validation", "test"];

/// Tables, each with the split that its name tells if there are several.
struct Tables {
    root: PathBuf,
    files: Vec<(Role, PathBuf)>,
}

pub(super) fn recognise(place: &Place) -> Recognised {
    let tables = |files| Some(Box::new(Tables { root: place.root().into(), files }) as Box<dyn Found>);
    if let Some(file) = place.file(&EXTENSIONS) {
        return Ok(tables(vec![(Role::Whole, file.into())]));
    }
    if !place.is_folder() || place.holds_image_folders()? {
        return Ok(None);
    }
    let find = |name: &str| {
        let candidates = EXTENSIONS.iter().map(|extension| place.path.join(format!("{name}.{extension}")));
        candidates.into_iter().find(|path| path.is_file())
    };
    let mut of_splits: BTreeMap<Role, PathBuf> = BTreeMap::new();
    for (name, role) in OF_SPLITS.iter().filter_map(|name| Some((name, Role::of_name(name)?))) {
        if let Some(path) = find(name) {
            of_splits.entry(role).or_insert(path);
        }
    }
    if of_splits.contains_key(&Role::Train) {
        return Ok(tables(of_splits.into_iter().collect()));
    }
    // `labels.txt` is rather a list of class names.
    let whole = WHOLE.iter().filter_map(|name| find(name)).find(|path| has_extension(path, &["csv", "tsv"]));
    Ok(whole.and_then(|path| tables(vec![(Role::Whole, path)])))
}

/// Which columns hold what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns {
    path: usize,
    /// Without one, the folder of an image names its class.
    label: Option<usize>,
    name: Option<usize>,
    split: Option<usize>,
}

type Row = Vec<String>;

/// The rows of a table, and whether the first of them names the columns.
fn rows(path: &Path) -> Result<Vec<Row>, DataError> {
    let text = read_text(path)?;
    let first = text.lines().next().unwrap_or_default();
    let delimiter = if has_extension(path, &["tsv"]) {
        b'\t'
    } else {
        [b'\t', b',', b';'].into_iter().max_by_key(|&d| first.bytes().filter(|&b| b == d).count()).unwrap_or(b',')
    };
    if has_extension(path, &["txt", "lst"]) && !first.as_bytes().contains(&delimiter) {
        // A path may have blanks, a label has none.
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let fields = |line: &str| match line.rsplit_once(char::is_whitespace) {
            Some((path, label)) if !is_image(Path::new(label)) => vec![path.trim_end().into(), label.into()],
            _ => vec![line.to_string()],
        };
        return Ok(lines.map(fields).collect());
    }
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let malformed = |error: csv::Error| DataError::Malformed { path: path.into(), why: error.to_string() };
    let rows =
        reader.records().map(|record| Ok(record.map_err(malformed)?.iter().map(str::to_string).collect::<Row>()));
    rows.filter(|row| row.as_ref().map_or(true, |row| row.iter().any(|field| !field.is_empty()))).collect()
}

impl Columns {
    /// Finds the columns by the names in the first row, or by what the rows hold; and whether the first row is names.
    fn find(rows: &[Row]) -> Result<(Columns, bool), String> {
        let Some(first) = rows.first() else { return Err("it is empty".into()) };
        let find = |known: &[&str]| {
            known.iter().find_map(|known| first.iter().position(|field| field.eq_ignore_ascii_case(known)))
        };
        let image_in = |row: &Row| row.iter().position(|field| is_image(Path::new(field)));
        let header = image_in(first).is_none() && (find(&PATHS).is_some() || rows.get(1).and_then(image_in).is_some());
        if !header {
            let path = image_in(first).ok_or_else(|| {
                let columns: Vec<&str> = first.iter().map(String::as_str).collect();
                format!("none of its columns is known to hold paths: {}", enumerate(&columns))
            })?;
            let others: Vec<usize> = (0..first.len()).filter(|&column| column != path).collect();
            return match others[..] {
                [] => Ok((Columns { path, label: None, name: None, split: None }, false)),
                [label] => Ok((Columns { path, label: Some(label), name: None, split: None }, false)),
                _ => Err(format!("it has {} columns but no first row that names them", first.len())),
            };
        }
        let path = find(&PATHS).or_else(|| rows.get(1).and_then(image_in)).unwrap_or(0);
        let (name, split) = (find(&NAMES), find(&SPLITS));
        let other = (0..first.len()).filter(|&column| ![Some(path), name, split].contains(&Some(column)));
        let label = match (find(&LABELS).filter(|label| *label != path), name, &other.collect::<Vec<_>>()[..]) {
            (Some(label), ..) => Some(label),
            (None, Some(_), _) => None,
            (None, None, []) => None,
            (None, None, [label]) => Some(*label),
            (None, None, _) => {
                let columns: Vec<&str> = first.iter().map(String::as_str).collect();
                return Err(format!("none of its columns is known to hold labels: {}", enumerate(&columns)));
            }
        };
        // Of a name alone, it is the label.
        let (label, name) = if label.is_none() { (name, None) } else { (label, name) };
        Ok((Columns { path, label, name, split }, true))
    }
}

/// Images by path.
struct Files {
    root: PathBuf,
    /// Label and path, below the root unless absolute.
    images: Vec<(u32, Box<str>)>,
    /// What to append to every path.
    extension: &'static str,
}

impl Found for Tables {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let mut vocabulary = Vocabulary::default();
        let mut images: BTreeMap<Role, Vec<(u32, Box<str>)>> = BTreeMap::new();
        let mut unlabelled = 0;
        for (role, path) in &self.files {
            let malformed = |why: String| DataError::Malformed { path: path.clone(), why };
            let rows = rows(path)?;
            let (columns, header) = Columns::find(&rows).map_err(malformed)?;
            for (number, row) in rows.iter().enumerate().skip(header.into()) {
                let field = |column: usize| {
                    let short = || malformed(format!("row {} has {} column(s) only", number + 1, row.len()));
                    row.get(column).map(String::as_str).ok_or_else(short)
                };
                let image = field(columns.path)?;
                let label = match columns.label {
                    Some(label) => field(label)?,
                    None => Path::new(image).parent().and_then(|f| f.file_name()?.to_str()).unwrap_or_default(),
                };
                let Some(code) = vocabulary.code(label) else {
                    unlabelled += 1;
                    continue;
                };
                if let Some(name) = columns.name {
                    vocabulary.name(code, field(name)?);
                }
                let role = match columns.split.map(field).transpose()? {
                    None => *role,
                    Some(split) => Role::of_name(split).ok_or_else(|| {
                        malformed(format!("row {} is of split {split:?}: know train, val and test", number + 1))
                    })?,
                };
                images.entry(role).or_default().push((code, image.into()));
            }
        }
        if images.is_empty() {
            let path = self.files[0].1.clone();
            let why = if unlabelled > 0 { "no image in it has a label" } else { "it names no images" };
            return Err(DataError::Malformed { path, why: why.into() });
        }
        let extension = self.extension(images.values().flatten().map(|(_, path)| &**path))?;
        let listed = listed_names(&[&self.root])?;
        let table = &self.files[0].1;
        let (classes, labels) = vocabulary.classes(listed.as_ref(), table)?;
        let splits = images.into_iter().map(|(role, mut images)| {
            images.iter_mut().for_each(|(label, _)| *label = labels[*label as usize]);
            (role, Arc::new(Files { root: self.root.clone(), images, extension }) as Arc<dyn Source>)
        });
        let splits = splits.collect();
        let mut notes = Vec::new();
        if unlabelled > 0 {
            notes.push(format!("passed over {unlabelled} image(s) without a label, in {}", table.display()));
        }
        Assembly { form: Form::Table, classes, aliases: Vec::new(), splits, notes }.finish(table, options)
    }
}

impl Tables {
    /// What paths lack to be files' names, told by the first that is there: tables often leave the extension out.
    fn extension<'a>(&self, paths: impl Iterator<Item = &'a str> + Clone) -> Result<&'static str, DataError> {
        const LOOKED_AT: usize = 100;
        const TRIED: [&str; 6] = ["", ".jpg", ".jpeg", ".png", ".JPEG", ".JPG"];
        let found = paths.clone().take(LOOKED_AT).find_map(|path| {
            TRIED.into_iter().find(|extension| self.root.join(format!("{path}{extension}")).is_file())
        });
        let missing = || DataError::MissingFile { path: self.root.join(paths.clone().next().unwrap_or_default()) };
        found.ok_or_else(missing)
    }
}

impl Dataset<Sample, DataError> for Files {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.path(index);
        let bytes = std::fs::read(&path).map_err(|source| DataError::Io { path, source })?;
        Ok(Sample { image: StoredImage::Encoded(bytes), label: self.label(index) })
    }

    fn len(&self) -> usize {
        self.images.len()
    }
}

impl Files {
    fn path(&self, index: usize) -> PathBuf {
        self.root.join(format!("{}{}", self.images[index].1, self.extension))
    }
}

impl Source for Files {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Result<(Columns, bool), String> {
        let rows: Vec<Row> = text.lines().map(|line| line.split(',').map(String::from).collect()).collect();
        Columns::find(&rows)
    }

    #[test]
    fn columns_are_found_by_name_or_by_what_they_hold() {
        let found = |path, label: i32, name: i32, split: i32, header| {
            let column = |column: i32| usize::try_from(column).ok();
            Ok((Columns { path, label: column(label), name: column(name), split: column(split) }, header))
        };
        assert_eq!(columns("a.jpg,3\nb.jpg,4"), found(0, 1, -1, -1, false));
        assert_eq!(columns("3,a.jpg"), found(1, 0, -1, -1, false));
        assert_eq!(columns("a/1.JPEG"), found(0, -1, -1, -1, false));
        assert_eq!(columns("Label,Path,Split\n3,a.jpg,val"), found(1, 0, -1, 2, true));
        assert_eq!(columns("id,species\n17,cat"), found(0, 1, -1, -1, true));
        assert_eq!(columns("photo,what\na.jpg,cat"), found(0, 1, -1, -1, true));
        assert_eq!(columns("file_name,label,class_name\na.jpg,0,cat"), found(0, 1, 2, -1, true));
        assert_eq!(columns("path,class_name\na.jpg,cat"), found(0, 1, -1, -1, true));
        assert!(columns("a.jpg,1,2").unwrap_err().contains("3 columns"));
        assert!(columns("path,one,two\na.jpg,1,2").unwrap_err().contains("one, two"));
        assert!(columns("x,y\n1,2").unwrap_err().contains("paths"));
        assert!(Columns::find(&[]).is_err());
    }
}
