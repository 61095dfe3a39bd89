//! Moving files aside, so that they can be moved back. Nothing is ever deleted or overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CurateError;
use super::verify::{Finding, surplus};

/// The log in the folder of files moved aside: one line of JSON a file, written before the file is moved.
pub const LOG: &str = "moved.jsonl";

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where the file was, absolute.
    pub from: PathBuf,
    /// Where it is now, absolute.
    pub to: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// The folder for files moved aside that is used unless another is named: beside the data set, `NAME-aside`.
pub fn default_folder(data: &Path) -> PathBuf {
    // `photos/..` and `.` have no name of their own.
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_path_buf());
    let mut name = data.file_name().map(ToOwned::to_owned).unwrap_or_else(|| "data".into());
    name.push("-aside");
    data.with_file_name(name)
}

/// Moves the [`surplus`] files of the findings from below `root` to the same places below `aside`. Gives what was moved, and
/// the findings' indices that it settles.
///
/// Files that are not below `root` (of lists that lead elsewhere) and samples without a file of their own stay.
///
/// # Errors
/// A folder inside of the data set, where the files would be found again; whatever the system says. Files moved until then are
/// in the log.
pub fn move_aside(root: &Path, aside: &Path, findings: &[Finding]) -> Result<(Vec<Moved>, Vec<usize>), CurateError> {
    let absolute = |path: &Path| fs::canonicalize(path).map_err(CurateError::file("find", path));
    // Of a list or an archive it is the folder that it lies in; what is no path at all has no files.
    let root = if root.is_file() { root.parent().unwrap_or(root) } else { root };
    let Ok(root) = fs::canonicalize(if root.as_os_str().is_empty() { Path::new(".") } else { root }) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let mut log = None;
    let (mut moved, mut settled) = (Vec::new(), Vec::new());
    for (index, finding) in findings.iter().enumerate() {
        let files = surplus(finding);
        let before = moved.len();
        for file in &files {
            let Some(from) = &file.path else { continue };
            // The file itself may be a link: what lies in the data set is moved, not what it leads to.
            let (Some(folder), Some(name)) = (from.parent(), from.file_name()) else { continue };
            let from = absolute(folder)?.join(name);
            let Ok(below) = from.strip_prefix(&root) else { continue };
            let log = match &mut log {
                Some(log) => log,
                None => {
                    fs::create_dir_all(aside).map_err(CurateError::file("make", aside))?;
                    if absolute(aside)?.starts_with(&root) {
                        return Err(CurateError::Request {
                            message: format!("{} is inside of the data set", aside.display()),
                            hint: "choose a folder outside of it, or none for the one beside it".into(),
                        });
                    }
                    let path = aside.join(LOG);
                    let file = OpenOptions::new().create(true).append(true).open(&path);
                    log.insert(file.map_err(CurateError::file("write", &path))?)
                }
            };
            let to = free(&absolute(aside)?.join(below));
            let entry = Moved { from, to, why: format!("{}: {}", finding.kind.name(), finding.detail) };
            note(log, &entry).map_err(CurateError::file("write", &aside.join(LOG)))?;
            rename(&entry.from, &entry.to).map_err(CurateError::file("move", &entry.from))?;
            moved.push(entry);
        }
        if !files.is_empty() && moved.len() - before == files.len() {
            settled.push(index);
        }
    }
    Ok((moved, settled))
}

/// Moves every file of the log back, then removes the log. Files whose place is taken again stay, and stay in the log.
/// Gives what was moved back, and what was not.
///
/// # Errors
/// A missing or damaged log, a file that is in neither place, whatever the system says.
pub fn undo(aside: &Path) -> Result<(Vec<Moved>, Vec<Moved>), CurateError> {
    let path = aside.join(LOG);
    let lines = BufReader::new(File::open(&path).map_err(CurateError::file("read", &path))?).lines();
    let mut entries: Vec<Moved> = Vec::new();
    for (number, line) in lines.enumerate() {
        let line = line.map_err(CurateError::file("read", &path))?;
        entries.push(serde_json::from_str(&line).map_err(|error| CurateError::Damaged {
            path: path.clone(),
            why: format!("line {}: {error}", number + 1),
        })?);
    }
    let (mut back, mut left) = (Vec::new(), Vec::new());
    for entry in entries {
        match (exists(&entry.from), exists(&entry.to)) {
            // Noted, but the move did not come about.
            (true, false) => {}
            (true, true) => left.push(entry),
            (false, true) => {
                rename(&entry.to, &entry.from).map_err(CurateError::file("move", &entry.to))?;
                back.push(entry);
            }
            (false, false) => return Err(CurateError::Gone { path: entry.to }),
        }
    }
    let lines: String = left.iter().filter_map(|entry| Some(serde_json::to_string(entry).ok()? + "\n")).collect();
    let kept = match lines.is_empty() {
        true => fs::remove_file(&path),
        false => crate::files::write_atomically(&path, lines.as_bytes()),
    };
    kept.map_err(CurateError::file("write", &path))?;
    // The folders that were made for them go, where nothing else is in them.
    let aside = fs::canonicalize(aside).unwrap_or_else(|_| aside.into());
    for entry in &back {
        let folders = entry.to.ancestors().skip(1).take_while(|folder| folder.starts_with(&aside));
        let _ = folders.into_iter().try_for_each(fs::remove_dir);
    }
    Ok((back, left))
}

