//! Names of splits in folders, files and tables.

use std::path::Path;

/// The role of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// All images, to be divided; the training split if there is another split for validation.
    Whole,
    Train,
    Val,
    /// The validation split if there is no other.
    Test,
}

/// Words that name a split, in lower case, and the split's role.
const NAMES: [(&str, Role); 19] = [
    ("train", Role::Train),
    ("training", Role::Train),
    ("trn", Role::Train),
    ("trainval", Role::Train),
    ("val", Role::Val),
    ("valid", Role::Val),
    ("validation", Role::Val),
    ("validate", Role::Val),
    ("validating", Role::Val),
    ("dev", Role::Val),
    ("devel", Role::Val),
    ("development", Role::Val),
    ("eval", Role::Val),
    ("evaluation", Role::Val),
    // Kaggle's names for the two held-out parts, as in FER2013.
    ("publictest", Role::Val),
    ("privatetest", Role::Test),
    ("test", Role::Test),
    ("testing", Role::Test),
    ("tst", Role::Test),
];

/// Words that may accompany a split name, as in `train_images`, `seg_train` or `TestSet`.
const FILLERS: [&str; 24] = [
    "set",
    "sets",
    "data",
    "dataset",
    "datasets",
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "pictures",
    "photo",
    "photos",
    "folder",
    "split",
    "splits",
    "subset",
    "partition",
    "seg",
    "sample",
    "samples",
    "jpg",
    "jpeg",
    "png",
];

/// Words for copies and parts of a data set, which are not class names.
const CONTAINERS: [&str; 33] = [
    "example",
    "examples",
    "original",
    "originals",
    "orig",
    "raw",
    "augmented",
    "augmentation",
    "aug",
    "processed",
    "preprocessed",
    "resized",
    "cropped",
    "copy",
    "copies",
    "backup",
    "old",
    "new",
    "full",
    "small",
    "mini",
    "part",
    "fold",
    "version",
    "demo",
    "extra",
    "main",
    "all",
    "segmented",
    "color",
    "colour",
    "grayscale",
    "greyscale",
];

/// Returns whether a folder is named like a data set or a copy of one: `Dataset`, `Examples`,
/// `fold_1`.
pub(crate) fn is_container(name: &str) -> bool {
    let words = words(name);
    !words.is_empty() && words.iter().all(|word| [&FILLERS[..], &CONTAINERS[..]].concat().contains(&word.as_str()))
}

/// Returns the role of a lowercase word: a split name, possibly with a filler, as in `trainset`.
fn role_of_word(word: &str) -> Option<Role> {
    let named = |word: &str| NAMES.into_iter().find(|(known, _)| *known == word).map(|(_, role)| role);
    named(word).or_else(|| FILLERS.iter().find_map(|filler| named(word.strip_suffix(filler)?)))
}

/// Splits a name into lowercase words: `trainImages-2017` into `train` and `images`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().expect("one word at least").extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

impl Role {
    /// Returns the role of a split name in any case and spelling: `train`, `Training`, `seg_train`,
    /// `TEST_SET`, `val2017`. Names with further words, such as `train_station`, have none.
    pub fn of_name(name: &str) -> Option<Role> {
        Role::of_part(name).filter(|(_, rest)| rest.is_empty()).map(|(role, _)| role)
    }

    /// Returns the role of a name with exactly one word for a split, and its other words:
    /// `(Train, "flowers")` for `flowers_train`.
    pub fn of_part(name: &str) -> Option<(Role, String)> {
        let words = words(name);
        if let Some(role) = role_of_word(&words.concat()) {
            return Some((role, String::new()));
        }
        let mut found = None;
        let mut rest = Vec::new();
        for word in words {
            match role_of_word(&word) {
                Some(_) if found.is_some() => return None,
                Some(role) => found = Some(role),
                None if FILLERS.contains(&word.as_str()) => {}
                None => rest.push(word),
            }
        }
        Some((found?, rest.join(" ")))
    }

    /// Returns the role of a shard from a word of its file name, as in `imagenet-train-000.tar`, or
    /// from a folder name.
    pub fn of_path(path: &Path) -> Role {
        let by_word = |name: &str| words(name).iter().find_map(|word| role_of_word(word));
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(by_word);
        let folders =
            || path.ancestors().skip(1).filter_map(|folder| folder.file_name()?.to_str()).find_map(Role::of_name);
        name.or_else(folders).unwrap_or(Role::Whole)
    }

    /// Returns the name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Whole => "the whole",
            Role::Train => "train",
            Role::Val => "val",
            Role::Test => "test",
        }
    }
}

/// Returns whether a folder is named like a split.
pub(crate) fn is_split_name(name: &str) -> bool {
    Role::of_name(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_derived_from_paths() {
        let role = |path: &str| Role::of_path(Path::new(path));
        assert_eq!(role("imagenet-train-{000..146}.tar"), Role::Train);
        assert_eq!(role("imagenet1k-validation-00.tar"), Role::Val);
        assert_eq!(role("data/test-00000-of-00001.parquet"), Role::Test);
        assert_eq!(role("default/train/0000.parquet"), Role::Train);
        assert_eq!(role("VAL_1.tar"), Role::Val);
        // Whole words only.
        assert_eq!(role("trains-0.tar"), Role::Whole);
        assert_eq!(role("contest/valley.tar"), Role::Whole);
    }

    #[test]
    fn split_names_are_recognized_in_all_usual_spellings() {
        let names = [
            (
                Role::Train,
                "train Train TRAIN training Training trainset TrainSet train_set training_set seg_train train_images \
                 Train-Images training-data train2017 train_2 images_train trainImages trainval trn",
            ),
            (
                Role::Val,
                "val Val valid validation Validation valset val_images val2017 validation_set seg_val dev DEV devset eval \
                 evaluation PublicTest",
            ),
            (Role::Test, "test Test TEST testing Testing testset test_set seg_test test1 TestImages PrivateTest"),
        ];
        for (role, names) in names {
            for name in names.split_whitespace() {
                assert_eq!(Role::of_name(name), Some(role), "{name}");
            }
        }
        assert_eq!(Role::of_name(" test set "), Some(Role::Test));
        for name in
            "trains train_station crash-test testament valley devil device seg_pred data images evil 1 _".split(' ')
        {
            assert_eq!(Role::of_name(name), None, "{name}");
        }
        assert_eq!(Role::of_name(""), None);
        assert_eq!(Role::of_name("train_test"), None);
        assert_eq!(Role::of_part("flowers_train"), Some((Role::Train, "flowers".into())));
    }
}
