//! The folders of a data set, used to distinguish its own files from those reached through links
//! and tables.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::options::{TableOptions, path_of};
use crate::pattern;

/// The folders of a data set, with all links resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent(Vec<PathBuf>);

impl Extent {
    /// Returns the folders of the data set named `data`: the folder itself, or those of its files,
    /// and the folder in `?images=`.
    pub fn of(data: &str) -> Self {
        let path = path_of(data);
        let folder_of = |file: &Path| file.parent().unwrap_or(Path::new("")).to_path_buf();
        let mut folders = match fs::metadata(path) {
            Ok(found) if found.is_file() => vec![folder_of(Path::new(path))],
            Err(_) if pattern::is_pattern(path) => {
                pattern::expand(path).unwrap_or_default().iter().map(|file| folder_of(file)).collect()
            }
            _ => vec![PathBuf::from(path)],
        };
        let options = TableOptions::default().with_options_of(data);
        if let Some(images) = options.ok().and_then(|(_, options)| options.images) {
            let existing = folders.iter().map(|folder| folder.join(&images)).find(|folder| folder.is_dir());
            folders.push(existing.unwrap_or_else(|| images.into()));
        }
        Self::folders(&folders)
    }

    /// Returns the extent of these folders; folders that cannot be resolved are ignored.
    pub fn folders(folders: &[PathBuf]) -> Self {
        let mut real: Vec<PathBuf> = folders.iter().filter_map(|folder| resolved(folder)).collect();
        real.sort();
        real.dedup();
        Self(real)
    }

    /// Returns whether a file is inside the folders after resolving all links.
    pub fn contains_file(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|real| self.below(&real).is_some())
    }

    /// Resolves the folder of a path that may not exist yet. Returns the resolved path and its part
    /// below one of the folders, or `None` if it is elsewhere.
    pub fn locate(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let place = resolved(path.parent()?)?.join(path.file_name()?);
        let below = self.below(&place)?.to_path_buf();
        Some((place, below))
    }

    /// Returns whether a folder, which may not exist yet, is one of the folders or inside one.
    pub fn contains_folder(&self, folder: &Path) -> bool {
        resolved(folder).is_some_and(|real| self.below(&real).is_some())
    }

    fn below<'a>(&self, real: &'a Path) -> Option<&'a Path> {
        // The innermost folder, if they are nested.
        self.0.iter().rev().find_map(|folder| real.strip_prefix(folder).ok())
    }
}

/// Resolves all links in a path whose last components may not exist. Returns `None` if its target
/// is not determined.
pub(crate) fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|above| above.exists())?;
    let rest = path.strip_prefix(existing).ok()?;
    let is_plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    // The target of a broken link may be created later.
    let is_link = rest.components().next().is_some_and(|first| existing.join(first).is_symlink());
    (is_plain && !is_link).then(|| Some(fs::canonicalize(existing).ok()?.join(rest))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extent_is_the_folders_of_a_named_data_set() {
        let top = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(top.path()).unwrap();
        for file in ["set/a/1.jpg", "set/t.csv", "other/u.csv", "photos/2.jpg"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        let of = |data: &str| {
            let names = |folder: &PathBuf| folder.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
            Extent::of(&data.replace('@', root.to_str().unwrap())).0.iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(of("@/set"), ["set"]);
        assert_eq!(of("@/set/../other/."), ["other"]);
        assert_eq!(of("@/set/t.csv"), ["set"]);
        assert_eq!(of("@/set/t.csv::@/other/u.csv"), ["other", "set"]);
        assert_eq!(of("@/set/t.csv?images=../photos&label=y"), ["photos", "set"]);
        assert_eq!(of("@/gone"), ["gone"]);
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_lead_outside_are_not_in_the_extent() {
        use std::os::unix::fs::symlink;
        let top = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(top.path()).unwrap();
        for file in ["set/a/1.jpg", "out/2.jpg"] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "").unwrap();
        }
        symlink(root.join("out"), root.join("set/link")).unwrap();
        symlink(root.join("out/2.jpg"), root.join("set/a/2.jpg")).unwrap();
        symlink(root.join("set/a"), root.join("set/b")).unwrap();
        symlink(root.join("out/none"), root.join("set/broken")).unwrap();
        symlink(root.join("set"), root.join("alias")).unwrap();
        let extent = Extent::folders(&[root.join("alias")]);
        for (path, inside) in [
            ("set/a/1.jpg", true),
            ("alias/b/1.jpg", true),
            ("set/a/2.jpg", false),
            ("set/link/2.jpg", false),
            ("set/../out/2.jpg", false),
            ("set/none", false),
        ] {
            assert_eq!(extent.contains_file(&root.join(path)), inside, "{path}");
        }
        for (path, below) in [
            ("set/new/9.jpg", Some("new/9.jpg")),
            ("alias/b/1.jpg", Some("a/1.jpg")),
            ("set/a/2.jpg", Some("a/2.jpg")),
            ("set/link/new.jpg", None),
            ("set/new/../../out/2.jpg", None),
            ("set/broken/1.jpg", None),
            ("out/2.jpg", None),
        ] {
            let place = extent.locate(&root.join(path));
            assert_eq!(place.map(|(_, below)| below), below.map(PathBuf::from), "{path}");
        }
    }
}
