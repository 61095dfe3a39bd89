//! Labels of ImageNet's validation images, which are in a single folder.
//!
//! Four kinds of label files are supported: lines `ILSVRC2012_val_00000001.JPEG 65` (Caffe's
//! `val.txt`, labels counted from 0 in the order of WordNet IDs); the same with WordNet IDs or as
//! CSV (Kaggle's `LOC_val_solution.csv`); one class per line in the order of the images; and the
//! development kit's ground truth. The ground truth numbers classes from 1 in a separate order,
//! which is defined in `meta.mat`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use mbconv_files::text::enumerate;

use crate::error::DataError;
use crate::formats::imagenet::matfile;
use crate::synsets;
use crate::text::read_text;

/// Files that list images with classes, or classes in the order of the images.
const MAPS: [&str; 13] = [
    "LOC_val_solution.csv",
    "val.txt",
    "val.csv",
    "val.tsv",
    "val.lst",
    "val_map.txt",
    "val_labels.txt",
    "val_labels.csv",
    "validation.txt",
    "validation.csv",
    "ILSVRC2012_val.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_val_labels.txt",
];

/// The development kit's label file, the folders that may contain it, and the kit's original
/// archive.
const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
const KIT_FOLDERS: [&str; 5] = ["", "data", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC2012_devkit_t12"];
const KIT_ARCHIVE: &str = "ILSVRC2012_devkit_t12.tar.gz";
/// The class order of the kit, as a MATLAB file, and text files derived from it.
const META: &str = "meta.mat";
const META_LISTS: [&str; 3] = ["meta.txt", "synsets.txt", "ILSVRC2012_synsets.txt"];

/// Labels of the validation images.
pub(crate) enum Truth {
    /// Classes by image name without folder and extension: labels or class names.
    Map { path: PathBuf, classes: HashMap<String, String> },
    /// Classes in the order of the image numbers.
    Ordered { path: PathBuf, classes: Vec<String> },
}

/// Returns the possible paths of label files.
fn candidates(folders: &[&Path]) -> Vec<PathBuf> {
    let maps = folders.iter().flat_map(|folder| MAPS.iter().map(|name| folder.join(name)));
    let truths = folders.iter().flat_map(|folder| KIT_FOLDERS.iter().map(|kit| folder.join(kit).join(GROUND_TRUTH)));
    let kits = folders.iter().map(|folder| folder.join(KIT_ARCHIVE));
    maps.chain(truths).chain(kits).collect()
}

impl Truth {
    /// Finds and reads a label file in one of these folders.
    ///
    /// # Errors
    /// [`DataError::NoTruth`] if there is none; a file that cannot be read or parsed.
    pub fn find(folders: &[&Path]) -> Result<Truth, DataError> {
        let Some(path) = candidates(folders).into_iter().find(|path| path.is_file()) else {
            return Err(DataError::NoTruth { path: folders[0].into() });
        };
        if path.ends_with(KIT_ARCHIVE) {
            return kit(path);
        }
        let text = read_text(&path)?;
        if path.ends_with(GROUND_TRUTH) {
            let order = order_of(path.parent().unwrap_or(Path::new("")))?;
            return ground_truth(path, &text, order);
        }
        Self::parse(path, &text)
    }

    /// Parses a list of images with classes, or of classes in the order of the images.
    fn parse(path: PathBuf, text: &str) -> Result<Truth, DataError> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let fields = |line: &str| -> Vec<String> {
            let fields = line.split([',', '\t', ' ', ';']).map(|field| field.trim_matches('"').to_string());
            fields.filter(|field| !field.is_empty()).collect()
        };
        let malformed = |why: String| DataError::Malformed { path: path.clone(), why };
        let rows: Vec<Vec<String>> = lines.iter().map(|line| fields(line)).collect();
        if rows.iter().all(|row| row.len() == 1) {
            let classes: Vec<String> = rows.into_iter().flatten().collect();
            if classes.first().is_some_and(|class| !synsets::is_id(class)) {
                let why = "it has a single column that is not WordNet IDs, so the class order is unknown";
                return Err(malformed(why.into()));
            }
            return Ok(Truth::Ordered { path, classes });
        }
        let mut classes = HashMap::with_capacity(rows.len());
        for (number, row) in rows.iter().enumerate() {
            let [image, class, ..] = &row[..] else {
                return Err(malformed(format!("line {} has a single column", number + 1)));
            };
            // Skip column names.
            if number == 0 && class.parse::<u32>().is_err() && !synsets::is_id(class) && !image.contains(['.', '0']) {
                continue;
            }
            classes.insert(stem(image).to_string(), class.clone());
        }
        Ok(Truth::Map { path, classes })
    }

    /// Returns the path of the label file.
    pub fn path(&self) -> &Path {
        match self {
            Truth::Map { path, .. } | Truth::Ordered { path, .. } => path,
        }
    }

    /// Returns the listed class of every image.
    fn all(&self) -> Box<dyn Iterator<Item = &String> + '_> {
        match self {
            Truth::Map { classes, .. } => Box::new(classes.values()),
            Truth::Ordered { classes, .. } => Box::new(classes.iter()),
        }
    }

    /// Returns the listed classes, sorted; used if there are only validation images.
    pub fn classes(&self) -> Result<Vec<String>, DataError> {
        let mut classes: Vec<String> = self.all().cloned().collect();
        classes.sort_unstable();
        classes.dedup();
        if let Some(labels) = classes.iter().map(|class| class.parse().ok()).collect::<Option<Vec<usize>>>() {
            let most = labels.into_iter().max().unwrap_or(0);
            if most + 1 != synsets::KNOWN {
                let path = self.path().into();
                let why = format!(
                    "it contains class numbers up to {most}, but there are no training images to define the class names"
                );
                return Err(DataError::Malformed { path, why });
            }
            return Ok(synsets::known());
        }
        Ok(classes)
    }

    /// Returns the label of each image, an index into `ids`, or `None` for unlisted images.
    ///
    /// # Errors
    /// A class that is not in `ids`; numbers that do not match `ids`.
    pub fn labels(&self, images: &[&str], ids: &[String]) -> Result<Vec<Option<u32>>, DataError> {
        let malformed = |why: String| DataError::Malformed { path: self.path().into(), why };
        let by_id: HashMap<&str, u32> = ids.iter().map(String::as_str).zip(0..).collect();
        let numbers: Option<Vec<usize>> = self.all().map(|class| class.parse().ok()).collect();
        let by_label: Option<HashMap<String, u32>> = match numbers {
            None => None,
            Some(numbers) => {
                let count = numbers.iter().max().map_or(0, |&most| most + 1);
                // Labels number all classes, so missing folders must not shift the later ones.
                let order = match () {
                    () if count == ids.len() => ids.to_vec(),
                    () if count == synsets::KNOWN => synsets::known(),
                    () => {
                        let why = format!("it has labels for {count} classes, but the data set has {}", ids.len());
                        return Err(malformed(why));
                    }
                };
                let places = order.iter().enumerate();
                Some(places.filter_map(|(n, id)| Some((n.to_string(), *by_id.get(&**id)?))).collect())
            }
        };
        let unknown: Vec<&str> = {
            let mut unknown: Vec<&str> = match &by_label {
                Some(by_label) => self.all().filter(|class| !by_label.contains_key(*class)).map(|c| &**c).collect(),
                None => self.all().filter(|class| !by_id.contains_key(&***class)).map(|class| &**class).collect(),
            };
            unknown.sort_unstable();
            unknown.dedup();
            unknown
        };
        let label = |class: &String| match &by_label {
            Some(by_label) => by_label.get(class).copied(),
            None => by_id.get(&**class).copied(),
        };
        let labels = images.iter().map(|image| match self {
            Truth::Map { classes, .. } => classes.get(stem(image)),
            Truth::Ordered { classes, .. } => classes.get(number(image)?.checked_sub(1)?),
        });
        let labels: Vec<Option<&String>> = labels.collect();
        if let Some(class) = labels.iter().flatten().find(|class| label(class).is_none()) {
            let why = format!(
                "images have class {class}, which is missing from the training images; {} such classes: {}",
                unknown.len(),
                enumerate(&unknown)
            );
            return Err(malformed(why));
        }
        Ok(labels.into_iter().map(|class| class.and_then(label)).collect())
    }
}

