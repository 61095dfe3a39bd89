//! CIFAR-10 and CIFAR-100 in their binary versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::Dataset;

use mbconv_image::RgbPixels;

use crate::dataset::DataSet;
use crate::error::DataError;
use crate::form::Form;
use crate::formats::location::{DatasetFormat, Detected, Location};
use crate::options::OpenOptions;
use crate::source::{Sample, Source, StoredImage};
use crate::text::decode_text;

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;

/// Layout of a record and names of the files. A record has labels, then a red, a green and a blue
/// plane.
#[derive(Clone, Copy)]
struct Layout {
    classes: usize,
    /// Index of the used label among the leading bytes.
    label: usize,
    /// Number of label bytes.
    labels: usize,
    train: &'static [&'static str],
    test: &'static str,
    /// Official number of records in a training file and in the test file.
    records: (usize, usize),
    names: &'static str,
    known_names: &'static [&'static str],
}

const CIFAR10: Layout = Layout {
    classes: 10,
    label: 0,
    labels: 1,
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    records: (10_000, 10_000),
    names: "batches.meta.txt",
    known_names: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
};

const CIFAR100: Layout = Layout {
    classes: 100,
    // The first label is the coarse one.
    label: 1,
    labels: 2,
    train: &["train.bin"],
    test: "test.bin",
    records: (50_000, 10_000),
    names: "fine_label_names.txt",
    known_names: &[
        "apple",
        "aquarium_fish",
        "baby",
        "bear",
        "beaver",
        "bed",
        "bee",
        "beetle",
        "bicycle",
        "bottle",
        "bowl",
        "boy",
        "bridge",
        "bus",
        "butterfly",
        "camel",
        "can",
        "castle",
        "caterpillar",
        "cattle",
        "chair",
        "chimpanzee",
        "clock",
        "cloud",
        "cockroach",
        "couch",
        "crab",
        "crocodile",
        "cup",
        "dinosaur",
        "dolphin",
        "elephant",
        "flatfish",
        "forest",
        "fox",
        "girl",
        "hamster",
        "house",
        "kangaroo",
        "keyboard",
        "lamp",
        "lawn_mower",
        "leopard",
        "lion",
        "lizard",
        "lobster",
        "man",
        "maple_tree",
        "motorcycle",
        "mountain",
        "mouse",
        "mushroom",
        "oak_tree",
        "orange",
        "orchid",
        "otter",
        "palm_tree",
        "pear",
        "pickup_truck",
        "pine_tree",
        "plain",
        "plate",
        "poppy",
        "porcupine",
        "possum",
        "rabbit",
        "raccoon",
        "ray",
        "road",
        "rocket",
        "rose",
        "sea",
        "seal",
        "shark",
        "shrew",
        "skunk",
        "skyscraper",
        "snail",
        "snake",
        "spider",
        "squirrel",
        "streetcar",
        "sunflower",
        "sweet_pepper",
        "table",
        "tank",
        "telephone",
        "television",
        "tiger",
        "tractor",
        "train",
        "trout",
        "tulip",
        "turtle",
        "wardrobe",
        "whale",
        "willow_tree",
        "wolf",
        "woman",
        "worm",
    ],
};

impl Layout {
    fn of(form: Form) -> Layout {
        if form == Form::Cifar100 { CIFAR100 } else { CIFAR10 }
    }

    /// Returns the size of a record in bytes.
    fn record(&self) -> usize {
        self.labels + 3 * PIXELS
    }

    /// Returns the names of all data files.
    fn files(&self) -> impl Iterator<Item = &'static str> {
        self.train.iter().copied().chain([self.test])
    }
}

/// The folder of the binary files of CIFAR-10 or CIFAR-100.
struct Binary(Form, PathBuf);

/// Detects the binary files by name.
pub(crate) fn detect(location: &Location) -> Detected {
    let found = location.is_folder().then(|| find(&location.path)).flatten();
    Ok(found.map(|(form, folder)| Box::new(Binary(form, folder)) as Box<dyn DatasetFormat>))
}

impl DatasetFormat for Binary {
    fn open(&self, _: &OpenOptions) -> Result<DataSet, DataError> {
        open(self.0, &self.1)
    }
}

/// Finds the binary files in a folder, or in the folder that the original archive unpacks to.
fn find(path: &Path) -> Option<(Form, PathBuf)> {
    let has_files = |folder: &Path, layout: Layout| layout.files().any(|file| folder.join(file).is_file());
    let candidates = [(Form::Cifar10, CIFAR10, "cifar-10-batches-bin"), (Form::Cifar100, CIFAR100, "cifar-100-binary")];
    for (form, layout, unpacked) in candidates {
        for folder in [path.to_path_buf(), path.join(unpacked)] {
            if has_files(&folder, layout) {
                return Some((form, folder));
            }
        }
    }
    None
}

