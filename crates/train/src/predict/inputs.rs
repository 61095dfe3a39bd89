//! Image files given by arguments: files, folders, patterns and lists on standard input.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::iter;
use std::path::{Path, PathBuf};

use super::result::Unread;
use mbconv_data::{DataError, Walk, has_wildcards};

/// The argument for a list of paths on standard input.
const STDIN: &str = "-";

type Paths = Box<dyn Iterator<Item = Result<PathBuf, Unread>> + Send>;

/// Iterator of image files, in the order of the arguments.
///
/// - A file is used with any extension, and even if it does not exist.
/// - A folder contains its images and those of its subfolders, selected by extension.
/// - A pattern such as `photos/**/*.jpg` contains the matching images, unless a file has this name.
/// - `-` reads paths of files and folders from standard input, one per line or separated by NUL.
///
/// A folder or pattern without images gives an error item; the iterator continues after it.
pub struct Inputs {
    arguments: std::vec::IntoIter<PathBuf>,
    current: Paths,
}

impl Inputs {
    /// Creates the iterator. Reads nothing before the first item is requested.
    pub fn new(arguments: Vec<PathBuf>) -> Self {
        Self { arguments: arguments.into_iter(), current: Box::new(iter::empty()) }
    }

    /// Returns whether an argument is the list on standard input, which can be read only once.
    pub fn reads_stdin(arguments: &[PathBuf]) -> bool {
        arguments.iter().any(|argument| argument == Path::new(STDIN))
    }
}

impl Iterator for Inputs {
    type Item = Result<PathBuf, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(path) = self.current.next() {
                return Some(path);
            }
            let argument = self.arguments.next()?;
            self.current = match argument.to_str() {
                Some(STDIN) => Box::new(Listed::new(BufReader::new(io::stdin())).flat_map(listed)),
                Some(pattern) if has_wildcards(pattern) && !argument.exists() => match Walk::pattern(pattern) {
                    Ok(walk) => Box::new(Images { walk, argument, any: false }),
                    Err(error) => Box::new(iter::once(Err(Unread::new(&argument, error)))),
                },
                _ => file_or_folder(argument),
            };
        }
    }
}

/// Returns the files of a path in a list, or the error of reading the list.
fn listed(path: io::Result<PathBuf>) -> Paths {
    match path {
        Ok(path) => file_or_folder(path),
        Err(error) => Box::new(iter::once(Err(Unread::new(Path::new("standard input"), error)))),
    }
}

fn file_or_folder(path: PathBuf) -> Paths {
    match path.is_dir() {
        true => Box::new(Images { walk: Walk::folder(&path), argument: path, any: false }),
        false => Box::new(iter::once(Ok(path))),
    }
}

/// Iterator of the images of a folder or pattern.
struct Images {
    walk: Walk,
    argument: PathBuf,
    /// True if an image or an error was found.
    any: bool,
}

impl Iterator for Images {
    type Item = Result<PathBuf, Unread>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.walk.next();
        let first = !std::mem::replace(&mut self.any, true);
        match found {
            Some(Err(DataError::Io { path, source })) => Some(Err(Unread::new(&path, source))),
            Some(found) => Some(found.map_err(|error| Unread::new(&self.argument, error))),
            None if !first => None,
            None if self.argument.is_dir() => Some(Err(Unread::new(&self.argument, "the folder holds no images"))),
            None => Some(Err(Unread::new(&self.argument, "no image file matches the pattern"))),
        }
    }
}

/// Iterator of the paths in a list. The first separator found, a line break or NUL
/// (`find -print0`), is used for the whole list.
struct Listed<R> {
    reader: R,
    separator: Option<u8>,
    ended: bool,
}

impl<R: BufRead> Listed<R> {
    fn new(reader: R) -> Self {
        Self { reader, separator: None, ended: false }
    }

    /// Reads up to a separator and returns the bytes before it, or `None` at the end.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut entry = Vec::new();
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok((!entry.is_empty()).then_some(entry));
            }
            let is_separator = |&byte: &u8| self.separator.map_or(byte == b'\n' || byte == 0, |known| byte == known);
            let Some(end) = buffer.iter().position(is_separator) else {
                entry.extend_from_slice(buffer);
                let length = buffer.len();
                self.reader.consume(length);
                continue;
            };
            entry.extend_from_slice(&buffer[..end]);
            self.separator = Some(buffer[end]);
            self.reader.consume(end + 1);
            return Ok(Some(entry));
        }
    }
}

impl<R: BufRead> Iterator for Listed<R> {
    type Item = io::Result<PathBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        while !self.ended {
            let first = self.separator.is_none();
            let entry = match self.read() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            let mut entry = entry.as_slice();
            if first {
                entry = entry.strip_prefix(BYTE_ORDER_MARK).unwrap_or(entry);
            }
            if self.separator != Some(0) {
                entry = entry.strip_suffix(b"\r").unwrap_or(entry);
            }
            if !entry.is_empty() {
                return Some(Ok(path_of(entry)));
            }
        }
        self.ended = true;
        None
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes.to_vec()).into()
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from(String::from_utf8_lossy(bytes).into_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_separated_by_lines_or_nul() {
        let read = |list: &[u8]| {
            // A small buffer, so that paths cross its end.
            let listed = Listed::new(BufReader::with_capacity(3, list));
            listed.map(|path| path.unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(b"a b.jpg\n\nc.jpg\n"), ["a b.jpg", "c.jpg"]);
        assert_eq!(read(b"\xEF\xBB\xBFphoto.jpg\r\nlast.jpg"), ["photo.jpg", "last.jpg"]);
        assert_eq!(read(b"two\0lines\nin one\0"), ["two", "lines\nin one"]);
        assert!(read(b"").is_empty());
    }

    #[test]
    fn arguments_without_images_give_errors_among_the_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir(at("some")).unwrap();
        for name in ["some/1.jpg", "some/2.txt", "a[1].jpg"] {
            std::fs::write(at(name), "").unwrap();
        }
        let arguments = ["empty", "some", "x*.jpg", "a[1].jpg", "gone.png", "a**"].map(at).to_vec();
        let found: Vec<Result<PathBuf, String>> =
            Inputs::new(arguments).map(|path| path.map_err(|error| error.to_string())).collect();
        let paths: Vec<_> = found.iter().flatten().cloned().collect();
        assert_eq!(paths, ["some/1.jpg", "a[1].jpg", "gone.png"].map(at));
        let errors: Vec<&String> = found.iter().filter_map(|found| found.as_ref().err()).collect();
        for (error, words) in errors.iter().zip(["the folder holds no images", "no image file matches", "wildcard"]) {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(errors.len(), 3);
    }
}
