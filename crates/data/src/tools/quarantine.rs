//! Moves files to another folder in a way that can be undone. Nothing is deleted or overwritten.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use mbconv_files::{remove_left_overs, write_atomically};

use crate::extent::{Extent, resolved};
use crate::tools::CurateError;
use crate::tools::verify::{Finding, surplus};

/// File name of the log in the folder of moved files. Each line is a JSON object for one file and
/// is flushed to disk before the file is moved.
pub const LOG: &str = "moved.jsonl";

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Original path, absolute.
    pub from: PathBuf,
    /// New path, absolute.
    pub to: PathBuf,
    /// The reason.
    pub why: String,
}

/// Returns the default folder for moved files: `NAME-aside` next to the data set.
pub fn default_folder(data: &Path) -> PathBuf {
    // Paths such as `photos/..` and `.` have no file name of their own.
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_path_buf());
    let mut name = data.file_name().map(ToOwned::to_owned).unwrap_or_else(|| "data".into());
    name.push("-aside");
    data.with_file_name(name)
}

/// Moves the [`surplus`] files of the findings to the same relative paths below `aside`. Returns
/// the moved files and the indices of the findings that are resolved by the moves.
///
/// Files outside the data set (from lists that refer elsewhere) and samples without a file of their
/// own are not moved.
///
/// # Errors
/// `aside` is inside the data set, where the files would be found again; I/O errors. Files moved
/// before the error are in the log.
pub fn move_aside(data: &Extent, aside: &Path, findings: &[Finding]) -> Result<(Vec<Moved>, Vec<usize>), CurateError> {
    let aside = resolved(aside).unwrap_or_else(|| aside.into());
    remove_left_overs(&aside);
    let (mut moves, mut settled) = (Vec::new(), Vec::new());
    let (mut leaving, mut taken) = (HashSet::new(), HashSet::new());
    for (index, finding) in findings.iter().enumerate() {
        let files = surplus(finding);
        let before = moves.len();
        for file in &files {
            // If the file is a link, move the link itself, not its target.
            let Some((from, below)) = file.path.as_deref().and_then(|path| data.locate(path)) else { continue };
            if leaving.insert(from.clone()) {
                let to = free(&aside.join(below), &taken);
                taken.insert(to.clone());
                moves.push(Moved { from, to, why: format!("{}: {}", finding.kind.name(), finding.detail) });
            }
        }
        if !files.is_empty() && moves.len() - before == files.len() {
            settled.push(index);
        }
    }
    if moves.is_empty() {
        return Ok((moves, settled));
    }
    if data.contains_folder(&aside) {
        return Err(CurateError::Request {
            message: format!("{} is inside the data set", aside.display()),
            hint: "choose a folder outside it, or omit the option to use the default next to the data set".into(),
        });
    }
    MoveLog::open(&aside)?.move_files(&moves)?;
    Ok((moves, settled))
}

/// The result of [`undo`].
#[derive(Debug, Default)]
pub struct Undone {
    /// Files that were moved back.
    pub back: Vec<Moved>,
    /// Files that were not moved back because their original paths exist.
    pub left: Vec<Moved>,
    /// Files that exist in neither place.
    pub gone: Vec<Moved>,
    /// Moves from or to folders other than the data set and the log's folder. They are not undone.
    pub outside: Vec<Moved>,
    /// Numbers of unreadable lines of the log.
    pub damaged: Vec<usize>,
}

impl Undone {
    /// Returns whether every move in the log was undone.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty() && self.gone.is_empty() && self.outside.is_empty() && self.damaged.is_empty()
    }
}

