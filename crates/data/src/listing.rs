//! Folder listings, cached next to the data and reused for unchanged folders.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use mbconv_image::formats::is_image;

use crate::cache::{self, MANY, Reader, Writer};
use crate::error::DataError;

/// The direct entries of a folder without clutter, sorted, because file systems return any order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub folders: Vec<OsString>,
    /// Links to folders.
    pub links: Vec<OsString>,
    pub images: Vec<OsString>,
    /// Broken links, and links to each other.
    pub broken: Vec<OsString>,
    /// Number of clutter entries and of files that are not images.
    pub ignored: usize,
}

impl Listing {
    /// Reads a folder. Files are not opened; links are resolved.
    ///
    /// # Errors
    /// I/O errors.
    pub fn read(path: &Path) -> Result<Listing, DataError> {
        let mut listing = Listing::default();
        let failed = |source| DataError::io(path, source);
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if is_clutter(&name.to_string_lossy()) {
                listing.ignored += 1;
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                match fs::metadata(entry.path()) {
                    Ok(target) if target.is_dir() => listing.links.push(name),
                    Ok(target) if target.is_file() && is_image(Path::new(&name)) => listing.images.push(name),
                    Err(_) => listing.broken.push(name),
                    Ok(_) => listing.ignored += 1,
                }
            } else if kind.is_dir() {
                listing.folders.push(name);
            } else if kind.is_file() && is_image(Path::new(&name)) {
                listing.images.push(name);
            } else {
                listing.ignored += 1;
            }
        }
        for names in [&mut listing.folders, &mut listing.links, &mut listing.images, &mut listing.broken] {
            names.sort_unstable();
        }
        Ok(listing)
    }

    /// Returns the folders and the links to folders, except links to a parent folder.
    pub fn all_folders(&self, path: &Path) -> Vec<OsString> {
        let links = self.links.iter().filter(|link| !is_link_to_parent(&path.join(link), &[]));
        let mut folders: Vec<OsString> = self.folders.iter().chain(links).cloned().collect();
        folders.sort_unstable();
        folders
    }

    /// Encodes the listing; returns `None` if a name is not valid Unicode.
    fn encode(&self, out: &mut Writer) -> Option<()> {
        out.number(self.ignored as u64);
        for names in [&self.folders, &self.links, &self.images, &self.broken] {
            out.number(names.len() as u64);
            for name in names {
                out.text(name.to_str()?);
            }
        }
        Some(())
    }

    fn decode(from: &mut Reader) -> Option<Listing> {
        let ignored = usize::try_from(from.number()?).ok()?;
        let mut names = || (0..from.count(4)?).map(|_| from.text().map(OsString::from)).collect::<Option<Vec<_>>>();
        let (folders, links, images) = (names()?, names()?, names()?);
        Some(Listing { folders, links, images, broken: names()?, ignored })
    }
}

/// Names of files and folders that operating systems create in image folders, in lower case; most
/// contain thumbnails.
const CLUTTER: [&str; 16] = [
    // macOS, in archives.
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    // Windows.
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "recycler",
    "system volume information",
    // Synology and QNAP.
    "@eadir",
    "#recycle",
    "#snapshot",
    "@recycle",
    // Linux and Python.
    "lost+found",
    "__pycache__",
];

