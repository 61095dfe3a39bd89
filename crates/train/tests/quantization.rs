//! Quantization-aware training.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use mbconv_nets::{Inference, Network};
use mbconv_train::data::{self, OpenOptions};
use mbconv_train::distributed::in_threads;
use mbconv_train::model_file::{LAST, LAST_EMA};
use mbconv_train::{Event, Group, Model, Outcome, Recipe, Run, train};

const RECIPE: &str = r#"
epochs = 2
batch_size = 64
[model]
[model.table]
name = "small"
stem = 8
stem_stride = 1
head = 32
activation = "silu"
[[model.table.stages]]
channels = 8
[[model.table.stages]]
channels = 8
expansion = 4
[data]
workers = 1
[input]
size = 8
[optimizer]
name = "sgd"
learning_rate = 0.1
[schedule]
name = "constant"
[ema]
decay = 0.9
"#;

/// Trains in `processes` threads until the end, or until the first report after `stop_after` steps.
/// Returns the validation losses of the completed epochs.
fn run(out: &Path, processes: usize, settings: &[&str], resume: bool, stop_after: u64) -> Vec<f64> {
    // Burn has one random generator for all threads.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    let recipe = Recipe::parse(RECIPE, &settings).unwrap();
    let data = data::open("digits", &OpenOptions { val_fraction: 0.2, ..OpenOptions::default() }).unwrap();
    let mut losses = in_threads(processes, |group: Group| {
        let (device, stop) = (Device::flex(), AtomicBool::new(false));
        let run = Run {
            recipe: &recipe,
            data: &data,
            out,
            device: &device,
            group: &group,
            resume,
            settings: None,
            lock: None,
            stop: &stop,
        };
        let mut losses = Vec::new();
        let outcome = train(run, &mut |event| match event {
            Event::Train { step, .. } => stop.store(step >= stop_after, Ordering::Relaxed),
            Event::Epoch(row) => losses.extend(row.val.map(|results| results.loss)),
            _ => {}
        });
        assert_eq!(outcome.unwrap() == Outcome::Interrupted, stop_after < u64::MAX);
        losses
    });
    losses.swap_remove(0)
}

fn open(path: &Path) -> Model {
    Model::open(path, &Device::flex()).unwrap()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn quantized_runs_resume_bit_identically() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let settings = ["quantization.range_epochs=1", "quantization.norm_epochs=1"];
    let losses = run(&whole, 1, &settings, false, u64::MAX);
    assert!(losses[1] < losses[0] && losses[0] < 2.3, "{losses:?}");
    for (resume, stop_after) in [(false, 8), (true, 30), (true, u64::MAX)] {
        run(&parts, 1, &settings, resume, stop_after);
    }
    for file in [LAST, LAST_EMA] {
        let [whole, parts] = [&whole, &parts].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(whole == parts, "{file}");
    }
}

#[test]
fn models_contain_the_ranges_for_their_rounded_network() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 1, &["quantization={}", "epochs=1"], false, u64::MAX);
    let Model { network, card, .. } = open(&folder.path().join(LAST));
    let ranges = card.activation_ranges.unwrap();
    assert!(ranges.iter().all(|(_, [low, high])| low < high), "{ranges:?}");

    let rounded = network.clone().with_fake_quantization();
    rounded.set_activation_ranges(&ranges);
    let images = Tensor::<4>::ones([1, 8, 8, 3], &Device::flex());
    let logits = |network: &Network| values(Inference::new(network).forward_channels_last(images.clone()));
    let expected = values(rounded.valid().forward_channels_last(images.clone()));
    assert_eq!(logits(&rounded), expected);
    assert_ne!(logits(&network), expected);
}

#[test]
fn statistics_and_ranges_freeze_after_their_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let state = |epochs: usize| {
        let out = folder.path().join(epochs.to_string());
        let epochs = format!("epochs={epochs}");
        run(&out, 1, &[&epochs, "quantization.norm_epochs=1", "quantization.range_epochs=2"], false, u64::MAX);
        let Model { network, card, .. } = open(&out.join(LAST));
        (values(network.stem.norm.running_mean.value()), card.activation_ranges.unwrap())
    };
    let [one, two, three] = [1, 2, 3].map(state);
    assert_eq!(one.0, two.0);
    assert_ne!(one.1, two.1);
    assert_eq!(two, three);
}

#[test]
fn several_processes_average_their_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = [1, 2].map(|processes| {
        let out = folder.path().join(processes.to_string());
        run(&out, processes, &["quantization={}", "epochs=1"], false, u64::MAX);
        open(&out.join(LAST)).card.activation_ranges.unwrap()
    });
    assert_ne!(one, two);
    for ((name, [low, high]), (_, [other_low, other_high])) in one.iter().zip(two) {
        let (width, difference) = (high - low, (low - other_low).abs() + (high - other_high).abs());
        assert!(difference < width, "{name}: {low} to {high} and {other_low} to {other_high}");
    }
}

#[test]
fn bf16_is_refused() {
    let settings = ["quantization={}", "precision=bf16"].map(String::from);
    let error = Recipe::parse(RECIPE, &settings).unwrap_err().to_string();
    assert_eq!(error, "the recipe's `precision` is \"bf16\", but must be \"f32\" with [quantization]");
}
