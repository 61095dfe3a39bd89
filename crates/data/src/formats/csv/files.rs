//! Locates the images of a table: relative to the table, in a folder next to it, or in several
//! folders.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::listing::is_clutter;
use crate::split_names::Role;

/// Extensions to append to an image path, in this order, until a file is found. IDs have no
/// extension.
const EXTENSIONS: [&str; 14] =
    ["", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"];

/// Usual names of image folders, in lower case.
const USUAL: [&str; 11] =
    ["images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpeg", "jpegs", "png", "data"];

/// Rank of the parent folder of the table; the working directory comes after it.
const OUTSIDE: u32 = 8;

/// Maximum number and depth of folders to search below the table.
const MAX_FOLDERS: usize = 1000;
const DEPTH: usize = 3;

/// Returns whether a folder is named like a split or an image folder rather than a class.
pub(crate) fn is_storage(folder: &str) -> bool {
    Role::of_path(Path::new(folder)) != Role::Whole || USUAL.contains(&&*folder.to_lowercase())
}

/// The direct contents of a folder.
#[derive(Default)]
struct Entries {
    files: HashSet<Box<str>>,
    folders: Vec<Box<str>>,
}

/// The folders that may contain the images of a table.
pub(crate) struct Search {
    /// The folder of the table, or the image folder if it is specified.
    root: PathBuf,
    /// True if the image folder is specified.
    given: bool,
    /// Name of the table without extension, in lower case.
    stem: String,
    role: Role,
    listed: RefCell<HashMap<PathBuf, Rc<Entries>>>,
    candidates: OnceCell<Vec<Candidate>>,
}

/// A folder that may contain images.
struct Candidate {
    path: PathBuf,
    /// Rank; lower is more likely.
    rank: (u32, usize),
    role: Role,
}

/// Rules to convert a table cell to a file path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// True if paths are separated by `\`.
    backslashes: bool,
    /// Prefix to remove from paths, such as folders of another computer.
    pub prefix: String,
    place: Where,
}

/// The location of the image files.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    /// One folder for all images.
    Folder(PathBuf),
    /// One folder per split.
    Splits(BTreeMap<Role, PathBuf>),
    /// Any candidate folder, searched by file name.
    Anywhere,
}

impl Default for Where {
    fn default() -> Self {
        Where::Folder(PathBuf::new())
    }
}

impl Search {
    /// Creates a search for the images of a table, in the folder `images` if it is specified.
    pub fn new(table: &Path, role: Role, images: Option<&Path>) -> Search {
        let folder = table.parent().unwrap_or(Path::new(""));
        Search {
            root: images.unwrap_or(folder).into(),
            given: images.is_some(),
            stem: table.file_stem().unwrap_or_default().to_string_lossy().to_lowercase(),
            role,
            listed: RefCell::default(),
            candidates: OnceCell::new(),
        }
    }

