//! Training in several processes is equivalent to training in one. Here each process is a thread.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use mbconv_train::data::{self, DataSet, OpenOptions};
use mbconv_train::distributed::{GroupError, in_threads};
use mbconv_train::engine::{Outcome, TrainError};
use mbconv_train::model_file::LAST;
use mbconv_train::{Event, Group, Model, Recipe, Run, train};

const RECIPE: &str = r#"
epochs = 1
batch_size = 64
sync_batch_norm = true
[model]
dropout = 0.0
drop_path = 0.0
# Smooth activations, as EfficientNet has: at the kinks of ReLU6, rounding decides.
[model.table]
name = "small"
stem = 8
stem_stride = 1
head = 64
[[model.table.stages]]
channels = 8
[[model.table.stages]]
channels = 16
expansion = 4
stride = 2
repeats = 2
[[model.table.stages]]
channels = 24
expansion = 4
kernel = 5
stride = 2
[data]
workers = 1
[input]
size = 8
crop = "centre"
horizontal_flip = 0.0
[optimizer]
name = "sgd"
learning_rate = 0.001
momentum = 0.5
clip_norm = 5.0
[schedule]
warmup_epochs = 0.5
[ema]
decay = 0.9
"#;

/// Lets only one test run at a time. Burn has one random generator for all threads, so seeds would
/// not be reproducible otherwise.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digits() -> DataSet {
    data::open("digits", &OpenOptions { val_fraction: 0.2, ..OpenOptions::default() }).unwrap()
}

/// Trains in `processes` threads with a shared folder and returns the outcome of each. Appends the
/// losses to `losses`.
fn run(
    out: &Path,
    processes: usize,
    settings: &[&str],
    resume: bool,
    losses: &Mutex<Vec<f64>>,
    stop_after: usize,
) -> Vec<Result<Outcome, TrainError>> {
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    let recipe = Recipe::parse(RECIPE, &settings).unwrap();
    let data = digits();
    in_threads(processes, |group: Group| {
        let stop = AtomicBool::new(false);
        let device = Device::flex();
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
        train(run, &mut |event| {
            if let Event::Train { scores, step, .. } = event
                && group.is_leader()
            {
                losses.lock().unwrap().push(scores.loss);
                // Requests only one of them to stop.
                stop.store(step as usize >= stop_after, Ordering::Relaxed);
            }
        })
    })
}

/// Creates the same initial state for any number of processes. Several threads would draw their
/// weights from a single random generator.
fn beginning(out: &Path, settings: &[&str]) {
    for outcome in run(out, 1, settings, false, &Mutex::default(), 0) {
        assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    }
}

/// Resumes a copy of the run in `begun` and returns the losses.
fn go_on(begun: &Path, out: &Path, processes: usize, settings: &[&str]) -> Vec<f64> {
    std::fs::create_dir_all(out).unwrap();
    for file in ["recipe.toml", "checkpoint.safetensors"] {
        std::fs::copy(begun.join(file), out.join(file)).unwrap();
    }
    let losses = Mutex::default();
    for outcome in run(out, processes, settings, true, &losses, usize::MAX) {
        assert!(matches!(outcome.unwrap(), Outcome::Finished { best: Some(_) }));
    }
    losses.into_inner().unwrap()
}

fn results(out: &Path) -> mbconv_train::model_file::Results {
    Model::open(&out.join(LAST), &Device::flex()).unwrap().card.results.unwrap()
}

#[test]
fn several_processes_train_as_one() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let [begun, one, four, three] = ["begun", "one", "four", "three"].map(|name| folder.path().join(name));
    let settings = [];
    beginning(&begun, &settings);
    // The metrics of each process cover all processes.
    let alone = go_on(&begun, &one, 1, &settings);
    assert!(alone.len() >= 2 && alone[0] > alone[alone.len() - 1], "{alone:?}");
    // Three processes have parts of 21, 21 and 22 images.
    for (out, processes) in [(&four, 4), (&three, 3)] {
        let together = go_on(&begun, out, processes, &settings);
        assert_eq!(alone.len(), together.len());
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() < 1e-5 * a, "{processes}: {a} {b}");
        }
        let (a, b) = (results(&one), results(out));
        assert_eq!(a.images, b.images, "every image is evaluated once");
        assert!((a.loss - b.loss).abs() < 1e-4 * a.loss, "{a:?} {b:?}");
    }
}

#[test]
fn accumulation_does_not_depend_on_the_number_of_processes() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    // Frozen statistics, so that the batch size has no effect.
    let settings = ["finetune.freeze_norms=true", "batch_size=16", "accumulate=4"];
    let begun = folder.path().join("begun");
    beginning(&begun, &settings);
    let alone = go_on(&begun, &folder.path().join("one"), 1, &settings);
    let together = go_on(&begun, &folder.path().join("two"), 2, &settings);
    let (a, b) = (alone[alone.len() - 1], together[together.len() - 1]);
    assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
}