/// Moves every file in the log of `aside` back to its place in the data set, then removes the log.
/// Entries that were not undone stay in the log. An incomplete last line is ignored, because its
/// file was not moved yet.
///
/// # Errors
/// A log that is missing or has no valid line; I/O errors.
pub fn undo(data: &Extent, aside: &Path) -> Result<Undone, CurateError> {
    remove_left_overs(aside);
    let path = aside.join(LOG);
    let log = Contents::read(&path).map_err(CurateError::file("read", &path))?;
    if let (true, Some((line, _, why))) = (log.entries.is_empty(), log.damaged.first()) {
        return Err(CurateError::Damaged { path, why: format!("line {line}: {why}") });
    }
    let folder = Extent::folders(&[aside.to_path_buf()]);
    let damaged = log.damaged.iter().map(|(line, ..)| *line).collect();
    let mut undone = Undone { damaged, ..Undone::default() };
    for entry in log.entries {
        let places = (data.locate(&entry.from), folder.locate(&entry.to));
        let list = match (exists(&entry.from), exists(&entry.to)) {
            _ if places.0.is_none() || places.1.is_none() => &mut undone.outside,
            // Logged, but the move did not happen.
            (true, false) => continue,
            (true, true) => &mut undone.left,
            (false, true) => {
                rename(&entry.to, &entry.from).map_err(CurateError::file("move", &entry.to))?;
                &mut undone.back
            }
            (false, false) => &mut undone.gone,
        };
        list.push(entry);
    }
    let kept = [&undone.left, &undone.gone, &undone.outside].into_iter().flatten();
    let lines: String =
        kept.filter_map(|entry| entry.line().ok()).chain(log.damaged.into_iter().map(|l| l.1)).collect();
    let kept = match lines.is_empty() {
        true => fs::remove_file(&path),
        false => write_atomically(&path, lines.as_bytes()),
    };
    kept.map_err(CurateError::file("write", &path))?;
    // Remove the folders created for the moved files, if they are empty.
    let aside = fs::canonicalize(aside).unwrap_or_else(|_| aside.into());
    for entry in &undone.back {
        let folders = entry.to.ancestors().skip(1).take_while(|folder| folder.starts_with(&aside));
        let _ = folders.into_iter().try_for_each(fs::remove_dir);
    }
    Ok(undone)
}

impl Moved {
    fn line(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

/// Contents of a log.
#[derive(Default)]
struct Contents {
    entries: Vec<Moved>,
    /// Unreadable lines: number, text, error.
    damaged: Vec<(usize, String, String)>,
    /// True if the last line is incomplete, for example because the disk was full or the process
    /// was killed.
    is_truncated: bool,
}

impl Contents {
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut contents = Self::default();
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            match parse(line) {
                Ok(entry) => contents.entries.push(entry),
                Err(_) if !line.ends_with('\n') => contents.is_truncated = true,
                Err(why) => contents.damaged.push((number, line.into(), why.to_string())),
            }
        }
        Ok(contents)
    }
}

/// Parses a line of the log. If it contains an incomplete entry followed by a complete one, returns
/// the complete one.
fn parse(line: &str) -> serde_json::Result<Moved> {
    let whole = serde_json::from_str(line);
    match line.rfind("{\"from\":") {
        Some(at) if whole.is_err() && at > 0 => serde_json::from_str(&line[at..]),
        _ => whole,
    }
}

/// The log of a folder. Moves are recorded before files are moved.
pub(crate) struct MoveLog {
    path: PathBuf,
    file: File,
}

