//! Tables of image paths and labels: CSV, TSV, JSON Lines, or lists.

mod columns;
mod files;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::Dataset;

use self::columns::{Columns, Labels as LabelColumns, Split, truth};
use self::rows::Row;
use mbconv_files::text::enumerate;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{DatasetFormat, Detected, Kind, Location, has_extension};
use crate::image_file::read_image;
use crate::label_lists::{Labels, list_text};
use crate::label_sets::LabelSets;
use crate::labels::{Vocabulary, listed_names};
use crate::listing::is_clutter;
use crate::options::{LabelSource, OpenOptions, TableOptions};
use crate::source::{Sample, Source, StoredImage};
use crate::split_names::Role;
use crate::splits::Assembly;

/// Extensions of tables. In `.txt` and `.lst` lists, white space separates path and label.
const EXTENSIONS: [&str; 6] = ["csv", "tsv", "jsonl", "ndjson", "txt", "lst"];
const TABLES: [&str; 4] = ["csv", "tsv", "jsonl", "ndjson"];

/// Words in names of tables that contain all splits.
const WHOLE: [&str; 6] = ["metadata", "labels", "label", "annotations", "dataset", "groundtruth"];
/// Words in names of tables that contain no labels.
const OTHERS: [&str; 8] = ["submission", "sample", "prediction", "predictions", "results", "moved", "names", "mapping"];

/// Number of cells used to locate the images.
const SAMPLED: usize = 200;

/// A table, and the split given by its name or folder.
#[derive(Clone)]
struct Table {
    role: Role,
    path: PathBuf,
}

struct Tables {
    root: PathBuf,
    tables: Vec<Table>,
}

/// Detects a table, a pattern of tables, or a folder with tables.
pub(crate) fn detect(location: &Location) -> Detected {
    let found = |tables| Some(Box::new(Tables { root: location.root().into(), tables }) as Box<dyn DatasetFormat>);
    if let Some(file) = location.file(&EXTENSIONS) {
        return Ok(found(vec![Table { role: Role::Whole, path: file.into() }]));
    }
    if let Kind::Files(files) = &location.kind {
        let of_files = files.iter().map(|path| Table { role: role_of(path), path: path.clone() });
        return Ok(if files.iter().all(|file| has_extension(file, &EXTENSIONS)) {
            found(of_files.collect())
        } else {
            None
        });
    }
    if !location.is_folder() || location.options.form == LabelSource::Folders {
        return Ok(None);
    }
    let folders = location.contains_image_folders()?;
    let tables = tables_in(&location.path, !folders)?;
    if tables.is_empty() {
        return Ok(None);
    }
    if !folders || location.options.form == LabelSource::Table {
        return Ok(found(tables));
    }
    let tables = Tables { root: location.path.clone(), tables };
    Ok(tables.compare_with_folders(location)?.then(|| Box::new(tables) as Box<dyn DatasetFormat>))
}

/// Returns the split given by a table's name.
fn role_of(path: &Path) -> Role {
    Role::of_path(Path::new(path.file_name().unwrap_or_default()))
}

/// Returns the tables of a folder: one, or one per split, in the folder itself or in the folders of
/// the splits. With `any`, a single table of an unusual name is accepted.
fn tables_in(folder: &Path, any: bool) -> Result<Vec<Table>, DataError> {
    let failed = |source| DataError::io(folder, source);
    let (mut tables, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_none_or(|name| is_clutter(&name.to_string_lossy()));
        if !hidden && has_extension(&path, &EXTENSIONS) && path.is_file() {
            tables.push(path);
        } else if !hidden && path.file_name().and_then(|name| Role::of_name(name.to_str()?)).is_some() && path.is_dir()
        {
            folders.push(path);
        }
    }
    tables.sort();
    folders.sort();
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Prefer names that are only a split name over names that contain one, and tables over lists.
    let exactly = |path: &PathBuf| Role::of_name(&stem(path));
    let within = |path: &PathBuf| Some(role_of(path)).filter(|role| *role != Role::Whole && is_usual(path, &[]));
    for role_of in [&exactly as &dyn Fn(&PathBuf) -> Option<Role>, &within] {
        let mut of_splits: BTreeMap<Role, PathBuf> = BTreeMap::new();
        for extensions in [&TABLES[..], &EXTENSIONS[..]] {
            for path in tables.iter().filter(|path| has_extension(path, extensions)) {
                if let Some(role) = role_of(path) {
                    of_splits.entry(role).or_insert_with(|| path.clone());
                }
            }
        }
        if of_splits.contains_key(&Role::Train) {
            return Ok(of_splits.into_iter().map(|(role, path)| Table { role, path }).collect());
        }
    }
    // `labels.txt` is usually a list of class names.
    let of_whole: Vec<&PathBuf> = tables.iter().filter(|path| has_extension(path, &TABLES)).collect();
    let usual = WHOLE.iter().find_map(|word| of_whole.iter().find(|path| is_usual(path, &[word])));
    let only = match of_whole[..] {
        [only] if any && !folders.iter().any(|folder| has_table(folder)) && is_usual(only, &[]) => Some(only),
        _ => None,
    };
    if let Some(path) = usual.copied().or(only) {
        return Ok(vec![Table { role: Role::Whole, path: path.clone() }]);
    }
    let mut of_folders = Vec::new();
    for folder in folders {
        let role = folder.file_name().and_then(|name| Role::of_name(name.to_str()?)).unwrap_or(Role::Whole);
        of_folders.extend(metadata(&folder).map(|path| Table { role, path }));
    }
    Ok(of_folders)
}

