//! Image files in folders and of patterns, one after another: only the folder at hand is listed.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::vec::IntoIter;

use glob::{MatchOptions, Pattern};

use mbconv_image::formats::is_image;

use crate::error::DataError;
use crate::listing::{Listing, leads_back};

/// A component of a pattern of paths.
enum Part {
    /// A name as it is, `..` and the root included.
    Literal(OsString),
    /// A name with `*`, `?` or `[…]`.
    Wild(Pattern),
    /// `**`: the folder and all folders below it.
    Below,
}

/// A folder to list.
struct Folder {
    path: PathBuf,
    /// The part of the pattern that its entries are matched with; beyond the last, all images below
    /// are taken.
    part: usize,
    /// The real folders whose links led here.
    way: Vec<PathBuf>,
}

/// The image files in a folder and the folders below it, or of a pattern such as
/// `photos/*/[0-9]*.jpg` or `photos/**/*.jpg`, by their extensions. In each folder the images come
/// first, then the folders, both in byte order; hidden entries are left out. Folders that links
/// lead to come last, and no folder is listed twice. A folder that cannot be listed is an error
/// among the paths, after which the others follow.
///
/// In memory are the names of the images in one folder, and the paths of all folders.
pub struct Walk {
    parts: Vec<Part>,
    folders: Vec<Folder>,
    /// Folders that links lead to, to list after those.
    links: VecDeque<Folder>,
    /// The real folders that were listed, with the part of the pattern.
    seen: HashSet<(usize, PathBuf)>,
    /// Images of the folder that was listed last.
    images: (PathBuf, IntoIter<OsString>),
}

impl Walk {
    /// The images in a folder and the folders below.
    pub fn folder(path: &Path) -> Self {
        Self::new(path.to_path_buf(), Vec::new())
    }

    /// The images of a pattern. A folder that matches stands for all images in it and below.
    ///
    /// # Errors
    /// [`DataError::Pattern`].
    pub fn pattern(pattern: &str) -> Result<Self, DataError> {
        let part = |component: Component| match component.as_os_str().to_str() {
            Some("**") => Ok(Part::Below),
            Some(name) if is_wild(name) => Pattern::new(name).map(Part::Wild),
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

    /// Takes the next step into `folder`.
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
                self.optimizer_step(&folder, folder.part, listing.folders, listing.links)?;
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
                // After `**`, every folder is gone into anyway.
                if !is_last || !self.parts.iter().any(|part| matches!(part, Part::Below)) {
                    self.optimizer_step(&folder, folder.part + 1, folders, links)?;
                }
                if is_last {
                    self.images = (folder.path, images.into_iter());
                }
                Ok(())
            }
            Some(Part::Below) | None => {
                let Listing { folders, links, images, broken, .. } = Listing::read(here(&folder.path))?;
                self.optimizer_step(&folder, folder.part, folders, links)?;
                self.images = (folder.path, with_broken(images, broken).into_iter());
                Ok(())
            }
        }
    }

    /// Returns whether the real folder has not been listed yet. One that cannot be found is:
    /// listing it gives the error.
    fn is_new(&mut self, folder: &Folder) -> bool {
        fs::canonicalize(here(&folder.path)).is_ok_and(|real| self.seen.insert((folder.part, real)))
            || !here(&folder.path).exists()
    }

    /// Notes folders in `folder` to be listed next; a link that leads back to a folder above is
    /// left out.
    fn optimizer_step(
        &mut self,
        folder: &Folder,
        part: usize,
        folders: Vec<OsString>,
        links: Vec<OsString>,
    ) -> Result<(), DataError> {
        let links = links.into_iter().map(|name| folder.path.join(name));
        let links: Vec<PathBuf> = links.filter(|link| !leads_back(link, &folder.way)).collect();
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

/// Whether a path is a pattern: [`Walk::pattern`] expands it.
pub fn is_wild(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Adds links that lead nowhere but are named as images: they are missing from the results
/// otherwise.
fn with_broken(mut images: Vec<OsString>, broken: Vec<OsString>) -> Vec<OsString> {
    images.extend(broken.into_iter().filter(|name| is_image(Path::new(name))));
    images.sort_unstable();
    images
}

/// The path of the working folder, where the path is empty.
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

    /// Makes empty files and returns what the walk finds, relative to their folder.
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
    fn folders_are_walked_in_order_of_name() {
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
            // Folders elsewhere, which lead to each other.
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
