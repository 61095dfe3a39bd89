//! The readers of untrusted files, one function for each kind of input. Each returns whether it
//! accepted the bytes. None may panic or take much more memory than the input is long.
//!
//! Called by the fuzz targets, and by `crates/train/tests/fuzz.rs`, which replays seeds and
//! mutations.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use mbconv_train::Model;
use mbconv_train::data::{
    Crop, DataError, Dataset, Decoding, Loader, LoaderConfig, OpenOptions, Sample, Source, StoredImage, TrainTransform,
    Transform, decode, open,
};
use mbconv_train::import::{ImportOptions, from_bytes};

/// Few pixels, which bounds memory and time.
const DECODING: Decoding =
    Decoding { exif_orientation: true, gray16: mbconv_train::data::Gray16::Image, max_pixels: 1 << 20, fast: true };

/// An image file.
pub fn image(bytes: &[u8]) -> bool {
    let Ok(image) = decode(bytes, &DECODING) else { return false };
    assert_eq!(image.data.len(), image.width * image.height * 3);
    true
}

/// An image file from which a training loader makes random crops. Of JPEG files, only the crop is
/// decoded.
pub fn jpeg_crop(bytes: &[u8]) -> bool {
    const SIDE: usize = 24;
    struct One(Vec<u8>);

    impl Dataset<Sample, DataError> for One {
        fn get(&self, _: usize) -> Result<Sample, DataError> {
            Ok(Sample { image: StoredImage::Encoded(self.0.clone()), label: 0 })
        }

        fn len(&self) -> usize {
            1
        }
    }

    impl Source for One {
        fn name(&self, _: usize) -> String {
            "fuzzed".into()
        }

        fn label(&self, _: usize) -> usize {
            0
        }
    }

    let crop = Crop::RandomResized { scale: (0.1, 1.0), ratio: (0.5, 2.0) };
    let transform = Transform::Train(TrainTransform { size: SIDE.into(), crop, ..TrainTransform::default() });
    let config = LoaderConfig { batch_size: 1, workers: 1, prefetch: 0, ..LoaderConfig::default() };
    let loader = Loader::new(Arc::new(One(bytes.to_vec())), transform, config).with_decoding(DECODING);
    (0..2).all(|epoch| match loader.epoch(epoch).next() {
        Some(Ok(batch)) => {
            assert_eq!(batch.images.len(), SIDE * SIDE * 3);
            true
        }
        Some(Err(error)) => {
            // The loader catches panics.
            assert!(!error.to_string().contains("panicked"), "{error}");
            false
        }
        None => panic!("an epoch without a batch"),
    })
}

/// A model file.
pub fn model_file(bytes: &[u8]) -> bool {
    Model::from_bytes(bytes, Path::new("fuzzed"), &Device::default()).is_ok()
}

/// The header of a model file, so that the fuzzer need not find its length.
pub fn model_header(header: &[u8]) -> bool {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + (1 << 16), 0);
    model_file(&bytes)
}

/// A `.pth` or `.safetensors` file of another project.
pub fn weights_file(bytes: &[u8]) -> bool {
    let path = Path::new("nowhere/efficientnet_b0");
    from_bytes(bytes.to_vec(), path, &ImportOptions::default(), &Device::default()).is_ok()
}

/// A Parquet shard.
pub fn parquet(bytes: &[u8]) -> bool {
    data_set("fuzzed.parquet", &[("fuzzed.parquet", bytes)])
}

/// A tar archive: shards of WebDataset, or image folders.
pub fn tar(bytes: &[u8]) -> bool {
    data_set("fuzzed.tar", &[("fuzzed.tar", bytes)])
}

/// A zip archive of image folders.
pub fn zip(bytes: &[u8]) -> bool {
    data_set("fuzzed.zip", &[("fuzzed.zip", bytes)])
}

/// A table of images `a.png`, `b.png` and `c.png`.
pub fn csv(bytes: &[u8]) -> bool {
    data_set("fuzzed.csv", &[("fuzzed.csv", bytes), ("a.png", b""), ("b.png", b""), ("c.png", b"")])
}

/// Writes files, opens one of them as a data set and reads its samples.
fn data_set(name: &str, files: &[(&str, &[u8])]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents).expect("room for a file");
    }
    let Ok(set) = open(&folder.path().join(name).to_string_lossy(), &OpenOptions::default()) else { return false };
    let mut read = true;
    for split in [&set.train, &set.val, &set.test].into_iter().flatten() {
        // Tables may name a file any number of times.
        for index in 0..split.len().min(100) {
            let label = split.label(index);
            let known = |class: &usize| *class < set.classes.len();
            assert!(split.label_sets().map_or(known(&label), |sets| sets.classes(label).iter().all(known)));
            assert!(!split.name(index).is_empty());
            read &= split.get(index).is_ok();
        }
    }
    read
}