/// Returns the table in an image folder of Hugging Face.
fn metadata(folder: &Path) -> Option<PathBuf> {
    let usual = ["metadata", "labels", "_annotations", "_classes", "annotations"];
    let names = usual.iter().flat_map(|name| TABLES.map(|extension| folder.join(format!("{name}.{extension}"))));
    names.into_iter().find(|path| path.is_file())
}

fn has_table(folder: &Path) -> bool {
    metadata(folder).is_some()
}

/// Returns whether a table's name contains one of these words (any name if there are none), and no
/// word for other files.
fn is_usual(path: &Path, words: &[&str]) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem_words: Vec<&str> = stem.split(|c: char| !c.is_alphabetic()).collect();
    let has = |words: &[&str]| words.iter().any(|word| stem_words.contains(word));
    !has(&OTHERS) && (words.is_empty() || has(words))
}

/// An image of a table: file, split and label.
struct Entry {
    /// Index of the table.
    table: usize,
    line: usize,
    role: Role,
    /// Code of the label in the vocabulary, if there is one.
    code: Option<u32>,
    file: PathBuf,
}

/// The contents of all tables.
#[derive(Default)]
struct Contents {
    entries: Vec<Entry>,
    vocabulary: Vocabulary,
    /// Classes in the order of the one-hot columns.
    classes: Option<(PathBuf, Vec<String>)>,
    boxes: bool,
    notes: Vec<String>,
}

impl Tables {
    /// Reads all tables.
    fn read(&self, options: &TableOptions) -> Result<Contents, DataError> {
        let vocabulary = Vocabulary::new(options.label.is_some());
        let mut contents = Contents { vocabulary, ..Contents::default() };
        for (number, table) in self.tables.iter().enumerate() {
            match table.read(number, options, &mut contents) {
                // Test tables often have no labels.
                Err(DataError::Columns { path, why }) if table.role == Role::Test && self.tables.len() > 1 => {
                    contents.notes.push(format!("{} is ignored: {why}", path.display()));
                }
                other => other?,
            }
        }
        self.drop_repeated(&mut contents)?;
        Ok(contents)
    }

    /// Drops rows that repeat an image of the same split.
    ///
    /// # Errors
    /// Rows that give one image different labels.
    fn drop_repeated(&self, contents: &mut Contents) -> Result<(), DataError> {
        let Contents { entries, vocabulary, boxes, notes, .. } = contents;
        let mut seen: HashMap<&Path, usize> = HashMap::with_capacity(entries.len());
        let (mut keep, mut shared) = (vec![true; entries.len()], 0);
        for (index, entry) in entries.iter().enumerate() {
            let Some(&before) = seen.get(&*entry.file) else {
                seen.insert(&entry.file, index);
                continue;
            };
            let before = &entries[before];
            if before.code != entry.code {
                let text = |code| vocabulary.texts().get(code as usize).map_or("", |text| text);
                let [first, second] = [before, entry].map(|entry| entry.code.map_or("", text));
                let why = format!(
                    "line {} gives {} the label {second:?}, but line {} of {} gives it the label {first:?}{}",
                    entry.line,
                    entry.file.display(),
                    before.line,
                    self.tables[before.table].path.display(),
                    if *boxes { ": the table contains bounding boxes, not one label per image" } else { "" }
                );
                return Err(DataError::Malformed { path: self.tables[entry.table].path.clone(), why });
            }
            keep[index] = before.role != entry.role;
            shared += usize::from(keep[index]);
        }
        let repeated = keep.iter().filter(|keep| !**keep).count();
        let table = self.tables[0].path.display();
        if repeated > 0 {
            notes.push(format!("ignored {repeated} row(s) that repeat an image in {table}"));
        }
        if shared > 0 {
            notes.push(format!("{shared} image(s) of {table} are in several splits"));
        }
        let mut keep = keep.into_iter();
        entries.retain(|_| keep.next().unwrap_or(true));
        Ok(())
    }

