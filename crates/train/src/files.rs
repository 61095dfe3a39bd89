//! Writing files so that nobody ever sees half of one, and reading those of strangers.

use std::io::Write;
use std::path::Path;

/// Largest file of weights that is read, in bytes: twice a checkpoint of EfficientNet-L2 with averages and Adam's state.
const MAX_WEIGHTS: u64 = 16 << 30;

/// The contents of a file of weights: of a regular file, at the end of whatever links, that a network can fill.
///
/// # Errors
/// A folder, a device, a pipe; a larger file; whatever the system says.
pub(crate) fn read_weights(path: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_WEIGHTS {
        return Err(std::io::Error::other(format!("it has {} bytes, more than any network's weights", metadata.len())));
    }
    std::fs::read(path)
}

/// Writes `bytes` to `path` through a temporary file beside it, which is renamed when complete.
///
/// # Errors
/// A path that is something other than a file, such as a folder or a device; whatever the system says. The old file, if
/// any, is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        // Renaming would replace a device.
        return Err(std::io::Error::other("it is there already and not a regular file"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mbconv-").suffix(".tmp");
    // Temporary files are private by default; a model should get the permissions any new file gets.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("missing/a"), b"x").is_err());
        assert!(write_atomically(folder.path(), b"x").is_err());
    }
}