/// Returns whether a file or folder of this name never belongs to a data set: it is hidden or
/// created by an operating system.
pub(crate) fn is_clutter(name: &str) -> bool {
    name.starts_with('.') || CLUTTER.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns whether any component of a path in an archive is clutter.
pub(crate) fn is_in_clutter(path: &str) -> bool {
    path.split('/').any(|part| part != "." && part != ".." && is_clutter(part))
}

/// Returns whether a link points to a folder that contains it, or to one that contains a folder of
/// `way`.
pub(crate) fn is_link_to_parent(link: &Path, way: &[PathBuf]) -> bool {
    match (fs::canonicalize(link), link.parent().map(fs::canonicalize)) {
        (Ok(target), Some(Ok(parent))) => way.iter().chain([&parent]).any(|above| above.starts_with(&target)),
        _ => true,
    }
}

/// Listings of the folders of one data set.
pub(crate) struct Tree {
    root: PathBuf,
    /// The cached listings, and the range of each folder in them, by path below the root.
    kept: Vec<u8>,
    places: HashMap<String, Range<usize>>,
    /// The listings to cache.
    fresh: Mutex<Vec<(String, Vec<u8>)>>,
    changed: AtomicBool,
    images: AtomicUsize,
}

/// Name and format version of the cache.
const NAME: &str = "folders";
const VERSION: &[u8] = b"2\n";

impl Tree {
    /// Loads the cache of this folder.
    pub fn open(root: &Path) -> Tree {
        Self::of(root, cache::load(root, NAME, VERSION).unwrap_or_default())
    }

    fn of(root: &Path, kept: Vec<u8>) -> Tree {
        let places = Self::places(&kept).unwrap_or_default();
        Tree {
            root: root.into(),
            kept,
            places,
            fresh: Mutex::default(),
            changed: AtomicBool::new(false),
            images: AtomicUsize::new(0),
        }
    }

    /// Returns the range of each folder's listing in the cache.
    fn places(kept: &[u8]) -> Option<HashMap<String, Range<usize>>> {
        let mut from = Reader(kept);
        let mut places = HashMap::new();
        while !from.0.is_empty() {
            let name = from.text()?.to_string();
            let length = from.count(1)?;
            let start = kept.len() - from.0.len();
            places.insert(name, start..start + length);
            from.0 = &from.0[length..];
        }
        Some(places)
    }

    /// Lists a folder below the root.
    ///
    /// # Errors
    /// Those of [`Listing::read`].
    pub fn read(&self, path: &Path) -> Result<Listing, DataError> {
        let name = path.strip_prefix(&self.root).ok().and_then(Path::to_str).filter(|name| !name.is_empty());
        // Storing the cache changes the root, so the root itself is not cached.
        let Some(name) = name else { return Listing::read(path) };
        let changed = fs::metadata(path).ok().and_then(|metadata| cache::changed(&metadata));
        let recalled = || {
            let range = self.places.get(name)?.clone();
            let bytes = &self.kept[range];
            let mut from = Reader(bytes);
            let then = [from.number()?, from.number()?];
            let listing = (Some(then) == changed).then(|| Listing::decode(&mut from))??;
            Some((listing, bytes.to_vec()))
        };
        let recalled = recalled();
        if recalled.is_none() {
            self.changed.store(true, Ordering::Relaxed);
        }
        let (listing, bytes) = match recalled {
            Some((listing, bytes)) => (listing, Some(bytes)),
            None => {
                let listing = Listing::read(path)?;
                let bytes = changed.and_then(|[seconds, nanoseconds]| {
                    let mut out = Writer::default();
                    out.number(seconds);
                    out.number(nanoseconds);
                    listing.encode(&mut out).map(|()| out.0)
                });
                (listing, bytes)
            }
        };
        self.images.fetch_add(listing.images.len(), Ordering::Relaxed);
        if let Some(bytes) = bytes {
            self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), bytes));
        }
        Ok(listing)
    }

    /// Stores the listings if they are large and have changed.
    pub fn keep(&self) {
        if !self.changed.load(Ordering::Relaxed) || self.images.load(Ordering::Relaxed) < MANY {
            return;
        }
        let mut out = Writer::default();
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.sort_unstable();
        for (name, bytes) in fresh.drain(..) {
            out.text(&name);
            out.number(bytes.len() as u64);
            out.0.extend(bytes);
        }
        cache::store(&self.root, NAME, VERSION, &out.0);
    }

    /// Lists the images in each of these folders and their subfolders. Each physical folder is read
    /// once: first all that are reached without links, then the targets of links, except folders
    /// already read and folders that contain one of the given folders.
    ///
    /// # Errors
    /// Those of [`Listing::read`].
    pub fn images(&self, folders: &[PathBuf]) -> Result<Vec<Images>, DataError> {
        let branches = folders.par_iter().map(|folder| {
            let mut branch = Branch::default();
            if folder.is_dir() {
                self.read_below(folder, PathBuf::new(), &mut |_| true, &mut branch)?;
            }
            Ok(branch)
        });
        let mut branches: Vec<Branch> = branches.collect::<Result<_, DataError>>()?;
        if branches.iter().any(|branch| !branch.links.is_empty()) {
            self.follow_links(folders, &mut branches)?;
        }
        Ok(branches.into_iter().map(|branch| branch.found).collect())
    }

    /// Reads a folder and the subfolders for which `enter` returns true.
    fn read_below(
        &self,
        root: &Path,
        below: PathBuf,
        enter: &mut dyn FnMut(&Path) -> bool,
        branch: &mut Branch,
    ) -> Result<(), DataError> {
        let mut next = vec![below];
        while let Some(below) = next.pop() {
            let listing = self.read(&under(root, &below))?;
            branch.found.images.extend(listing.images.into_iter().map(|name| below.join(name)));
            branch.found.broken.extend(listing.broken.iter().map(|name| root.join(&below).join(name)));
            branch.found.ignored += listing.ignored;
            branch.links.extend(listing.links.iter().map(|name| below.join(name)));
            let folders = listing.folders.iter().rev().map(|name| below.join(name));
            next.extend(folders.filter(|folder| enter(folder)));
            branch.folders.push(below);
        }
        Ok(())
    }

    /// Follows the links found in `roots`. Each target folder is read once, except folders that
    /// contain one of the roots.
    fn follow_links(&self, roots: &[PathBuf], branches: &mut [Branch]) -> Result<(), DataError> {
        let real: Vec<PathBuf> = roots.iter().filter_map(|root| fs::canonicalize(root).ok()).collect();
        let mut seen: HashSet<PathBuf> = HashSet::new();
        for (root, branch) in roots.iter().zip(branches.iter()) {
            let root = fs::canonicalize(root).unwrap_or_default();
            seen.extend(branch.folders.iter().map(|below| root.join(below)));
        }
        for (root, branch) in roots.iter().zip(branches) {
            while let Some(link) = branch.links.pop_front() {
                let path = root.join(&link);
                let Ok(target) = fs::canonicalize(&path) else {
                    branch.found.broken.push(path);
                    continue;
                };
                if real.iter().any(|root| root.starts_with(&target)) || !seen.insert(target.clone()) {
                    branch.found.repeated.push(path);
                    continue;
                }
                let mut enter = |below: &Path| {
                    let part = below.strip_prefix(&link).unwrap_or(below);
                    seen.insert(target.join(part))
                };
                self.read_below(root, link.clone(), &mut enter, branch)?;
            }
        }
        Ok(())
    }
}

