//! Runs the readers of the fuzz targets on seeds and on a fixed number of seeded mutations. See
//! `fuzz/README.md`.
// A global allocator is an unsafe trait.
#![allow(unsafe_code)]

#[path = "../../../fuzz/src/readers.rs"]
mod readers;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use mbconv_nets::NetworkOptions;
use mbconv_nets::weights::Precision;
use mbconv_train::data::Preprocess;
use mbconv_train::model_file::{Model, ModelCard};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The system allocator, with a count of allocated bytes.
struct Counting;

/// Allocated bytes, and their maximum since the last reset.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(taken: usize, given_back: usize) {
    LIVE.fetch_sub(given_back, Ordering::Relaxed);
    PEAK.fetch_max(LIVE.fetch_add(taken, Ordering::Relaxed) + taken, Ordering::Relaxed);
}

// SAFETY: every call is forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that an input may take: an image in single precision, or a small network.
const MEMORY: usize = 96 << 20;
/// Numbers at which lengths, counts and offsets go wrong.
const EXTREMES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0xffff, 1 << 24, i32::MAX as u64, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// Changes a bit, a byte or a number, deletes, repeats or replaces a piece, or truncates.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        bytes.extend(other);
        return;
    }
    let at = rng.random_range(0..bytes.len());
    let length = rng.random_range(1..=32).min(bytes.len() - at);
    match rng.random_range(0..10) {
        0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => {
            let width = [1, 2, 4, 8][rng.random_range(0..4)].min(bytes.len() - at);
            let number = EXTREMES[rng.random_range(0..EXTREMES.len())];
            let number =
                if rng.random() { number.to_le_bytes() } else { number.rotate_right(8 * width as u32).to_be_bytes() };
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
        4 => bytes[at..at + length].fill([b'9', b'-', b'[', b'"'][rng.random_range(0..4)]),
        5 => drop(bytes.drain(at..at + length)),
        6 => {
            let piece = bytes[at..at + length].to_vec();
            let to = rng.random_range(0..bytes.len());
            bytes.splice(to..to, piece);
        }
        7 => bytes.truncate(at),
        8 => {
            // A large or negative number in the encoding of Thrift and Protocol Buffers.
            let most = rng.random_range(1..=9);
            bytes.splice(at..at + 1, [vec![0xff; most], vec![rng.random_range(0..0x80)]].concat());
        }
        _ => {
            bytes.truncate(at);
            bytes.extend(&other[rng.random_range(0..=other.len())..]);
        }
    }
}

/// Runs `target` on all seeds, which it must accept, then on `inputs` mutations of them.
fn replay(name: &str, target: fn(&[u8]) -> bool, seeds: &[Vec<u8>], inputs: usize) {
    for (index, seed) in seeds.iter().enumerate() {
        assert!(run(name, target, seed), "seed {index} is refused");
    }
    replay_only(name, target, seeds, inputs);
}

/// As [`replay`], for seeds that `target` rejects after having read much of them.
fn replay_only(name: &str, target: fn(&[u8]) -> bool, seeds: &[Vec<u8>], inputs: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut any = || seeds[rng.random_range(0..seeds.len())].clone();
    let pairs: Vec<[Vec<u8>; 2]> = (0..inputs).map(|_| [any(), any()]).collect();
    for [mut bytes, other] in pairs {
        for _ in 0..rng.random_range(1..5) {
            mutate(&mut bytes, &other, &mut rng);
        }
        run(name, target, &bytes);
    }
}

/// Runs one input. Writes it to a file if it fails.
fn run(name: &str, target: fn(&[u8]) -> bool, bytes: &[u8]) -> bool {
    // One input at a time: the count is that of the process.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    if let Ok(accepted) = result
        && taken <= MEMORY
    {
        return accepted;
    }
    let path = std::env::temp_dir().join(format!("mbconv-fuzz-{name}"));
    fs::write(&path, bytes).unwrap();
    panic!("{name}: panicked, or took {taken} bytes of memory: {}", path.display());
}

