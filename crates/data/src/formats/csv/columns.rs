//! Detection of the image, label and split columns of a table.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use mbconv_files::text::enumerate;
use mbconv_image::formats::is_image;

use crate::formats::csv::rows::Row;
use crate::options::TableOptions;
use crate::split_names::Role;

/// Usual column names, in lower case without punctuation, the most likely first.
const IMAGES: &[&str] = &[
    "path",
    "file",
    "filename",
    "filepath",
    "imagepath",
    "imgpath",
    "imagefile",
    "imgfile",
    "imagefilename",
    "imagefilepath",
    "imagename",
    "imgname",
    "fname",
    "image",
    "img",
    "images",
    "photo",
    "picture",
    "imageid",
    "imgid",
    "imageindex",
    "photoid",
    "idcode",
    "uuid",
    "id",
];
const LABELS: &[&str] = &[
    "label",
    "class",
    "target",
    "category",
    "cls",
    "classid",
    "labelid",
    "categoryid",
    "targetid",
    "classindex",
    "classidx",
    "labelidx",
    "labels",
    "classes",
];
/// Usual label columns in some fields of study, used if there are none of the above.
const OTHER_LABELS: &[&str] = &[
    "dx",
    "diagnosis",
    "species",
    "breed",
    "disease",
    "finding",
    "findinglabels",
    "variety",
    "cultivar",
    "genus",
    "emotion",
    "expression",
    "grade",
    "level",
    "digit",
    "character",
    "y",
    "tag",
    "tags",
];
const CLASS_NAMES: &[&str] = &["classname", "labelname", "categoryname", "targetname", "labeltext", "labelstr", "name"];
const SPLITS: &[&str] = &["split", "set", "subset", "partition", "usage", "phase", "dataset", "datasplit"];
const FOLDS: &[&str] = &["fold", "folds", "kfold", "cvfold", "foldid"];
/// Boolean columns with the splits for true and false.
const FLAGS: &[(&str, Role, Role)] = &[
    ("isvalid", Role::Val, Role::Train),
    ("isval", Role::Val, Role::Train),
    ("isvalidation", Role::Val, Role::Train),
    ("istest", Role::Test, Role::Train),
    ("istrain", Role::Train, Role::Val),
    ("istraining", Role::Train, Role::Val),
    ("istrainingimage", Role::Train, Role::Test),
];
/// Columns of bounding boxes and sizes, which are not labels.
const BOXES: &[&str] = &[
    "xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "roix1", "roiy1", "roix2", "roiy2", "bbox", "box", "boxes",
    "bboxes", "bboxx1", "bboxy1", "bboxx2", "bboxy2", "xcenter", "ycenter", "left", "top", "right", "bottom",
];
const SIZES: &[&str] = &["width", "height", "w", "h", "channels", "filesize", "size", "x"];

/// Location of the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Labels {
    Column(usize),
    /// One column of 0 and 1 per class, with the class name.
    OneHot(Vec<(usize, String)>),
    /// No column: the folder of an image is its class.
    Folder,
}

/// Location of the split names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// A column of split names.
    Names(usize),
    /// A Boolean column, with the splits for true and false.
    Flag(usize, Role, Role),
    /// A column of fold numbers, and the fold used for validation.
    Folds(usize, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    pub image: usize,
    pub labels: Labels,
    /// Column of class names, if the label column contains numbers.
    pub name: Option<usize>,
    pub split: Option<Split>,
    /// True if the first row contains column names.
    pub header: bool,
    /// True if there are bounding-box columns.
    pub boxes: bool,
    pub notes: Vec<String>,
}

/// Converts a column name to lower case without blanks and punctuation.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Parses a Boolean value.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "t" | "y" => Some(true),
        "false" | "no" | "f" | "n" => Some(false),
        number => match number.parse::<f64>() {
            Ok(1.0) => Some(true),
            Ok(0.0) => Some(false),
            _ => None,
        },
    }
}

/// The table and options for column detection.
struct Search<'a> {
    first: &'a Row,
    rows: &'a [Row],
    options: &'a TableOptions,
    plain: Vec<String>,
}

