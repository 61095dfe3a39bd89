//! Gradient accumulation is equivalent to a larger batch.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use mbconv_train::data::{self, OpenOptions};
use mbconv_train::model_file::LAST;
use mbconv_train::{Group, Model, Recipe, Run, train};

const RECIPE: &str = r#"
epochs = 3
batch_size = 8
[model]
name = "mobilenet_v2_0.1"
dropout = 0.0
[data]
val_fraction = 0.5
[input]
size = 16
[optimizer]
name = "sgd"
learning_rate = 1.0
[finetune]
freeze_norms = true   # statistics of a batch would depend on its size
"#;

/// Returns the weights of the classifier and the stem after three epochs.
fn weights(folder: &Path, data: &str, batch_size: usize, accumulate: usize) -> Vec<f32> {
    let settings = [format!("batch_size={batch_size}"), format!("accumulate={accumulate}")];
    let recipe = Recipe::parse(RECIPE, &settings).unwrap();
    let data = data::open(data, &OpenOptions { val_fraction: 0.5, ..OpenOptions::default() }).unwrap();
    let out = folder.join(format!("{batch_size}-{accumulate}"));
    let stop = AtomicBool::new(false);
    let device = Device::default();
    let run = Run {
        recipe: &recipe,
        data: &data,
        out: &out,
        device: &device,
        group: &Group::alone(),
        resume: false,
        settings: None,
        lock: None,
        stop: &stop,
    };
    train(run, &mut |_| ()).unwrap();
    let network = Model::open(&out.join(LAST), &device).unwrap().network;
    let [classifier, stem] =
        [network.classifier.weight.val().flatten::<1>(0, 1), network.stem.weight.val().flatten(0, 3)]
            .map(|tensor| tensor.into_data().try_to_vec::<f32>().unwrap());
    [classifier, stem].concat()
}

#[test]
fn accumulated_batches_train_as_one_large_batch() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for class in 0..2u8 {
        let class_folder = data.join(class.to_string());
        std::fs::create_dir_all(&class_folder).unwrap();
        for image in 0..32u8 {
            let pixels = image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([(x as u8).wrapping_mul(image), (y as u8).wrapping_mul(7 + class), 100 * class + image])
            });
            pixels.save(class_folder.join(format!("{image}.png"))).unwrap();
        }
    }
    let data = data.to_str().unwrap();
    // The training split has 32 images.
    let large = weights(folder.path(), data, 32, 1);
    let difference = |other: &[f32]| large.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Steps with eight images differ, which shows that the comparison can fail.
    let apart = difference(&weights(folder.path(), data, 8, 1));
    assert!(apart > 1e-4, "{apart}");
    // Four batches of eight, two of sixteen, and four because no more than four remain of seven.
    for (batch_size, accumulate) in [(8, 4), (16, 2), (8, 7)] {
        let found = difference(&weights(folder.path(), data, batch_size, accumulate));
        assert!(found < 0.003 * apart, "{batch_size} × {accumulate}: {found}, where {apart} is another update");
    }
}
