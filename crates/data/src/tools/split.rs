//! Divides a data set into training, validation and test splits.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::seq::SliceRandom;

use mbconv_image::seed::split_rng;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::extent::Extent;
use crate::loader::OnBadImage;
use crate::options::path_of;
use crate::source::{Source, StoredImage};
use crate::split_names::is_split_name;
use crate::tools::pack::{Skipped, encode_png, extension};
use crate::tools::quarantine::{MoveLog, Moved};
use crate::tools::{CurateError, WINDOW, Work, check_inside, quarantine, splits, verify};

/// Names of the splits to write; [`open`](crate::formats::open) recognizes them.
const NAMES: [&str; 3] = ["train", "val", "test"];

/// The transfer of images to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A hard link, which takes no additional space.
    Link,
    /// A copy. Required for images without a file of their own, such as records and members of
    /// archives.
    Copy,
    /// Moves the file and records the move in a log that [`quarantine::undo`] reads.
    Move,
    /// No transfer: `train.csv`, `val.csv` and `test.csv` list paths and labels.
    List,
}

/// Options of [`split`].
#[derive(Clone, Copy, Debug)]
pub struct SplitOptions {
    /// Fraction of each class for validation.
    pub val: f64,
    /// Fraction of each class for testing.
    pub test: f64,
    /// Seed that selects the images.
    pub seed: u64,
    /// Transfer of images to the output. By default hard links, or copies if images are not
    /// separate files.
    pub way: Option<Way>,
    /// Merges all existing splits first. Otherwise only the training split is divided and the
    /// others are kept.
    pub pool: bool,
    /// Handling of images that cannot be decoded.
    pub on_bad_image: OnBadImage,
    /// Includes images that links or tables refer to outside the data set.
    pub follow_links: bool,
}

/// The result of [`split`].
#[derive(Clone, Debug)]
pub struct Divided {
    /// Number of images in each split.
    pub images: BTreeMap<&'static str, usize>,
    /// Images that were skipped.
    pub skipped: Vec<Skipped>,
}

/// An image: index of its current split, and its index in that split.
type Member = (usize, usize);

