//! Labels that are lists of classes, such as `cat|dog`, `["cat", "dog"]` or the lists of Parquet.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::DataError;
use crate::label_sets::LabelSets;
use crate::labels::Vocabulary;

/// Separator of the classes in labels that were lists in the file: the unit separator of ASCII,
/// which texts do not contain. A label that consists of it is an empty list.
pub(crate) const LIST: char = '\u{1f}';

/// Separators of classes in texts. All but the first also occur in class names.
const SEPARATORS: [char; 3] = ['|', ';', ','];

/// The value of the option `separator` for labels that are not lists.
const NONE: &str = "none";

/// Returns the label of a list of classes.
pub(crate) fn list_text(classes: &[&str]) -> String {
    match classes {
        [] => LIST.into(),
        classes => classes.join(&LIST.to_string()),
    }
}

/// Finds out whether labels are lists of classes. Returns the separator in texts, which may be
/// missing, or `None` for single labels. `given` is the option `separator`.
///
/// # Errors
/// [`DataError::Option`] for an option that is neither a character nor `none`.
fn separator_of(labels: &[Box<str>], given: Option<&str>) -> Result<Option<Option<char>>, DataError> {
    if let Some(given) = given {
        let mut characters = given.chars();
        return match (characters.next(), characters.next()) {
            _ if given == NONE => Ok(None),
            (Some(separator), None) => Ok(Some(Some(separator))),
            _ => Err(DataError::Option { option: format!("separator={given}") }),
        };
    }
    let is_list = |label: &str| label.contains(LIST) || label.starts_with('[') && label.ends_with(']');
    if labels.iter().any(|label| label.contains(LIST))
        || !labels.is_empty() && labels.iter().all(|label| is_list(label))
    {
        return Ok(Some(None));
    }
    let separates = |&separator: &char| match separator {
        ',' | ';' => separates_lists(labels, separator),
        _ => labels.iter().any(|label| label.split(separator).filter(|part| !part.trim().is_empty()).count() > 1),
    };
    Ok(SEPARATORS.into_iter().find(separates).map(Some))
}

/// Returns whether a separator is one of classes rather than part of class names, such as `lion,
/// sea`: most parts of the labels with separators must occur in other labels too.
fn separates_lists(labels: &[Box<str>], separator: char) -> bool {
    let parts = |label: &str| label.split(separator).map(|part| part.trim().to_string()).collect::<HashSet<_>>();
    let mut count: HashMap<String, usize> = HashMap::new();
    labels.iter().flat_map(|label| parts(label)).for_each(|part| *count.entry(part).or_default() += 1);
    let composed = labels.iter().filter(|label| label.contains(separator));
    let composed: HashSet<String> = composed.flat_map(|label| parts(label)).collect();
    let shared = composed.iter().filter(|&part| count[part] > 1).count();
    2 * shared > composed.len()
}

/// Returns the classes in a label.
fn classes_in(label: &str, separator: Option<char>) -> Vec<String> {
    if let Some(inner) = label.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let json: Result<Vec<serde_json::Value>, _> = serde_json::from_str(label);
        return match json {
            Ok(values) => {
                values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), String::from)).collect()
            }
            // Python writes texts in single quotes.
            Err(_) => inner.split(',').map(|part| part.trim().trim_matches(['\'', '"']).to_string()).collect(),
        };
    }
    label.split(|c| c == LIST || Some(c) == separator).map(String::from).collect()
}

/// The classes of a data set, and the label of each code of its vocabulary.
pub(crate) struct Labels {
    /// Class names.
    pub classes: Vec<String>,
    /// The sets of classes of multi-label data.
    pub sets: Option<Arc<LabelSets>>,
    of_code: Vec<u32>,
    /// Label of images without a class, in multi-label data.
    none: Option<u32>,
}

