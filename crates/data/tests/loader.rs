//! Batches depend only on the seed, the epoch and the samples. Unreadable images are handled, and
//! an epoch may be dropped early.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mbconv_data::{
    Batch, Cache, Crop, DataError, Dataset, Decoding, Interpolation, Loader, LoaderConfig, OnBadImage, OpenOptions,
    Preprocess, RgbPixels, Sample, Sampling, Source, StoredImage, TrainTransform, Transform, decode_rgb, keep, open,
};

/// Images whose red value is their index. Those in `bad` cannot be decoded.
struct Numbered {
    len: usize,
    bad: Vec<usize>,
    delay: Duration,
    reads: AtomicUsize,
}

impl Numbered {
    fn new(len: usize, bad: &[usize]) -> Arc<Self> {
        Arc::new(Numbered { len, bad: bad.to_vec(), delay: Duration::ZERO, reads: AtomicUsize::new(0) })
    }
}

impl Dataset<Sample, DataError> for Numbered {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay);
        let image = if self.bad.contains(&index) {
            StoredImage::Encoded(b"this is text".to_vec())
        } else {
            StoredImage::Pixels(RgbPixels { width: 4, height: 4, data: [index as u8, 0, 0].repeat(16) })
        };
        Ok(Sample { image, label: index % 3 })
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Source for Numbered {
    fn name(&self, index: usize) -> String {
        format!("sample {index}")
    }

    fn label(&self, index: usize) -> usize {
        index % 3
    }
}

fn plain() -> Transform {
    Transform::Eval(Preprocess { resize: 4.into(), crop: 4.into(), ..Preprocess::default() })
}

fn random(size: usize) -> Transform {
    let crop = Crop::RandomResized { scale: (0.2, 1.0), ratio: (0.75, 4.0 / 3.0) };
    Transform::Train(TrainTransform {
        size: size.into(),
        interpolation: Interpolation::Bicubic,
        crop,
        horizontal_flip: 0.5,
        ..TrainTransform::default()
    })
}

fn config(batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        batch_size,
        workers: 3,
        prefetch: 2,
        seed: 7,
        shuffle: true,
        sampling: Sampling::Once,
        drop_last: true,
        on_bad_image: OnBadImage::Skip,
        part: 0..usize::MAX,
    }
}

fn collect(loader: &Loader, epoch: usize) -> Vec<Batch> {
    loader.epoch(epoch).map(Result::unwrap).collect()
}

fn indices(batches: &[Batch]) -> Vec<usize> {
    batches.iter().flat_map(|batch| batch.indices.clone()).collect()
}

#[test]
fn batches_do_not_depend_on_workers() {
    let set = open("digits", &OpenOptions::default()).unwrap();
    let train = set.split("train").unwrap();
    let run = |workers, prefetch, epoch, seed| {
        let config = LoaderConfig { workers, prefetch, seed, ..config(50) };
        collect(&Loader::new(train.clone(), random(12), config), epoch)
    };
    let one = run(1, 0, 0, 7);
    assert_eq!(one.len(), train.len() / 50);
    assert!(one.iter().all(|batch| batch.images.len() == 50 * 12 * 12 * 3 && batch.labels.len() == 50));
    assert_eq!(one, run(8, 3, 0, 7));
    // They depend on the epoch and the seed.
    assert_ne!(one, run(1, 0, 1, 7));
    assert_ne!(one, run(1, 0, 0, 8));
    let mut seen = indices(&one);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), one.len() * 50, "no sample comes twice");
    assert!(
        one.iter().all(|batch| batch.indices.iter().zip(&batch.labels).all(|(&i, &label)| train.label(i) == label))
    );
}

#[test]
fn augmentation_depends_on_the_sample_and_not_on_its_position() {
    let set = open("digits", &OpenOptions::default()).unwrap();
    let train = set.split("train").unwrap();
    let find = |shuffle, batch_size| {
        let config = LoaderConfig { shuffle, drop_last: false, ..config(batch_size) };
        let batches = collect(&Loader::new(train.clone(), random(8), config), 3);
        let (batch, at) =
            batches.iter().find_map(|b| b.indices.iter().position(|&i| i == 100).map(|at| (b, at))).unwrap();
        batch.images[at * 192..][..192].to_vec()
    };
    assert_eq!(find(true, 32), find(false, 17));
}