    /// Returns the contents of a folder, which are read once.
    fn entries(&self, folder: &Path) -> Rc<Entries> {
        if let Some(known) = self.listed.borrow().get(folder) {
            return known.clone();
        }
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut entries = Entries::default();
        // A folder that cannot be read counts as empty.
        for entry in std::fs::read_dir(shown).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let mut kind = entry.file_type().ok();
            if kind.is_some_and(|kind| kind.is_symlink()) {
                kind = entry.path().metadata().ok().map(|target| target.file_type());
            }
            // Broken links, devices and pipes are not images.
            match kind {
                Some(kind) if kind.is_dir() => entries.folders.push(name.into()),
                Some(kind) if kind.is_file() => _ = entries.files.insert(name.into()),
                _ => {}
            }
        }
        entries.folders.sort_unstable();
        let entries = Rc::new(entries);
        self.listed.borrow_mut().insert(folder.into(), entries.clone());
        entries
    }

    /// Returns the file at a path, which may lack the extension.
    fn file(&self, path: &Path) -> Option<PathBuf> {
        let path: PathBuf = path.components().collect();
        let name = path.file_name()?.to_str()?;
        let entries = self.entries(path.parent()?);
        let found = EXTENSIONS.iter().find(|extension| entries.files.contains(&*format!("{name}{extension}")))?;
        Some(path.with_file_name(format!("{name}{found}")))
    }

    /// Returns the folders that may contain images, the most likely first.
    fn candidates(&self) -> &[Candidate] {
        self.candidates.get_or_init(|| {
            let mut found = vec![Candidate { path: self.root.clone(), rank: (0, 0), role: Role::Whole }];
            let mut next = 0;
            while next < found.len() && found.len() < MAX_FOLDERS {
                let folder = found[next].path.clone();
                next += 1;
                let below = folder.strip_prefix(&self.root).unwrap_or(&folder).components().count();
                if below == DEPTH {
                    continue;
                }
                for name in &self.entries(&folder).folders {
                    if !is_clutter(name) {
                        found.push(self.candidate(folder.join(&**name), below + 1));
                    }
                }
            }
            if !self.given {
                let outside = [self.root.parent().map(Path::to_path_buf), Some(PathBuf::new())];
                let outside = (OUTSIDE..).zip(outside.into_iter().flatten()).filter(|(_, path)| *path != self.root);
                found.extend(outside.map(|(rank, path)| Candidate { path, rank: (rank, 0), role: Role::Whole }));
            }
            found.sort_by_key(|candidate| candidate.rank);
            found
        })
    }

    /// Ranks a folder.
    fn candidate(&self, path: PathBuf, depth: usize) -> Candidate {
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        let role = Role::of_path(below);
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let rank = match () {
            _ if name == self.stem => 1,
            _ if role != Role::Whole && role == self.role => 2,
            _ if USUAL.contains(&&*name) && role == Role::Whole => 3,
            _ if role == Role::Train && self.role == Role::Whole => 4,
            _ if role == Role::Whole => 5,
            _ => 6,
        };
        Candidate { path, rank: (rank, depth), role }
    }

    /// Determines rules to convert cells to files, from a sample of cells with their splits. Also
    /// returns the number of these cells whose files were found.
    ///
    /// # Errors
    /// Several folders contain files of these names.
    pub fn plan(&self, cells: &[(Role, &str)]) -> Result<(Plan, usize), String> {
        let mut best = (Plan { place: Where::Folder(self.root.clone()), ..Plan::default() }, 0);
        for backslashes in [false, true] {
            if backslashes && !cells.iter().any(|(_, cell)| cell.contains('\\')) {
                continue;
            }
            let mut prefixes = vec![String::new()];
            if let Some((_, first)) = cells.first() {
                let first = if backslashes { first.replace('\\', "/") } else { first.to_string() };
                prefixes.extend(first.match_indices('/').map(|(at, _)| first[..=at].to_string()));
            }
            for prefix in prefixes {
                let plan = Plan { backslashes, prefix, place: Where::Anywhere };
                let (found, hits) = self.place(plan, cells, best.1)?;
                if hits > best.1 {
                    best = (found, hits);
                }
                if hits == cells.len() {
                    return Ok(best);
                }
            }
        }
        Ok(best)
    }

    /// Determines the location of the files, if more than `least` of them are found.
    fn place(&self, plan: Plan, cells: &[(Role, &str)], least: usize) -> Result<(Plan, usize), String> {
        let paths: Vec<(Role, String)> = cells.iter().map(|(role, cell)| (*role, plan.path(cell))).collect();
        let hits = |folder: &dyn Fn(Role) -> Option<PathBuf>| {
            let found =
                |(role, path): &&(Role, String)| folder(*role).is_some_and(|f| self.file(&f.join(path)).is_some());
            paths.iter().filter(found).count()
        };
        let at = |place: Where| Plan { place, ..plan.clone() };
        let mut best = (at(Where::Folder(self.root.clone())), hits(&|_| Some(self.root.clone())));
        if best.1 == cells.len() || (plan.prefix.is_empty() && Path::new(&paths[0].1).is_absolute()) {
            return Ok(best);
        }
        let candidates = self.candidates();
        let of_splits = self.of_splits(cells);
        if !of_splits.is_empty() {
            let count = hits(&|role| of_splits.get(&role).cloned());
            if count == cells.len() {
                return Ok((at(Where::Splits(of_splits)), count));
            }
            if count > best.1 {
                best = (at(Where::Splits(of_splits)), count);
            }
        }
        let mut whole: Vec<&Candidate> = Vec::new();
        for candidate in candidates {
            if whole.first().is_some_and(|first| first.rank < candidate.rank) {
                break;
            }
            let count = hits(&|_| Some(candidate.path.clone()));
            if count == cells.len() {
                whole.push(candidate);
            } else if count > best.1 {
                best = (at(Where::Folder(candidate.path.clone())), count);
            }
        }
        match whole[..] {
            [] => {}
            [only] => return Ok((at(Where::Folder(only.path.clone())), cells.len())),
            [one, other, ..] => {
                let [one, other] = [one, other].map(|folder| folder.path.display().to_string());
                return Err(format!("the image folder may be {one} or {other}"));
            }
        }
        if best.1.max(least) < cells.len() && paths.iter().all(|(_, path)| !path.contains('/')) {
            let plan = at(Where::Anywhere);
            let names = self.by_name();
            let count = paths.iter().filter(|(_, path)| !names.get(path).is_empty()).count();
            if count > best.1 {
                best = (plan, count);
            }
        }
        Ok(best)
    }

    /// Returns the folder of each split, if the cells have several splits and each has a folder.
    fn of_splits(&self, cells: &[(Role, &str)]) -> BTreeMap<Role, PathBuf> {
        let roles: std::collections::BTreeSet<Role> = cells.iter().map(|(role, _)| *role).collect();
        if roles.len() < 2 {
            return BTreeMap::new();
        }
        let find = |role: Role| {
            let mut folders = self.candidates().iter().filter(|candidate| candidate.role == role);
            Some((role, folders.next()?.path.clone()))
        };
        roles.into_iter().map(find).collect::<Option<_>>().unwrap_or_default()
    }

    /// Returns the files in all candidate folders below the root, by name.
    fn by_name(&self) -> Names {
        let mut names = Names::default();
        for (number, candidate) in (0..).zip(self.candidates()) {
            if candidate.rank.0 < OUTSIDE {
                for file in &self.entries(&candidate.path).files {
                    names.0.entry(file.clone()).or_default().push(number);
                }
            }
        }
        names
    }

    /// Returns a resolver that applies the rules of `plan`.
    pub fn resolver(&self, plan: Plan) -> Resolver<'_> {
        let names = if plan.place == Where::Anywhere { self.by_name() } else { Names::default() };
        Resolver { search: self, plan, names }
    }
}