    /// Returns whether to use the table's labels in a folder that also has class folders.
    ///
    /// # Errors
    /// [`DataError::TableOrFolders`] if the choice is ambiguous.
    fn compare_with_folders(&self, location: &Location) -> Result<bool, DataError> {
        let table = &self.tables[0].path;
        let contents = match self.read(&location.options) {
            Ok(contents) => contents,
            Err(error @ (DataError::Encoding { .. } | DataError::Io { .. })) => return Err(error),
            Err(error) => {
                location.note(format!("the folder names are used as classes; the table is ignored: {error}"));
                return Ok(false);
            }
        };
        let labels = contents.vocabulary.texts();
        let mut folder_of: HashMap<&str, &str> = HashMap::new();
        let mut label_of: HashMap<&str, &str> = HashMap::new();
        let (mut agree, mut refines, mut merges) = (false, false, false);
        for entry in &contents.entries {
            let Some(folder) = entry.file.parent().and_then(|folder| folder.file_name()?.to_str()) else { continue };
            let Some(code) = entry.code else { continue };
            let label = &*labels[code as usize];
            agree |= folder == label;
            refines |= *label_of.entry(folder).or_insert(label) != label;
            merges |= *folder_of.entry(label).or_insert(folder) != folder;
        }
        let named_for_storage = label_of.keys().all(|folder| files::is_storage(folder));
        match (refines, merges) {
            _ if label_of.is_empty() => Ok(false),
            _ if named_for_storage => Ok(true),
            // Both give the same classes, but only the table may contain the labels of an unsorted
            // test folder.
            (false, false) => Ok(agree && self.tables.len() > 1),
            // Folders contain several classes, and classes are spread over several folders.
            (true, true) if !agree => {
                let mut folders: Vec<&str> = label_of.into_keys().collect();
                folders.sort_unstable();
                let (table, folders) = (table.display(), enumerate(&folders));
                location.note(format!("the labels are read from {table}, not from the folder names {folders}"));
                Ok(true)
            }
            _ => Err(DataError::TableOrFolders { path: location.path.clone(), table: table.clone() }),
        }
    }
}

/// Returns a sample of rows, spread over a table.
fn sampled<T>(rows: &[T]) -> impl Iterator<Item = &T> {
    rows.iter().step_by(rows.len().div_ceil(SAMPLED).max(1))
}

