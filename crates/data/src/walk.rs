//! Iterators over the image files in folders or matching a pattern. Folders are listed one at a
//! time.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::vec::IntoIter;

use glob::{MatchOptions, Pattern};

use mbconv_image::formats::is_image;

use crate::error::DataError;
use crate::listing::{Listing, is_link_to_parent};

/// A component of a pattern of paths.
enum Part {
    /// A literal name, including `..` and the root.
    Literal(OsString),
    /// A name with `*`, `?` or `[…]`.
    Wild(Pattern),
    /// `**`: the folder and all folders below it.
    Below,
}

/// A folder to list.
struct Folder {
    path: PathBuf,
    /// Index of the pattern component to match its entries with. Past the last component, all
    /// images below are included.
    part: usize,
    /// Resolved folders whose links led here.
    way: Vec<PathBuf>,
}

/// Iterates over image files, detected by extension, in a folder and its subfolders, or matching a
/// pattern such as `photos/*/[0-9]*.jpg` or `photos/**/*.jpg`.
///
/// In each folder, images come before subfolders, both in byte order; hidden entries are skipped.
/// Targets of links to folders come last, and no folder is listed twice. A folder that cannot be
/// listed gives an error, after which iteration continues.
///
/// Keeps in memory the image names of one folder and the paths of the remaining folders.
pub struct Walk {
    parts: Vec<Part>,
    folders: Vec<Folder>,
    /// Links to folders, listed after the folders.
    links: VecDeque<Folder>,
    /// Resolved folders already listed, with the index of the pattern component.
    seen: HashSet<(usize, PathBuf)>,
    /// Images of the folder listed last.
    images: (PathBuf, IntoIter<OsString>),
}

impl Walk {
    /// Creates an iterator over the images in a folder and its subfolders.
    pub fn folder(path: &Path) -> Self {
        Self::new(path.to_path_buf(), Vec::new())
    }

    /// Creates an iterator over the images that match a pattern. A matching folder stands for all
    /// images below it.
    ///
    /// # Errors
    /// [`DataError::Pattern`] for an invalid pattern.
    pub fn pattern(pattern: &str) -> Result<Self, DataError> {
        let part = |component: Component| match component.as_os_str().to_str() {
            Some("**") => Ok(Part::Below),
            Some(name) if has_wildcards(name) => Pattern::new(name).map(Part::Wild),
            _ => Ok(Part::Literal(component.as_os_str().into())),
        };
        let parts = Path::new(pattern).components().map(part).collect::<Result<_, _>>();
        let refused = |error: glob::PatternError| DataError::Pattern { pattern: pattern.into(), why: error.msg.into() };
        Ok(Self::new(PathBuf::new(), parts.map_err(refused)?))
    }

    fn new(path: PathBuf, parts: Vec<Part>) -> Self {
        let first = Folder { path, part: 0, way: Vec::new() };
        Self {
            parts,
            folders: vec![first],
            links: VecDeque::new(),
            seen: HashSet::new(),
            images: (PathBuf::new(), Vec::new().into_iter()),
        }
    }

    /// Processes one folder of the queue.
    fn enter(&mut self, folder: Folder) -> Result<(), DataError> {
        let is_last = folder.part + 1 >= self.parts.len();
        let is_literal = matches!(self.parts.get(folder.part), Some(Part::Literal(_)));
        if !is_literal && !self.is_new(&folder) {
            return Ok(());
        }
        match self.parts.get(folder.part) {
            Some(Part::Literal(name)) => {
                let path = folder.path.join(name);
                if path.is_dir() {
                    self.folders.push(Folder { path, part: folder.part + 1, way: folder.way });
                } else if is_last && path.is_file() {
                    self.images = (folder.path, vec![name.clone()].into_iter());
                }
                Ok(())
            }
            Some(Part::Below) if !is_last => {
                let listing = Listing::read(here(&folder.path))?;
                let next = Folder { path: folder.path.clone(), part: folder.part + 1, way: folder.way.clone() };
                self.descend(&folder, folder.part, listing.folders, listing.links)?;
                self.folders.push(next);
                Ok(())
            }
            Some(Part::Wild(pattern)) => {
                let Listing { mut folders, mut links, mut images, broken, .. } = Listing::read(here(&folder.path))?;
                images = with_broken(images, broken);
                let matches = |name: &OsStr| pattern.matches_with(&name.to_string_lossy(), MATCHING);
                for names in [&mut folders, &mut links, &mut images] {
                    names.retain(|name| matches(name));
                }
                // After `**`, all subfolders are entered anyway.
                if !is_last || !self.parts.iter().any(|part| matches!(part, Part::Below)) {
                    self.descend(&folder, folder.part + 1, folders, links)?;
                }
                if is_last {
                    self.images = (folder.path, images.into_iter());
                }
                Ok(())
            }
            Some(Part::Below) | None => {
                let Listing { folders, links, images, broken, .. } = Listing::read(here(&folder.path))?;
                self.descend(&folder, folder.part, folders, links)?;
                self.images = (folder.path, with_broken(images, broken).into_iter());
                Ok(())
            }
        }
    }