/// Writes the divided data set to `out`: one folder per split with one folder per class, or lists.
/// `name` is the name with which `data` was opened. Every image is decoded first.
///
/// Each class contributes the requested fractions, rounded, and at least one image to each split as
/// long as one is left for training. With the same seed and fraction, training on the undivided
/// data set holds out the same validation images.
///
/// # Errors
/// `out` exists and is not empty; a requested split already exists; class names that are not valid
/// folder names; images outside the data set, or images that cannot be decoded, unless the options
/// allow them; I/O errors.
pub fn split(
    data: &DataSet,
    name: &str,
    out: &Path,
    options: &SplitOptions,
    work: &mut Work,
) -> Result<Divided, CurateError> {
    data.check_single_label("`data split`")?;
    let root = Path::new(path_of(name));
    let mut parts = divide(data, options)?;
    if out.symlink_metadata().is_ok() && !fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()) {
        return Err(CurateError::Exists { path: out.into() });
    }
    let absolute = |path: &Path| std::path::absolute(path).map_err(CurateError::file("resolve", path));
    if root.is_dir() && absolute(out)?.starts_with(absolute(root)?) {
        return Err(CurateError::Request {
            message: format!("{} is inside the data set, which would then contain its images twice", out.display()),
            hint: "choose a folder outside it".into(),
        });
    }
    let sources: Vec<Arc<dyn Source>> = splits(data).into_iter().map(|(_, source)| source).collect();
    let files = parts.iter().flatten().all(|&(split, index)| sources[split].path(index).is_some());
    let way = options.way.unwrap_or(if files { Way::Link } else { Way::Copy });
    if way != Way::Copy && !files {
        return Err(CurateError::Request {
            message: format!("the images of this data set ({}) are not separate files", data.form),
            hint: "use --copy to write each image to a file".into(),
        });
    }
    let folders = if way == Way::List { Vec::new() } else { class_folders(&data.classes)? };
    // Lists do not copy anything. Files moved from other folders could not be moved back.
    if way == Way::Move || way != Way::List && !options.follow_links {
        check_inside(data, &Extent::of(name), way != Way::Move)?;
    }
    let place = Transfer { root, classes: &data.classes, folders, sources, way };
    let skipped = place.drop_bad(&mut parts, options.on_bad_image, work)?;
    let counts = NAMES.into_iter().zip(&parts).map(|(name, part)| (name, part.len()));
    let divided = Divided { images: counts.filter(|part| part.1 > 0).collect(), skipped };
    if way == Way::Move {
        // Write directly to the final folder; the log records the moves.
        place.fill(out, &parts, work)?;
        return Ok(divided);
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(CurateError::file("create", parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mbconv-split-");
    // Temporary folders are private by default, but the data set should have the default
    // permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let unfinished = builder.tempdir_in(parent).map_err(CurateError::file("write", parent))?;
    place.fill(unfinished.path(), &parts, work)?;
    // `out` may be an empty folder, which some systems do not replace.
    let _ = fs::remove_dir(out);
    fs::rename(unfinished.path(), out).map_err(CurateError::file("write", out))?;
    // The temporary folder was renamed, so there is nothing left to remove.
    let _ = unfinished.keep();
    Ok(divided)
}

/// Selects the images of train, val and test.
fn divide(data: &DataSet, options: &SplitOptions) -> Result<[Vec<Member>; 3], CurateError> {
    let SplitOptions { val, test, seed, pool, .. } = *options;
    let part = |part: f64| (0.0..1.0).contains(&part);
    if !part(val) || !part(test) || val + test >= 1.0 || val + test == 0.0 {
        return Err(CurateError::Request {
            message: format!("the fractions {val} for validation and {test} for testing are invalid"),
            hint: "use positive fractions with a sum below 1, for example --val 0.1 --test 0.1".into(),
        });
    }
    let present = splits(data);
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut divided = Vec::new();
    for (split, (name, source)) in present.iter().enumerate() {
        let members = (0..source.len()).map(|index| (split, index));
        if pool || *name == "train" || present.len() == 1 {
            divided.extend(members);
            continue;
        }
        let name = if *name == "val" && data.val_is_test { "test" } else { name };
        let wanted = if name == "val" { val } else { test };
        if wanted > 0.0 {
            return Err(CurateError::Request {
                message: format!("the data set already has {name} images"),
                hint: format!("use --{name} 0 to keep them and divide the others, or --pool to merge all images first"),
            });
        }
        parts[if name == "val" { 1 } else { 2 }].extend(members);
    }
    let mut classes = vec![Vec::new(); data.classes.len()];
    for member in divided {
        classes[present[member.0].1.label(member.1)].push(member);
    }
    for (class, mut members) in classes.into_iter().enumerate() {
        members.shuffle(&mut split_rng(seed, class));
        let all = members.len();
        let share = |part: f64, left: usize| match part {
            0.0 => 0,
            part => ((all as f64 * part).round() as usize).max(1).min(left.saturating_sub(1)),
        };
        let first = share(val, all);
        let second = share(test, all - first);
        parts[1].extend_from_slice(&members[..first]);
        parts[2].extend_from_slice(&members[first..first + second]);
        parts[0].extend_from_slice(&members[first + second..]);
    }
    parts.iter_mut().for_each(|part| part.sort_unstable());
    Ok(parts)
}

/// Returns a unique folder name for each class.
fn class_folders(classes: &[String]) -> Result<Vec<String>, CurateError> {
    let mut taken = HashSet::new();
    classes
        .iter()
        .map(|class| {
            let mut name = class.replace(['/', '\\', '\0'], "_");
            if name.is_empty() || name.starts_with('.') {
                name.insert(0, '_');
            }
            // Some file systems are case-insensitive.
            if taken.insert(name.to_lowercase()) {
                return Ok(name);
            }
            Err(CurateError::Request {
                message: format!("two classes would have the same folder {name:?}"),
                hint: "rename one of them, or use --list".into(),
            })
        })
        .collect()
}

/// Sources and destination of the images.
struct Transfer<'a> {
    root: &'a Path,
    classes: &'a [String],
    folders: Vec<String>,
    sources: Vec<Arc<dyn Source>>,
    way: Way,
}

impl Transfer<'_> {
    /// Decodes every image. Removes images that cannot be decoded, or returns the first error.
    fn drop_bad(
        &self,
        parts: &mut [Vec<Member>; 3],
        on_bad_image: OnBadImage,
        work: &mut Work,
    ) -> Result<Vec<Skipped>, CurateError> {
        let (mut skipped, mut done) = (Vec::new(), 0);
        for part in parts {
            let mut sound = Vec::with_capacity(part.len());
            let check = |place: usize| {
                let (split, index) = part[place];
                verify::try_decode(self.sources[split].as_ref(), index)
            };
            work.map(0..part.len(), done, check, |place, checked| {
                let (split, index) = part[place];
                match (checked, on_bad_image) {
                    (Ok(()), _) => sound.push(part[place]),
                    (Err(error), OnBadImage::Fail) => return Err(error.into()),
                    (Err(error), OnBadImage::Skip) => {
                        let why = match error {
                            DataError::Image { source, .. } => source.to_string(),
                            DataError::Io { source, .. } => source.to_string(),
                            other => other.to_string(),
                        };
                        skipped.push(Skipped { name: self.sources[split].name(index), why });
                    }
                }
                Ok(())
            })?;
            done += part.len();
            *part = sound;
        }
        Ok(skipped)
    }

    /// Writes all splits to `out`.
    fn fill(&self, out: &Path, parts: &[Vec<Member>; 3], work: &mut Work) -> Result<(), CurateError> {
        fs::create_dir_all(out).map_err(CurateError::file("create", out))?;
        let mut done = 0;
        for (name, part) in NAMES.into_iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
            match self.way {
                Way::List => self.list(&out.join(format!("{name}.csv")), part)?,
                _ => self.place(out, name, part, done, work)?,
            }
            done += part.len();
        }
        Ok(())
    }

    /// Writes a split as a CSV list of paths and labels.
    fn list(&self, path: &Path, part: &[Member]) -> Result<(), CurateError> {
        let failed = || CurateError::file("write", path);
        let mut file = BufWriter::new(File::create_new(path).map_err(failed())?);
        writeln!(file, "path,label").map_err(failed())?;
        for &(split, index) in part {
            let source = &self.sources[split];
            let image = source.path(index).unwrap_or_default();
            let image = std::path::absolute(&image).map_err(CurateError::file("resolve", &image))?;
            let Some(image) = image.to_str() else {
                return Err(CurateError::Request {
                    message: format!("the name of {} is not valid UTF-8, which lists require", image.display()),
                    hint: "rename the file, or use --link or --copy".into(),
                });
            };
            let label = &self.classes[source.label(index)];
            writeln!(file, "{},{}", csv_field(image), csv_field(label)).map_err(failed())?;
        }
        file.into_inner().map_err(|error| failed()(error.into_error()))?.sync_all().map_err(failed())
    }

    /// Links, copies or moves the images of a split; `done` images were processed before.
    fn place(&self, out: &Path, name: &str, part: &[Member], done: usize, work: &mut Work) -> Result<(), CurateError> {
        if self.way == Way::Move {
            return self.move_part(out, name, part, done, work);
        }
        let read = |place: usize| -> Result<Option<(Vec<u8>, &'static str)>, CurateError> {
            let (split, index) = part[place];
            let source = &self.sources[split];
            if source.path(index).is_some() {
                return Ok(None);
            }
            Ok(Some(match source.get(index)?.image {
                StoredImage::Encoded(bytes) => {
                    let extension = extension(&bytes);
                    (bytes, extension)
                }
                StoredImage::Pixels(pixels) => {
                    let image = |source| DataError::Image { name: self.sources[split].name(index), source };
                    (encode_png(&pixels).map_err(image)?, "png")
                }
            }))
        };
        work.map(0..part.len(), done, read, |place, read| {
            let (split, index) = part[place];
            let source = &self.sources[split];
            let label = source.label(index);
            let folder = out.join(name).join(&self.folders[label]);
            let (from, content) = match read? {
                Some((bytes, extension)) => (PathBuf::from(format!("{index:06}.{extension}")), Some(bytes)),
                None => (source.path(index).unwrap_or_default(), None),
            };
            let wanted = match content {
                Some(_) => folder.join(&from),
                None => folder.join(below_class(&from, self.root, &self.classes[label])),
            };
            // Files of the same name from different folders get a number.
            let to = quarantine::free(&wanted, &HashSet::new());
            let parent = to.parent().unwrap_or(out);
            fs::create_dir_all(parent).map_err(CurateError::file("create", parent))?;
            let failed = CurateError::file("write", &to);
            match content {
                Some(bytes) => fs::write(&to, bytes).map_err(failed),
                None if self.way == Way::Copy => fs::copy(&from, &to).map(|_| ()).map_err(failed),
                None => link(&from, &to).map_err(failed),
            }
        })
    }

    /// Moves the files of a part in groups; the log is flushed to disk before each group is moved.
    fn move_part(
        &self,
        out: &Path,
        name: &str,
        part: &[Member],
        done: usize,
        work: &mut Work,
    ) -> Result<(), CurateError> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(CurateError::file("resolve", path));
        let out = absolute(out)?;
        let mut log = MoveLog::open(&out)?;
        for (number, members) in part.chunks(WINDOW).enumerate() {
            if work.stop.load(Ordering::Relaxed) {
                return Err(CurateError::Interrupted);
            }
            let (mut moves, mut taken) = (Vec::new(), HashSet::new());
            for &(split, index) in members {
                let from = self.sources[split].path(index).unwrap_or_default();
                if from.is_symlink() {
                    return Err(CurateError::Request {
                        message: format!("{} is a link, which may break when it is moved", from.display()),
                        hint: "use --link or --copy, which use the link's target; use --undo to restore the files moved so far"
                            .into(),
                    });
                }
                let label = self.sources[split].label(index);
                let below = below_class(&from, self.root, &self.classes[label]);
                let to = quarantine::free(&out.join(name).join(&self.folders[label]).join(below), &taken);
                taken.insert(to.clone());
                moves.push(Moved { from: absolute(&from)?, to, why: "split".into() });
            }
            log.move_files(&moves)?;
            (work.progress)(done + number * WINDOW + members.len());
        }
        Ok(())
    }
}

