//! Layout of image folders: wrapping folders, split folders, class folders. The same rules apply to
//! folders on disk and in archives.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use mbconv_files::text::enumerate;

use crate::error::DataError;
use crate::split_names::{Role, is_container};

/// Maximum number of sibling folders that are checked for wrappers and copies; more folders are
/// assumed to be classes.
const EXAMINED: usize = 16;

/// Levels of subfolders searched for images.
const DEPTH: usize = 6;

/// Folders below a folder in which images are searched for.
const SEARCHED: usize = 1000;

/// A tree of folders with images. Paths are relative to its root.
pub(crate) trait Folders {
    /// Returns the names of the folders directly in a folder, sorted.
    fn folders(&self, at: &Path) -> Result<Vec<OsString>, DataError>;
    /// Returns whether there are images directly in a folder.
    fn has_images(&self, at: &Path) -> Result<bool, DataError>;
}

/// The folders of a data set that contain class folders.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The folder that contains the splits or classes, relative to the root; empty for the root.
    pub base: PathBuf,
    /// One folder of role `Whole`, or one per split in the order of roles.
    pub parts: Vec<(Role, PathBuf)>,
    pub notes: Vec<String>,
}

impl Layout {
    /// Finds the layout of the image folders in `tree`. `path` is its root, used in messages.
    ///
    /// # Errors
    /// [`DataError::NoClasses`] for a split without class folders,
    /// [`DataError::SeveralForSplit`], [`DataError::SeveralSets`], [`DataError::Nested`], and read
    /// errors.
    pub fn find(tree: &dyn Folders, path: &Path) -> Result<Layout, DataError> {
        let finder = Finder { tree, path };
        let mut notes = Vec::new();
        let mut base = PathBuf::new();
        let parts = loop {
            let folders = tree.folders(&base)?;
            if let Some(splits) = finder.splits(&base, &folders, &mut notes)? {
                break finder.unwrapped(splits, &mut notes)?;
            }
            match finder.wrapped(&base, &folders, &mut notes)? {
                Some(inner) => base = inner,
                None => break vec![(Role::Whole, base.clone())],
            }
        };
        if !base.as_os_str().is_empty() {
            notes.push(format!("the data set is in the folder {}", finder.shown(&base)));
        }
        for (_, part) in &parts {
            finder.check_nested_folders(part, &mut notes)?;
        }
        Ok(Layout { base, parts, notes })
    }
}

struct Finder<'a> {
    tree: &'a dyn Folders,
    path: &'a Path,
}

/// Returns the path of a folder below `root`, which may be `root` itself.
pub(crate) fn below(root: &Path, at: &Path) -> PathBuf {
    if at.as_os_str().is_empty() { root.to_path_buf() } else { root.join(at) }
}

