//! What lies in folders: read in one go, and recalled from beside the data where nothing has changed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::DataError;
use super::cache::{self, MANY, Reader, Writer};
use super::folder::is_image;

/// What lies directly in a folder, hidden entries apart; sorted, as the order of a folder is the file system's own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub folders: Vec<OsString>,
    /// Links to folders.
    pub links: Vec<OsString>,
    pub images: Vec<OsString>,
    /// Links to what does not exist, or to each other.
    pub broken: Vec<OsString>,
    /// Number of files of other kinds and of hidden entries.
    pub passed_over: usize,
}

impl Listing {
    /// Reads a folder; no file in it is looked at, only links are followed.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn read(path: &Path) -> Result<Listing, DataError> {
        let mut listing = Listing::default();
        let failed = |source| DataError::io(path, source);
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if is_clutter(&name.to_string_lossy()) {
                listing.passed_over += 1;
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() {
                match fs::metadata(entry.path()) {
                    Ok(target) if target.is_dir() => listing.links.push(name),
                    Ok(target) if target.is_file() && is_image(Path::new(&name)) => listing.images.push(name),
                    Err(_) => listing.broken.push(name),
                    Ok(_) => listing.passed_over += 1,
                }
            } else if kind.is_dir() {
                listing.folders.push(name);
            } else if kind.is_file() && is_image(Path::new(&name)) {
                listing.images.push(name);
            } else {
                listing.passed_over += 1;
            }
        }
        for names in [&mut listing.folders, &mut listing.links, &mut listing.images, &mut listing.broken] {
            names.sort_unstable();
        }
        Ok(listing)
    }

    /// The folders and the links to folders, but for links that lead back to a folder above.
    pub fn all_folders(&self, path: &Path) -> Vec<OsString> {
        let links = self.links.iter().filter(|link| !leads_back(&path.join(link), &[]));
        let mut folders: Vec<OsString> = self.folders.iter().chain(links).cloned().collect();
        folders.sort_unstable();
        folders
    }

    /// Writes it, unless a name is not valid Unicode.
    fn encode(&self, out: &mut Writer) -> Option<()> {
        out.number(self.passed_over as u64);
        for names in [&self.folders, &self.links, &self.images, &self.broken] {
            out.number(names.len() as u64);
            for name in names {
                out.text(name.to_str()?);
            }
        }
        Some(())
    }

    fn decode(from: &mut Reader) -> Option<Listing> {
        let passed_over = usize::try_from(from.number()?).ok()?;
        let mut names = || (0..from.count(4)?).map(|_| from.text().map(OsString::from)).collect::<Option<Vec<_>>>();
        let (folders, links, images) = (names()?, names()?, names()?);
        Some(Listing { folders, links, images, broken: names()?, passed_over })
    }
}

/// Names of files and folders that systems leave beside images, in lower case; most hold
/// thumbnails.
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

/// Returns whether a file or folder of this name is never part of a data set: hidden, or left there
/// by a system.
pub(super) fn is_clutter(name: &str) -> bool {
    name.starts_with('.') || CLUTTER.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns whether any part of a path in an archive is clutter.
pub(super) fn lies_in_clutter(path: &str) -> bool {
    path.split('/').any(|part| part != "." && part != ".." && is_clutter(part))
}

/// Whether a link leads to a folder that it lies in, or to one that the way to it lies in.
pub(super) fn leads_back(link: &Path, way: &[PathBuf]) -> bool {
    match (fs::canonicalize(link), link.parent().map(fs::canonicalize)) {
        (Ok(target), Some(Ok(parent))) => way.iter().chain([&parent]).any(|above| above.starts_with(&target)),
        _ => true,
    }
}

/// Listings of the folders of one data set.
pub(super) struct Tree {
    root: PathBuf,
    /// What was kept of an earlier time, and where in it each folder is, by path below the root.
    kept: Vec<u8>,
    places: HashMap<String, Range<usize>>,
    /// What is to be kept now.
    fresh: Mutex<Vec<(String, Vec<u8>)>>,
    changed: AtomicBool,
    images: AtomicUsize,
}

/// The name of the kept listing, and the version of its form.
const NAME: &str = "folders";
const VERSION: &[u8] = b"2\n";

impl Tree {
    /// Recalls what is kept in this folder.
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

    /// What lies in a folder, which is below the root.
    ///
    /// # Errors
    /// Those of [`Listing::read`].
    pub fn read(&self, path: &Path) -> Result<Listing, DataError> {
        let name = path.strip_prefix(&self.root).ok().and_then(Path::to_str).filter(|name| !name.is_empty());
        // Keeping a listing changes the root, so that itself is not kept.
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

    /// Keeps what was read for the next time, if it is much and was not kept already.
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

    /// Lists the images in each of these folders and the folders below. Each real folder is read once: first those that lie
    /// there, then those that links lead to, unless these have been read or one of the given folders lies in them.
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
            self.follow(folders, &mut branches)?;
        }
        Ok(branches.into_iter().map(|branch| branch.found).collect())
    }

    /// Reads a folder, and the folders below it for which `enter` is true.
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
            branch.found.passed_over += listing.passed_over;
            branch.links.extend(listing.links.iter().map(|name| below.join(name)));
            let folders = listing.folders.iter().rev().map(|name| below.join(name));
            next.extend(folders.filter(|folder| enter(folder)));
            branch.folders.push(below);
        }
        Ok(())
    }

    fn follow(&self, roots: &[PathBuf], branches: &mut [Branch]) -> Result<(), DataError> {
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

/// What lies in a folder and the folders below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Images {
    /// Paths below the folder.
    pub images: Vec<PathBuf>,
    /// Links that lead nowhere.
    pub broken: Vec<PathBuf>,
    /// Links to folders that are not read again.
    pub repeated: Vec<PathBuf>,
    /// Number of files of other kinds and of hidden entries.
    pub passed_over: usize,
}

impl Images {
    /// Adds to the notes what the folders at `path` hold besides images.
    pub fn note(found: &[Images], path: &Path, notes: &mut Vec<String>) {
        let path = path.display();
        let passed_over: usize = found.iter().map(|images| images.passed_over).sum();
        if passed_over > 0 {
            notes.push(format!("passed over {passed_over} hidden or non-image file(s) in {path}"));
        }
        let mut links = |of: fn(&Images) -> &Vec<PathBuf>, what: &str| {
            let links: Vec<&PathBuf> = found.iter().flat_map(of).collect();
            if let Some(first) = links.first() {
                notes.push(format!("{} {what} in {path}, the first {}", links.len(), first.display()));
            }
        };
        links(|images| &images.broken, "link(s) that lead nowhere");
        links(|images| &images.repeated, "link(s) to folders that are read without them, not followed,");
    }
}

/// A folder that is being listed.
#[derive(Default)]
struct Branch {
    found: Images,
    /// The folders that were read, as paths below it.
    folders: Vec<PathBuf>,
    /// Links to folders that were not followed yet, as paths below it.
    links: VecDeque<PathBuf>,
}

fn under(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) }
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
                // To itself and, by a second name, to the folder of all.
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
        assert_eq!((images(&found[0]), found[0].broken.len(), found[0].passed_over), (vec!["1.jpg"], 2, 0));
        let mut notes = Vec::new();
        Images::note(&found, Path::new("set"), &mut notes);
        assert!(notes[0].starts_with("2 link(s) that lead nowhere in set, the first /"), "{notes:?}");
    }
}