/// Creates a hard link; symbolic links are resolved first.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(fs::canonicalize(from)?, to)
}

/// Returns the part of a path below the folder of its class; if no folder has the class's name, the
/// part below the folder of its split.
fn below_class(path: &Path, root: &Path, class: &str) -> PathBuf {
    let name = || path.file_name().map(PathBuf::from).unwrap_or_default();
    let Ok(below) = path.strip_prefix(root) else { return name() };
    let parts: Vec<Component> = below.components().collect();
    let folders = &parts[..parts.len().saturating_sub(1)];
    let is_class = |folder: &Component| folder.as_os_str() == class;
    let is_split = |folder: &Component| folder.as_os_str().to_str().is_some_and(is_split_name);
    // A class may be called `train`; the split folder is then the one above it.
    let first = match folders {
        [split, rest @ ..] if is_split(split) && rest.iter().any(is_class) => 1,
        _ => 0,
    };
    let class = folders[first..].iter().position(is_class).map(|at| first + at);
    let above = class.or_else(|| folders.iter().position(is_split)).map_or(0, |at| at + 1);
    let below: PathBuf = parts[above..].iter().collect();
    // Ignore `..`, so that the result stays in the class folder.
    if parts[above..].iter().all(|part| matches!(part, Component::Normal(_))) { below } else { name() }
}

