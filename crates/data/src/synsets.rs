//! Names of ImageNet's classes, which are WordNet IDs.

use std::collections::HashMap;
use std::path::Path;

use mbconv_image::IMAGENET_CLASSES;

use crate::error::DataError;
use crate::text::read_text;

/// The WordNet IDs of the 1000 classes of ILSVRC2012 in label order, which is sorted order.
const IDS: &str = include_str!("wordnet_ids.txt");

/// Number of classes of ILSVRC2012.
pub(crate) const KNOWN: usize = 1000;

/// Returns the WordNet IDs of the 1000 classes in label order.
pub(crate) fn known() -> Vec<String> {
    IDS.lines().map(String::from).collect()
}

/// Files that list the words of each WordNet ID.
const FILES: [&str; 6] = [
    "LOC_synset_mapping.txt",
    "synset_words.txt",
    "synset_mapping.txt",
    "synsets.txt",
    "imagenet_synsets.txt",
    "words.txt",
];

/// Returns whether a text is a WordNet ID: `n` and eight digits.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses lines of a WordNet ID and its words. Returns `None` if any line has another form.
pub(crate) fn parse_synsets(lines: &[&str]) -> Option<Vec<(String, String)>> {
    let parse = |line: &&str| {
        let (id, words) = line.trim().split_once([' ', '\t', ',']).unwrap_or((line.trim(), ""));
        is_id(id).then(|| (id.to_string(), words.trim().to_string()))
    };
    lines.iter().map(parse).collect()
}

/// Returns a unique class name per synset: the first word, or all words if the first is not unique,
/// or words and ID if those are not unique either.
pub(crate) fn class_names(synsets: Vec<(String, String)>) -> Vec<String> {
    let first = |words: &str| words.split(',').next().unwrap_or_default().trim().to_string();
    let mut count: HashMap<String, usize> = HashMap::new();
    for (_, words) in &synsets {
        *count.entry(first(words)).or_default() += 1;
        if first(words) != *words {
            *count.entry(words.clone()).or_default() += 1;
        }
    }
    let name = |(id, words): (String, String)| match () {
        () if words.is_empty() => id,
        () if count[&first(&words)] == 1 => first(&words),
        () if count[&words] == 1 => words,
        () => format!("{words} ({id})"),
    };
    unique(synsets.into_iter().map(name).collect())
}

/// Names classes whose folders are WordNet IDs. Names come from a list in one of the `near` folders
/// or, for the 1000 classes of ILSVRC2012, are the usual ones. Also returns the aliases of each
/// class. Other classes keep their names.
///
/// # Errors
/// A list that cannot be read or parsed.
pub(crate) fn named(folders: Vec<String>, near: &[&Path]) -> Result<(Vec<String>, Vec<Vec<String>>), DataError> {
    if folders.is_empty() || !folders.iter().all(|folder| is_id(folder)) {
        return Ok((folders, Vec::new()));
    }
    let known: HashMap<&str, &str> = IDS.lines().zip(IMAGENET_CLASSES.lines()).collect();
    let listed = near.iter().flat_map(|near| FILES.map(|file| near.join(file))).find(|path| path.is_file());
    let mut words: HashMap<String, String> = HashMap::new();
    if let Some(path) = listed {
        let text = read_text(&path)?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let Some(synsets) = parse_synsets(&lines) else {
            let why = "its lines must be WordNet IDs with their words, such as `n01440764 tench`".into();
            return Err(DataError::Malformed { path, why });
        };
        words.extend(synsets.into_iter().filter(|(_, words)| !words.is_empty()));
    }
    let synsets = folders.iter().map(|id| {
        let found = words.get(id).map(String::as_str).or_else(|| known.get(&**id).copied());
        (id.clone(), found.unwrap_or_default().to_string())
    });
    let synsets: Vec<(String, String)> = synsets.collect();
    let aliases = synsets.iter().map(|(id, words)| {
        let known = known.get(&**id).map(|name| name.to_string());
        let words = Some(words.clone()).filter(|words| !words.is_empty());
        [Some(id.clone()), known, words].into_iter().flatten().collect()
    });
    let aliases = aliases.collect();
    Ok((class_names(synsets), aliases))
}

/// Makes equal names unique by appending their indices.
pub(crate) fn unique(mut names: Vec<String>) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    names.iter().for_each(|name| *seen.entry(name.clone()).or_default() += 1);
    for (label, name) in names.iter_mut().enumerate() {
        if seen[name] > 1 {
            *name = format!("{name} ({label})");
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_classes_have_unique_names() {
        let ids: Vec<&str> = IDS.lines().collect();
        assert_eq!((ids.len(), ids.is_sorted(), ids[0]), (1000, true, "n01440764"));
        assert!(ids.iter().all(|id| is_id(id)));
        let all = ids.iter().map(|id| id.to_string()).collect();
        let (names, aliases) = named(all, &[]).unwrap();
        assert_eq!(names, IMAGENET_CLASSES.lines().collect::<Vec<_>>());
        assert_eq!((names[0].as_str(), aliases[0][0].as_str()), ("tench", "n01440764"));
    }

    #[test]
    fn equal_words_are_distinguished_by_id() {
        let synsets = [("n02012849", "crane"), ("n03126707", "crane"), ("n1", "maillot"), ("n2", "maillot, tank suit")];
        let names = class_names(synsets.map(|(id, words)| (id.into(), words.into())).to_vec());
        assert_eq!(names, ["crane (n02012849)", "crane (n03126707)", "maillot (n1)", "maillot, tank suit"]);
    }

    #[test]
    fn other_folders_keep_their_names() {
        let (names, aliases) = named(vec!["cat".into(), "n01440764".into()], &[]).unwrap();
        assert_eq!((names.len(), names[1].as_str(), aliases.len()), (2, "n01440764", 0));
    }
}
