//! File and text helpers: atomic writing, bounded reading, zip archives, and escaping for terminals
//! and shells.

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod shell;
pub mod text;
pub mod zip;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Maximum size of a weights file in bytes: twice a checkpoint of EfficientNet-L2 with averaged
/// weights and Adam state.
const MAX_WEIGHTS: u64 = 16 << 30;

/// Prefix and suffix of temporary file names.
const TEMPORARY: [&str; 2] = [".mbconv-", ".tmp"];

/// Reads a weights file. It must be a regular file, after resolving links, of at most 16 GiB.
///
/// # Errors
/// A folder, a device or a pipe; a larger file; I/O errors.
pub fn read_weights(path: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_WEIGHTS {
        return Err(std::io::Error::other(format!(
            "it has {} bytes, which is too large for network weights",
            metadata.len()
        )));
    }
    std::fs::read(path)
}

/// Returns bytes, such as a checksum, as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a file's SHA-256 as lower-case hexadecimal digits.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads at an offset without moving the file position, so that threads can share the file.
#[cfg(unix)]
pub fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

/// Reads at an offset without using the file position, so that threads can share the file.
#[cfg(windows)]
pub fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Fills `out` with the bytes of a file from `offset` on.
pub fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match read_at(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes `bytes` to `path` atomically: writes a temporary file in the same folder, flushes it to
/// disk and renames it.
///
/// # Errors
/// A path that exists but is not a regular file, such as a folder or a device; I/O errors. After an
/// error, the old file is unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, None)
}

/// Writes atomically like [`write_atomically`], but keeps the old file at `path` as `previous`. At
/// any time, at least one of the two files is complete and on disk.
///
/// # Errors
/// See [`write_atomically`].
pub fn write_keeping_previous(path: &Path, bytes: &[u8], previous: &Path) -> std::io::Result<()> {
    replace(path, bytes, Some(previous))
}

/// Writes a temporary file and renames it to `path`.
fn replace(path: &Path, bytes: &[u8], previous: Option<&Path>) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        // Renaming would replace a device.
        return Err(std::io::Error::other("it exists and is not a regular file"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY[0]).suffix(TEMPORARY[1]);
    // Temporary files are private by default; the output should have the default permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    // Lock the file, so that `remove_left_overs` does not delete it. Without lock support, nothing
    // is deleted there.
    let _ = file.as_file().try_lock();
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    if let Some(previous) = previous.filter(|_| path.exists()) {
        let _ = std::fs::remove_file(previous);
        // With a hard link, `path` exists at all times. Some file systems do not support it.
        std::fs::hard_link(path, previous).or_else(|_| std::fs::rename(path, previous))?;
    }
    file.persist(path)?;
    sync_folder(folder);
    Ok(())
}

/// Writes `files`, as names and contents, to a new folder and renames it to `path`.
///
/// An existing folder is replaced if it contains only files called as in `replaceable`.
///
/// # Errors
/// A path that exists and is not such a folder; I/O errors. After an error, the old folder is
/// unchanged.
pub fn write_folder_atomically(path: &Path, files: &[(&str, Vec<u8>)], replaceable: &[&str]) -> io::Result<()> {
    // Resolved, so that a link to a folder stays one, and `.` has a parent.
    let path = if path.exists() { path.canonicalize()? } else { path.to_path_buf() };
    if path.exists() {
        check_is_replaceable(&path, replaceable)?;
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent)?;
    let temporary = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY[0]).suffix(TEMPORARY[1]);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.tempdir_in(parent)
    };
    let new = temporary()?;
    for (name, bytes) in files {
        let mut file = File::create_new(new.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    sync_folder(new.path());
    // Deletes the old folder at the end.
    let old = temporary()?;
    let moved = old.path().join("old");
    if path.exists() {
        std::fs::rename(&path, &moved)?;
    }
    if let Err(error) = std::fs::rename(new.path(), &path) {
        let _ = std::fs::rename(&moved, &path);
        return Err(error);
    }
    let _ = new.keep();
    sync_folder(parent);
    Ok(())
}

/// Rejects anything but a folder that contains only files called as in `replaceable`.
fn check_is_replaceable(path: &Path, replaceable: &[&str]) -> io::Result<()> {
    if !path.is_dir() {
        return Err(io::Error::other("it exists and is not a folder"));
    }
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        if !replaceable.iter().any(|known| name == *known) {
            return Err(io::Error::other(format!("it contains `{}`, which would be lost", name.to_string_lossy())));
        }
    }
    Ok(())
}

/// Flushes a folder's directory entries to disk, if the system supports it.
fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        // Ignore errors: the file itself is complete and on disk.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Removes temporary files of killed processes from `folder`.
pub fn remove_left_overs(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let [prefix, suffix] = TEMPORARY;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_temporary = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix));
        if !is_temporary || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let file = OpenOptions::new().write(true).open(entry.path());
        // A running process that writes the file holds its lock.
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::*;

    #[test]
    fn files_are_replaced_without_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("missing/a"), b"x").is_err());
        assert!(write_atomically(folder.path(), b"x").is_err());
    }

    #[test]
    fn previous_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let [path, previous] = ["a", "b"].map(|name| folder.path().join(name));
        let contents = || [&path, &previous].map(|path| std::fs::read_to_string(path).ok());
        write_keeping_previous(&path, b"first", &previous).unwrap();
        assert_eq!(contents(), [Some("first".into()), None]);
        write_keeping_previous(&path, b"second", &previous).unwrap();
        write_keeping_previous(&path, b"third", &previous).unwrap();
        assert_eq!(contents(), [Some("third".into()), Some("second".into())]);
    }

    #[test]
    fn folders_are_replaced_as_a_whole() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/folder");
        let write = |files: &[(&str, Vec<u8>)]| write_folder_atomically(&path, files, &["a", "b"]);
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        write(&[("a", b"1".to_vec()), ("b", b"2".to_vec())]).unwrap();
        write(&[("a", b"3".to_vec())]).unwrap();
        assert_eq!(names(&path), ["a"]);
        assert_eq!(std::fs::read(path.join("a")).unwrap(), b"3");
        // Other files are not lost.
        std::fs::write(path.join("notes.txt"), "precious").unwrap();
        assert!(write(&[("a", b"4".to_vec())]).unwrap_err().to_string().contains("notes.txt"));
        assert_eq!(names(&path), ["a", "notes.txt"]);
        assert_eq!(names(&parent.path().join("deep")), ["folder"], "no temporary folders");
        assert!(write_folder_atomically(&path.join("a"), &[], &[]).is_err(), "a file");
    }

    #[test]
    fn only_temporary_files_of_ended_processes_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [dead, alive, other] =
            [".mbconv-a1b2c3.tmp", ".mbconv-d4e5f6.tmp", "mbconv-.tmp"].map(|name| folder.path().join(name));
        for path in [&dead, &alive, &other] {
            std::fs::write(path, "").unwrap();
        }
        std::fs::create_dir(folder.path().join(".mbconv-folder.tmp")).unwrap();
        let open = File::open(&alive).unwrap();
        open.lock().unwrap();
        remove_left_overs(folder.path());
        assert!(!dead.exists() && alive.exists() && other.exists());
        drop(open);
        remove_left_overs(folder.path());
        assert!(!alive.exists());
    }
}