/// Quotes a CSV field if necessary.
fn csv_field(field: &str) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::open;
    use crate::options::OpenOptions;

    fn options(val: f64, test: f64) -> SplitOptions {
        SplitOptions { val, test, seed: 0, way: None, pool: false, on_bad_image: OnBadImage::Fail, follow_links: false }
    }

    #[test]
    fn classes_are_divided_by_fraction_and_match_the_training_hold_out() {
        let data = |val_fraction| open("digits", &OpenOptions { val_fraction, ..OpenOptions::default() }).unwrap();
        let whole = data(0.0);
        let parts = divide(&whole, &options(0.2, 0.0)).unwrap();
        let held_out = data(0.2);
        let source = whole.train.as_ref().unwrap();
        let names = |part: &[Member]| part.iter().map(|&(_, index)| source.name(index)).collect::<Vec<_>>();
        for (part, split) in parts.iter().zip([&held_out.train, &held_out.val]) {
            let split = split.as_ref().unwrap();
            assert_eq!(names(part), (0..split.len()).map(|index| split.name(index)).collect::<Vec<_>>());
        }
        let parts = divide(&whole, &options(0.2, 0.1)).unwrap();
        let mut all: Vec<Member> = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..source.len()).map(|index| (0, index)).collect::<Vec<_>>());
        for class in 0..10 {
            let count = |part: &[Member]| part.iter().filter(|(_, index)| source.label(*index) == class).count();
            let total: usize = parts.iter().map(|part| count(part)).sum();
            assert_eq!(count(&parts[1]), (total as f64 * 0.2).round() as usize);
            assert_eq!(count(&parts[2]), (total as f64 * 0.1).round() as usize);
        }
    }

    #[test]
    fn invalid_fractions_are_rejected() {
        let data = open("digits", &OpenOptions::default()).unwrap();
        for (val, test) in [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (-0.1, 0.2), (f64::NAN, 0.1)] {
            assert!(matches!(divide(&data, &options(val, test)), Err(CurateError::Request { .. })));
        }
        // This data set already has validation images.
        assert!(matches!(divide(&data, &options(0.1, 0.0)), Err(CurateError::Request { .. })));
        assert!(divide(&data, &SplitOptions { pool: true, ..options(0.1, 0.0) }).is_ok());
    }

    #[test]
    fn paths_below_the_class_folder() {
        for (path, class, expected) in [
            ("data/cat/1.jpg", "cat", "1.jpg"),
            ("data/train/cat/x/1.jpg", "cat", "x/1.jpg"),
            ("data/train/1.jpg", "train", "1.jpg"),
            ("data/train/train/1.jpg", "train", "1.jpg"),
            ("data/train/n01440764/1.jpg", "tench", "n01440764/1.jpg"),
            ("data/pets/seg_train/cat/1.jpg", "cat", "1.jpg"),
            ("data/pets/Training/n01440764/1.jpg", "tench", "n01440764/1.jpg"),
            ("data/cat/cat/1.jpg", "cat", "cat/1.jpg"),
            ("data/1.jpg", "cat", "1.jpg"),
            ("elsewhere/cat/1.jpg", "cat", "1.jpg"),
            ("data/cat/../../1.jpg", "cat", "1.jpg"),
        ] {
            assert_eq!(below_class(Path::new(path), Path::new("data"), class), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn class_folders_are_valid_and_unique() {
        let folders = |names: &[&str]| class_folders(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(folders(&["a/b", "..", "c", ""]).unwrap(), ["a_b", "_..", "c", "_"]);
        assert!(folders(&["crane", "crane"]).is_err());
        assert!(folders(&["a/b", "a_b"]).is_err());
    }

    #[test]
    fn csv_fields_are_quoted() {
        assert_eq!(csv_field("a b"), "a b");
        assert_eq!(csv_field("say \"a, b\""), "\"say \"\"a, b\"\"\"");
    }
}
