//! What lies in folders: read in one go, and recalled from beside the data where nothing has changed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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
                    _ => listing.passed_over += 1,
                }
            } else if kind.is_dir() {
                listing.folders.push(name);
            } else if kind.is_file() && is_image(Path::new(&name)) {
                listing.images.push(name);
            } else {
                listing.passed_over += 1;
            }
        }
        for names in [&mut listing.folders, &mut listing.links, &mut listing.images] {
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
        for names in [&self.folders, &self.links, &self.images] {
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
        Some(Listing { folders: names()?, links: names()?, images: names()?, passed_over })
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

/// The name of the kept listing.
const NAME: &str = "folders";

impl Tree {
    /// Recalls what is kept in this folder.
    pub fn open(root: &Path) -> Tree {
        Self::of(root, cache::load(root, NAME, &[]).unwrap_or_default())
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
        cache::store(&self.root, NAME, &[], &out.0);
    }

    /// Collects the images in a folder and the folders below, as paths below it, sorted folder by folder; gives the number
    /// of files passed over.
    ///
    /// # Errors
    /// Those of [`Listing::read`].
    pub fn images(&self, folder: &Path, images: &mut Vec<PathBuf>) -> Result<usize, DataError> {
        self.images_below(folder, Path::new(""), &[], images)
    }

    /// `way` are the real folders whose links led here.
    fn images_below(
        &self,
        root: &Path,
        below: &Path,
        way: &[PathBuf],
        images: &mut Vec<PathBuf>,
    ) -> Result<usize, DataError> {
        let path = if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(below) };
        let Listing { folders, links, images: found, mut passed_over } = self.read(&path)?;
        images.extend(
            found.into_iter().map(
                |name| {
                    if below.as_os_str().is_empty() { PathBuf::from(name) } else { below.join(name) }
                },
            ),
        );
        for name in &folders {
            passed_over += self.images_below(root, &below.join(name), way, images)?;
        }
        for name in &links {
            if leads_back(&path.join(name), way) {
                passed_over += 1;
                continue;
            }
            let here = fs::canonicalize(&path).map_err(|source| DataError::io(&path, source))?;
            let way: Vec<PathBuf> = way.iter().cloned().chain([here]).collect();
            passed_over += self.images_below(root, &below.join(name), &way, images)?;
        }
        Ok(passed_over)
    }
}