pub(super) fn note(log: &mut File, entry: &Moved) -> io::Result<()> {
    let line = serde_json::to_string(entry)? + "\n";
    log.write_all(line.as_bytes())
}

/// Whether anything is at a path, be it a link that leads nowhere.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The path, or with a number where something is there.
pub(super) fn free(path: &Path) -> PathBuf {
    let mut number = 1;
    let mut candidate = path.to_path_buf();
    while exists(&candidate) {
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

/// Moves a file, to another file system if need be.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut source = File::open(from)?;
            let mut target = OpenOptions::new().write(true).create_new(true).open(to)?;
            io::copy(&mut source, &mut target)?;
            target.sync_all()?;
            fs::remove_file(from)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curate::verify::{FileOf, Kind};

    fn finding(kind: Kind, path: &Path) -> Finding {
        let file = FileOf { split: "train", class: "a".into(), name: String::new(), path: Some(path.into()) };
        Finding { kind, detail: "so it is".into(), files: vec![file] }
    }

    #[test]
    fn moved_files_keep_their_place_and_come_back() {
        let top = tempfile::tempdir().unwrap();
        let (root, aside) = (top.path().join("photos"), top.path().join("photos-aside"));
        let file = root.join("train/a/1.jpg");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(default_folder(&root), fs::canonicalize(top.path()).unwrap().join("photos-aside"));
        for content in ["first", "second"] {
            fs::write(&file, content).unwrap();
            let (moved, settled) = move_aside(&root, &aside, &[finding(Kind::Corrupt, &file)]).unwrap();
            assert_eq!((moved.len(), settled), (1, vec![0]));
            assert!(!file.exists());
        }
        // The second of the name did not overwrite the first.
        assert_eq!(fs::read_to_string(aside.join("train/a/1.jpg")).unwrap(), "first");
        assert_eq!(fs::read_to_string(aside.join("train/a/1-2.jpg")).unwrap(), "second");
        let (back, left) = undo(&aside).unwrap();
        assert_eq!((back.len(), left.len()), (1, 1));
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        // The place of the second is taken; once it is free, that comes back too, and nothing is left aside.
        fs::rename(&file, root.join("elsewhere.jpg")).unwrap();
        let (back, left) = undo(&aside).unwrap();
        assert_eq!((back.len(), left.len()), (1, 0));
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert!(!aside.exists());
        assert!(matches!(undo(&aside), Err(CurateError::File { .. })));
    }

    #[test]
    fn only_what_lies_in_the_data_set_is_moved_and_not_into_it() {
        let top = tempfile::tempdir().unwrap();
        let (root, other) = (top.path().join("photos"), top.path().join("other.jpg"));
        let inside = root.join("1.jpg");
        fs::create_dir_all(&root).unwrap();
        fs::write(&other, "").unwrap();
        fs::write(&inside, "").unwrap();
        let aside = top.path().join("aside");
        let findings = [finding(Kind::Empty, &other), finding(Kind::Extension, &inside)];
        let (moved, settled) = move_aside(&root, &aside, &findings).unwrap();
        assert!(moved.is_empty() && settled.is_empty() && other.exists() && inside.exists() && !aside.exists());
        let into = move_aside(&root, &root.join("aside"), &[finding(Kind::Empty, &inside)]);
        assert!(matches!(into, Err(CurateError::Request { .. })) && inside.exists());
    }

    #[test]
    fn a_damaged_log_is_an_error() {
        let aside = tempfile::tempdir().unwrap();
        fs::write(aside.path().join(LOG), "{\"from\": 1}\n").unwrap();
        assert!(matches!(undo(aside.path()), Err(CurateError::Damaged { .. })));
        fs::write(aside.path().join(LOG), "{\"from\": \"/no/1\", \"to\": \"/no/2\", \"why\": \"\"}\n").unwrap();
        assert!(matches!(undo(aside.path()), Err(CurateError::Gone { .. })));
    }
}
