//! Measures the speed of training batches for `scripts/bench_data.py`: `cargo run --release
//! --example bench_data MODE DATA THREADS SECONDS [POLICY [device]]` prints a line of JSON.
//!
//! The modes `fast` and `exact` repeat the photographs of a folder and make random-resized crops of
//! 224 pixels with horizontal flips, in batches of 64. `small` makes padded crops of 32 pixels from
//! a data set such as CIFAR, in batches of 128. `small-files` does so with image files, whose
//! decoded images are cached. With a policy, images are augmented too. With `device` after it, the
//! loader only draws the augmentation, to be applied on a device.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use mbconv_train::data::augment::{AugmentConfig, Augmentation};
use mbconv_train::data::{
    Cache, Crop, DataError, Dataset, Decoding, ImageSize, Interpolation, Loader, LoaderConfig, OpenOptions, Sample,
    Source, StoredImage, TrainTransform, Transform, keep, list_images, open,
};

/// Files, each repeated many times.
struct Repeated {
    files: Vec<PathBuf>,
    times: usize,
}

impl Dataset<Sample, DataError> for Repeated {
    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = &self.files[index % self.files.len()];
        let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.clone(), source })?;
        Ok(Sample { image: StoredImage::Encoded(bytes), label: 0 })
    }

    fn len(&self) -> usize {
        self.files.len() * self.times
    }
}

impl Source for Repeated {
    fn name(&self, index: usize) -> String {
        self.files[index % self.files.len()].display().to_string()
    }

    fn label(&self, _: usize) -> usize {
        0
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    mbconv_nets::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, data, threads, seconds, policy @ ..] = arguments.as_slice() else {
        return Err("MODE DATA THREADS SECONDS [POLICY [device]]".into());
    };
    let (workers, seconds): (usize, f64) = (threads.parse()?, seconds.parse()?);
    let small = mode.starts_with("small");
    let mut source: Arc<dyn Source> = if small {
        open(data, &OpenOptions::default())?.split("train")?
    } else {
        Arc::new(Repeated { files: list_images(Path::new(data))?, times: 1000 })
    };
    if small && let Some((kept, _)) = keep(&source, Cache::default(), Decoding::default()) {
        source = kept;
        // Decodes the images before the measurement.
        (0..source.len()).try_for_each(|index| source.get(index).map(drop))?;
    }
    let (size, crop) = match small {
        true => (ImageSize::square(32), Crop::PadAndCrop { padding: 4 }),
        false => (ImageSize::square(224), Crop::RandomResized { scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) }),
    };
    let deferred = policy.get(1).is_some_and(|on| on == "device");
    let policy = policy.first().map(|policy| policy.parse()).transpose()?;
    let config = AugmentConfig { policy, ..AugmentConfig::default() };
    let interpolation = Interpolation::Bilinear;
    let augmentation = Augmentation::new(config, interpolation, [0.5; 3], [0.25; 3]);
    let transform = TrainTransform {
        size,
        interpolation,
        letterbox: None,
        crop,
        horizontal_flip: 0.5,
        augmentation,
        deferred,
        progressive: None,
    };
    let batch_size = if small { 128 } else { 64 };
    let config = LoaderConfig { batch_size, workers, shuffle: true, drop_last: true, ..LoaderConfig::default() };
    let decoding = Decoding { fast: mode == "fast", ..Decoding::default() };
    let loader = Loader::new(source, Transform::Train(transform), config).with_decoding(decoding);

    // Not measured: the first batches start with cold caches and an empty queue.
    let mut batches = (0..).flat_map(|epoch| loader.epoch(epoch));
    for _ in 0..3 {
        batches.next().ok_or("no batches")??;
    }
    let (started, mut images) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds {
        images += batches.next().ok_or("no batches")??.labels.len();
    }
    let speed = images as f64 / started.elapsed().as_secs_f64();
    println!("{{\"images_per_second\": {speed:.1}, \"memory\": {}}}", loader.memory());
    Ok(())
}