impl Columns {
    /// Finds the columns by the options, by the names in the first row, or by the values.
    /// `exist(column, with_first)` returns whether some values of a column below the first row are
    /// existing files; with the first row, whether all are.
    ///
    /// # Errors
    /// Missing or ambiguous columns.
    pub fn find(rows: &[Row], options: &TableOptions, exist: &dyn Fn(usize, bool) -> bool) -> Result<Columns, String> {
        let Some(first) = rows.first() else { return Err("the file is empty".into()) };
        let plain = first.fields.iter().map(plain).collect();
        let search = Search { first, rows: &rows[1..], options, plain };
        if search.has_header(exist) { search.with_header(exist) } else { search.without_header(exist) }
    }
}

impl Search<'_> {
    /// Returns whether the first row contains column names.
    fn has_header(&self, exist: &dyn Fn(usize, bool) -> bool) -> bool {
        let looks_like_image =
            |row: &Row| row.fields.iter().any(|field| is_image(Path::new(field)) || field.contains("://"));
        let options = [&self.options.image, &self.options.label, &self.options.split];
        let mut named = options.into_iter().flatten().filter(|name| name.parse::<usize>().is_err());
        if looks_like_image(self.first) {
            return false;
        }
        named.next().is_some()
            || !self.known(IMAGES).is_empty()
            || self.rows.first().is_some_and(looks_like_image)
            || !(0..self.plain.len()).any(|column| exist(column, true))
    }

    /// Returns the columns with these names, in the order of `names`.
    fn known(&self, names: &[&str]) -> Vec<usize> {
        let find = |name: &&str| self.plain.iter().position(|plain| plain == name);
        names.iter().filter_map(find).collect()
    }

    /// Returns the name of a column.
    fn title(&self, column: usize) -> &str {
        self.first.get(column).unwrap_or_default()
    }

    /// Lists the names of columns for a message.
    fn titles(&self, columns: &[usize]) -> String {
        enumerate(&columns.iter().map(|&column| self.title(column)).collect::<Vec<_>>())
    }

    /// Returns the indices of all columns.
    fn all(&self) -> Vec<usize> {
        (0..self.plain.len()).collect()
    }

    /// Returns the values of a column.
    fn values(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(column)).filter(|value| !value.is_empty())
    }

    /// Returns the column given by an option as name or number.
    fn given(&self, name: &str, header: bool) -> Option<usize> {
        let exact = || self.first.fields.iter().position(|title| title == name);
        let loose = || self.plain.iter().position(|title| *title == plain(name) && !title.is_empty());
        let number = || name.parse::<usize>().ok()?.checked_sub(1).filter(|column| *column < self.plain.len());
        Some(()).filter(|()| header).and_then(|()| exact().or_else(loose)).or_else(number)
    }

    /// Returns the column given by an option, if the option is set.
    fn option(&self, name: &Option<String>, header: bool) -> Result<Option<usize>, String> {
        let Some(name) = name else { return Ok(None) };
        let columns = if header { self.titles(&self.all()) } else { format!("1 to {}", self.plain.len()) };
        self.given(name, header).map(Some).ok_or_else(|| format!("it has no column {name:?}, only {columns}"))
    }

    /// Finds the columns of a table without a header row.
    fn without_header(&self, exist: &dyn Fn(usize, bool) -> bool) -> Result<Columns, String> {
        let image_in =
            |row: &Row| row.fields.iter().position(|field| is_image(Path::new(field)) || field.contains("://"));
        let image = match self.option(&self.options.image, false)? {
            Some(image) => image,
            None => {
                image_in(self.first).or_else(|| self.all().into_iter().find(|&column| exist(column, true))).ok_or_else(
                    || format!("no column is recognized as image paths; columns: {}", self.titles(&self.all())),
                )?
            }
        };
        let split = self.option(&self.options.split, false)?;
        let others: Vec<usize> =
            self.all().into_iter().filter(|&column| column != image && Some(column) != split).collect();
        let labels = match (self.option(&self.options.label, false)?, &others[..]) {
            (Some(label), _) => Labels::Column(label),
            (None, []) => Labels::Folder,
            (None, [label]) => Labels::Column(*label),
            _ => return Err(format!("it has {} columns but no header row", self.plain.len())),
        };
        let mut notes = Vec::new();
        let split = split.map(|column| self.split_column(column, true, &mut notes)).transpose()?.flatten();
        Ok(Columns { image, labels, name: None, split, header: false, boxes: false, notes })
    }

    /// Finds the columns of a table with a header row.
    fn with_header(&self, exist: &dyn Fn(usize, bool) -> bool) -> Result<Columns, String> {
        let mut notes = Vec::new();
        let split = self.split(&mut notes)?;
        let split_column = match split {
            Some(Split::Names(column) | Split::Flag(column, ..) | Split::Folds(column, _)) => Some(column),
            None => None,
        };
        let image = self.image(split_column, exist)?;
        let (labels, name) = self.labels(image, split_column)?;
        if let Labels::OneHot(columns) = &labels {
            let names: Vec<&str> = columns.iter().map(|(_, name)| name.as_str()).collect();
            notes.push(format!("the labels are {} one-hot columns: {}", columns.len(), enumerate(&names)));
        }
        let boxes = !self.known(BOXES).is_empty();
        if boxes {
            notes.push("bounding boxes are ignored: whole images are classified".into());
        }
        Ok(Columns { image, labels, name, split, header: true, boxes, notes })
    }

    /// Finds the image column.
    fn image(&self, split: Option<usize>, exist: &dyn Fn(usize, bool) -> bool) -> Result<usize, String> {
        if let Some(image) = self.option(&self.options.image, true)? {
            return Ok(image);
        }
        let mut candidates = self.known(IMAGES);
        if candidates.is_empty() {
            let holds_images = |&column: &usize| self.values(column).take(1).any(|value| is_image(Path::new(value)));
            candidates = self.all().into_iter().filter(holds_images).collect();
        }
        if candidates.is_empty() {
            candidates = self.all().into_iter().filter(|&column| exist(column, false)).collect();
        }
        candidates.retain(|&column| Some(column) != split);
        match candidates[..] {
            [] => Err(format!("no column is recognized as image paths; columns: {}", self.titles(&self.all()))),
            [only] => Ok(only),
            [first, ..] => Ok(candidates.into_iter().find(|&column| exist(column, false)).unwrap_or(first)),
        }
    }

    /// Finds the labels, and the column of class names if there is one.
    fn labels(&self, image: usize, split: Option<usize>) -> Result<(Labels, Option<usize>), String> {
        let free = |column: &usize| *column != image && Some(*column) != split;
        let names: Vec<usize> = self.known(CLASS_NAMES).into_iter().filter(free).collect();
        let name_beside = |label: usize| names.iter().copied().find(|name| *name != label);
        if let Some(given) = &self.options.label {
            if let Some(label) = self.given(given, true) {
                return Ok((Labels::Column(label), name_beside(label)));
            }
            let several: Vec<&str> = given.split(',').map(str::trim).collect();
            let columns = several.iter().map(|name| self.option(&Some(name.to_string()), true));
            let columns = columns.collect::<Result<Option<Vec<_>>, _>>()?.unwrap_or_default();
            let binary = columns.iter().find(|&&column| !self.is_binary(column));
            return match (&columns[..], binary) {
                ([label], _) => Ok((Labels::Column(*label), name_beside(*label))),
                (_, Some(&column)) => {
                    Err(format!("column {} is not one-hot: it contains values other than 0 and 1", self.title(column)))
                }
                _ => Ok((self.one_hot(&columns), None)),
            };
        }
        for known in [LABELS, OTHER_LABELS] {
            let candidates: Vec<usize> = self.known(known).into_iter().filter(free).collect();
            match candidates[..] {
                [] => {}
                [label] => return Ok((Labels::Column(label), name_beside(label))),
                _ => return self.choose_label(&candidates, name_beside),
            }
        }
        if let Some(&label) = names.first() {
            return Ok((Labels::Column(label), None));
        }
        let (boxes, sizes) = (self.known(BOXES), self.known(SIZES));
        let is_index = |column: &usize| self.plain[*column].is_empty() || self.plain[*column].starts_with("unnamed");
        let rest: Vec<usize> = self.all().into_iter().filter(free).filter(|column| !is_index(column)).collect();
        let rest: Vec<usize> = match rest[..] {
            [_] => rest,
            _ => rest.into_iter().filter(|column| !boxes.contains(column) && !sizes.contains(column)).collect(),
        };
        let binary: Vec<usize> = rest.iter().copied().filter(|&column| self.is_binary(column)).collect();
        let is_set = |column: &&usize| self.values(**column).any(|value| truth(value) == Some(true));
        let classes = binary.iter().filter(is_set).count();
        if classes >= 2 && (binary.len() == rest.len() || self.is_one_hot(&binary)) {
            return Ok((self.one_hot(&binary), None));
        }
        match rest[..] {
            [] => Ok((Labels::Folder, None)),
            [label] => Ok((Labels::Column(label), None)),
            _ => Err(format!("no column is recognized as labels; columns: {}", self.titles(&self.all()))),
        }
    }

    /// Chooses the label column among several candidates. They must define the same classes, for
    /// example as numbers and names.
    fn choose_label(
        &self,
        candidates: &[usize],
        name_beside: impl Fn(usize) -> Option<usize>,
    ) -> Result<(Labels, Option<usize>), String> {
        let first = candidates[0];
        if let Some(&other) = candidates[1..].iter().find(|&&other| !self.same_classes(first, other)) {
            let (first, other) = (self.title(first), self.title(other));
            return Err(format!("both {first:?} and {other:?} may be the label column, and their labels differ"));
        }
        let is_number = |column: &&usize| self.values(**column).all(|value| value.parse::<u32>().is_ok());
        let number = candidates.iter().find(is_number);
        let text = candidates.iter().find(|column| !is_number(column));
        match (number, text) {
            (Some(&number), Some(&text)) => Ok((Labels::Column(number), Some(text))),
            _ => Ok((Labels::Column(first), name_beside(first))),
        }
    }

    /// Returns whether two columns divide the rows into the same classes.
    fn same_classes(&self, one: usize, other: usize) -> bool {
        let (mut forth, mut back) = (HashMap::new(), HashMap::new());
        self.rows.iter().all(|row| match (row.get(one), row.get(other)) {
            (Some(a), Some(b)) => *forth.entry(a).or_insert(b) == b && *back.entry(b).or_insert(a) == a,
            _ => true,
        })
    }

    /// Returns whether all values of a column are Boolean, as in one-hot columns.
    fn is_binary(&self, column: usize) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.get(column).is_some_and(|value| truth(value).is_some()))
    }

    /// Returns whether exactly one of the columns is set in every row.
    fn is_one_hot(&self, columns: &[usize]) -> bool {
        let set = |row: &Row| columns.iter().filter(|&&column| row.get(column).and_then(truth) == Some(true)).count();
        self.rows.iter().all(|row| set(row) == 1)
    }

    /// Returns columns of 0 and 1 as labels. If not exactly one is set in every row, the data are
    /// multi-label.
    fn one_hot(&self, columns: &[usize]) -> Labels {
        Labels::OneHot(columns.iter().map(|&column| (column, self.title(column).to_string())).collect())
    }

    /// Finds the splits.
    fn split(&self, notes: &mut Vec<String>) -> Result<Option<Split>, String> {
        if let Some(column) = self.option(&self.options.split, true)? {
            return self.split_column(column, true, notes);
        }
        let column = self.known(SPLITS).first().or(self.known(FOLDS).first()).copied();
        if let Some(column) = column.filter(|_| self.options.fold.is_none() || self.known(FOLDS).is_empty()) {
            let found = self.split_column(column, self.plain[column] == "split", notes)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if let Some(&column) = self.known(FOLDS).first() {
            return self.split_column(column, false, notes);
        }
        if let Some(fold) = &self.options.fold {
            return Err(format!("it has no fold column, so fold {fold} cannot be used"));
        }
        let flag = FLAGS.iter().find_map(|(name, yes, no)| Some((*self.known(&[name]).first()?, *yes, *no)));
        let is_flag = |column: usize| self.values(column).all(|value| truth(value).is_some());
        Ok(flag.filter(|(column, ..)| is_flag(*column)).map(|(column, yes, no)| Split::Flag(column, yes, no)))
    }

    /// Interprets a column that may contain splits. Returns an error if it `must` contain splits
    /// but does not.
    fn split_column(&self, column: usize, must: bool, notes: &mut Vec<String>) -> Result<Option<Split>, String> {
        let title = self.title(column);
        let values: BTreeSet<&str> = self.values(column).collect();
        if let Some((_, yes, no)) = FLAGS.iter().find(|(name, ..)| self.plain[column] == *name) {
            return Ok(Some(Split::Flag(column, *yes, *no)));
        }
        let folds: Option<Vec<i64>> = values.iter().map(|value| value.parse().ok()).collect();
        if let Some(folds) = folds.filter(|folds| !folds.is_empty()) {
            let first = folds.iter().filter(|fold| **fold >= 0).min().unwrap_or(&folds[0]).to_string();
            let fold = self.options.fold.clone().unwrap_or(first);
            if !values.contains(&*fold) {
                let values: Vec<&str> = values.into_iter().collect();
                return Err(format!("column {title:?} has no fold {fold}, only {}", enumerate(&values)));
            }
            if values.len() == 1 {
                notes.push(format!("column {title:?} has a single fold and is ignored"));
                return Ok(None);
            }
            notes.push(format!("fold {fold} of column {title:?} is used for validation, the others for training"));
            return Ok(Some(Split::Folds(column, fold)));
        }
        let known = values.iter().filter(|value| Role::of_name(value).is_some()).count();
        if known == 0 && !must {
            let values: Vec<&str> = values.into_iter().collect();
            notes.push(format!("column {title:?} is ignored: {} are not split names", enumerate(&values)));
            return Ok(None);
        }
        let row = self.rows.iter().find(|row| row.get(column).is_none_or(|value| Role::of_name(value).is_none()));
        match row {
            None => Ok(Some(Split::Names(column))),
            Some(row) => {
                let split = row.get(column).unwrap_or_default();
                Err(format!("line {} has the unknown split {split:?}; use train, val or test", row.line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_with(text: &str, options: &TableOptions) -> Result<Columns, String> {
        let rows: Vec<Row> = (1..)
            .zip(text.lines())
            .map(|(line, text)| Row { line, fields: text.split(',').collect::<Vec<_>>().into() })
            .collect();
        // Files are named by number from 0.
        let exist = |column: usize, with_first: bool| {
            rows.iter()
                .skip(usize::from(!with_first))
                .any(|row| row.get(column).is_some_and(|name| name.starts_with("id_")))
        };
        Columns::find(&rows, options, &exist)
    }

    fn find(text: &str) -> Result<Columns, String> {
        find_with(text, &TableOptions::default())
    }

    /// Returns the image, label, name and split columns; −1 if absent.
    fn columns(text: &str) -> (usize, i32, i32, i32, bool) {
        let found = find(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        let number = |column: Option<usize>| column.map_or(-1, |column| column as i32);
        let label = match found.labels {
            Labels::Column(column) => column as i32,
            Labels::Folder => -1,
            Labels::OneHot(_) => -2,
        };
        let split = match found.split {
            Some(Split::Names(column) | Split::Flag(column, ..) | Split::Folds(column, _)) => Some(column),
            None => None,
        };
        (found.image, label, number(found.name), number(split), found.header)
    }

    #[test]
    fn columns_are_found_by_name_or_by_values() {
        for (text, expected) in [
            ("a.jpg,3\nb.jpg,4", (0, 1, -1, -1, false)),
            ("3,a.jpg", (1, 0, -1, -1, false)),
            ("id_0,cat\nid_1,dog", (0, 1, -1, -1, false)),
            ("a/1.JPEG", (0, -1, -1, -1, false)),
            ("Label,Path,Split\n3,a.jpg,val", (1, 0, -1, 2, true)),
            ("id,species\n17,cat", (0, 1, -1, -1, true)),
            ("photo of,what\na.jpg,cat", (0, 1, -1, -1, true)),
            ("file_name,label,class_name\na.jpg,0,cat", (0, 1, 2, -1, true)),
            ("path,class_name\na.jpg,cat", (0, 1, -1, -1, true)),
            (",IMG_PATH,Class Name\n0,a.jpg,cat", (1, 2, -1, -1, true)),
            ("lesion_id,image_id,dx,dx_type,age\nH0,id_0,nv,histo,50", (1, 2, -1, -1, true)),
            ("Width,Height,Roi.X1,Roi.Y1,ClassId,Path\n9,9,1,2,0,a.png", (5, 4, -1, -1, true)),
            ("image,x,y,label\na,3,5,cat", (0, 3, -1, -1, true)),
            ("Image,Id\na.jpg,w_1", (0, 1, -1, -1, true)),
            ("id,image,label\n0,id_0,cat", (1, 2, -1, -1, true)),
            ("image,patient,sex,age,target\na,P0,m,50,0", (0, 4, -1, -1, true)),
            // A number and a name for the same classes.
            ("path,label,class\na.jpg,0,cat\nb.jpg,1,dog\nc.jpg,0,cat", (0, 1, 2, -1, true)),
            ("path,class_id,class\na.jpg,1,cat\nb.jpg,0,dog", (0, 1, 2, -1, true)),
            ("fname,labels,is_valid\na.jpg,cat,False\nb.jpg,cat,True", (0, 1, -1, 2, true)),
            ("path,label,set\na.jpg,cat,A\nb.jpg,dog,B", (0, 1, -1, -1, true)),
            ("path,label,fold\na.jpg,cat,1\nb.jpg,dog,2", (0, 1, -1, 2, true)),
            ("image,cat,dog,eel\na,1.0,0.0,0.0\nb,0.0,0.0,1.0", (0, -2, -1, -1, true)),
            ("image,age,cat,dog\na,50,1,0\nb,41,0,1", (0, -2, -1, -1, true)),
            ("path,cat,dog\na.jpg,1,0\nb.jpg,1,1", (0, -2, -1, -1, true)),
            ("path,cat,dog\na.jpg,1,0\nb.jpg,0,0\nc.jpg,0,1", (0, -2, -1, -1, true)),
        ] {
            assert_eq!(columns(text), expected, "{text}");
        }
        for (text, part) in [
            ("a.jpg,1,2", "3 columns"),
            ("path,one,two\na.jpg,1,2", "recognized as labels; columns: path, one, two"),
            ("u,v\n1,2", "recognized as image paths; columns: u, v"),
            ("path,label,target\na.jpg,0,1\nb.jpg,1,1", "both \"label\" and \"target\""),
            ("path,age,cat,dog\na.jpg,50,1,0\nb.jpg,41,1,1", "no column is recognized as labels"),
            ("path,label,set\na.jpg,0,train\nb.jpg,1,other", "line 3 has the unknown split \"other\""),
            ("path,label,split\na.jpg,0,A", "line 2 has the unknown split \"A\""),
        ] {
            let why = find(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(Columns::find(&[], &TableOptions::default(), &|_, _| false).is_err());
    }

    #[test]
    fn columns_can_be_specified_by_options() {
        let options = |image: &str, label: &str, split: &str, fold: &str| {
            let given = |name: &str| Some(name.to_string()).filter(|name| !name.is_empty());
            TableOptions {
                image: given(image),
                label: given(label),
                split: given(split),
                fold: given(fold),
                ..TableOptions::default()
            }
        };
        let text = "path,other,label,target,part,fold\na.jpg,b.jpg,0,cat,train,0\nc.jpg,d.jpg,0,dog,val,1";
        let found = find_with(text, &options("Other", "target", "part", "")).unwrap();
        assert_eq!((found.image, found.labels, found.split), (1, Labels::Column(3), Some(Split::Names(4))));
        let found = find_with(text, &options("", "4", "", "1")).unwrap();
        assert_eq!((found.image, found.labels, found.split), (0, Labels::Column(3), Some(Split::Folds(5, "1".into()))));
        let one_hot = find_with("path,age,cat,dog\na.jpg,1,1,0\nb.jpg,0,0,1", &options("", "dog,cat", "", "")).unwrap();
        assert_eq!(one_hot.labels, Labels::OneHot(vec![(3, "dog".into()), (2, "cat".into())]));
        let headless = find_with("7,a.jpg,cat\n8,b.jpg,dog", &options("", "3", "", "")).unwrap();
        assert_eq!((headless.image, headless.labels, headless.header), (1, Labels::Column(2), false));
        for (given, part) in [
            (options("", "species", "", ""), "no column \"species\", only path, other, label, target, part and 1 more"),
            (options("", "9", "", ""), "no column \"9\""),
            (options("", "target", "", "7"), "no fold 7, only 0, 1"),
            (options("", "target", "other", ""), "has the unknown split \"b.jpg\""),
        ] {
            let why = find_with(text, &given).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