/// Returns a name without folders and extension.
fn stem(name: &str) -> &str {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    base.split('.').next().unwrap_or(base)
}

/// Returns the number of an image: 17 for `ILSVRC2012_val_00000017.JPEG`.
fn number(name: &str) -> Option<usize> {
    stem(name).rsplit('_').next()?.parse().ok()
}

/// Reads the ground truth from the development kit's original archive.
fn kit(path: PathBuf) -> Result<Truth, DataError> {
    let failed = |source| DataError::io(&path, source);
    let file = std::fs::File::open(&path).map_err(failed)?;
    // The kit unpacks to some 10 MB.
    const MAX_BYTES: u64 = 64 << 20;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file).take(4 * MAX_BYTES));
    let (mut truth, mut meta) = (None, None);
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map(|path| path.to_path_buf()).unwrap_or_default();
        let wanted = if name.ends_with(GROUND_TRUTH) {
            &mut truth
        } else if name.ends_with(META) {
            &mut meta
        } else {
            continue;
        };
        let mut bytes = Vec::new();
        entry.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        *wanted = Some(bytes);
    }
    match (truth, meta) {
        (Some(truth), Some(meta)) => {
            let order = matfile::synsets(&meta)
                .map_err(|why| DataError::Malformed { path: path.clone(), why: format!("{META} in it: {why}") })?;
            let text = String::from_utf8_lossy(&truth).into_owned();
            ground_truth(path, &text, order)
        }
        (truth, _) => {
            let lacking = if truth.is_none() { GROUND_TRUTH } else { META };
            Err(DataError::Malformed { path, why: format!("it has no {lacking}") })
        }
    }
}

