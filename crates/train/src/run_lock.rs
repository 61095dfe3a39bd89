//! The lock on a run's folder: at most one process trains there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::distributed::host;

/// Name of the lock file in a run's folder. It contains the process that trains there, and is
/// removed when the run ends.
pub const LOCK: &str = ".lock";

/// Attempts to lock a folder while other runs in it end.
const ATTEMPTS: usize = 1000;

/// An exclusive lock on the folder of a run, held until it is dropped.
///
/// The operating system releases it when the process ends, so a killed run leaves the file but not
/// the lock.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    /// The locked file; `None` if the file system has no locks.
    file: Option<File>,
    /// Warning for the user if there is no lock.
    warning: Option<String>,
    /// True if this lock created the folder.
    created: bool,
}

/// A folder that cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum RunLockError {
    /// Another process trains there.
    #[error("{path} is in use by {owner}")]
    Locked {
        /// The folder.
        path: String,
        /// The process and its host.
        owner: String,
    },
    /// The folder or the lock file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The folder or file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl RunLockError {
    /// Returns a fix, if there is one.
    pub fn hint(&self) -> Option<String> {
        let locked = matches!(self, Self::Locked { .. });
        locked.then(|| "wait until that run ends, or choose another folder with --out".into())
    }
}

impl RunLock {
    /// Creates `folder` if it is missing, and locks it. On a file system without locks there is a
    /// [`warning`](Self::warning) instead.
    ///
    /// # Errors
    /// Another process that holds the lock; a folder that cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self, RunLockError> {
        let path = folder.join(LOCK);
        let created = !folder.exists();
        let failed = |at: &Path| {
            let path = at.display().to_string();
            move |source| RunLockError::Write { path, source }
        };
        // Repeated if another run ends just now.
        for attempt in 0.. {
            std::fs::create_dir_all(folder).map_err(failed(folder))?;
            let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = match opened {
                // It removed the folder that it had created.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => continue,
                opened => opened.map_err(failed(&path))?,
            };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let (path, owner) = (folder.display().to_string(), owner(&mut file));
                    return Err(RunLockError::Locked { path, owner });
                }
                Err(TryLockError::Error(error)) => {
                    drop(file);
                    let warning = format!(
                        "warning: {} cannot be locked ({error}): do not start a second run in it",
                        folder.display()
                    );
                    let _ = std::fs::remove_file(&path);
                    return Ok(Self { path, file: None, warning: Some(warning), created });
                }
                // It removed the file that is locked now.
                Ok(()) if !is_same(&file, &path) && attempt < ATTEMPTS => continue,
                Ok(()) => {
                    let text = format!("process {} on {}\n", std::process::id(), host());
                    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(failed(&path))?;
                    return Ok(Self { path, file: Some(file), warning: None, created });
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Returns a line for the user if the file system has no locks.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if self.file.is_some() {
            // While the lock is held, so that it is this file that is removed.
            let _ = std::fs::remove_file(&self.path);
        }
        if self.created {
            // Removes the folder of a run that failed before it wrote a file.
            let _ = self.path.parent().map(std::fs::remove_dir);
        }
    }
}

/// Returns the process that holds the lock.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    // Windows does not let others read a locked file.
    let _ = file.take(200).read_to_string(&mut text);
    match text.trim() {
        "" => "another process".into(),
        owner => owner.into(),
    }
}

/// Returns whether `file` is still the file at `path`.
#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: io::Result<std::fs::Metadata>| metadata.map(|data| (data.dev(), data.ino())).ok();
    id(file.metadata()) == id(path.metadata())
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("runs/a");
        let lock = RunLock::acquire(&folder).unwrap();
        let error = RunLock::acquire(&folder).unwrap_err().to_string();
        let owner = format!("process {} on {}", std::process::id(), host());
        assert_eq!(error, format!("{} is in use by {owner}", folder.display()));
        drop(lock);
        // Nothing was written into the new folder.
        assert!(!folder.exists());

        let lock = RunLock::acquire(&folder).unwrap();
        std::fs::write(folder.join("recipe.toml"), "").unwrap();
        drop(lock);
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["recipe.toml"]);
    }

    #[test]
    fn the_file_of_a_killed_run_does_not_lock() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK), "process 1 on elsewhere, with a longer line than ours").unwrap();
        let _lock = RunLock::acquire(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(LOCK)).unwrap();
        assert_eq!(text, format!("process {} on {}\n", std::process::id(), host()));
    }

    /// Processes that end and begin at once never hold the lock together, although each removes the
    /// file.
    #[test]
    fn removing_the_file_does_not_let_two_in() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (folder, inside, acquired) = (folder.path().join("run"), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(_lock) = RunLock::acquire(&folder) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            acquired.fetch_add(1, Ordering::Relaxed);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(acquired.into_inner() > 0);
    }
}