impl MoveLog {
    /// Opens the log in `folder`; creates both if necessary. Removes an incomplete line and moves
    /// that did not happen, which an earlier process may have left.
    pub fn open(folder: &Path) -> Result<Self, CurateError> {
        fs::create_dir_all(folder).map_err(CurateError::file("create", folder))?;
        let path = folder.join(LOG);
        let mut earlier = match Contents::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::default(),
            other => other.map_err(CurateError::file("read", &path))?,
        };
        let before = earlier.entries.len();
        earlier.entries.retain(|entry| exists(&entry.to) || !exists(&entry.from));
        if earlier.is_truncated || earlier.entries.len() < before {
            let lines = earlier.entries.iter().filter_map(|entry| entry.line().ok());
            let lines: String = lines.chain(earlier.damaged.into_iter().map(|(_, line, _)| line)).collect();
            write_atomically(&path, lines.as_bytes()).map_err(CurateError::file("write", &path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(CurateError::file("write", &path))?;
        #[cfg(unix)]
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(CurateError::file("write", folder))?;
        Ok(Self { path, file })
    }

    /// Adds the moves to the log, flushes it to disk, and moves the files. If the log cannot be
    /// written, for example because the disk is full, no file is moved.
    pub fn move_files(&mut self, moves: &[Moved]) -> Result<(), CurateError> {
        let failed = || CurateError::file("write", &self.path);
        let mut end = self.file.metadata().map_err(failed())?.len();
        let lines = moves.iter().map(Moved::line).collect::<io::Result<Vec<String>>>().map_err(failed())?;
        let written = self.file.write_all(lines.concat().as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Make the log end with a complete line. If this fails too, the next reader ignores the
            // incomplete line.
            let _ = self.file.set_len(end);
            return Err(failed()(error));
        }
        for (entry, line) in moves.iter().zip(&lines) {
            if let Err(error) = rename(&entry.from, &entry.to) {
                let _ = self.file.set_len(end);
                return Err(CurateError::file("move", &entry.from)(error));
            }
            end += line.len() as u64;
        }
        Ok(())
    }
}

/// Returns whether a path exists, including broken links.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns the path, with a number appended if the path exists or is in `taken`.
pub(crate) fn free(path: &Path, taken: &HashSet<PathBuf>) -> PathBuf {
    let mut number = 1;
    let mut candidate = path.to_path_buf();
    while exists(&candidate) || taken.contains(&candidate) {
        number += 1;
        let mut name = path.file_stem().unwrap_or_default().to_os_string();
        name.push(format!("-{number}"));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        candidate = path.with_file_name(name);
    }
    candidate
}

/// Moves a file, possibly to another file system.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut source = File::open(from)?;
            let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
            let copied = io::copy(&mut source, &mut target).and_then(|_| target.sync_all());
            // Remove an incomplete copy, for example after a full disk.
            copied.inspect_err(|_| _ = fs::remove_file(to))?;
            fs::remove_file(from)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::verify::{FileOf, Kind};

    fn finding(kind: Kind, path: &Path) -> Finding {
        let file = FileOf { split: "train", class: "a".into(), name: String::new(), path: Some(path.into()) };
        Finding { kind, detail: "the reason".into(), files: vec![file] }
    }

    fn extent(root: &Path) -> Extent {
        Extent::folders(&[root.to_path_buf()])
    }

    /// A data set of bad files in `photos`; moved files are in `photos-aside`.
    struct Photos {
        _top: tempfile::TempDir,
        extent: Extent,
        aside: PathBuf,
        files: Vec<PathBuf>,
    }

    impl Photos {
        fn new(files: usize) -> Self {
            let top = tempfile::tempdir().unwrap();
            let folder = fs::canonicalize(top.path()).unwrap();
            let (root, aside) = (folder.join("photos"), folder.join("photos-aside"));
            fs::create_dir(&root).unwrap();
            let files: Vec<PathBuf> = (0..files).map(|number| root.join(format!("{number}.jpg"))).collect();
            files.iter().for_each(|file| fs::write(file, "bad").unwrap());
            Self { _top: top, extent: extent(&root), aside, files }
        }

        fn fix(&self) -> Result<(Vec<Moved>, Vec<usize>), CurateError> {
            let files = self.files.iter().filter(|file| file.exists());
            let findings: Vec<Finding> = files.map(|file| finding(Kind::Corrupt, file)).collect();
            move_aside(&self.extent, &self.aside, &findings)
        }

        fn log(&self) -> PathBuf {
            self.aside.join(LOG)
        }

        fn in_place(&self) -> usize {
            self.files.iter().filter(|file| file.exists()).count()
        }
    }

    #[test]
    fn undo_ignores_an_incomplete_last_line() {
        let photos = Photos::new(5);
        photos.fix().unwrap();
        assert_eq!(photos.in_place(), 0);
        // Logged, but the process was killed before it moved the file.
        let log = fs::read_to_string(photos.log()).unwrap();
        let later = log.lines().last().unwrap().replace("4.jpg", "5.jpg");
        fs::write(photos.files[4].with_file_name("5.jpg"), "bad").unwrap();
        fs::write(photos.log(), format!("{log}{later}\n{}", &later[..later.len() / 2])).unwrap();
        let undone = undo(&photos.extent, &photos.aside).unwrap();
        assert_eq!((undone.back.len(), undone.is_complete(), photos.in_place()), (5, true, 5));
        assert!(!photos.aside.exists());
    }

    #[test]
    fn temporary_files_of_killed_processes_are_removed() {
        let photos = Photos::new(2);
        photos.fix().unwrap();
        let left = photos.aside.join(".mbconv-killed.tmp");
        // Temporary files are removed even if there is nothing to move.
        fs::write(&left, "half a log").unwrap();
        photos.fix().unwrap();
        assert!(!left.exists());
        fs::write(&left, "half a log").unwrap();
        undo(&photos.extent, &photos.aside).unwrap();
        assert!(!photos.aside.exists());
    }

    #[test]
    fn an_incomplete_log_is_repaired_before_adding_moves() {
        let photos = Photos::new(3);
        photos.fix().unwrap();
        let log = fs::read_to_string(photos.log()).unwrap();
        // The last move did not happen, and its line is incomplete.
        fs::rename(photos.aside.join("2.jpg"), &photos.files[2]).unwrap();
        fs::write(photos.log(), &log[..log.len() - 20]).unwrap();
        assert_eq!(photos.fix().unwrap().0.len(), 1);
        assert_eq!(fs::read_to_string(photos.log()).unwrap(), log);
        // Earlier versions appended to an incomplete line.
        fs::write(photos.log(), log.replacen("\"}\n", "", 1)).unwrap();
        let undone = undo(&photos.extent, &photos.aside).unwrap();
        assert_eq!((undone.back.len(), photos.in_place()), (2, 2));
    }

    #[test]
    fn no_file_is_moved_if_the_log_cannot_be_written() {
        let photos = Photos::new(3);
        fs::create_dir_all(&photos.aside).unwrap();
        // Every write to this device fails as on a full disk.
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let mut log = MoveLog { path: full.into(), file: OpenOptions::new().append(true).open(full).unwrap() };
        let moves = photos.files.iter().map(|file| {
            let to = photos.aside.join(file.file_name().unwrap());
            Moved { from: file.clone(), to, why: String::new() }
        });
        let error = log.move_files(&moves.collect::<Vec<_>>()).unwrap_err();
        assert!(error.to_string().contains("/dev/full"), "{error}");
        assert_eq!(photos.in_place(), 3);
    }

    #[test]
    fn failed_moves_are_removed_from_the_log() {
        let photos = Photos::new(3);
        photos.fix().unwrap();
        undo(&photos.extent, &photos.aside).unwrap();
        let mut log = MoveLog::open(&photos.aside).unwrap();
        let moved = |name: &str| Moved {
            from: photos.files[0].with_file_name(name),
            to: photos.aside.join(name),
            why: String::new(),
        };
        assert!(log.move_files(&[moved("0.jpg"), moved("none.jpg"), moved("1.jpg")]).is_err());
        assert_eq!(Contents::read(&photos.log()).unwrap().entries, [moved("0.jpg")]);
    }

    #[test]
    fn undo_only_changes_the_two_folders() {
        let photos = Photos::new(2);
        photos.fix().unwrap();
        let top = photos.aside.parent().unwrap();
        let victim = top.join("victim");
        fs::write(&victim, "").unwrap();
        let line =
            |from: &Path, to: &Path| Moved { from: from.into(), to: to.into(), why: String::new() }.line().unwrap();
        let up = photos.aside.join("../new");
        let outside = [
            line(&top.join("new"), &photos.aside.join("0.jpg")),
            line(&up, &photos.aside.join("0.jpg")),
            line(&photos.files[0].with_file_name("new"), &victim),
        ];
        let log = fs::read_to_string(photos.log()).unwrap();
        fs::write(photos.log(), outside.concat() + &log).unwrap();
        let undone = undo(&photos.extent, &photos.aside).unwrap();
        assert_eq!((undone.back.len(), undone.outside.len(), photos.in_place()), (2, 3, 2));
        assert!(victim.exists() && !top.join("new").exists());
    }

    #[test]
    fn moved_files_keep_their_relative_paths_and_are_restored() {
        let top = tempfile::tempdir().unwrap();
        let (root, aside) = (top.path().join("photos"), top.path().join("photos-aside"));
        let file = root.join("train/a/1.jpg");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let extent = extent(&root);
        assert_eq!(default_folder(&root), fs::canonicalize(top.path()).unwrap().join("photos-aside"));
        for content in ["first", "second"] {
            fs::write(&file, content).unwrap();
            let (moved, settled) = move_aside(&extent, &aside, &[finding(Kind::Corrupt, &file)]).unwrap();
            assert_eq!((moved.len(), settled), (1, vec![0]));
            assert!(!file.exists());
        }
        // The second file of the same name did not overwrite the first.
        assert_eq!(fs::read_to_string(aside.join("train/a/1.jpg")).unwrap(), "first");
        assert_eq!(fs::read_to_string(aside.join("train/a/1-2.jpg")).unwrap(), "second");
        let undone = undo(&extent, &aside).unwrap();
        assert_eq!((undone.back.len(), undone.left.len(), undone.is_complete()), (1, 1, false));
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        // The original path of the second file exists. Once it is free, that file is restored too,
        // and the folder of moved files is gone.
        fs::rename(&file, root.join("elsewhere.jpg")).unwrap();
        let undone = undo(&extent, &aside).unwrap();
        assert_eq!((undone.back.len(), undone.is_complete()), (1, true));
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert!(!aside.exists());
        assert!(matches!(undo(&extent, &aside), Err(CurateError::File { .. })));
    }

    #[test]
    fn only_files_of_the_data_set_are_moved_and_never_into_it() {
        let top = tempfile::tempdir().unwrap();
        let (root, other) = (top.path().join("photos"), top.path().join("other.jpg"));
        let inside = root.join("1.jpg");
        fs::create_dir_all(&root).unwrap();
        fs::write(&other, "").unwrap();
        fs::write(&inside, "").unwrap();
        let aside = top.path().join("aside");
        let findings = [finding(Kind::Empty, &other), finding(Kind::Extension, &inside)];
        let (moved, settled) = move_aside(&extent(&root), &aside, &findings).unwrap();
        assert!(moved.is_empty() && settled.is_empty() && other.exists() && inside.exists() && !aside.exists());
        let into = move_aside(&extent(&root), &root.join("aside"), &[finding(Kind::Empty, &inside)]);
        assert!(matches!(into, Err(CurateError::Request { .. })) && inside.exists());
    }

    #[test]
    fn a_damaged_log_is_an_error() {
        let aside = tempfile::tempdir().unwrap();
        fs::write(aside.path().join(LOG), "{\"from\": 1}\n").unwrap();
        let root = extent(Path::new("/no"));
        assert!(matches!(undo(&root, aside.path()), Err(CurateError::Damaged { .. })));
        let line =
            |from: &str, to: &Path| Moved { from: from.into(), to: to.into(), why: String::new() }.line().unwrap();
        let log = line("/no/1", &aside.path().join("1")) + "{}\n" + &line("/no/2", &aside.path().join("2"));
        fs::write(aside.path().join(LOG), &log).unwrap();
        let undone = undo(&root, aside.path()).unwrap();
        assert_eq!((undone.gone.len(), &undone.damaged[..]), (2, &[2][..]));
        // The whole log is kept.
        let kept = fs::read_to_string(aside.path().join(LOG)).unwrap();
        assert_eq!((kept.len(), kept.contains("{}\n")), (log.len(), true));
    }
}