/// Reads the WordNet ID of each of the kit's class numbers from the files in the folder of the
/// ground truth.
fn order_of(folder: &Path) -> Result<HashMap<usize, String>, DataError> {
    let path = folder.join(META);
    if path.is_file() {
        let bytes = std::fs::read(&path).map_err(|source| DataError::io(&path, source))?;
        return matfile::synsets(&bytes).map_err(|why| DataError::Malformed { path, why });
    }
    for path in META_LISTS.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file()) {
        if let Some(order) = parse_order(&read_text(&path)?) {
            return Ok(order);
        }
    }
    Err(DataError::MissingFile { path })
}

/// Parses lines of a number and a WordNet ID, or of WordNet IDs in the kit's order. Sorted IDs are
/// rejected, because the kit's order is not sorted.
fn parse_order(text: &str) -> Option<HashMap<usize, String>> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if let Some(ids) = synsets::parse_synsets(&lines) {
        let sorted = ids.is_sorted();
        return (!sorted).then(|| (1..).zip(ids.into_iter().map(|(id, _)| id)).collect());
    }
    let parse = |line: &&str| {
        let mut fields = line.split([' ', '\t', ',']).filter(|field| !field.is_empty());
        let (number, id) = (fields.next()?.parse().ok()?, fields.next()?);
        synsets::is_id(id).then(|| (number, id.to_string()))
    };
    lines.iter().map(parse).collect()
}

/// Parses the development kit's ground truth with its class order.
fn ground_truth(path: PathBuf, text: &str, order: HashMap<usize, String>) -> Result<Truth, DataError> {
    let class = |(number, line): (usize, &str)| {
        let found = line.trim().parse().ok().and_then(|number: usize| order.get(&number).cloned());
        found.ok_or_else(|| {
            let why = format!("line {} is {line:?}, which is not a class of the development kit", number + 1);
            DataError::Malformed { path: path.clone(), why }
        })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let classes = lines.enumerate().map(class).collect::<Result<_, _>>()?;
    Ok(Truth::Ordered { path, classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(text: &str) -> Truth {
        Truth::parse("val.txt".into(), text).unwrap()
    }

    #[test]
    fn all_map_formats_give_the_same_labels() {
        let ids = ["n01440764", "n01443537", "n01484850"].map(String::from).to_vec();
        let images = ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"];
        for text in [
            "ILSVRC2012_val_00000001.JPEG 2\nILSVRC2012_val_00000002.JPEG 0\n",
            "ILSVRC2012_val_00000002.JPEG 0\nval/ILSVRC2012_val_00000001.JPEG 2\n",
            "ImageId,PredictionString\nILSVRC2012_val_00000002,n01440764 85 1 499 272\n\
             ILSVRC2012_val_00000001,n01484850 1 1 2 2 n01484850 1 1 3 3\n",
            "image\tsynset\nILSVRC2012_val_00000001\tn01484850\nILSVRC2012_val_00000002\tn01440764",
            "n01484850\nn01440764\n",
        ] {
            assert_eq!(truth(text).labels(&images, &ids).unwrap(), [Some(2), Some(0)], "{text}");
        }
        let order = HashMap::from([(1, ids[2].clone()), (7, ids[0].clone())]);
        let kit = ground_truth("t".into(), "1\n7\n", order.clone()).unwrap();
        assert_eq!(kit.labels(&images, &ids).unwrap(), [Some(2), Some(0)]);
        assert!(ground_truth("t".into(), "1\n8\n", order).is_err_and(|error| error.to_string().contains("line 2")));
        // A missing folder does not shift the other labels.
        let error = truth("a_1.jpg 2\na_2.jpg 0").labels(&images, &ids[1..]).unwrap_err();
        assert!(error.to_string().contains("3 classes, but the data set has 2"), "{error}");
        let error = truth("n01484850\nn01440764\n").labels(&images, &ids[1..]).unwrap_err();
        assert!(error.to_string().contains("n01440764"), "{error}");
    }

    #[test]
    fn labels_of_all_classes_work_with_some_classes() {
        let some = ["n01440764", "n01484850", "n15075141"].map(String::from).to_vec();
        let images = ["v_1.JPEG", "v_2.JPEG", "v_3.JPEG"];
        let labels = truth("v_1.JPEG 999\nv_2.JPEG 0\nv_3.JPEG 2\n").labels(&images, &some).unwrap();
        assert_eq!(labels, [Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn sorted_ids_are_not_the_kit_order() {
        assert!(parse_order("n01440764 tench\nn01443537 goldfish\n").is_none());
        assert_eq!(parse_order("n02119789 kit fox\nn01443537 goldfish\n").unwrap()[&1], "n02119789");
        assert_eq!(parse_order("2 n01440764\n1 n01443537\n").unwrap()[&2], "n01440764");
        assert!(Truth::parse("t".into(), "490\n361\n").is_err());
    }
}
