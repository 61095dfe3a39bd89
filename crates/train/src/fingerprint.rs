//! Fingerprint of a data set: names, labels, sizes and modification times, without reading images.
//! Checkpoints contain it, so that resuming a run detects changes of the data.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use crate::fnv::{BASIS, fnv};
use mbconv_data::{DataSet, Source};

/// Up to this number of samples, each sample has a row; with more samples, each class of a split
/// has one.
const MOST_ROWS: usize = 100_000;
/// First field of the text format.
const HEADER: &str = "mbconv data 1";
/// Number of names listed for each kind of change.
const NAMED: usize = 3;

/// Names, labels, sizes and modification times of the training and validation splits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fingerprint {
    /// Digest of all names and labels, in order.
    order: u64,
    /// Rows by name: of samples, or of classes in large data sets; and of files that contain many
    /// samples.
    rows: BTreeMap<String, Row>,
}

/// A sample, all samples of a class in a split, or a file that contains many samples.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    /// `train` or `val`; empty for a file.
    split: String,
    label: String,
    images: usize,
    /// Sum of the digests of the names.
    names: u64,
    /// Sum of the file sizes.
    bytes: u64,
    /// Sum of the digests of names and modification times.
    modified: u64,
}

/// Differences between two fingerprints, as text for users.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Differences {
    /// Samples that were added, removed, moved or relabeled, so that the data set is a different
    /// one.
    pub(crate) listing: Vec<String>,
    /// Files that were modified, as by repairing or copying the data.
    pub(crate) contents: Vec<String>,
}

impl Fingerprint {
    /// Computes the fingerprint of the training and validation splits without reading images.
    pub(crate) fn of(data: &DataSet) -> Self {
        Self::with_rows(data, MOST_ROWS)
    }

    fn with_rows(data: &DataSet, most_rows: usize) -> Self {
        let splits: Vec<(&str, &dyn Source)> = [("train", &data.train), ("val", &data.val)]
            .into_iter()
            .filter_map(|(name, split)| Some((name, &**split.as_ref()?)))
            .collect();
        let skip = common_folder(&splits);
        let by_class = splits.iter().map(|(_, source)| source.len()).sum::<usize>() > most_rows;
        let mut this = Self::default();
        for (split, source) in splits {
            let samples: Vec<(String, u64, u64)> =
                (0..source.len()).into_par_iter().map(|index| sample(source, index, skip)).collect();
            for (index, (name, bytes, modified)) in samples.into_iter().enumerate() {
                let label = &*data.label_name(source.label(index));
                let digest = fnv(fnv(BASIS, name.as_bytes()), label.as_bytes());
                this.order = fnv(this.order, &digest.to_le_bytes());
                let key = if by_class { format!("class {label} of {split}") } else { name };
                this.add(key, (split, label), [digest, bytes, modified]);
            }
            for path in source.files() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let (bytes, modified) = stamp(&path);
                let row = this.rows.entry(plain(&name)).or_default();
                row.bytes = row.bytes.wrapping_add(bytes);
                row.modified = row.modified.wrapping_add(fnv(modified, name.as_bytes()));
            }
        }
        this
    }

    fn add(&mut self, key: String, (split, label): (&str, &str), [names, bytes, modified]: [u64; 3]) {
        let row =
            self.rows.entry(key).or_insert_with(|| Row { split: split.into(), label: plain(label), ..Row::default() });
        row.images += 1;
        row.names = row.names.wrapping_add(names);
        row.bytes = row.bytes.wrapping_add(bytes);
        row.modified = row.modified.wrapping_add(modified);
    }

    /// Returns the text format, one line per row.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\t{:x}\n", self.order);
        for (name, Row { split, label, images, names, bytes, modified }) in &self.rows {
            let _ = writeln!(text, "{name}\t{split}\t{label}\t{images}\t{names:x}\t{bytes}\t{modified:x}");
        }
        text.into_bytes()
    }

    /// Parses the text format. Returns `None` if it is invalid.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        let (header, order) = lines.next()?.split_once('\t')?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let order = hex(order).filter(|_| header == HEADER)?;
        let row = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, split, label, images, names, bytes, modified] = fields[..] else { return None };
            let (split, label) = (split.into(), label.into());
            let (images, bytes) = (images.parse().ok()?, bytes.parse().ok()?);
            Some((name.into(), Row { split, label, images, names: hex(names)?, bytes, modified: hex(modified)? }))
        };
        Some(Self { order, rows: lines.map(row).collect::<Option<_>>()? })
    }

    /// Compares with an earlier fingerprint.
    pub(crate) fn since(&self, before: &Self) -> Differences {
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut found = |kind, what: String| kinds.entry(kind).or_default().push(what);
        for (name, old) in &before.rows {
            let Some(new) = self.rows.get(name) else {
                found("removed", name.clone());
                continue;
            };
            if old.images != new.images {
                found("with another number of images", format!("{name}: {} then, {} now", old.images, new.images));
            } else if old.split != new.split {
                found("moved to another split", format!("{name}: {} then, {} now", old.split, new.split));
            } else if old.label != new.label {
                found("with another label", format!("{name}: {} then, {} now", old.label, new.label));
            } else if old.names != new.names {
                found("with other files", name.clone());
            } else if old.bytes != new.bytes {
                found(RESIZED, name.clone());
            } else if old.modified != new.modified {
                found(TOUCHED, name.clone());
            }
        }
        for name in self.rows.keys().filter(|name| !before.rows.contains_key(*name)) {
            found("added", name.clone());
        }
        if kinds.keys().all(|kind| [RESIZED, TOUCHED].contains(kind)) && self.order != before.order {
            kinds.insert("in another order", vec!["the images of the listing".into()]);
        }
        let phrase = |(kind, names): (&str, Vec<String>)| {
            let shown = names[..names.len().min(NAMED)].join(", ");
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} {kind} ({shown}{more})", names.len())
        };
        let contents = [RESIZED, TOUCHED].into_iter().filter_map(|kind| kinds.remove_entry(kind)).map(phrase).collect();
        Differences { listing: kinds.into_iter().map(phrase).collect(), contents }
    }
}

