//! Assembly of a data set from the splits found: assigns their roles, holds out validation images,
//! and compares classes.

use std::path::Path;
use std::sync::Arc;

use mbconv_files::text::enumerate;

use mbconv_image::seed::split_rng;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::options::OpenOptions;
use crate::source::{Source, class_counts};
use crate::split_names::Role;
use crate::stratify::stratified_sets;
use crate::subset::Subset;

/// Beginning of the note about held-out images of data without splits.
pub const NO_SPLITS: &str = "the data set has no splits";

/// The parts of a data set.
pub(crate) struct Assembly {
    pub form: Form,
    pub classes: Vec<String>,
    /// See [`DataSet::aliases`].
    pub aliases: Vec<Vec<String>>,
    /// At most one of each role.
    pub splits: Vec<(Role, Arc<dyn Source>)>,
    pub notes: Vec<String>,
}

impl Assembly {
    /// Assigns the splits, divides data without splits, and compares the classes of the splits.
    ///
    /// `path` is shown in messages.
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
            Some(whole) => notes.push(format!("ignored {} image(s) that belong to no split", whole.len())),
            None if divided => return Err(DataError::NoImagesIn { path: path.into() }),
            None => {}
        }
        let val_is_test = val.is_none() && test.is_some();
        if val_is_test {
            val = test.take();
            notes.push("the test split is used for validation".into());
        }
        if val.is_none() && !divided {
            notes.push(format!("no validation split in {}: neither val nor test exists", path.display()));
        }
        if train.is_none() {
            let of = if val_is_test { "test" } else { "val" };
            notes.push(format!("no training split in {}: the classes are those of {of}", path.display()));
        }
        for (name, split) in [("val", &val), ("test", &test)] {
            if let (Some(train), Some(split), false) = (&train, split, divided) {
                compare(&classes, ("train", &**train), (name, &**split), options, &mut notes)?;
            }
        }
        let nowhere: Vec<&str> = {
            let splits = [&train, &val, &test].into_iter().flatten();
            let counts: Vec<Vec<usize>> = splits.map(|split| class_counts(&**split, classes.len())).collect();
            let is_absent = |class: usize| counts.iter().all(|counts| counts[class] == 0);
            classes.iter().enumerate().filter(|(class, _)| is_absent(*class)).map(|(_, name)| name.as_str()).collect()
        };
        if !nowhere.is_empty() {
            notes.push(format!("no split has images of {}", enumerate(&nowhere)));
        }
        notes.extend(multi_label_note(&[&train, &val, &test], classes.len()));
        if let [class] = &classes[..] {
            notes.push(format!("the data set has a single class, {class}, so it cannot be used for training"));
        }
        Ok(DataSet { form, classes, aliases, divided, val_is_test, train, val, test, notes })
    }
}

/// Returns a note about the classes per image of multi-label data.
fn multi_label_note(splits: &[&Part], classes: usize) -> Option<String> {
    let splits: Vec<&Arc<dyn Source>> = splits.iter().filter_map(|split| split.as_ref()).collect();
    let sets = splits.first()?.label_sets()?;
    let (mut images, mut labels, mut without) = (0, 0, 0);
    for split in splits {
        for index in 0..split.len() {
            let count = sets.classes(split.label(index)).len();
            (images, labels, without) = (images + 1, labels + count, without + usize::from(count == 0));
        }
    }
    let mean = labels as f64 / images as f64;
    let without = if without == 0 { String::new() } else { format!(", {without} image(s) without a class") };
    Some(format!("the data are multi-label: {classes} classes, {mean:.2} per image on average{without}"))
}

type Part = Option<Arc<dyn Source>>;

/// Holds out validation images from data without splits.
fn divide(whole: Arc<dyn Source>, classes: usize, options: &OpenOptions, notes: &mut Vec<String>) -> (Part, Part) {
    let labels: Vec<usize> = (0..whole.len()).map(|index| whole.label(index)).collect();
    let (train, val) = match whole.label_sets() {
        None => stratified(&labels, classes, options),
        Some(sets) => stratified_sets(&labels, sets, classes, options),
    };
    if options.val_fraction > 0.0 {
        notes.push(format!(
            "{NO_SPLITS}: training holds out {} of {} images for validation, selected in each class by seed {}",
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

/// Compares the classes of the images in two splits.
fn compare(
    classes: &[String],
    (train_name, train): (&str, &dyn Source),
    (name, split): (&str, &dyn Source),
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<(), DataError> {
    let present = |source: &dyn Source| -> Vec<bool> {
        class_counts(source, classes.len()).into_iter().map(|count| count > 0).collect()
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
    // In multi-label data, images without a rare class are images of other classes.
    if !options.classes_may_differ && train.label_sets().is_none() {
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

/// Splits samples into training and validation by class. Returns the indices of both, ascending.
///
/// A class of two or more samples has at least one in each split (unless the fraction is 0).
pub(crate) fn stratified(labels: &[usize], classes: usize, options: &OpenOptions) -> (Vec<usize>, Vec<usize>) {
    use rand::seq::SliceRandom;

    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (class, mut members) in members.into_iter().enumerate() {
        let most = members.len().saturating_sub(1);
        let wanted = (members.len() as f64 * options.val_fraction).round() as usize;
        let held_out = if options.val_fraction > 0.0 { wanted.max(1).min(most) } else { 0 };
        members.shuffle(&mut split_rng(options.seed, class));
        val.extend_from_slice(&members[..held_out]);
        train.extend_from_slice(&members[held_out..]);
    }
    train.sort_unstable();
    val.sort_unstable();
    (train, val)
}