impl Plan {
    /// Returns the path in a cell, with `/` as separator and without the prefix.
    fn path(&self, cell: &str) -> String {
        let path = if self.backslashes { cell.replace('\\', "/") } else { cell.to_string() };
        match path.strip_prefix(&self.prefix) {
            Some(rest) if !self.prefix.is_empty() => rest.to_string(),
            _ => path,
        }
    }
}

/// Candidate indices by file name.
#[derive(Default)]
struct Names(HashMap<Box<str>, Vec<u32>>);

impl Names {
    /// Returns the file name with its extension, and the candidates that contain it.
    fn get(&self, name: &str) -> Vec<(String, u32)> {
        for extension in EXTENSIONS {
            let name = format!("{name}{extension}");
            if let Some(found) = self.0.get(&*name) {
                return found.iter().map(|&candidate| (name.clone(), candidate)).collect();
            }
        }
        Vec::new()
    }
}

pub(crate) struct Resolver<'a> {
    search: &'a Search,
    plan: Plan,
    names: Names,
}

impl Resolver<'_> {
    /// Returns the file of a cell; if it is missing, its expected path as the inner error.
    ///
    /// # Errors
    /// Several files have this name.
    pub fn file(&self, role: Role, cell: &str) -> Result<Result<PathBuf, PathBuf>, String> {
        let path = self.plan.path(cell);
        let folder = match &self.plan.place {
            Where::Folder(folder) => folder,
            Where::Splits(folders) => folders.get(&role).unwrap_or(&self.search.root),
            Where::Anywhere => {
                let mut found = self.names.get(&path);
                let candidates = self.search.candidates();
                let role_of = |found: &(String, u32)| candidates[found.1 as usize].role;
                if found.len() > 1 && found.iter().any(|found| role_of(found) == role) {
                    found.retain(|found| role_of(found) == role);
                }
                let paths: Vec<PathBuf> =
                    found.iter().map(|(name, candidate)| candidates[*candidate as usize].path.join(name)).collect();
                return match &paths[..] {
                    [] => Ok(Err(self.search.root.join(path))),
                    [file] => Ok(Ok(file.clone())),
                    [one, other, ..] => Err(format!("image {cell} may be {} or {}", one.display(), other.display())),
                };
            }
        };
        Ok(self.search.file(&folder.join(&path)).ok_or_else(|| folder.join(&path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the resolved files of cells, for a folder with these files.
    fn files(table: &str, files: &[&str], cells: &[(Role, &str)]) -> Result<Vec<String>, String> {
        let folder = tempfile::TempDir::new().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let table = folder.path().join(table);
        let role = Role::of_path(Path::new(table.file_name().unwrap()));
        let search = Search::new(&table, role, None);
        let (plan, _) = search.plan(cells)?;
        let resolver = search.resolver(plan);
        cells
            .iter()
            .map(|(role, cell)| {
                let path = resolver.file(*role, cell)?.unwrap_or_else(|_| "missing".into());
                Ok(path.strip_prefix(folder.path()).unwrap_or(&path).display().to_string())
            })
            .collect()
    }

    fn of_whole(table: &str, existing: &[&str], cells: &[&str]) -> Result<String, String> {
        let cells: Vec<(Role, &str)> = cells.iter().map(|cell| (Role::Whole, *cell)).collect();
        files(table, existing, &cells).map(|files| files.join(" "))
    }

    #[test]
    fn images_are_found_relative_to_the_table() {
        for (table, existing, cells, expected) in [
            ("t.csv", &["img/0.jpg", "img/1.png"][..], &["img/0", "./img/1.png"][..], "img/0.jpg img/1.png"),
            ("t.csv", &["img/0.jpg", "img/1.JPG"], &["img\\0.jpg", "img\\1"], "img/0.jpg img/1.JPG"),
            ("train.csv", &["train_images/7.jpg", "test_images/7.jpg"], &["7"], "train_images/7.jpg"),
            ("train.csv", &["train/007.jpg", "test/007.jpg"], &["007.jpg"], "train/007.jpg"),
            ("labels.csv", &["train/a.jpg", "test/b.jpg"], &["a"], "train/a.jpg"),
            ("h.csv", &["part_1/0.jpg", "part_2/1.jpg"], &["0", "1"], "part_1/0.jpg part_2/1.jpg"),
            ("notes/t.csv", &["images/0.jpg"], &["images/0.jpg"], "images/0.jpg"),
            ("t.csv", &["set/img/0.jpg", "set/img/1.jpg"], &["img/0.jpg", "img/1.jpg"], "set/img/0.jpg set/img/1.jpg"),
            (
                "t.csv",
                &["img/0.jpg"],
                &["C:\\Users\\me\\set\\img\\0.jpg", "C:\\Users\\me\\set\\img\\2.jpg"],
                "img/0.jpg missing",
            ),
            ("t.csv", &["a/0.jpg", "b/0.jpg"], &["/home/me/set/a/0.jpg", "/home/me/set/b/0.jpg"], "a/0.jpg b/0.jpg"),
            ("t.csv", &["0.jpg", "0.png"], &["0"], "0.jpg"),
            ("t.csv", &["cat/0.jpg"], &["cat"], "missing"),
        ] {
            assert_eq!(of_whole(table, existing, cells).as_deref(), Ok(expected), "{table} {cells:?}");
        }
    }

    #[test]
    fn ambiguous_file_names_are_resolved_by_split_or_rejected() {
        let existing = ["train/0.jpg", "val/0.jpg"];
        let cells = [(Role::Train, "0.jpg"), (Role::Val, "0.jpg")];
        assert_eq!(files("t.csv", &existing, &cells).unwrap(), existing);
        let why = of_whole("t.csv", &["a/0.jpg", "b/0.jpg"], &["0.jpg"]).unwrap_err();
        assert!(why.contains("image folder may be"), "{why}");
        let why = of_whole("t.csv", &["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/2.jpg"], &["0", "1", "2"]).unwrap_err();
        assert!(why.contains("image 0 may be"), "{why}");
    }
}
