//! Contact sheet of training images, as the network receives them.

use burn::tensor::Device;

use crate::config::{Recipe, RecipeFile};
use crate::criterion::Criterion;
use crate::engine::error::TrainError;
use crate::explain::{Captioned, LETTERS, sheet};
use crate::normalize::Normalizer;
use mbconv_data::{DataSet, Loader, LoaderConfig, OnBadImage, Preprocess, RgbPixels, Transform, keep};

/// Maximum number of images on a sheet.
const IMAGES: usize = 64;

/// Smallest share of a class that is shown, in percent.
const LEAST_PERCENT: usize = 1;

/// A sheet of training images.
#[derive(Clone, Debug)]
pub struct TrainingSheet {
    /// The sheet.
    pub pixels: RgbPixels,
    /// Number of images on it.
    pub images: usize,
    /// Number of batches that they are from.
    pub batches: usize,
    /// Height and width of the images in training, in pixels.
    pub size: [usize; 2],
}

/// Draws the first 64 images of the first epoch of a run with `recipe`, in the order of training,
/// with their labels. They have the pixels that the network receives, before the normalization:
/// cropped, flipped, augmented, mixed, in the size of the first epoch, gray for a network with one
/// input channel. Label smoothing is not part of the labels shown.
///
/// # Errors
/// The errors of training about the data and its images.
pub fn training_sheet(recipe: &Recipe, data: &DataSet) -> Result<TrainingSheet, TrainError> {
    let device = Device::default();
    data.check_trainable()?;
    // The pixels do not depend on the teacher or on label smoothing.
    let file = RecipeFile { distillation: None, label_smoothing: 0.0, ..RecipeFile::clone(recipe) };
    let unsmoothed = Recipe::try_from(file).map_err(crate::criterion::CriterionError::from)?;
    let source = data.split("train")?;
    let criterion = Criterion::new(&unsmoothed, &data.classes, &*source, &device)?;
    if source.len() < recipe.batch_size {
        return Err(TrainError::TooFewImages { images: source.len(), batch_size: recipe.batch_size });
    }
    let bytes = Normalizer::new(&as_bytes(recipe.preprocess()), &device);
    let mut cells: Vec<Captioned> = Vec::new();
    let (mut batches, mut size) = (0, [0, 0]);
    for (step, batch) in loader(recipe, source, &device).epoch(0).enumerate() {
        let batch = batch?;
        size = [batch.height, batch.width];
        let labels = batch.labels.clone();
        let (pixels, prepared) = criterion.prepare(batch, 0, step);
        let pixels = bytes.apply(pixels).expand([labels.len(), size[0], size[1], 3]);
        let pixels: Vec<u8> = pixels.into_data().iter::<f32>().map(|value| value.round() as u8).collect();
        let shares: Option<Vec<f32>> = prepared.targets.shares.map(|shares| shares.into_data().iter().collect());
        for (index, image) in pixels.chunks(size[0] * size[1] * 3).take(IMAGES - cells.len()).enumerate() {
            let pixels = RgbPixels { width: size[1], height: size[0], data: image.to_vec() };
            let classes = data.classes.len();
            let caption = match &shares {
                Some(shares) => caption(&shares[index * classes..][..classes], &data.classes),
                None => [data.classes[labels[index]].clone(), String::new()],
            };
            cells.push((pixels, caption));
        }
        batches = step + 1;
        if cells.len() == IMAGES {
            break;
        }
    }
    Ok(TrainingSheet { pixels: sheet(&cells), images: cells.len(), batches, size })
}

/// Creates the loader that training uses.
fn loader(recipe: &Recipe, source: std::sync::Arc<dyn mbconv_data::Source>, device: &Device) -> Loader {
    let decoding = recipe.data.decoding(true);
    let source = keep(&source, recipe.data.cache, decoding).map_or(source, |(kept, _)| kept);
    let config = LoaderConfig {
        batch_size: recipe.batch_size,
        workers: recipe.workers(),
        prefetch: recipe.data.prefetch,
        seed: recipe.seed,
        shuffle: true,
        sampling: recipe.sampling,
        drop_last: true,
        on_bad_image: OnBadImage::Skip,
        part: 0..usize::MAX,
    };
    let transform = Transform::Train(recipe.train_transform_for(device));
    Loader::new(source, transform, config).with_decoding(decoding)
}

/// Changes a normalization so that it gives byte values.
fn as_bytes(preprocess: Preprocess) -> Preprocess {
    Preprocess { mean: [0.0; 3], std: [1.0 / 255.0; 3], ..preprocess }
}