#[test]
fn run_resumes_with_another_number_of_processes() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    beginning(&parts, &[]);
    let alone = go_on(&parts, &whole, 1, &[]);
    // One process is requested to stop, and both stop.
    let losses = Mutex::default();
    for outcome in run(&parts, 2, &[], true, &losses, 16) {
        assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    }
    for outcome in run(&parts, 4, &[], true, &losses, usize::MAX) {
        assert!(matches!(outcome.unwrap(), Outcome::Finished { .. }));
    }
    let continued = losses.into_inner().unwrap();
    let (a, b) = (alone[alone.len() - 1], continued[continued.len() - 1]);
    assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
    let log = std::fs::read_to_string(parts.join("log.txt")).unwrap();
    assert!(log.contains("the run had 1 processes before and has 2 now"), "{log}");
    assert!(log.contains("the run had 2 processes before and has 4 now"), "{log}");
}

#[test]
fn fine_tuning_is_resumed_by_several_processes() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let [first, begun, whole] = ["first", "begun", "whole"].map(|name| folder.path().join(name));
    for outcome in run(&first, 1, &["epochs=1"], false, &Mutex::default(), usize::MAX) {
        outcome.unwrap();
    }
    let weights = format!("finetune.weights={}", first.join(LAST).display());
    let settings = [weights.as_str(), "epochs=1"];
    beginning(&begun, &settings);
    go_on(&begun, &whole, 2, &settings);
    let log = std::fs::read_to_string(whole.join("log.txt")).unwrap();
    assert!(log.contains("resumed after 0 epochs") && !log.contains("starts from"), "{log}");
}

#[test]
fn process_with_a_different_recipe_is_named() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let data = digits();
    let errors = in_threads(3, |group| {
        let other = if group.rank() == 2 { vec!["seed=5".to_string()] } else { Vec::new() };
        let recipe = Recipe::parse(RECIPE, &other).unwrap();
        let (stop, device) = (AtomicBool::new(false), Device::flex());
        let run = Run {
            recipe: &recipe,
            data: &data,
            out: folder.path(),
            device: &device,
            group: &group,
            resume: false,
            settings: None,
            lock: None,
            stop: &stop,
        };
        (train(run, &mut |_| ()).unwrap_err(), group.must_report())
    });
    for (rank, (error, tells)) in errors.iter().enumerate() {
        let TrainError::Group(GroupError::Differs { what: "recipe", who, .. }) = error else { panic!("{error}") };
        assert!(who.starts_with("rank 2 on "), "{who}");
        assert_eq!(*tells, rank == 0);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn batch_smaller_than_the_group_is_rejected() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for outcome in run(folder.path(), 3, &["batch_size=2"], false, &Mutex::default(), usize::MAX) {
        let error = outcome.unwrap_err();
        assert_eq!(error.to_string(), "a batch of 2 images cannot be divided among 3 processes");
        assert!(error.hint().is_some());
    }
}

#[test]
fn batch_norm_statistics_cover_all_processes() {
    let _alone = alone();
    use burn::tensor::Tensor;
    let device = Device::flex().autodiff();
    device.seed(3);
    let network = Recipe::parse(RECIPE, &[]).unwrap().model.with_classes(4).architecture().unwrap().init(&device);
    let images = Tensor::<4>::random([8, 3, 32, 32], burn::tensor::Distribution::Normal(0.0, 1.0), &device);
    let values = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
    let whole = network.clone().forward(images.clone());
    let gradient = network.stem.weight.val().grad(&whole.clone().square().sum().backward()).unwrap();
    let (whole, gradient) = (values(whole), gradient.into_data().iter::<f32>().collect::<Vec<_>>());
    let parts = in_threads(2, |group| {
        let _synchronized = group.synchronize();
        let part = images.clone().narrow(0, 4 * group.rank(), 4);
        let logits = network.clone().forward(part);
        let gradients = logits.clone().square().sum().backward();
        let mut gradient: Vec<f32> = network.stem.weight.val().grad(&gradients).unwrap().into_data().iter().collect();
        group.sum(&mut gradient);
        (values(logits), gradient)
    });
    let joined: Vec<f32> = parts.iter().flat_map(|(logits, _)| logits.clone()).collect();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&whole, &joined) < 1e-4, "{whole:?} {joined:?}");
    let size = gradient.iter().fold(0.0f32, |size, value| size.max(value.abs()));
    assert!(apart(&gradient, &parts[0].1) < 1e-4 * size, "{size}: {gradient:?} {:?}", parts[0].1);
}
