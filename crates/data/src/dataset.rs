//! Open data sets.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error::DataError;
use crate::form::Form;
use crate::label_sets::LabelSets;
use crate::source::Source;
use crate::split_names::Role;
use crate::subset::Joined;

/// An open data set.
#[derive(Clone)]
pub struct DataSet {
    /// The form.
    pub form: Form,
    /// Class names; a label is an index into them, or into the
    /// [`label_sets`](Self::label_sets) of multi-label data.
    pub classes: Vec<String>,
    /// Other names of each class, used to match a model's classes; empty if there are none. For
    /// ImageNet, the WordNet IDs and the words of other lists.
    pub aliases: Vec<Vec<String>>,
    /// True if the data have no splits, so that `val` was held out by seed.
    pub divided: bool,
    /// True if `val` is the split named test, because there is no validation split.
    pub val_is_test: bool,
    /// Training split.
    pub train: Option<Arc<dyn Source>>,
    /// Validation split.
    pub val: Option<Arc<dyn Source>>,
    /// Test split, if there is a validation split too.
    pub test: Option<Arc<dyn Source>>,
    /// Notes for the user: skipped files, a test split used for validation, classes without
    /// validation images.
    pub notes: Vec<String>,
}

impl DataSet {
    /// Returns a split by name, in any usual spelling; `all` returns the images of all splits.
    /// `test` returns the validation split only if it is named `test` in the data.
    ///
    /// # Errors
    /// [`DataError::NoSplit`].
    pub fn split(&self, name: &str) -> Result<Arc<dyn Source>, DataError> {
        if name.eq_ignore_ascii_case(ALL) {
            let splits = self.splits().into_iter().map(|(_, split)| split.clone()).collect();
            return Ok(Arc::new(Joined::new(splits)));
        }
        let found = match Role::of_name(name) {
            Some(Role::Train) => &self.train,
            Some(Role::Val) => &self.val,
            Some(Role::Test) if self.val_is_test => &self.val,
            Some(Role::Test) => &self.test,
            _ => &None,
        };
        found.clone().ok_or_else(|| DataError::NoSplit {
            name: name.into(),
            available: self.splits().into_iter().map(|(name, _)| name.into()).chain([ALL.into()]).collect(),
        })
    }

    /// Returns the split to evaluate on, and its name: the requested one, or by default the
    /// validation split, the test split, or all images of data without splits.
    ///
    /// # Errors
    /// [`DataError::NoSplit`].
    pub fn select(&self, name: Option<&str>) -> Result<(&'static str, Arc<dyn Source>), DataError> {
        let splits = self.splits();
        let held_out = splits.iter().find(|(name, _)| *name != "train").filter(|_| !self.divided);
        let default = match held_out {
            Some((name, _)) => name,
            None if splits.len() == 1 && !self.divided => splits[0].0,
            None => ALL,
        };
        let source = self.split(name.unwrap_or(default))?;
        let found = splits.iter().find(|(_, split)| Arc::ptr_eq(split, &source));
        Ok((found.map_or(ALL, |(name, _)| *name), source))
    }

    /// Returns the existing splits with their names in the data.
    fn splits(&self) -> Vec<(&'static str, &Arc<dyn Source>)> {
        let val = if self.val_is_test { "test" } else { "val" };
        let splits = [("train", &self.train), (val, &self.val), ("test", &self.test)];
        splits.into_iter().filter_map(|(name, split)| Some((name, split.as_ref()?))).collect()
    }

    /// Returns the sets of classes that the labels of multi-label data refer to, or `None` for data
    /// with one class per image.
    pub fn label_sets(&self) -> Option<&Arc<LabelSets>> {
        self.splits().first().and_then(|(_, split)| split.label_sets())
    }

    /// Returns the name of a label's class, or those of its classes separated by `|`.
    pub fn label_name(&self, label: usize) -> Cow<'_, str> {
        match self.label_sets() {
            None => Cow::Borrowed(&self.classes[label]),
            Some(sets) => Cow::Owned(sets.name(label, &self.classes)),
        }
    }

    /// Checks that the data have one class per image, as `action` requires.
    ///
    /// # Errors
    /// [`DataError::MultiLabel`].
    pub fn check_single_label(&self, action: &'static str) -> Result<(), DataError> {
        if self.label_sets().is_some() { Err(DataError::MultiLabel { action }) } else { Ok(()) }
    }

    /// Checks that the training images have at least two classes.
    ///
    /// # Errors
    /// [`DataError::SingleClass`], [`DataError::NoSplit`].
    pub fn check_trainable(&self) -> Result<(), DataError> {
        let train = self.split("train")?;
        let images = train.len();
        let mut labels = (0..images).map(|index| train.label(index));
        match labels.next() {
            Some(first) if labels.all(|label| label == first) => {
                Err(DataError::SingleClass { class: self.label_name(first).into_owned(), images, form: self.form })
            }
            _ => Ok(()),
        }
    }
}

/// The name of all splits together.
const ALL: &str = "all";

impl fmt::Debug for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = |split: &Option<Arc<dyn Source>>| split.as_ref().map(|split| split.len());
        f.debug_struct("DataSet")
            .field("form", &self.form)
            .field("classes", &self.classes.len())
            .field("train", &len(&self.train))
            .field("val", &len(&self.val))
            .field("test", &len(&self.test))
            .field("notes", &self.notes)
            .finish()
    }
}
