//! From what files say of images' classes to labels, in every form that does not name its classes by folders.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{DataError, enumerate, ilsvrc};

/// Names of files that list class names, one a line, in the order of their numbers.
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

/// The labels that occur in a data set, each text once.
#[derive(Default)]
pub(super) struct Vocabulary {
    texts: Vec<Box<str>>,
    codes: HashMap<Box<str>, u32>,
    /// Names that stand beside numbers, by code.
    names: HashMap<u32, Box<str>>,
    /// Whether one number had different names: then they are none of the class.
    ambiguous: bool,
}

/// What an image without a label is labelled with, as in the test split of ImageNet.
const NO_LABEL: [&str; 2] = ["", "-1"];

impl Vocabulary {
    /// The code of a label, or none if it says that there is none.
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

    /// Notes the class name that stands beside a number.
    pub fn name(&mut self, code: u32, name: &str) {
        let name = name.trim();
        self.ambiguous |= **self.names.entry(code).or_insert_with(|| name.into()) != *name;
    }

    /// The class names, and the label of every code.
    ///
    /// Numbers are labels as they are, named by `listed` (a list and the file it comes from), by the names beside them, or
    /// by themselves. Other texts are class names: their order is that of `listed`, or of their bytes. `path` is named in
    /// errors.
    ///
    /// # Errors
    /// [`DataError::Label`] for a number or name that the list lacks, and for numbers that cannot be labels.
    pub fn classes(
        &self,
        listed: Option<&(PathBuf, Vec<String>)>,
        path: &Path,
    ) -> Result<(Vec<String>, Vec<u32>), DataError> {
        let wrong = |label: &str, why: String| DataError::Label { path: path.into(), label: label.into(), why };
        let numbers: Option<Vec<u32>> = self.texts.iter().map(|text| text.parse().ok()).collect();
        if let Some((file, names)) = listed {
            let place: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
            let find = |(code, text): (usize, &str)| {
                if let Some(numbers) = &numbers {
                    let number = numbers[code];
                    let why = || format!("{} lists {} classes, numbered from 0", file.display(), names.len());
                    return if (number as usize) < names.len() { Ok(number) } else { Err(wrong(text, why())) };
                }
                place.get(text).copied().ok_or_else(|| wrong(text, format!("{} does not list it", file.display())))
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
            let most = (classes - 1).to_string();
            let why = format!("numbers count the classes from 0, but only {} different ones occur", numbers.len());
            return Err(wrong(&most, why));
        }
        let mut names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        for (&code, name) in self.names.iter().filter(|_| !self.ambiguous) {
            names[numbers[code as usize] as usize] = name.to_string();
        }
        Ok((unique(names), numbers))
    }
}

/// Makes equal names different by their numbers.
pub(super) fn unique(mut names: Vec<String>) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    names.iter().for_each(|name| *seen.entry(name.clone()).or_default() += 1);
    for (label, name) in names.iter_mut().enumerate() {
        if seen[name] > 1 {
            *name = format!("{name} ({label})");
        }
    }
    names
}

/// The list of class names in one of these folders, with the file it was read from.
///
/// # Errors
/// A file that cannot be read, or that names a class twice.
pub(super) fn listed_names(folders: &[&Path]) -> Result<Option<(PathBuf, Vec<String>)>, DataError> {
    let candidates = folders.iter().flat_map(|folder| NAME_FILES.iter().map(|name| folder.join(name)));
    let Some(path) = candidates.into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let text = read_text(&path)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let names = match ilsvrc::parse_synsets(&lines) {
        Some(synsets) => ilsvrc::class_names(synsets),
        None => lines.iter().map(|line| line.to_string()).collect(),
    };
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    let twice: Vec<&str> = sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].as_str()).collect();
    if !twice.is_empty() {
        let why = format!("it names twice {}", enumerate(&twice));
        return Err(DataError::Malformed { path, why });
    }
    Ok(Some((path, names)))
}

/// A text file, with a byte-order mark taken off and bytes that are not UTF-8 replaced.
pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::io(path, source))?;
    Ok(String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).into_owned())
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
    fn numbers_are_labels_even_where_some_are_missing() {
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
    fn texts_are_names() {
        let (vocabulary, _) = vocabulary(&["dog", "cat", "7"]);
        let (classes, labels) = vocabulary.classes(None, Path::new("x")).unwrap();
        assert_eq!((classes.join(" ").as_str(), labels), ("7 cat dog", vec![2, 1, 0]));
    }

    #[test]
    fn names_beside_numbers_are_taken_unless_they_contradict() {
        let (mut vocabulary, _) = vocabulary(&["1", "0"]);
        vocabulary.name(0, "dog");
        vocabulary.name(0, " dog");
        assert_eq!(vocabulary.classes(None, Path::new("x")).unwrap().0, ["0", "dog"]);
        vocabulary.name(0, "cat");
        assert_eq!(vocabulary.classes(None, Path::new("x")).unwrap().0, ["0", "1"]);
    }

    #[test]
    fn identifiers_are_no_labels() {
        let (vocabulary, _) = vocabulary(&["100000", "200000"]);
        assert!(vocabulary.classes(None, Path::new("x")).is_err());
    }
}