/// Returns two lines of text with the classes of an image and their shares, the largest first.
fn caption(shares: &[f32], classes: &[String]) -> [String; 2] {
    let percent = |share: f32| (share * 100.0).round() as usize;
    let mut present: Vec<(usize, &String)> = shares.iter().map(|&share| percent(share)).zip(classes).collect();
    present.retain(|&(percent, _)| percent >= LEAST_PERCENT);
    present.sort_by_key(|&(percent, _)| std::cmp::Reverse(percent));
    let part = |&(percent, class): &(usize, &String)| {
        let share = format!("{:.2}", percent as f64 / 100.0);
        let share = share.strip_suffix('0').unwrap_or(&share);
        format!("{share} {class}")
    };
    match &present[..] {
        [(_, class)] => [class.to_string(), String::new()],
        present => {
            let line = present.iter().map(part).collect::<Vec<_>>().join(" / ");
            match present {
                [first, rest @ ..] if line.chars().count() > LETTERS => {
                    [format!("{} /", part(first)), rest.iter().map(part).collect::<Vec<_>>().join(" / ")]
                }
                _ => [line, String::new()],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mbconv_data::{OpenOptions, open};

    use super::*;

    const TEXT: &str = "seed = 5\nepochs = 4\nbatch_size = 10\nlabel_smoothing = 0.1\n[model]\nname = \
                        \"mobilenet_v2_0.1\"\n[input]\nsize = 40\nprogressive = { start = 32, stages = 2 }\n\
                        [augment]\nerasing = { probability = 1.0 }\n[optimizer]\nname = \"sgd\"\nlearning_rate = 0.1\n";

    fn recipe(settings: &[&str]) -> Recipe {
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        Recipe::parse(TEXT, &settings).unwrap()
    }

    #[test]
    fn captions_have_the_shares_of_classes() {
        let classes = ["cat", "dog", "bird"].map(String::from);
        let of = |shares: &[f32]| caption(shares, &classes);
        assert_eq!(of(&[0.0, 1.0, 0.0]), ["dog", ""]);
        assert_eq!(of(&[0.3, 0.7, 0.0]), ["0.7 dog / 0.3 cat", ""]);
        assert_eq!(of(&[0.248, 0.0, 0.752]), ["0.75 bird / 0.25 cat", ""]);
        assert_eq!(of(&[0.001, 0.999, 0.0]), ["dog", ""]);
        let long = ["a very long name of a class", "another name"].map(String::from);
        assert_eq!(caption(&[0.4, 0.6], &long), ["0.6 another name /", "0.4 a very long name of a class"]);
    }

    #[test]
    fn sheet_has_the_batches_of_the_first_epoch() {
        let data = open("digits", &OpenOptions::default()).unwrap();
        let plain = training_sheet(&recipe(&[]), &data).unwrap();
        assert_eq!((plain.images, plain.batches, plain.size), (64, 7, [32, 32]));
        assert_eq!(plain.pixels, training_sheet(&recipe(&["data.workers=1"]), &data).unwrap().pixels);
        assert_ne!(plain.pixels, training_sheet(&recipe(&["seed=6"]), &data).unwrap().pixels);
        assert_ne!(plain.pixels, training_sheet(&recipe(&["augment.erasing.probability=0.0"]), &data).unwrap().pixels);
        assert_ne!(plain.pixels, training_sheet(&recipe(&["mix.mixup=0.5"]), &data).unwrap().pixels);
        // Operations on the device give the pixels of the worker threads.
        let mixed = |on: &str| training_sheet(&recipe(&["mix.cutmix=1.0", on]), &data).unwrap().pixels;
        assert_eq!(mixed("augment.on=workers"), mixed("augment.on=device"));
        assert!(matches!(
            training_sheet(&recipe(&["batch_size=5000"]), &data),
            Err(TrainError::TooFewImages { batch_size: 5000, .. })
        ));
    }

    #[test]
    fn gray_networks_receive_gray_images() {
        let pixels: Vec<u8> = {
            let bytes = as_bytes(recipe(&["model.input_channels=1"]).preprocess());
            let device = Device::default();
            let rgb = burn::tensor::Tensor::<1>::from_floats([200.0, 100.0, 7.0], &device).reshape([1, 1, 1, 3]);
            let gray = Normalizer::new(&bytes, &device).apply(rgb).expand([1, 1, 1, 3]);
            gray.into_data().iter::<f32>().map(|value| value.round() as u8).collect()
        };
        assert_eq!(pixels, [119; 3]);
    }
}