#[test]
fn samples_are_in_order_without_shuffling() {
    let config = LoaderConfig { shuffle: false, drop_last: false, ..config(4) };
    let loader = Loader::new(Numbered::new(10, &[]), plain(), config);
    let batches = collect(&loader, 0);
    assert_eq!((loader.batches(), batches.len()), (3, 3));
    assert_eq!(indices(&batches), (0..10).collect::<Vec<_>>());
    assert_eq!(batches[2].labels, [2, 0]);
    assert!(batches.iter().all(|b| b.images.chunks(48).zip(&b.indices).all(|(image, &i)| image[0] == i as u8)));
}

#[test]
fn skipped_images_are_replaced_in_full_batches() {
    let source = Numbered::new(30, &[3, 4, 5, 20, 21]);
    for workers in [1, 5] {
        let loader = Loader::new(source.clone(), plain(), LoaderConfig { workers, ..config(10) });
        let mut epoch = loader.epoch(0);
        let batches: Vec<Batch> = epoch.by_ref().map(Result::unwrap).collect();
        // There are 25 good images for 30 places, so the first images of the epoch fill the last
        // batch.
        assert_eq!(batches.len(), 3);
        assert!(batches.iter().all(|batch| batch.labels.len() == 10));
        let seen = indices(&batches);
        assert!(seen.iter().all(|i| !source.bad.contains(i)));
        assert_eq!(seen[25..], seen[..5]);
        assert_eq!(epoch.skipped().len(), 5);
        assert!(epoch.skipped().iter().any(|(name, why)| name == "sample 20" && why.contains("not an image")));
        // Skipped images are reported once for all epochs.
        collect(&loader, 1);
        assert_eq!(loader.skipped().len(), 5);
        assert_eq!(collect(&loader, 0), batches);
    }
    // Without a fixed batch size, the last batch is smaller.
    let loader = Loader::new(source, plain(), LoaderConfig { drop_last: false, ..config(10) });
    assert_eq!(collect(&loader, 0).iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [10, 10, 5]);
}

#[test]
fn unreadable_image_ends_the_epoch_if_configured() {
    let config = LoaderConfig { shuffle: false, on_bad_image: OnBadImage::Fail, ..config(4) };
    let mut epoch = Loader::new(Numbered::new(12, &[6]), plain(), config).epoch(0);
    assert!(epoch.next().unwrap().is_ok());
    let error = epoch.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("sample 6"), "{error}");
    assert!(epoch.next().is_none());
}

#[test]
fn source_without_readable_images_is_an_error() {
    let all: Vec<usize> = (0..12).collect();
    for drop_last in [true, false] {
        let config = LoaderConfig { drop_last, ..config(4) };
        let mut epoch = Loader::new(Numbered::new(12, &all), plain(), config).epoch(0);
        let error = epoch.next().unwrap().unwrap_err();
        assert!(matches!(error, DataError::NoImages { samples: 12, first: Some(_) }), "{error}");
        assert!(epoch.next().is_none());
    }
    let mut none = Loader::new(Numbered::new(0, &[]), plain(), config(4)).epoch(0);
    assert!(none.next().is_none());
}

#[test]
fn epoch_continues_from_any_batch() {
    let loader = Loader::new(Numbered::new(53, &[1, 2, 30, 31, 50]), random(4), config(6));
    let whole = collect(&loader, 2);
    assert_eq!(whole.len(), 8);
    for done in 0..=8 {
        let mut first = loader.epoch(2);
        for _ in 0..done {
            first.next().unwrap().unwrap();
        }
        let rest: Vec<Batch> = loader.epoch_from(2, first.position()).map(Result::unwrap).collect();
        assert_eq!(rest, whole[done..], "after {done}");
    }
}

#[test]
fn prefetching_is_limited() {
    let source = Numbered::new(1000, &[]);
    let loader = Loader::new(source.clone(), plain(), LoaderConfig { workers: 2, prefetch: 2, ..config(16) });
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // One batch was returned, one is complete, two are in the queue, and each of the two workers
    // has started images.
    let reads = source.reads.load(Ordering::Relaxed);
    assert!((64..=64 + 2 * 8).contains(&reads), "{reads}");
}

#[test]
fn dropping_an_epoch_stops_its_threads() {
    let delay = Duration::from_millis(20);
    let source = Arc::new(Numbered { len: 1000, bad: Vec::new(), delay, reads: AtomicUsize::new(0) });
    let loader = Loader::new(source.clone(), plain(), LoaderConfig { workers: 2, prefetch: 20, ..config(8) });
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    let start = Instant::now();
    drop(epoch);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let reads = source.reads.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(source.reads.load(Ordering::Relaxed), reads);
}