    /// Returns whether the resolved folder has not been listed yet. A folder that cannot be
    /// resolved counts as new, so that listing it gives the error.
    fn is_new(&mut self, folder: &Folder) -> bool {
        fs::canonicalize(here(&folder.path)).is_ok_and(|real| self.seen.insert((folder.part, real)))
            || !here(&folder.path).exists()
    }

    /// Queues subfolders of `folder`. Links to a parent folder are skipped.
    fn descend(
        &mut self,
        folder: &Folder,
        part: usize,
        folders: Vec<OsString>,
        links: Vec<OsString>,
    ) -> Result<(), DataError> {
        let links = links.into_iter().map(|name| folder.path.join(name));
        let links: Vec<PathBuf> = links.filter(|link| !is_link_to_parent(link, &folder.way)).collect();
        if !links.is_empty() {
            let real = fs::canonicalize(here(&folder.path)).map_err(|source| DataError::io(&folder.path, source))?;
            let way: Vec<PathBuf> = folder.way.iter().cloned().chain([real]).collect();
            self.links.extend(links.into_iter().map(|path| Folder { path, part, way: way.clone() }));
        }
        let next = |name| Folder { path: folder.path.join(name), part, way: folder.way.clone() };
        self.folders.extend(folders.into_iter().rev().map(next));
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<PathBuf, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (folder, images) = &mut self.images;
            if let Some(name) = images.next() {
                return Some(Ok(folder.join(name)));
            }
            let folder = self.folders.pop().or_else(|| self.links.pop_front())?;
            if let Err(error) = self.enter(folder) {
                return Some(Err(error));
            }
        }
    }
}

/// A leading `*` does not match hidden files.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Returns whether a path contains wildcards, which [`Walk::pattern`] expands.
pub fn has_wildcards(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Adds broken links with image names, so that they give an error instead of being ignored.
fn with_broken(mut images: Vec<OsString>, broken: Vec<OsString>) -> Vec<OsString> {
    images.extend(broken.into_iter().filter(|name| is_image(Path::new(name))));
    images.sort_unstable();
    images
}

/// Returns the path, or `.` if it is empty.
fn here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Lists the image files in a folder and its subfolders by extension, sorted, without hidden files.
///
/// # Errors
/// [`DataError::NotFound`] and [`DataError::Io`].
pub fn list_images(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    Walk::folder(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the files found by the iterator, relative to `root`.
    fn found(root: &Path, walk: Walk) -> Vec<String> {
        walk.map(|path| path.unwrap().strip_prefix(root).unwrap().to_str().unwrap().to_string()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in ["b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub[1]/e.png"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn folders_are_walked_in_name_order() {
        let root = tree();
        let all = ["a.PNG", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub[1]/e.png"];
        assert_eq!(found(root.path(), Walk::folder(root.path())), all);
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            let at = |name: &str| root.path().join(name);
            symlink(root.path(), at("sub/deep/back")).unwrap();
            symlink(at("sub/deep"), at("link")).unwrap();
            assert_eq!(found(root.path(), Walk::folder(root.path())), all);
            // Folders elsewhere that link to each other.
            let other = tree();
            symlink(other.path(), at("b-link")).unwrap();
            symlink(other.path().join("sub"), at("a-link")).unwrap();
            symlink(root.path(), other.path().join("sub/back")).unwrap();
            symlink(other.path(), other.path().join("sub/deep/top")).unwrap();
            let linked = ["a-link/c.jpg", "a-link/deep/d.jpg", "b-link/a.PNG", "b-link/b.jpg", "b-link/sub[1]/e.png"];
            assert_eq!(found(root.path(), Walk::folder(root.path())), [&all[..], &linked].concat());
            symlink("gone", at("sub/broken.jpg")).unwrap();
            assert!(found(root.path(), Walk::folder(root.path())).contains(&"sub/broken.jpg".to_string()));
        }
        let mut missing = Walk::folder(Path::new("/no/such/folder"));
        assert!(matches!(missing.next(), Some(Err(DataError::NotFound { .. }))) && missing.next().is_none());
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let root = tree();
        let matching =
            |pattern: &str| found(root.path(), Walk::pattern(&format!("{}/{pattern}", root.path().display())).unwrap());
        for (pattern, expected) in [
            ("*.jpg", &["b.jpg"][..]),
            ("*", &["a.PNG", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub[1]/e.png"]),
            ("**", &["a.PNG", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub[1]/e.png"]),
            ("**/*", &["a.PNG", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub[1]/e.png"]),
            ("**/*.jpg", &["b.jpg", "sub/c.jpg", "sub/deep/d.jpg"]),
            ("*/?.jpg", &["sub/c.jpg"]),
            ("s*/deep", &["sub/deep/d.jpg"]),
            ("**/deep/*.jpg", &["sub/deep/d.jpg"]),
            ("[ab].*", &["a.PNG", "b.jpg"]),
            ("sub[[]1]/*", &["sub[1]/e.png"]),
            ("*.txt", &[]),
            ("none*/*", &[]),
        ] {
            assert_eq!(matching(pattern), expected, "{pattern}");
        }
        assert!(matches!(Walk::pattern("a/***"), Err(DataError::Pattern { .. })));
    }
}