impl Table {
    /// Adds the table's rows to the contents.
    fn read(&self, number: usize, options: &TableOptions, contents: &mut Contents) -> Result<(), DataError> {
        let path = &self.path;
        let misnamed = |why: String| DataError::Columns { path: path.clone(), why };
        let rows = rows::read(path)?;
        let folder = options.images.as_deref().map(|images| self.image_folder(images)).transpose()?;
        let role = if self.role == Role::Whole { role_of(path) } else { self.role };
        let search = files::Search::new(path, role, folder.as_deref());
        let exist = |column: usize, with_first: bool| {
            let rows = sampled(&rows[usize::from(!with_first)..]);
            let cells: Vec<_> = rows.filter_map(|row| Some((Role::Whole, row.get(column)?))).collect();
            // A header row is not a file.
            let least = if with_first { cells.len() } else { 1 };
            !cells.is_empty() && search.plan(&cells).is_ok_and(|(_, hits)| hits >= least)
        };
        let mut columns = Columns::find(&rows, options, &exist).map_err(misnamed)?;
        let rows = &rows[usize::from(columns.header)..];
        let cells = rows.iter().map(|row| {
            let image = self.field(row, columns.image)?;
            Ok((self.role_of(row, columns.split.as_ref()), image))
        });
        let cells: Vec<(Role, &str)> = cells.collect::<Result<_, DataError>>()?;
        self.check_images(rows, &cells, &columns)?;
        let samples: Vec<(Role, &str)> = sampled(&cells).copied().collect();
        if samples.is_empty() {
            return Ok(());
        }
        let (plan, hits) = search.plan(&samples).map_err(misnamed)?;
        if !plan.prefix.is_empty() && hits > 0 {
            columns.notes.push(format!("the prefix {} is removed from paths", plan.prefix));
        }
        if let LabelColumns::OneHot(classes) = &columns.labels {
            let names = classes.iter().map(|(_, name)| name.clone()).collect();
            contents.classes.get_or_insert_with(|| (path.clone(), names));
        }
        let resolver = search.resolver(plan);
        let mut missing = Vec::new();
        for (row, (role, cell)) in rows.iter().zip(cells.iter().copied()) {
            let file = resolver.file(role, cell).map_err(misnamed)?.unwrap_or_else(|file| {
                missing.push(file.clone());
                file
            });
            let code = self.code(row, cell, &columns, &mut contents.vocabulary)?;
            contents.entries.push(Entry { table: number, line: row.line, role, code, file });
        }
        self.check_missing(missing, rows.len(), &mut columns.notes)?;
        contents.boxes |= columns.boxes;
        contents.notes.extend(columns.notes.iter().map(|note| format!("{}: {note}", path.display())));
        Ok(())
    }

    /// Returns a cell, which must exist and be a single line.
    fn field<'a>(&self, row: &'a Row, column: usize) -> Result<&'a str, DataError> {
        let malformed = |why: String| DataError::Malformed { path: self.path.clone(), why };
        let short = || malformed(format!("line {} has only {} column(s)", row.line, row.fields.len()));
        let text = row.get(column).ok_or_else(short)?;
        if text.contains('\n') {
            return Err(malformed(format!(
                "a field in line {} continues on the next line: a closing quote is missing",
                row.line
            )));
        }
        Ok(text)
    }

    /// Rejects cells that cannot be image files, and tables without usable labels.
    fn check_images(&self, rows: &[Row], cells: &[(Role, &str)], columns: &Columns) -> Result<(), DataError> {
        let malformed = |why: String| DataError::Malformed { path: self.path.clone(), why };
        for (row, (_, cell)) in rows.iter().zip(cells) {
            if cell.is_empty() {
                return Err(malformed(format!("line {} has no image", row.line)));
            }
            if cell.contains("://") {
                let why =
                    format!("line {} contains the URL {cell}: download the images and list their files", row.line);
                return Err(malformed(why));
            }
        }
        let folders = cells.is_empty() || cells.iter().any(|(_, cell)| cell.contains(['/', '\\']));
        if columns.labels == LabelColumns::Folder && !folders {
            let why = "it has no label column, and its paths have no folders that could be classes".into();
            return Err(DataError::Columns { path: self.path.clone(), why });
        }
        Ok(())
    }

    /// Rejects a table if most of its images are missing; adds a note if some are.
    fn check_missing(&self, missing: Vec<PathBuf>, images: usize, notes: &mut Vec<String>) -> Result<(), DataError> {
        let count = missing.len();
        let Some(first) = missing.into_iter().next() else { return Ok(()) };
        if count == images {
            return Err(DataError::MissingFile { path: first });
        }
        if 2 * count > images {
            let why = format!("{count} of {images} images are missing, the first is {}", first.display());
            return Err(DataError::Columns { path: self.path.clone(), why });
        }
        notes.push(format!("{count} of {images} images are missing, the first is {}", first.display()));
        Ok(())
    }

    /// Returns the specified image folder, relative to the table or to the working directory.
    fn image_folder(&self, given: &str) -> Result<PathBuf, DataError> {
        let relative = self.path.parent().unwrap_or(Path::new("")).join(given);
        let folders = [relative.clone(), PathBuf::from(given)];
        folders.into_iter().find(|folder| folder.is_dir()).ok_or(DataError::NotFound { path: relative })
    }

    /// Returns the split of a row.
    fn role_of(&self, row: &Row, split: Option<&Split>) -> Role {
        let cell = |column: &usize| row.get(*column).unwrap_or_default();
        match split {
            None => self.role,
            Some(Split::Names(column)) => Role::of_name(cell(column)).unwrap_or(self.role),
            Some(Split::Flag(column, yes, _)) if truth(cell(column)) == Some(true) => *yes,
            Some(Split::Flag(_, _, no)) => *no,
            Some(Split::Folds(column, fold)) if cell(column) == fold => Role::Val,
            Some(Split::Folds(..)) => Role::Train,
        }
    }

    /// Returns the code of a row's label, or `None` if it has no label.
    fn code(
        &self,
        row: &Row,
        image: &str,
        columns: &Columns,
        vocabulary: &mut Vocabulary,
    ) -> Result<Option<u32>, DataError> {
        let label = match &columns.labels {
            LabelColumns::Column(label) => self.field(row, *label)?.to_string(),
            LabelColumns::Folder => {
                let image = image.replace('\\', "/");
                let folder = Path::new(&image).parent().and_then(Path::file_name);
                folder.and_then(|folder| folder.to_str()).unwrap_or_default().to_string()
            }
            LabelColumns::OneHot(classes) => {
                let set = classes.iter().filter(|(column, _)| row.get(*column).and_then(truth) == Some(true));
                list_text(&set.map(|(_, name)| name.as_str()).collect::<Vec<_>>())
            }
        };
        let code = vocabulary.code(&label);
        if let (Some(code), Some(name)) = (code, columns.name) {
            vocabulary.name(code, self.field(row, name)?);
        }
        Ok(code)
    }
}