#[test]
fn text_file_named_png_is_reported() {
    let root = tempfile::TempDir::new().unwrap();
    for class in ["a", "b"] {
        fs::create_dir(root.path().join(class)).unwrap();
    }
    fs::write(root.path().join("a/letter.png"), "Dear reader").unwrap();
    fs::write(root.path().join("b/letter.png"), "Dear reader").unwrap();
    let options = OpenOptions { val_fraction: 0.0, ..OpenOptions::default() };
    let set = open(root.path().to_str().unwrap(), &options).unwrap();
    let config = LoaderConfig { on_bad_image: OnBadImage::Fail, shuffle: false, drop_last: false, ..config(2) };
    let error = Loader::new(set.split("train").unwrap(), plain(), config).epoch(0).next().unwrap().unwrap_err();
    assert!(error.to_string().contains("a/letter.png: not an image"), "{error}");
}

#[test]
fn parts_add_up_to_the_batches() {
    for drop_last in [true, false] {
        let config = LoaderConfig { drop_last, ..config(10) };
        let whole = collect(&Loader::new(Numbered::new(53, &[]), random(4), config.clone()), 1);
        let source = Numbered::new(53, &[]);
        let part = |part| Loader::new(source.clone(), random(4), LoaderConfig { part, ..config.clone() });
        let parts = [0..3, 3..6, 6..10].map(|range| collect(&part(range), 1));
        for (index, batch) in whole.iter().enumerate() {
            // Two parts have none of the last three images.
            let parts: Vec<&Batch> = parts.iter().filter_map(|part| part.get(index)).collect();
            let joined: Vec<usize> = parts.iter().flat_map(|part| part.indices.clone()).collect();
            assert_eq!(joined, batch.indices);
            let pixels: Vec<u8> = parts.iter().flat_map(|part| part.images.clone()).collect();
            assert_eq!(pixels, batch.images);
        }
        assert_eq!(source.reads.load(Ordering::Relaxed), if drop_last { 50 } else { 53 }, "each image is read once");
    }
}

#[test]
fn part_continues_after_another_division_of_the_batches() {
    let loader = |part| Loader::new(Numbered::new(60, &[]), random(4), LoaderConfig { part, ..config(10) });
    let whole = collect(&loader(0..10), 2);
    let mut first = loader(5..10).epoch(2);
    first.by_ref().take(2).for_each(drop);
    assert_eq!((first.position().batches, first.position().samples), (2, 20));
    let rest: Vec<Batch> = loader(0..10).epoch_from(2, first.position()).map(Result::unwrap).collect();
    assert_eq!(rest, whole[2..]);
}

#[test]
fn skipped_images_of_a_part_are_not_replaced() {
    let loader = |bad: &[usize], drop_last| {
        let config = LoaderConfig { shuffle: false, drop_last, part: 2..4, ..config(6) };
        Loader::new(Numbered::new(12, bad), plain(), config)
    };
    let indices = |batches: &[Batch]| batches.iter().map(|batch| batch.indices.clone()).collect::<Vec<_>>();
    assert_eq!(indices(&collect(&loader(&[3], true), 0)), [vec![2], vec![8, 9]]);
    // A part of a training batch without images is an error, because the other parts need it for
    // the optimizer step.
    let error = loader(&[2, 3], true).epoch(0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::NoImages { samples: 2, first: Some(_) }), "{error}");
    // Evaluation continues.
    assert_eq!(indices(&collect(&loader(&[2, 3], false), 0)), [vec![8, 9]]);
}

/// Photographs, some of which cannot be read at first or at all.
struct Files {
    files: Vec<Vec<u8>>,
    reads: Vec<AtomicUsize>,
    /// Number of failing reads of each file before it can be read.
    failures: Vec<usize>,
    kind: std::io::ErrorKind,
}

impl Files {
    fn new(len: usize, failures: &[(usize, usize)], kind: std::io::ErrorKind) -> Arc<Self> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/tests/fixtures/decode");
        let names = ["baseline_420.jpg", "baseline_444.jpg", "progressive.jpg", "rgb.png"];
        let files = (0..len).map(|i| fs::read(folder.join(names[i % names.len()])).unwrap()).collect();
        let mut times = vec![0; len];
        failures.iter().for_each(|&(index, count)| times[index] = count);
        Arc::new(Files { files, reads: (0..len).map(|_| AtomicUsize::new(0)).collect(), failures: times, kind })
    }

    fn reads(&self) -> Vec<usize> {
        self.reads.iter().map(|reads| reads.load(Ordering::Relaxed)).collect()
    }
}

