//! Where the images of a table are: relative to the table, in a folder beside it, or in several.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::listing::is_clutter;
use crate::split_names::Role;

/// What is appended to an image's path, in this order, until a file of that name is found: ids have
/// no extension.
const EXTENSIONS: [&str; 14] =
    ["", ".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"];

/// Folders that usually hold the images of a table, lower case.
const USUAL: [&str; 11] =
    ["images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpeg", "jpegs", "png", "data"];

/// The rank of the folder above the table, before that of the working directory.
const OUTSIDE: u32 = 8;

/// Folders below the table that are searched, and how deep.
const MOST_FOLDERS: usize = 1000;
const DEPTH: usize = 3;

/// Whether a folder's name is that of a split or of images, not of a class.
pub(crate) fn is_storage(folder: &str) -> bool {
    Role::of_path(Path::new(folder)) != Role::Whole || USUAL.contains(&&*folder.to_lowercase())
}

/// Direct contents of a folder.
#[derive(Default)]
struct Entries {
    files: HashSet<Box<str>>,
    folders: Vec<Box<str>>,
}

/// The folders in which the images of a table may be.
pub(crate) struct Search {
    /// The table's folder, or that of the images if it is given.
    root: PathBuf,
    /// Whether the folder of the images is given.
    given: bool,
    /// The table's name without its extension, lower case.
    stem: String,
    role: Role,
    listed: RefCell<HashMap<PathBuf, Rc<Entries>>>,
    candidates: OnceCell<Vec<Candidate>>,
}

/// A folder that may hold images.
struct Candidate {
    path: PathBuf,
    /// The lower the likelier.
    rank: (u32, usize),
    role: Role,
}

/// Turns a cell into the path of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whether paths are separated by `\`.
    backslashes: bool,
    /// What is left out at the beginning of paths: folders of another computer.
    pub prefix: String,
    place: Where,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    Folder(PathBuf),
    /// A folder for each split.
    Splits(BTreeMap<Role, PathBuf>),
    /// Anywhere in the candidates, by the file's name.
    Anywhere,
}

impl Default for Where {
    fn default() -> Self {
        Where::Folder(PathBuf::new())
    }
}

impl Search {
    pub fn new(table: &Path, role: Role, images: Option<&Path>) -> Search {
        let beside = table.parent().unwrap_or(Path::new(""));
        Search {
            root: images.unwrap_or(beside).into(),
            given: images.is_some(),
            stem: table.file_stem().unwrap_or_default().to_string_lossy().to_lowercase(),
            role,
            listed: RefCell::default(),
            candidates: OnceCell::new(),
        }
    }

    fn entries(&self, folder: &Path) -> Rc<Entries> {
        if let Some(known) = self.listed.borrow().get(folder) {
            return known.clone();
        }
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut entries = Entries::default();
        // A folder that cannot be read holds nothing that can be.
        for entry in std::fs::read_dir(shown).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let mut kind = entry.file_type().ok();
            if kind.is_some_and(|kind| kind.is_symlink()) {
                kind = entry.path().metadata().ok().map(|target| target.file_type());
            }
            // Links that lead nowhere, devices and pipes are no images.
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

    /// The file at a path, which may lack the extension.
    fn file(&self, path: &Path) -> Option<PathBuf> {
        let path: PathBuf = path.components().collect();
        let name = path.file_name()?.to_str()?;
        let entries = self.entries(path.parent()?);
        let found = EXTENSIONS.iter().find(|extension| entries.files.contains(&*format!("{name}{extension}")))?;
        Some(path.with_file_name(format!("{name}{found}")))
    }

    /// Folders in which images may be, the likeliest first.
    fn candidates(&self) -> &[Candidate] {
        self.candidates.get_or_init(|| {
            let mut found = vec![Candidate { path: self.root.clone(), rank: (0, 0), role: Role::Whole }];
            let mut next = 0;
            while next < found.len() && found.len() < MOST_FOLDERS {
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

    /// Finds out how to get from cells to files, by some cells with their splits; and how many of
    /// those are found so.
    ///
    /// # Errors
    /// Several folders that hold files of these names.
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

    /// The likeliest place of the files, if more than `least` are found there.
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
                return Err(format!("its images may be those in {one} or those in {other}"));
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

    /// The folder of each split, if the cells are of several splits and each has one.
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

    /// The files in all candidates below the root, by name.
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

    /// Gets from cells to files by a plan.
    pub fn resolver(&self, plan: Plan) -> Resolver<'_> {
        let names = if plan.place == Where::Anywhere { self.by_name() } else { Names::default() };
        Resolver { search: self, plan, names }
    }
}

impl Plan {
    /// The path in a cell, with slashes and without the prefix.
    fn path(&self, cell: &str) -> String {
        let path = if self.backslashes { cell.replace('\\', "/") } else { cell.to_string() };
        match path.strip_prefix(&self.prefix) {
            Some(rest) if !self.prefix.is_empty() => rest.to_string(),
            _ => path,
        }
    }
}

/// Numbers of candidates, by the names of their files.
#[derive(Default)]
struct Names(HashMap<Box<str>, Vec<u32>>);

impl Names {
    /// The name with its extension, and the candidates that hold such a file.
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
    /// The file that a cell of a split means; if it is missing, where it should be.
    ///
    /// # Errors
    /// Several files of that name.
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
                    [one, other, ..] => {
                        Err(format!("its image {cell} may be {} or {}", one.display(), other.display()))
                    }
                };
            }
        };
        Ok(self.search.file(&folder.join(&path)).ok_or_else(|| folder.join(&path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of cells, below a folder with these files.
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

    fn of_whole(table: &str, held: &[&str], cells: &[&str]) -> Result<String, String> {
        let cells: Vec<(Role, &str)> = cells.iter().map(|cell| (Role::Whole, *cell)).collect();
        files(table, held, &cells).map(|files| files.join(" "))
    }

    #[test]
    fn images_are_found_beside_the_table() {
        for (table, held, cells, expected) in [
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
            assert_eq!(of_whole(table, held, cells).as_deref(), Ok(expected), "{table} {cells:?}");
        }
    }

    #[test]
    fn several_files_of_a_name_are_told_apart_by_split_or_refused() {
        let held = ["train/0.jpg", "val/0.jpg"];
        let cells = [(Role::Train, "0.jpg"), (Role::Val, "0.jpg")];
        assert_eq!(files("t.csv", &held, &cells).unwrap(), held);
        let why = of_whole("t.csv", &["a/0.jpg", "b/0.jpg"], &["0.jpg"]).unwrap_err();
        assert!(why.contains("may be those in"), "{why}");
        let why = of_whole("t.csv", &["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/2.jpg"], &["0", "1", "2"]).unwrap_err();
        assert!(why.contains("its image 0 may be"), "{why}");
    }
}