impl Finder<'_> {
    /// Returns the path of a folder for messages.
    fn shown(&self, at: &Path) -> String {
        below(self.path, at).display().to_string()
    }

    /// Returns the split folders among `folders`, if the folder `at` is divided into splits.
    fn splits(
        &self,
        at: &Path,
        folders: &[OsString],
        notes: &mut Vec<String>,
    ) -> Result<Option<Vec<(Role, PathBuf)>>, DataError> {
        let mut named = named_splits(folders);
        let (mut deep, mut flat) = (Vec::new(), Vec::new());
        named.sort();
        for (role, name) in &named {
            let folder = at.join(name);
            let list = if self.tree.folders(&folder)?.is_empty() { &mut flat } else { &mut deep };
            list.push((*role, folder));
        }
        let others: Vec<&OsString> = folders.iter().filter(|name| !named.iter().any(|(_, n)| n == name)).collect();
        // A single folder with such a name may be one of several classes.
        let trains = deep.iter().any(|(role, _)| *role == Role::Train);
        let single = named.iter().all(|(role, _)| *role == named[0].0);
        let classes = named.is_empty() || (!trains && single && !others.is_empty());
        if classes {
            return Ok(None);
        }
        // Test images often have no labels; images of other splits must have labels.
        if let Some((_, folder)) = flat.iter().find(|(role, _)| *role != Role::Test || deep.is_empty()) {
            return Err(DataError::NoClasses { path: self.path.join(folder) });
        }
        for (_, folder) in &flat {
            if self.tree.has_images(folder)? {
                notes.push(format!(
                    "ignored {}: its images have no labels, because they are not in class folders",
                    self.shown(folder)
                ));
            }
        }
        if let Some(pair) = deep.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let folders = pair.iter().map(|(_, folder)| shown(folder.file_name())).collect();
            return Err(DataError::SeveralForSplit { path: below(self.path, at), split: pair[0].0.name(), folders });
        }
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|name| shown(Some(name))).collect();
            notes.push(format!("ignored folders that are not splits: {}", listed(&others)));
        }
        Ok(Some(deep))
    }

    /// Replaces split folders that only wrap another folder of classes, as in
    /// `seg_train/seg_train/cat`.
    fn unwrapped(
        &self,
        splits: Vec<(Role, PathBuf)>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(Role, PathBuf)>, DataError> {
        let mut classes = BTreeSet::new();
        let mut inner = Vec::new();
        for (_, folder) in &splits {
            let folders = self.tree.folders(folder)?;
            inner.push(self.wrapped(folder, &folders, notes)?);
            if inner.last().is_some_and(Option::is_none) {
                classes.extend(folders);
            }
        }
        let mut parts = Vec::new();
        for ((role, mut folder), inner) in splits.into_iter().zip(inner) {
            // Keep the only class folder of this split if another split has the same class.
            let mut next = inner.filter(|inner| inner.file_name().is_none_or(|name| !classes.contains(name)));
            while let Some(inner) = next {
                next = self.wrapped(&inner, &self.tree.folders(&inner)?, notes)?;
                folder = inner;
            }
            parts.push((role, folder));
        }
        Ok(parts)
    }

    /// Returns the only folder in `at` that contains images, if its subfolders are the classes.
    fn wrapped(&self, at: &Path, folders: &[OsString], notes: &mut Vec<String>) -> Result<Option<PathBuf>, DataError> {
        if folders.len() > EXAMINED {
            return Ok(None);
        }
        let (mut full, mut empty) = (Vec::new(), Vec::new());
        for name in folders {
            let list = if self.has_images_below(&at.join(name), DEPTH)? { &mut full } else { &mut empty };
            list.push(name);
            if full.len() > 1 {
                return Ok(None);
            }
        }
        let [wrapper] = full[..] else { return Ok(None) };
        let wrapper = at.join(wrapper);
        if self.tree.has_images(&wrapper)? && (folders.len() > 1 || !self.has_class_folders(&wrapper)?) {
            return Ok(None);
        }
        if self.tree.has_images(at)? {
            notes.push(format!("ignored images directly in {}", self.shown(at)));
        }
        if !empty.is_empty() {
            let names: Vec<String> = empty.iter().map(|name| shown(Some(name))).collect();
            notes.push(format!("ignored folders without images: {}", listed(&names)));
        }
        Ok(Some(wrapper))
    }

    /// Returns whether a folder with images of its own also seems to contain class folders: several
    /// of them, or a further folder around them.
    fn has_class_folders(&self, at: &Path) -> Result<bool, DataError> {
        let mut full = 0;
        for name in self.tree.folders(at)?.iter().take(EXAMINED) {
            let folder = at.join(name);
            if self.has_images_below(&folder, DEPTH)? {
                full += 1;
                if full > 1 || !self.tree.has_images(&folder)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns whether a folder or its subfolders contain images.
    fn has_images_below(&self, at: &Path, depth: usize) -> Result<bool, DataError> {
        let mut next = vec![(at.to_path_buf(), depth)];
        // Folders that link to each other have endless subfolders.
        for _ in 0..SEARCHED {
            let Some((folder, depth)) = next.pop() else { return Ok(false) };
            if self.tree.has_images(&folder)? {
                return Ok(true);
            }
            if depth > 0 {
                let folders = self.tree.folders(&folder)?.into_iter().rev();
                next.extend(folders.map(|name| (folder.join(name), depth - 1)));
            }
        }
        Ok(false)
    }

    /// Checks class folders that contain folders themselves. They may be several data sets, or not
    /// belong to the data set.
    fn check_nested_folders(&self, at: &Path, notes: &mut Vec<String>) -> Result<(), DataError> {
        let folders = self.tree.folders(at)?;
        if !(2..=EXAMINED).contains(&folders.len()) {
            return Ok(());
        }
        let mut deep: Vec<(String, BTreeSet<OsString>)> = Vec::new();
        for name in &folders {
            let folder = at.join(name);
            if self.tree.has_images(&folder)? {
                continue;
            }
            let inner = self.tree.folders(&folder)?;
            let splits = named_splits(&inner);
            let mut divided = false;
            for (_, split) in &splits {
                divided |= !self.tree.folders(&folder.join(split))?.is_empty();
            }
            if divided && splits.iter().any(|(role, _)| *role == Role::Train) {
                let splits = splits.iter().map(|(_, name)| shown(Some(name))).collect();
                return Err(DataError::Nested { path: below(self.path, at), folder: shown(Some(name)), splits });
            }
            if !inner.is_empty() {
                deep.push((shown(Some(name)), inner.into_iter().collect()));
            }
        }
        let same = with_same_subfolders(&deep);
        if same.len() > 1 {
            let folders: Vec<String> = same.iter().map(|&index| deep[index].0.clone()).collect();
            let shared: Vec<String> = deep[same[0]].1.iter().map(|name| shown(Some(name))).collect();
            if folders.iter().any(|name| is_container(name)) {
                return Err(DataError::SeveralSets { path: below(self.path, at), folders, classes: shared });
            }
            let (names, inner) = (listed(&folders), listed(&shared));
            notes.push(match shared.iter().all(|name| Role::of_name(name).is_some()) {
                true => format!(
                    "{names} are used as classes; the folders {inner} inside them are not used as splits, which must be above \
                     the classes, as in train/{}",
                    folders[0]
                ),
                false => format!(
                    "{names} are used as classes, but all contain the folders {inner}: if these are the classes, use {}",
                    self.shown(&at.join(&folders[0]))
                ),
            });
        } else if let Some((name, inner)) = deep.first() {
            let inner: Vec<String> = inner.iter().map(|name| shown(Some(name))).collect();
            notes.push(format!("the images of class {name} are in its folders {}", listed(&inner)));
        }
        Ok(())
    }
}

/// Returns the folders named like splits: `train` and `test`, or `flowers_train` and
/// `flowers_test`.
fn named_splits(folders: &[OsString]) -> Vec<(Role, &OsString)> {
    let mut by_rest: BTreeMap<String, Vec<(Role, &OsString)>> = BTreeMap::new();
    for name in folders {
        if let Some((role, rest)) = name.to_str().and_then(Role::of_part) {
            by_rest.entry(rest).or_default().push((role, name));
        }
    }
    if let Some(plain) = by_rest.remove("") {
        return plain;
    }
    let whole = |splits: &Vec<(Role, &OsString)>| {
        let has = |wanted: Role| splits.iter().any(|(role, _)| *role == wanted);
        has(Role::Train) && (has(Role::Val) || has(Role::Test))
    };
    by_rest.into_values().find(whole).unwrap_or_default()
}

/// Returns the first group of folders with the same subfolders: at least two in common, and at
/// least half of those of the smaller folder.
fn with_same_subfolders(deep: &[(String, BTreeSet<OsString>)]) -> Vec<usize> {
    let alike = |a: &BTreeSet<OsString>, b: &BTreeSet<OsString>| {
        let shared = a.intersection(b).count();
        shared >= 2 && 2 * shared >= a.len().min(b.len())
    };
    let group = |first: usize| -> Vec<usize> {
        (0..deep.len()).filter(|&other| other == first || alike(&deep[first].1, &deep[other].1)).collect()
    };
    (0..deep.len()).map(group).find(|group| group.len() > 1).unwrap_or_default()
}

/// Returns a folder name for messages.
fn shown(name: Option<&OsStr>) -> String {
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Joins names for a message.
fn listed(names: &[String]) -> String {
    enumerate(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The folder tree of an archive, built from the paths of its images.
#[derive(Default)]
pub(crate) struct Paths {
    /// Subfolders of every folder, and whether it contains images.
    folders: BTreeMap<PathBuf, (BTreeSet<OsString>, bool)>,
}

impl Paths {
    /// Adds an image by the components of its path, including its name.
    pub fn add(&mut self, parts: &[&str]) {
        let Some((_, folders)) = parts.split_last() else { return };
        let mut at: PathBuf = folders.iter().collect();
        if let Some((_, images)) = self.folders.get_mut(&at) {
            *images = true;
            return;
        }
        self.folders.entry(at.clone()).or_default().1 = true;
        while let Some(name) = at.file_name().map(OsStr::to_os_string) {
            at.pop();
            let (inner, _) = self.folders.entry(at.clone()).or_default();
            inner.insert(name);
        }
    }
}

impl Folders for Paths {
    fn folders(&self, at: &Path) -> Result<Vec<OsString>, DataError> {
        Ok(self.folders.get(at).map(|(folders, _)| folders.iter().cloned().collect()).unwrap_or_default())
    }

    fn has_images(&self, at: &Path) -> Result<bool, DataError> {
        Ok(self.folders.get(at).is_some_and(|(_, images)| *images))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(images: &[&str]) -> Result<Layout, DataError> {
        let mut paths = Paths::default();
        images.iter().for_each(|image| paths.add(&image.split('/').collect::<Vec<_>>()));
        Layout::find(&paths, Path::new("set"))
    }

    /// Returns the parts of the layout as `role folder`.
    fn parts(images: &[&str]) -> Vec<String> {
        let layout = find(images).unwrap();
        layout.parts.iter().map(|(role, folder)| format!("{} {}", role.name(), folder.display())).collect()
    }

    /// Sixteen folders without images in every folder, as folders that link to each other are.
    #[derive(Default)]
    struct Endless {
        read: std::cell::Cell<usize>,
    }

    impl Folders for Endless {
        fn folders(&self, _: &Path) -> Result<Vec<OsString>, DataError> {
            self.read.set(self.read.get() + 1);
            Ok((0..16).map(|number| number.to_string().into()).collect())
        }

        fn has_images(&self, _: &Path) -> Result<bool, DataError> {
            Ok(false)
        }
    }

    #[test]
    fn the_search_ends_in_folders_that_link_to_each_other() {
        let tree = Endless::default();
        assert_eq!(Layout::find(&tree, Path::new("set")).unwrap().parts, [(Role::Whole, PathBuf::new())]);
        assert!(tree.read.get() < 20 * SEARCHED, "{}", tree.read.get());
    }

    #[test]
    fn splits_are_found_in_wrapping_folders() {
        assert_eq!(parts(&["Training/a/1.jpg", "Testing/a/1.jpg"]), ["train Training", "test Testing"]);
        assert_eq!(parts(&["x/y/z/train/a/1.jpg", "x/y/z/Val/a/1.jpg"]), ["train x/y/z/train", "val x/y/z/Val"]);
        assert_eq!(
            parts(&["seg_train/seg_train/a/1.jpg", "seg_train/seg_train/b/1.jpg", "seg_test/seg_test/a/1.jpg"]),
            ["train seg_train/seg_train", "test seg_test/seg_test"]
        );
        assert_eq!(parts(&["f_train/a/1.jpg", "f_valid/a/1.jpg", "f_x/a/1.jpg"]), ["train f_train", "val f_valid"]);
        assert_eq!(parts(&["x/a/1.jpg", "x/b/1.jpg", "banner.jpg"]), ["the whole x"]);
        assert_eq!(parts(&["x/a/1.jpg", "x/b/1.jpg", "x/banner.jpg"]), ["the whole x"]);
        assert_eq!(parts(&["x/y/a/1.jpg", "x/y/b/1.jpg", "x/banner.jpg"]), ["the whole x/y"]);
        // A class, not a wrapping folder.
        assert_eq!(parts(&["a/1.jpg"]), ["the whole "]);
        assert_eq!(parts(&["a/1.jpg", "a/more/2.jpg"]), ["the whole "]);
        assert_eq!(parts(&["train/a/n/1.jpg", "train/b/1.jpg", "val/a/n/1.jpg"]), ["train train", "val val"]);
    }

    #[test]
    fn folders_named_like_splits_may_be_classes() {
        assert_eq!(parts(&["train/1.jpg", "car/1.jpg"]), ["the whole "]);
        assert_eq!(parts(&["test/a/1.jpg", "car/1.jpg"]), ["the whole "]);
        assert_eq!(parts(&["test/a/1.jpg"]), ["test test"]);
        assert_eq!(parts(&["test/a/1.jpg", "valid/a/1.jpg", "figures/1.jpg"]), ["val valid", "test test"]);
        for images in
            [&["train/1.jpg", "test/1.jpg"][..], &["train/1.jpg", "test/1.jpg", "car/1.jpg"], &["train/1.jpg"]]
        {
            assert!(matches!(find(images), Err(DataError::NoClasses { .. })), "{images:?}");
        }
        assert!(matches!(find(&["train/a/1.jpg", "val/1.jpg"]), Err(DataError::NoClasses { .. })));
    }

    #[test]
    fn unlabeled_and_unrelated_folders_are_skipped_with_a_note() {
        let layout = find(&["train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "seg_pred/1.jpg"]).unwrap();
        assert_eq!(layout.parts, [(Role::Train, "train".into())]);
        assert!(layout.notes[0].contains("set/test") && layout.notes[1].contains("seg_pred"), "{:?}", layout.notes);
    }

    #[test]
    fn several_folders_for_one_split_are_an_error() {
        let error = find(&["train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg"]).unwrap_err();
        assert!(error.to_string().contains("val, validation"), "{error}");
    }

    #[test]
    fn several_data_sets_in_one_folder_are_an_error_or_noted() {
        let two = |one: &str, other: &str| {
            let image = |set: &str, class: &str| format!("{set}/{class}/1.jpg");
            let images = [image(one, "a"), image(one, "b"), image(other, "a"), image(other, "b"), image(other, "c")];
            find(&images.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for (one, other) in [("Dataset", "Examples"), ("color", "segmented"), ("fold_1", "fold_2")] {
            let error = two(one, other).unwrap_err();
            assert!(error.to_string().contains(one) && error.to_string().contains(other), "{error}");
            assert!(error.hint().unwrap().contains(&format!("set/{one}")), "{:?}", error.hint());
        }
        let layout = two("tomato", "potato").unwrap();
        assert_eq!(layout.parts, [(Role::Whole, "".into())]);
        assert!(layout.notes[0].contains("potato, tomato"), "{:?}", layout.notes);

        let error = find(&["data/train/a/1.jpg", "data/val/a/1.jpg", "figures/1.jpg"]).unwrap_err();
        assert!(error.hint().unwrap().contains("set/data"), "{:?}", error.hint());
    }
}