impl Dataset<Sample, DataError> for Files {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        if self.reads[index].fetch_add(1, Ordering::Relaxed) < self.failures[index] {
            return Err(DataError::Io { path: self.name(index).into(), source: self.kind.into() });
        }
        Ok(Sample { image: StoredImage::Encoded(self.files[index].clone()), label: index % 3 })
    }

    fn len(&self) -> usize {
        self.files.len()
    }
}

impl Source for Files {
    fn name(&self, index: usize) -> String {
        format!("file {index}")
    }

    fn label(&self, index: usize) -> usize {
        index % 3
    }
}

const BROKEN: std::io::ErrorKind = std::io::ErrorKind::TimedOut;

#[test]
fn failed_read_is_retried() {
    let sound = Files::new(12, &[], BROKEN);
    let whole = collect(&Loader::new(sound, random(16), config(4)), 0);
    // Two failures are retried too.
    let source = Files::new(12, &[(3, 1), (7, 2)], BROKEN);
    let loader = Loader::new(source.clone(), random(16), config(4));
    assert_eq!(collect(&loader, 0), whole);
    assert!(loader.skipped().is_empty());
    let reads = source.reads();
    assert_eq!((reads[3], reads[7], reads[0]), (2, 3, 1));
}

#[test]
fn file_that_is_never_readable_is_skipped() {
    let source = Files::new(12, &[(3, usize::MAX)], BROKEN);
    let loader = Loader::new(source.clone(), random(16), LoaderConfig { drop_last: false, ..config(4) });
    assert_eq!(indices(&collect(&loader, 0)).len(), 11);
    assert_eq!((loader.skipped()[0].0.as_str(), source.reads()[3]), ("file 3", 3));
    // Many failures in a row, as of a missing disk, end the epoch with an error.
    let all: Vec<(usize, usize)> = (0..40).map(|index| (index, usize::MAX)).collect();
    let config = LoaderConfig { workers: 8, ..config(4) };
    let error = Loader::new(Files::new(40, &all, BROKEN), random(16), config).epoch(0).next().unwrap().unwrap_err();
    assert!(matches!(error, DataError::Io { .. }), "{error}");
}

#[test]
fn missing_file_is_reported_and_skipped() {
    let root = tempfile::TempDir::new().unwrap();
    let photograph = Files::new(1, &[], BROKEN).files[0].clone();
    for name in ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"] {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &photograph).unwrap();
    }
    let set =
        open(root.path().to_str().unwrap(), &OpenOptions { val_fraction: 0.0, seed: 0, ..OpenOptions::default() })
            .unwrap();
    let loader = Loader::new(set.split("train").unwrap(), random(16), LoaderConfig { drop_last: false, ..config(2) });
    assert_eq!(indices(&collect(&loader, 0)).len(), 4);
    fs::remove_file(root.path().join("b/1.jpg")).unwrap();
    assert_eq!(indices(&collect(&loader, 1)).len(), 3);
    assert!(loader.skipped()[0].0.ends_with("b/1.jpg"), "{:?}", loader.skipped());
}

#[test]
fn evaluation_uses_the_exif_setting_of_training() {
    let root = tempfile::TempDir::new().unwrap();
    let photograph = Files::new(1, &[], BROKEN).files[0].clone();
    // EXIF orientation 6: to be rotated by 90°.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let turned = [&photograph[..2], exif, &photograph[2..]].concat();
    for class in ["a", "b"] {
        fs::create_dir(root.path().join(class)).unwrap();
        fs::write(root.path().join(class).join("1.jpg"), &turned).unwrap();
    }
    let options = OpenOptions { val_fraction: 0.0, seed: 0, ..OpenOptions::default() };
    let set = open(root.path().to_str().unwrap(), &options).unwrap();
    let [plain, turned] = [false, true].map(|exif_orientation| {
        let preprocess = Preprocess { resize: 20.into(), crop: 16.into(), exif_orientation, ..Preprocess::default() };
        let batches = collect(&Loader::new(set.split("train").unwrap(), Transform::Eval(preprocess), config(2)), 0);
        batches[0].images[..16 * 16 * 3].to_vec()
    });
    let pixel = |image: &[u8], x: usize, y: usize| [0, 1, 2].map(|color| i32::from(image[(y * 16 + x) * 3 + color]));
    for (x, y) in [(0, 0), (15, 0), (3, 9), (15, 15)] {
        // Resizing the rotated image may round differently.
        let (a, b) = (pixel(&turned, x, y), pixel(&plain, y, 15 - x));
        assert!(a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 1), "{a:?} {b:?} at {x}, {y}");
    }
    assert_ne!(plain, turned);
}