fn fixtures(folder: &str, wanted: impl Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_file() && wanted(path));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.contains(&extension.to_str().unwrap()))
}

fn images() -> Vec<Vec<u8>> {
    fixtures("image/tests/fixtures/decode", |path| !path.to_string_lossy().ends_with(".rgb.png"))
}

/// A small model file, and its header.
fn model() -> (Vec<u8>, Vec<u8>) {
    let options = NetworkOptions::new("mobilenet_v2_0.1", 2);
    let network = options.architecture().unwrap().init(&Device::default());
    let preprocess = Preprocess { resize: 8.into(), crop: 8.into(), ..Preprocess::default() };
    let card = ModelCard::new(options, vec!["a".into(), "b".into()], preprocess);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Model::save(&network, &card, Precision::F16, &path).unwrap();
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = bytes[8..8 + length].to_vec();
    (bytes, header)
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn images_of_every_format() {
    replay("image", readers::image, &images(), 1500);
}

#[test]
fn crops_of_jpeg_files() {
    let seeds = fixtures("image/tests/fixtures/decode", |path| has_extension(path, &["jpg"]));
    replay("jpeg_crop", readers::jpeg_crop, &seeds, 1000);
}

#[test]
fn model_files() {
    let (whole, header) = model();
    replay("model_file", readers::model_file, &[whole], 40);
    // The target adds fewer weights than the header claims.
    replay_only("model_header", readers::model_header, &[header], 300);
}

#[test]
fn weights_of_other_projects() {
    // Without its model card it is a file of another project.
    let (whole, header) = model();
    let at = whole.windows(9).position(|part| part == b"\"mbconv\":").unwrap();
    let mut nobodys = whole;
    nobodys[at..at + 9].copy_from_slice(b"\"nobody\":");
    assert!(at < header.len());
    replay("weights_file", readers::weights_file, &[nobodys], 40);
    let seeds = fixtures("interop/tests/fixtures/import", |path| has_extension(path, &["pth", "pt"]));
    replay_only("weights_file", readers::weights_file, &seeds, 500);
}

#[test]
fn parquet_files() {
    let seeds = fixtures("data/tests/fixtures/forms/parquet/data", |path| has_extension(path, &["parquet"]));
    replay("parquet", readers::parquet, &seeds, 400);
    replay_only(
        "parquet",
        readers::parquet,
        &fixtures("data/tests/fixtures/labels", |path| has_extension(path, &["parquet"])),
        400,
    );
}

#[test]
fn tar_archives() {
    let images = images();
    let shard: &[(&str, &[u8])] = &[
        ("0.jpg", &images[0]),
        ("0.cls", b"1"),
        ("1.jpg", &images[1]),
        ("1.cls", b"0"),
        ("2.jpg", &images[2]),
        ("2.cls", b"1"),
    ];
    let folders: &[(&str, &[u8])] = &[
        ("set/train/cat/0.jpg", &images[0]),
        ("set/train/dog/1.jpg", &images[1]),
        ("set/val/cat/2.jpg", &images[2]),
        ("set/val/dog/3.jpg", &images[0]),
    ];
    replay("tar", readers::tar, &[tar_of(shard), tar_of(folders)], 500);
}

#[test]
fn zip_archives() {
    let seeds = fixtures("data/tests/fixtures/forms", |path| has_extension(path, &["zip"]));
    replay("zip", readers::zip, &seeds, 500);
}

#[test]
fn tables() {
    let seeds =
        ["image,label\na.png,cat\nb.png,dog\nc.png,cat\n", "image_id;cat;dog\r\n\"a\";1;0\r\nb;0;1\r\nc;1;0\r\n"];
    replay("csv", readers::csv, &seeds.map(|text| text.as_bytes().to_vec()), 600);
}