/// The images in a folder and its subfolders.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Images {
    /// Paths relative to the folder.
    pub images: Vec<PathBuf>,
    /// Broken links.
    pub broken: Vec<PathBuf>,
    /// Links to folders that are not followed, because they are read anyway.
    pub repeated: Vec<PathBuf>,
    /// Number of clutter entries and of files that are not images.
    pub ignored: usize,
}

impl Images {
    /// Adds notes about entries of the folders at `path` that are not images.
    pub fn note(found: &[Images], path: &Path, notes: &mut Vec<String>) {
        let path = path.display();
        let ignored: usize = found.iter().map(|images| images.ignored).sum();
        if ignored > 0 {
            notes.push(format!("ignored {ignored} hidden or non-image file(s) in {path}"));
        }
        let mut links = |of: fn(&Images) -> &Vec<PathBuf>, what: &str| {
            let links: Vec<&PathBuf> = found.iter().flat_map(of).collect();
            if let Some(first) = links.first() {
                notes.push(format!("{} {what} in {path}, the first is {}", links.len(), first.display()));
            }
        };
        links(|images| &images.broken, "broken link(s)");
        links(|images| &images.repeated, "unused link(s) to folders that are already included");
    }
}

/// The state of listing a folder.
#[derive(Default)]
struct Branch {
    found: Images,
    /// Folders already read, relative to the listed folder.
    folders: Vec<PathBuf>,
    /// Links to folders not yet followed, relative to the listed folder.
    links: VecDeque<PathBuf>,
}

