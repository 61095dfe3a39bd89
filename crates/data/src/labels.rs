//! Conversion of class names and numbers in files to labels, for all forms except class folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mbconv_files::text::enumerate;

use crate::error::DataError;
use crate::synsets::{self, unique};
use crate::text::read_text;

/// Files that list class names, one per line, in label order.
const NAME_FILES: [&str; 8] = [
    "classes.txt",
    "class_names.txt",
    "classnames.txt",
    "labels.txt",
    "label_names.txt",
    "synset_words.txt",
    "LOC_synset_mapping.txt",
    "synsets.txt",
];

/// The distinct labels of a data set.
#[derive(Default)]
pub(crate) struct Vocabulary {
    texts: Vec<Box<str>>,
    codes: HashMap<Box<str>, u32>,
    /// Class names given in addition to numbers, by code.
    names: HashMap<u32, Box<str>>,
    /// True if a number has different names, so that the names are not class names.
    ambiguous: bool,
    /// If true, numbers too large for labels are class names; otherwise they are an error.
    numbers_may_be_names: bool,
}

/// Values that mark images without a label, as in the test split of ImageNet.
const NO_LABEL: [&str; 3] = ["", "-1", "-1.0"];

/// Parses a numeric label: an integer, also with a fraction of zeros. Text such as `007` is a name.
fn number(text: &str) -> Option<u32> {
    let whole = match text.split_once('.') {
        None => text,
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
    };
    whole.parse().ok().filter(|number: &u32| number.to_string() == whole)
}

impl Vocabulary {
    /// Creates an empty vocabulary. Numbers too large for labels are class names if
    /// `numbers_may_be_names`, otherwise an error.
    pub fn new(numbers_may_be_names: bool) -> Self {
        Self { numbers_may_be_names, ..Self::default() }
    }

    /// Returns the code of a label, or `None` if it marks a missing label.
    pub fn code(&mut self, text: &str) -> Option<u32> {
        let text = text.trim();
        if NO_LABEL.contains(&text) {
            return None;
        }
        if let Some(&code) = self.codes.get(text) {
            return Some(code);
        }
        let code = self.texts.len() as u32;
        self.texts.push(text.into());
        self.codes.insert(text.into(), code);
        Some(code)
    }

    /// Returns the distinct labels, indexed by code.
    pub fn texts(&self) -> &[Box<str>] {
        &self.texts
    }

    /// Returns an empty vocabulary for the parts of these labels.
    pub fn of_parts(&self) -> Self {
        Self::new(self.numbers_may_be_names)
    }

    /// Returns two labels that differ only in case.
    pub fn differ_by_case(&self) -> Option<[&str; 2]> {
        let mut seen: HashMap<String, &str> = HashMap::new();
        self.texts.iter().find_map(|text| seen.insert(text.to_lowercase(), text).map(|other| [other, &**text]))
    }

    /// Records the class name given for a number.
    pub fn name(&mut self, code: u32, name: &str) {
        let name = name.trim();
        self.ambiguous |= **self.names.entry(code).or_insert_with(|| name.into()) != *name;
    }

    /// Returns the class names, and the label of every code.
    ///
    /// Numbers are used as labels. Their names come from `listed` (a list and the file that
    /// contains it), from the names recorded for them, or are the numbers themselves. Other texts
    /// are class names, ordered as in `listed` or by bytes. `path` is shown in errors.
    ///
    /// # Errors
    /// [`DataError::Label`] for a number or name that the list lacks, and for numbers that cannot
    /// be labels.
    pub fn classes(
        &self,
        listed: Option<&(PathBuf, Vec<String>)>,
        path: &Path,
    ) -> Result<(Vec<String>, Vec<u32>), DataError> {
        let wrong = |label: &str, why: String| DataError::Label { path: path.into(), label: label.into(), why };
        let numbers: Option<Vec<u32>> = self.texts.iter().map(|text| number(text)).collect();
        if let Some((file, names)) = listed {
            let place: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            let named = self.texts.iter().any(|text| place.contains_key(&**text));
            // Indices into the list may have leading zeros.
            let places = || self.texts.iter().map(|text| text.parse().ok()).collect();
            let numbers = numbers.or_else(|| if named { None } else { places() });
            let find = |(code, text): (usize, &str)| {
                if let Some(numbers) = &numbers {
                    let number = numbers[code];
                    let why =
                        || format!("{} lists {} classes, so labels must be below that", file.display(), names.len());
                    return if (number as usize) < names.len() { Ok(number) } else { Err(wrong(text, why())) };
                }
                place.get(text).copied().ok_or_else(|| wrong(text, format!("it is not listed in {}", file.display())))
            };
            let labels = self.texts.iter().map(|text| &**text).enumerate().map(find).collect::<Result<_, _>>()?;
            return Ok((names.clone(), labels));
        }
        let Some(numbers) = numbers else {
            let mut sorted: Vec<u32> = (0..self.texts.len() as u32).collect();
            sorted.sort_unstable_by_key(|&code| &self.texts[code as usize]);
            let mut labels = vec![0; sorted.len()];
            for (label, &code) in (0..).zip(&sorted) {
                labels[code as usize] = label;
            }
            return Ok((sorted.iter().map(|&code| self.texts[code as usize].to_string()).collect(), labels));
        };
        let classes = numbers.iter().max().map_or(0, |&most| most as usize + 1);
        if classes > 1000 + 2 * numbers.len() {
            if self.numbers_may_be_names {
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                sorted.dedup();
                let labels = numbers.iter().map(|number| sorted.partition_point(|other| other < number) as u32);
                return Ok((sorted.iter().map(u32::to_string).collect(), labels.collect()));
            }
            let most = (classes - 1).to_string();
            let why = format!(
                "label numbers must count the classes from 0, but only {} distinct numbers occur",
                numbers.len()
            );
            return Err(wrong(&most, why));
        }
        let mut names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        for (&code, name) in self.names.iter().filter(|_| !self.ambiguous) {
            names[numbers[code as usize] as usize] = name.to_string();
        }
        Ok((unique(names), numbers))
    }
}

