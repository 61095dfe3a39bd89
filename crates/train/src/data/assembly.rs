//! From the splits that were found to a data set: which is for what, what is held out, and whether all have the same
//! classes.

use std::path::Path;
use std::sync::Arc;

use super::subset::Subset;
use super::{DataError, DataSet, Form, OpenOptions, Source, enumerate, stratified};

/// What a split is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Everything, to be divided; for training if another split is for validation.
    Whole,
    Train,
    Val,
    /// For validation if nothing else is.
    Test,
}

/// Names of splits, lower case, with what they are for.
const NAMES: [(&str, Role); 8] = [
    ("train", Role::Train),
    ("training", Role::Train),
    ("val", Role::Val),
    ("valid", Role::Val),
    ("validation", Role::Val),
    ("eval", Role::Val),
    ("test", Role::Test),
    ("testing", Role::Test),
];

impl Role {
    /// The role that a split's name tells.
    pub fn of_name(name: &str) -> Option<Role> {
        NAMES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim())).map(|(_, role)| role)
    }

    /// The role that a shard's path tells: by a word of its name, as in `imagenet-train-000.tar`, or by a folder's name.
    pub fn of_path(path: &Path) -> Role {
        let words = |name: &str| name.split(|c: char| !c.is_alphabetic()).find_map(Role::of_name);
        let name = path.file_stem().and_then(|name| name.to_str()).and_then(words);
        let folders =
            || path.ancestors().skip(1).filter_map(|folder| folder.file_name()?.to_str()).find_map(Role::of_name);
        name.or_else(folders).unwrap_or(Role::Whole)
    }

    /// The name by which messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Whole => "the whole",
            Role::Train => "train",
            Role::Val => "val",
            Role::Test => "test",
        }
    }
}

/// The parts of a data set.
pub(super) struct Assembly {
    pub form: Form,
    pub classes: Vec<String>,
    /// See [`DataSet::aliases`].
    pub aliases: Vec<Vec<String>>,
    /// At most one of each role.
    pub splits: Vec<(Role, Arc<dyn Source>)>,
    pub notes: Vec<String>,
}

impl Assembly {
    /// Gives every split its place, divides what is not split, and compares the splits' classes.
    ///
    /// `path` is named in messages.
    ///
    /// # Errors
    /// [`DataError::NoImagesIn`], [`DataError::ClassesDiffer`].
    pub fn finish(self, path: &Path, options: &OpenOptions) -> Result<DataSet, DataError> {
        let Assembly { form, classes, aliases, splits, mut notes } = self;
        let mut by_role: [Option<Arc<dyn Source>>; 4] = Default::default();
        for (role, source) in splits {
            if source.len() > 0 {
                by_role[role as usize] = Some(source);
            } else {
                notes.push(format!("{} of {} has no images", role.name(), path.display()));
            }
        }
        let [whole, mut train, mut val, mut test] = by_role;
        let divided = train.is_none() && val.is_none() && test.is_none();
        match whole {
            Some(whole) if divided => {
                (train, val) = divide(whole, classes.len(), options, &mut notes);
            }
            Some(whole) if train.is_none() => train = Some(whole),
            Some(whole) => notes.push(format!("passed over {} image(s) of no split", whole.len())),
            None if divided => return Err(DataError::NoImagesIn { path: path.into() }),
            None => {}
        }
        if val.is_none() && test.is_some() {
            val = test.take();
            notes.push("test is the validation split".into());
        }
        if val.is_none() && !divided {
            notes.push(format!("no validation split in {}: it has neither val nor test", path.display()));
        }
        if train.is_none() {
            notes.push(format!("no training split in {}: classes are those of val", path.display()));
        }
        for (name, split) in [("val", &val), ("test", &test)] {
            if let (Some(train), Some(split), false) = (&train, split, divided) {
                compare(&classes, ("train", &**train), (name, &**split), options, &mut notes)?;
            }
        }
        let nowhere: Vec<&str> = {
            let mut seen = vec![false; classes.len()];
            for split in [&train, &val, &test].into_iter().flatten() {
                (0..split.len()).for_each(|index| seen[split.label(index)] = true);
            }
            classes.iter().zip(seen).filter(|(_, seen)| !seen).map(|(class, _)| class.as_str()).collect()
        };
        if !nowhere.is_empty() {
            notes.push(format!("no images at all of {}", enumerate(&nowhere)));
        }
        Ok(DataSet { form, classes, aliases, train, val, test, notes })
    }
}

type Part = Option<Arc<dyn Source>>;

fn divide(whole: Arc<dyn Source>, classes: usize, options: &OpenOptions, notes: &mut Vec<String>) -> (Part, Part) {
    let labels: Vec<usize> = (0..whole.len()).map(|index| whole.label(index)).collect();
    let (train, val) = stratified(&labels, classes, options);
    if options.val_fraction > 0.0 {
        notes.push(format!(
            "it comes without splits: {} of {} images are held out for validation, chosen in each class by seed {}",
            val.len(),
            labels.len(),
            options.seed
        ));
    }
    let part = |members: Vec<usize>| -> Part {
        (!members.is_empty()).then(|| Arc::new(Subset::new(whole.clone(), members)) as Arc<dyn Source>)
    };
    (part(train), part(val))
}

/// Compares the classes that occur in two splits.
fn compare(
    classes: &[String],
    (train_name, train): (&str, &dyn Source),
    (name, split): (&str, &dyn Source),
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<(), DataError> {
    let present = |source: &dyn Source| {
        let mut present = vec![false; classes.len()];
        (0..source.len()).for_each(|index| present[source.label(index)] = true);
        present
    };
    let (in_train, in_split) = (present(train), present(split));
    let only = |one: &[bool], other: &[bool]| -> Vec<String> {
        let all = classes.iter().enumerate().filter(|(class, _)| one[*class] && !other[*class]);
        all.map(|(_, class)| class.clone()).collect()
    };
    let (missing, unknown) = (only(&in_train, &in_split), only(&in_split, &in_train));
    if missing.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    if !options.classes_may_differ {
        let (split, train) = (name.into(), train_name.into());
        return Err(DataError::ClassesDiffer { split, train, missing, unknown });
    }
    for (name, lacking) in [(name, missing), (train_name, unknown)] {
        if !lacking.is_empty() {
            let lacking: Vec<&str> = lacking.iter().map(String::as_str).collect();
            notes.push(format!("{name} has no images of {}", enumerate(&lacking)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_names() {
        let role = |path: &str| Role::of_path(Path::new(path));
        assert_eq!(role("imagenet-train-{000..146}.tar"), Role::Train);
        assert_eq!(role("imagenet1k-validation-00.tar"), Role::Val);
        assert_eq!(role("data/test-00000-of-00001.parquet"), Role::Test);
        assert_eq!(role("default/train/0000.parquet"), Role::Train);
        assert_eq!(role("VAL_1.tar"), Role::Val);
        // A word, not a part of one.
        assert_eq!(role("trains-0.tar"), Role::Whole);
        assert_eq!(role("contest/valley.tar"), Role::Whole);
    }
}