const RESIZED: &str = "with another size";
const TOUCHED: &str = "written since, with the same size";

/// Returns name, file size, and digest of name and modification time of a sample.
fn sample(source: &dyn Source, index: usize, skip: usize) -> (String, u64, u64) {
    let name = plain(source.name(index).get(skip..).unwrap_or_default());
    let (bytes, modified) = source.path(index).map_or((0, 0), |path| stamp(&path));
    let modified = fnv(modified, name.as_bytes());
    (name, bytes, modified)
}

/// Returns size and modification time (in nanoseconds) of a file, or zeros if it does not exist.
fn stamp(path: &std::path::Path) -> (u64, u64) {
    let Ok(metadata) = std::fs::metadata(path) else { return (0, 0) };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), modified.map_or(0, |time| time.as_nanos() as u64))
}

/// Returns the length of the folder path shared by all names, so that moved data sets have the same
/// names.
fn common_folder(splits: &[(&str, &dyn Source)]) -> usize {
    let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let Some(first) = splits.iter().find_map(|(_, source)| (source.len() > 0).then(|| source.name(0))) else {
        return 0;
    };
    let length = splits
        .iter()
        .flat_map(|(_, source)| (0..source.len()).into_par_iter().map(|i| shared(&first, &source.name(i))).min())
        .min()
        .unwrap_or(0);
    let length = (0..=length).rev().find(|&length| first.is_char_boundary(length)).unwrap_or(0);
    first[..length].rfind(['/', '\\']).map_or(0, |slash| slash + 1)
}