#[test]
fn fast_batches_do_not_depend_on_workers_and_are_close_to_exact_ones() {
    let run = |workers, fast| {
        let loader = Loader::new(Files::new(24, &[], BROKEN), random(20), LoaderConfig { workers, ..config(6) });
        collect(&loader.with_decoding(Decoding { fast, ..Decoding::default() }), 1)
    };
    let (one, exact) = (run(1, true), run(1, false));
    assert_eq!(one, run(7, true));
    assert_ne!(one, exact, "the fast decoder was not used");
    for (fast, exact) in one.iter().zip(&exact) {
        assert_eq!((&fast.indices, &fast.labels), (&exact.indices, &exact.labels));
        for ((index, fast), exact) in fast.indices.iter().zip(fast.images.chunks(1200)).zip(exact.images.chunks(1200)) {
            let distance: u32 = fast.iter().zip(exact).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            assert!(distance < 3 * 1200, "{index}: {distance}");
            // Progressive JPEG and PNG files are decoded exactly.
            assert!(index % 4 < 2 || distance == 0, "{index}: {distance}");
        }
    }
    // Evaluation ignores fast decoding.
    let eval = |fast| {
        let eval = Transform::Eval(Preprocess { resize: 20.into(), crop: 20.into(), ..Preprocess::default() });
        let decoding = Decoding { fast, ..Decoding::default() };
        collect(&Loader::new(Files::new(8, &[], BROKEN), eval, config(4)).with_decoding(decoding), 0)
    };
    assert_eq!(eval(true), eval(false));
}

#[test]
fn fast_decoder_skips_truncated_files() {
    let mut source = Files::new(8, &[], BROKEN);
    let file = &mut Arc::get_mut(&mut source).unwrap().files[4];
    file.truncate(file.len() - 2);
    let decoding = Decoding { fast: true, ..Decoding::default() };
    let loader =
        Loader::new(source, random(16), LoaderConfig { drop_last: false, ..config(4) }).with_decoding(decoding);
    assert_eq!(indices(&collect(&loader, 0)).len(), 7);
    assert!(loader.skipped()[0].1.contains("truncated"), "{:?}", loader.skipped());
}

#[test]
fn cached_images_are_read_once_and_unchanged() {
    let files = Files::new(12, &[(5, 1)], BROKEN);
    let source: Arc<dyn Source> = files.clone();
    let (kept, bytes) = keep(&source, Cache::default(), Decoding::default()).unwrap();
    let size = decode_rgb(&files.files[0]).unwrap().data.len();
    assert!((12 * size..14 * size).contains(&bytes), "{bytes} for 12 of {size}");
    let loader = |source| Loader::new(source, random(16), config(4));
    let (kept, plain) = (loader(kept), loader(Files::new(12, &[], BROKEN)));
    let probed = files.reads();
    for epoch in 0..3 {
        assert_eq!(collect(&kept, epoch), collect(&plain, epoch));
    }
    assert!(files.reads().iter().zip(&probed).all(|(now, probed)| now - probed <= 2), "{:?}", files.reads());
    assert_eq!(files.reads()[0], probed[0] + 1);
    assert!(keep(&source, Cache::Always(false), Decoding::default()).is_none());
    // Images that are in memory already are not cached.
    let numbered: Arc<dyn Source> = Numbered::new(5, &[]);
    assert!(keep(&numbered, Cache::Always(true), Decoding::default()).is_none());
}

#[test]
fn memory_estimate_counts_batches_and_prefetched_images() {
    let loader = Loader::new(Numbered::new(9, &[]), plain(), config(16));
    // Two batches in the queue, one in progress, one returned, and eight images for each of three
    // workers.
    assert_eq!(loader.memory(), (4 * 16 + 3 * 8) * 4 * 4 * 3);
}