/// Returns the list of class names in one of these folders, with its path.
///
/// # Errors
/// A file that cannot be read, or that lists a class twice.
pub(crate) fn listed_names(folders: &[&Path]) -> Result<Option<(PathBuf, Vec<String>)>, DataError> {
    let candidates = folders.iter().flat_map(|folder| NAME_FILES.iter().map(|name| folder.join(name)));
    let Some(path) = candidates.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let text = read_text(&path)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let names = match synsets::parse_synsets(&lines) {
        Some(synsets) => synsets::class_names(synsets),
        None => lines.iter().map(|line| line.to_string()).collect(),
    };
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    let twice: Vec<&str> = sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].as_str()).collect();
    if !twice.is_empty() {
        let why = format!("it lists these names twice: {}", enumerate(&twice));
        return Err(DataError::Malformed { path, why });
    }
    Ok(Some((path, names)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(texts: &[&str]) -> (Vocabulary, Vec<Option<u32>>) {
        let mut vocabulary = Vocabulary::default();
        let codes = texts.iter().map(|text| vocabulary.code(text)).collect();
        (vocabulary, codes)
    }

    #[test]
    fn numbers_are_labels_even_if_some_are_missing() {
        let (vocabulary, codes) = vocabulary(&["3", "0", "-1", "3", ""]);
        assert_eq!(codes, [Some(0), Some(1), None, Some(0), None]);
        let (classes, labels) = vocabulary.classes(None, Path::new("x")).unwrap();
        assert_eq!((classes.join(" ").as_str(), labels), ("0 1 2 3", vec![3, 0]));

        let names = ["a", "b", "c", "d"].map(String::from).to_vec();
        let (classes, labels) = vocabulary.classes(Some(&("n.txt".into(), names.clone())), Path::new("x")).unwrap();
        assert_eq!((classes, labels), (names.clone(), vec![3, 0]));
        let short = ("n.txt".into(), names[..3].to_vec());
        let error = vocabulary.classes(Some(&short), Path::new("x")).unwrap_err();
        assert!(error.to_string().contains("lists 3 classes"), "{error}");
    }

    #[test]
    fn texts_are_class_names_in_sorted_order() {
        let (vocabulary, _) = vocabulary(&["dog", "cat", "7"]);
        let (classes, labels) = vocabulary.classes(None, Path::new("x")).unwrap();
        assert_eq!((classes.join(" ").as_str(), labels), ("7 cat dog", vec![2, 1, 0]));
    }

    #[test]
    fn names_given_with_numbers_are_used_unless_ambiguous() {
        let (mut vocabulary, _) = vocabulary(&["1", "0"]);
        vocabulary.name(0, "dog");
        vocabulary.name(0, " dog");
        assert_eq!(vocabulary.classes(None, Path::new("x")).unwrap().0, ["0", "dog"]);
        vocabulary.name(0, "cat");
        assert_eq!(vocabulary.classes(None, Path::new("x")).unwrap().0, ["0", "1"]);
    }

    #[test]
    fn large_numbers_are_names_only_on_request() {
        let (mut vocabulary, _) = vocabulary(&["200000", "100000"]);
        assert!(vocabulary.classes(None, Path::new("x")).is_err());
        vocabulary.numbers_may_be_names = true;
        let (classes, labels) = vocabulary.classes(None, Path::new("x")).unwrap();
        assert_eq!((classes.join(" ").as_str(), labels), ("100000 200000", vec![1, 0]));
    }

    #[test]
    fn leading_zeros_are_kept_and_whole_floats_are_numbers() {
        let classes = |texts: &[&str]| {
            let (classes, labels) = vocabulary(texts).0.classes(None, Path::new("x")).unwrap();
            (classes.join(" "), labels)
        };
        assert_eq!(classes(&["002", "001"]), ("001 002".into(), vec![1, 0]));
        assert_eq!(classes(&["1", "007"]), ("007 1".into(), vec![1, 0]));
        assert_eq!(classes(&["1.0", "0.0"]), ("0 1".into(), vec![1, 0]));
        assert_eq!(classes(&["1.5", "0.0"]), ("0.0 1.5".into(), vec![1, 0]));
        let names = Some(("n.txt".into(), vec!["cat".to_string(), "dog".into()]));
        let (vocabulary, _) = vocabulary(&["001", "000"]);
        assert_eq!(vocabulary.classes(names.as_ref(), Path::new("x")).unwrap().1, [1, 0]);
    }

    #[test]
    fn case_variants_are_detected() {
        let (vocabulary, _) = vocabulary(&["Cat", "dog", "cat"]);
        assert_eq!(vocabulary.differ_by_case(), Some(["Cat", "cat"]));
    }
}