/// Escapes the characters that separate fields and lines.
fn plain(name: &str) -> String {
    if !name.contains(char::is_control) {
        return name.to_string();
    }
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use mbconv_data::{OpenOptions, open};

    fn look(folder: &Path, rows: usize) -> Fingerprint {
        let data = open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
        Fingerprint::with_rows(&data, rows)
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (split, class) in [("train", "cat"), ("train", "dog"), ("val", "cat"), ("val", "dog")] {
            let class = folder.path().join(split).join(class);
            fs::create_dir_all(&class).unwrap();
            (0..3).for_each(|i| fs::write(class.join(format!("{i}.png")), format!("image {i}")).unwrap());
        }
        folder
    }

    #[test]
    fn changed_files_are_listed_by_kind() {
        let folder = folder();
        let root = folder.path();
        let before = look(root, 100);
        assert_eq!(look(root, 100), before);
        assert_eq!(Fingerprint::from_bytes(&before.to_bytes()), Some(before.clone()));
        assert_eq!(look(root, 100).since(&before), Differences::default());

        fs::write(root.join("train/cat/0.png"), "image x").unwrap();
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
        fs::File::options().write(true).open(root.join("train/cat/0.png")).unwrap().set_modified(old).unwrap();
        let now = look(root, 100).since(&before);
        assert_eq!(now.contents, ["1 written since, with the same size (train/cat/0.png)"]);
        assert!(now.listing.is_empty());

        fs::write(root.join("train/cat/1.png"), "longer than before").unwrap();
        fs::rename(root.join("train/cat/2.png"), root.join("train/dog/20.png")).unwrap();
        fs::write(root.join("val/dog/3.png"), "new").unwrap();
        let now = look(root, 100).since(&before);
        assert_eq!(now.listing, ["2 added (train/dog/20.png, val/dog/3.png)", "1 removed (train/cat/2.png)"]);
        assert_eq!(now.contents[0], "1 with another size (train/cat/1.png)");
    }

    #[test]
    fn large_data_sets_have_a_row_per_class() {
        let folder = folder();
        let root = folder.path();
        let before = look(root, 5);
        assert_eq!(before.rows.len(), 4);
        fs::rename(root.join("train/cat/2.png"), root.join("train/cat/5.png")).unwrap();
        fs::remove_file(root.join("val/dog/0.png")).unwrap();
        let changed = look(root, 5).since(&before).listing;
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert!(changed[0].contains("class dog of val: 3 then, 2 now"), "{changed:?}");
        assert!(changed[1].contains("with other files (class cat of train)"), "{changed:?}");
    }

    #[test]
    fn label_and_order_changes_of_tables_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        (0..4).for_each(|i| fs::write(root.join(format!("{i}.png")), "x").unwrap());
        let table = root.join("t.csv");
        let read = |rows: [&str; 4]| {
            fs::write(&table, format!("path,label,split\n{}\n", rows.join("\n"))).unwrap();
            look(&table, 100)
        };
        let before = read(["0.png,cat,train", "1.png,dog,train", "2.png,cat,val", "3.png,dog,val"]);
        let swapped = read(["1.png,dog,train", "0.png,cat,train", "2.png,cat,val", "3.png,dog,val"]);
        assert!(swapped.since(&before).listing[0].contains("in another order"));
        let relabelled = read(["0.png,dog,train", "1.png,cat,train", "2.png,cat,val", "3.png,dog,val"]);
        let changed = relabelled.since(&before).listing;
        assert_eq!(changed, ["2 with another label (0.png: cat then, dog now, 1.png: dog then, cat now)"]);
        let moved = read(["0.png,cat,val", "1.png,dog,train", "2.png,cat,train", "3.png,dog,val"]);
        let changed = moved.since(&before).listing;
        assert!(changed[0].starts_with("2 moved to another split (0.png: train then, val now"), "{changed:?}");
    }

    #[test]
    fn changes_of_files_with_many_samples_are_detected() {
        let data = open("digits", &OpenOptions::default()).unwrap();
        let before = Fingerprint::of(&data);
        assert_eq!(before.rows.len(), 1797);
        let other = open("digits", &OpenOptions { val_fraction: 0.5, ..OpenOptions::default() }).unwrap();
        assert!(Fingerprint::of(&other).since(&before).listing[0].contains("moved to another split"));

        let folder = tempfile::tempdir().unwrap();
        let write = |pixel: u8| {
            for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
                let name = format!("{name}.bin");
                let records = (0..10u8).flat_map(|label| [vec![label], vec![pixel; 3072]].concat());
                fs::write(folder.path().join(name), records.collect::<Vec<u8>>()).unwrap();
            }
        };
        write(0);
        let before = look(folder.path(), 100);
        std::thread::sleep(std::time::Duration::from_millis(20));
        write(9);
        let contents = look(folder.path(), 100).since(&before).contents;
        assert!(contents[0].starts_with("6 written since") && contents[0].contains("data_batch_1.bin"), "{contents:?}");
    }

    #[test]
    fn invalid_text_is_rejected() {
        for text in ["", "other\t0\n", "mbconv data 1\t0\na\tb\n", "mbconv data 1\tx\n"] {
            assert_eq!(Fingerprint::from_bytes(text.as_bytes()), None);
        }
    }
}