impl DatasetFormat for Tables {
    fn open(&self, options: &OpenOptions) -> Result<DataSet, DataError> {
        let Contents { entries, vocabulary, classes, mut notes, .. } = self.read(&options.table)?;
        let table = &self.tables[0].path;
        if entries.iter().all(|entry| entry.code.is_none()) {
            let why = if entries.is_empty() { "it lists no images" } else { "none of its images has a label" };
            return Err(DataError::Malformed { path: table.clone(), why: why.into() });
        }
        notes.extend(vocabulary.differ_by_case().map(|[one, other]| {
            format!("the classes {one:?} and {other:?} in {} differ only by case", table.display())
        }));
        let listed = match classes {
            Some(classes) => Some(classes),
            None => listed_names(&[&self.root])?,
        };
        let labels = Labels::new(&vocabulary, options.table.separator.as_deref(), listed.as_ref(), table)?;
        let mut unlabeled = 0;
        let mut splits: BTreeMap<Role, Files> = BTreeMap::new();
        for Entry { role, code, file, .. } in entries {
            let Some(label) = labels.label(code) else {
                unlabeled += 1;
                continue;
            };
            let files = splits.entry(role).or_insert_with(|| Files {
                root: self.root.clone(),
                images: Vec::new(),
                sets: labels.sets.clone(),
            });
            let path = match file.strip_prefix(&self.root) {
                Ok(below) => below.into(),
                Err(_) => std::path::absolute(&file).unwrap_or(file),
            };
            files.images.push((label, path.into_os_string().into_boxed_os_str()));
        }
        let splits = splits.into_iter().map(|(role, files)| (role, Arc::new(files) as Arc<dyn Source>)).collect();
        if unlabeled > 0 {
            notes.push(format!("ignored {unlabeled} image(s) without a label in {}", table.display()));
        }
        let classes = labels.classes;
        Assembly { form: Form::Table, classes, aliases: Vec::new(), splits, notes }.finish(table, options)
    }
}

/// A source of image files.
struct Files {
    root: PathBuf,
    /// Label and path of each image, relative to the root or absolute.
    images: Vec<(u32, Box<OsStr>)>,
    /// The sets of classes of multi-label data.
    sets: Option<Arc<LabelSets>>,
}

impl Dataset<Sample, DataError> for Files {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.path(index);
        Ok(Sample { image: StoredImage::Encoded(read_image(&path)?), label: self.label(index) })
    }

    fn len(&self) -> usize {
        self.images.len()
    }
}

impl Files {
    fn path(&self, index: usize) -> PathBuf {
        self.root.join(&*self.images[index].1)
    }
}

impl Source for Files {
    fn name(&self, index: usize) -> String {
        self.path(index).to_string_lossy().into_owned()
    }

    fn label(&self, index: usize) -> usize {
        self.images[index].0 as usize
    }

    fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.sets.as_ref()
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.path(index))
    }
}