fn under(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) }
}

/// Returns whether a folder contains folders.
pub(crate) fn has_folders(path: &Path) -> Result<bool, DataError> {
    Ok(!Listing::read(path)?.all_folders(path).is_empty())
}

/// Returns whether a folder directly contains images.
pub(crate) fn has_images(path: &Path) -> Result<bool, DataError> {
    let mut entries = fs::read_dir(path).map_err(|source| DataError::io(path, source))?;
    Ok(entries.any(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            is_image(Path::new(&name)) && !is_clutter(&name.to_string_lossy())
        })
    }))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(top.path()).unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        (top, root)
    }

    fn images(found: &Images) -> Vec<&str> {
        found.images.iter().map(|image| image.to_str().unwrap()).collect()
    }

    #[test]
    fn folders_that_link_to_each_other_are_read_once() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let files = names.map(|name| format!("set/{name}/1.jpg"));
        let (_top, root) = tree(&files.each_ref().map(String::as_str));
        let folders = names.map(|name| root.join("set").join(name));
        for folder in &folders {
            for name in names {
                // A link to itself and to every sibling.
                symlink(root.join("set").join(name), folder.join(name)).unwrap();
            }
            symlink("..", folder.join("up")).unwrap();
        }
        let found = Tree::open(&root.join("set")).images(&folders).unwrap();
        assert!(found.iter().all(|found| images(found) == ["1.jpg"]), "{found:?}");
        assert_eq!(found.iter().map(|found| found.repeated.len()).sum::<usize>(), 8 * 9);
    }

    #[test]
    fn links_to_other_places_are_followed_once() {
        let files = ["set/a/1.jpg", "set/b/1.jpg", "out/x/2.jpg", "out/y/3.jpg", "out/4.jpg"];
        let (_top, root) = tree(&files);
        let folders = ["a", "b"].map(|name| root.join("set").join(name));
        symlink("../../out/x", folders[0].join("link")).unwrap();
        symlink("../../out", folders[1].join("all")).unwrap();
        symlink("../y", root.join("out/x/y")).unwrap();
        symlink("../x", root.join("out/y/x")).unwrap();
        symlink(&root, root.join("out/x/top")).unwrap();
        let found = Tree::open(&root.join("set")).images(&folders).unwrap();
        assert_eq!(images(&found[0]), ["1.jpg", "link/2.jpg", "link/y/3.jpg"]);
        assert_eq!(images(&found[1]), ["1.jpg", "all/4.jpg"]);
    }

    #[test]
    fn broken_links_and_loops_are_noted() {
        let (_top, root) = tree(&["set/a/1.jpg"]);
        symlink("gone.jpg", root.join("set/a/2.jpg")).unwrap();
        symlink("loop", root.join("set/a/loop")).unwrap();
        let found = Tree::open(&root).images(&[root.join("set/a")]).unwrap();
        assert_eq!((images(&found[0]), found[0].broken.len(), found[0].ignored), (vec!["1.jpg"], 2, 0));
        let mut notes = Vec::new();
        Images::note(&found, Path::new("set"), &mut notes);
        assert!(notes[0].starts_with("2 broken link(s) in set, the first is /"), "{notes:?}");
    }
}