impl Labels {
    /// Returns the labels of a vocabulary. If they are lists, the data are multi-label. `given` is
    /// the option `separator`; `listed` and `path` are those of [`Vocabulary::classes`].
    ///
    /// # Errors
    /// Those of [`separator_of`] and [`Vocabulary::classes`].
    pub fn new(
        vocabulary: &Vocabulary,
        given: Option<&str>,
        listed: Option<&(PathBuf, Vec<String>)>,
        path: &Path,
    ) -> Result<Self, DataError> {
        let Some(separator) = separator_of(vocabulary.texts(), given)? else {
            let (classes, of_code) = vocabulary.classes(listed, path)?;
            return Ok(Self { classes, sets: None, of_code, none: None });
        };
        let mut parts = vocabulary.of_parts();
        let lists: Vec<Vec<u32>> = vocabulary.texts().iter().map(|label| codes(label, separator, &mut parts)).collect();
        let (classes, labels) = parts.classes(listed, path)?;
        let lists = lists.into_iter().map(|list| list.iter().map(|&code| labels[code as usize] as usize).collect());
        let (sets, of_code) = LabelSets::new(lists.chain([Vec::new()]));
        let mut of_code: Vec<u32> = of_code.into_iter().map(|label| label as u32).collect();
        let none = of_code.pop();
        Ok(Self { classes, sets: Some(Arc::new(sets)), of_code, none })
    }

    /// Returns the label of a code, or of an image without one. In single-label data, these have
    /// none.
    pub fn label(&self, code: Option<u32>) -> Option<u32> {
        code.map_or(self.none, |code| Some(self.of_code[code as usize]))
    }
}

/// Returns the codes of the classes in a label.
fn codes(label: &str, separator: Option<char>, parts: &mut Vocabulary) -> Vec<u32> {
    classes_in(label, separator).iter().filter_map(|class| parts.code(class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn separator(labels: &[&str], given: Option<&str>) -> Option<Option<char>> {
        let labels: Vec<Box<str>> = labels.iter().map(|&label| label.into()).collect();
        separator_of(&labels, given).unwrap()
    }

    #[test]
    fn separators_are_detected() {
        assert_eq!(separator(&["cat", "dog", "cat|dog"], None), Some(Some('|')));
        assert_eq!(separator(&["cat|dog", "eel"], None), Some(Some('|')));
        assert_eq!(separator(&["cat;dog", "dog; cat", "cat"], None), Some(Some(';')));
        assert_eq!(separator(&["cat;wild", "dog"], None), None);
        assert_eq!(separator(&["cat;dog", "eel", "dog;eel"], None), Some(Some(';')));
        assert_eq!(separator(&["cat", "cat, dog", "dog"], None), Some(Some(',')));
        assert_eq!(separator(&["cat, dog", "dog, eel", "eel, cat"], None), Some(Some(',')));
        assert_eq!(separator(&["[\"a\"]", "[\"a\", \"b\"]", "[]"], None), Some(None));
        assert_eq!(separator(&["a", "a\u{1f}b"], None), Some(None));
        // Class names with commas, as in ImageNet.
        assert_eq!(separator(&["cat", "lion, sea", "dog"], None), None);
        assert_eq!(separator(&["lion, sea", "snake, sea", "sea"], None), None);
        assert_eq!(separator(&["cat", "dog|"], None), None);
    }

    #[test]
    fn option_overrides_the_detection() {
        assert_eq!(separator(&["cat|dog", "cat"], Some("none")), None);
        assert_eq!(separator(&["cat", "dog"], Some("/")), Some(Some('/')));
        let error = separator_of(&[], Some("||")).unwrap_err();
        assert!(error.to_string().contains("separator=||"), "{error}");
    }

    #[test]
    fn lists_become_sets_of_classes() {
        let mut vocabulary = Vocabulary::new(false);
        let codes = ["dog | cat", "['cat', 'eel']", "", "cat|dog", "[7]"].map(|label| vocabulary.code(label));
        let found = Labels::new(&vocabulary, None, None, Path::new("x")).unwrap();
        let sets = found.sets.as_ref().unwrap();
        assert_eq!(found.classes, ["7", "cat", "dog", "eel"]);
        let sets = codes.map(|code| sets.name(found.label(code).unwrap() as usize, &found.classes));
        assert_eq!(sets, ["cat|dog", "cat|eel", "", "cat|dog", "7"]);
        assert_eq!(found.label(codes[0]), found.label(codes[3]));

        let mut numbers = Vocabulary::new(false);
        let code = numbers.code("3|1");
        let found = Labels::new(&numbers, None, None, Path::new("x")).unwrap();
        let label = found.label(code).unwrap() as usize;
        assert_eq!((found.classes.len(), found.sets.unwrap().classes(label)), (4, &[1, 3][..]));
        let single = Labels::new(&numbers, Some("none"), None, Path::new("x")).unwrap();
        assert_eq!((single.classes, single.none), (vec!["3|1".to_string()], None));
    }
}