/// The contents of a file.
struct File {
    name: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
}

struct Cifar {
    layout: Layout,
    files: Vec<File>,
    /// File index and offset of every record.
    records: Vec<(u32, u32)>,
}

fn open(form: Form, folder: &Path) -> Result<DataSet, DataError> {
    let layout = Layout::of(form);
    let mut notes = Vec::new();
    let classes = class_names(&layout, folder)?;
    let exists = |file: &str| folder.join(file).exists();
    let train = if layout.train.iter().any(|file| exists(file)) {
        Some(read(layout, folder, layout.train, layout.records.0, &mut notes)?)
    } else {
        notes.push(format!("no training files in {}", folder.display()));
        None
    };
    let val = if exists(layout.test) {
        notes.push(format!("{} is used for validation", layout.test));
        Some(read(layout, folder, &[layout.test], layout.records.1, &mut notes)?)
    } else {
        notes.push(format!("no validation split in {1}: {0} is missing", layout.test, folder.display()));
        None
    };
    let aliases = Vec::new();
    Ok(DataSet { form, classes, aliases, divided: false, val_is_test: true, train, val, test: None, notes })
}

/// Reads the class names from their file, or returns the official ones if it is missing.
fn class_names(layout: &Layout, folder: &Path) -> Result<Vec<String>, DataError> {
    let path = folder.join(layout.names);
    let text = match fs::read(&path) {
        Ok(bytes) => decode_text(bytes, &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(layout.known_names.iter().map(|name| name.to_string()).collect());
        }
        Err(source) => return Err(DataError::io(path, source)),
    };
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != layout.classes {
        return Err(DataError::ClassNames { path, found: names.len(), expected: layout.classes });
    }
    Ok(names)
}

fn read(
    layout: Layout,
    folder: &Path,
    names: &[&'static str],
    official: usize,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn Source>, DataError> {
    let record = layout.record();
    let mut split = Cifar { layout, files: Vec::new(), records: Vec::new() };
    for &name in names {
        let path = folder.join(name);
        // Check the size first, because an unrelated file may be arbitrarily large.
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(DataError::MissingFile { path }),
            Err(source) => return Err(DataError::io(path, source)),
        };
        let damaged = |found: u64| DataError::RecordSize {
            path: folder.join(name),
            found,
            record,
            expected: (record * official) as u64,
            records: official,
        };
        if size == 0 || size % record as u64 != 0 || size > u64::from(u32::MAX) {
            return Err(damaged(size));
        }
        let bytes = fs::read(&path).map_err(|source| DataError::io(&path, source))?;
        if bytes.len() as u64 != size {
            return Err(damaged(bytes.len() as u64));
        }
        let count = bytes.len() / record;
        if count != official {
            notes.push(format!("{name} contains {count} images; the official file contains {official}"));
        }
        for (number, content) in bytes.chunks_exact(record).enumerate() {
            let label = usize::from(content[layout.label]);
            if label >= layout.classes {
                return Err(DataError::LabelRange { path, record: number, label, classes: layout.classes });
            }
            split.records.push((split.files.len() as u32, (number * record) as u32));
        }
        split.files.push(File { name, path, bytes });
    }
    Ok(Arc::new(split))
}

impl Cifar {
    /// Returns the file and the bytes of a record.
    fn record(&self, index: usize) -> (&File, &[u8]) {
        let (file, offset) = self.records[index];
        let file = &self.files[file as usize];
        (file, &file.bytes[offset as usize..][..self.layout.record()])
    }
}

impl Dataset<Sample, DataError> for Cifar {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let (_, record) = self.record(index);
        let (labels, planes) = record.split_at(self.layout.labels);
        let (red, rest) = planes.split_at(PIXELS);
        let (green, blue) = rest.split_at(PIXELS);
        let mut data = vec![0; 3 * PIXELS];
        for (pixel, ((&r, &g), &b)) in data.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
            pixel.copy_from_slice(&[r, g, b]);
        }
        let image = StoredImage::Pixels(RgbPixels { width: SIDE, height: SIDE, data });
        Ok(Sample { image, label: usize::from(labels[self.layout.label]) })
    }

    fn len(&self) -> usize {
        self.records.len()
    }
}

impl Source for Cifar {
    fn name(&self, index: usize) -> String {
        let (_, offset) = self.records[index];
        let (file, _) = self.record(index);
        format!("{}[{}]", file.name, offset as usize / self.layout.record())
    }

    fn label(&self, index: usize) -> usize {
        usize::from(self.record(index).1[self.layout.label])
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }
}
