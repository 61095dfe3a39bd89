//! Reading of image files, with checks of type and size before memory is allocated.

use std::fs;
use std::path::Path;

use mbconv_image::DecodeError;

use crate::error::DataError;

/// Maximum size of an image file in bytes, twice that of the largest image without compression.
pub const MAX_IMAGE_BYTES: u64 = 2 << 30;

/// Reads an image file.
///
/// # Errors
/// [`DataError::Image`] for anything but a regular file (pipes and devices may be endless) and for
/// files larger than [`MAX_IMAGE_BYTES`]; [`DataError::Io`] for I/O errors.
pub fn read_image(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Io { path: path.into(), source };
    let refused = |source| DataError::Image { name: path.to_string_lossy().into_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(refused(DecodeError::NotAFile));
    }
    if metadata.len() > MAX_IMAGE_BYTES {
        return Err(refused(DecodeError::TooManyBytes { bytes: metadata.len(), limit: MAX_IMAGE_BYTES }));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_large_files_and_non_files_are_rejected_unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.jpg");
        fs::write(&path, "bytes").unwrap();
        assert_eq!(read_image(&path).unwrap(), b"bytes");
        // A sparse file, which takes no space.
        fs::File::options().write(true).open(&path).unwrap().set_len(MAX_IMAGE_BYTES + 1).unwrap();
        let error = read_image(&path).unwrap_err().to_string();
        assert!(error.contains("1.jpg: the file has 2147483649 bytes, more than the maximum of 2147483648"), "{error}");
        assert!(matches!(read_image(folder.path()), Err(DataError::Image { source: DecodeError::NotAFile, .. })));
        assert!(matches!(read_image(&folder.path().join("2.jpg")), Err(DataError::Io { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_not_read() {
        let endless = read_image(Path::new("/dev/zero"));
        assert!(matches!(endless, Err(DataError::Image { source: DecodeError::NotAFile, .. })));
    }
}
