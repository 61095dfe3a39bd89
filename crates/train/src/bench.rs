//! How fast a network runs here: images per second, latency, memory.

use std::time::{Duration, Instant};

use burn::backend::ExecutionError;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use mbconv_kernels::descent::Numbers;
use mbconv_kernels::recording::{Recording, Window};
use mbconv_nets::{Inference, Network};
use serde::Serialize;

use crate::device::{describe, is_host, is_on_gpus};
use crate::loss::cross_entropy;
use crate::memory;
use crate::optimizer::{NetworkOptimizer, OptimizerConfig};
use crate::precision::MapPrecision;

/// What is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Images to logits.
    Infer,
    /// Forward, loss, backward, one step of SGD with momentum; from images that are already there. A GPU is waited for every
    /// eighth step.
    Train,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchConfig {
    /// What is repeated.
    pub mode: Mode,
    /// Images at a time.
    pub batch_size: usize,
    /// Side of the images in pixels.
    pub input_size: usize,
    /// For how long, after the first repetitions, which do not count.
    pub time: Duration,
    /// In training, compute activated maps once more in the backward pass instead of keeping them.
    pub gradient_checkpointing: bool,
    /// In training on a GPU, repeat a step that was recorded, as training does.
    pub record_steps: bool,
    /// Of the maps.
    pub precision: MapPrecision,
    /// Take the time of each part too.
    pub profile: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Where: `cpu`, or the name that the GPU gives itself.
    pub device: String,
    /// What was repeated.
    pub mode: Mode,
    /// Images at a time.
    pub batch_size: usize,
    /// Side of the images in pixels.
    pub input_size: usize,
    /// Threads of the processor that were at hand.
    pub threads: usize,
    /// Of the maps.
    pub precision: MapPrecision,
    /// Vector instructions that the CPU kernels chose.
    pub instructions: &'static str,
    /// Repetitions.
    pub repetitions: usize,
    /// Whether they repeat a step that was recorded, as training does on GPUs.
    pub recorded: bool,
    /// Why none could be recorded that should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_recorded: Option<String>,
    /// By the median repetition.
    pub images_per_second: f64,
    /// Of a repetition.
    pub median_ms: f64,
    /// 95 of 100 repetitions took less.
    pub p95_ms: f64,
    /// 99 of 100 repetitions took less.
    pub p99_ms: f64,
    /// The quickest.
    pub min_ms: f64,
    /// Most memory of the process while repeating, in bytes, where the system tells: weights, images and program included.
    pub peak_memory_bytes: Option<u64>,
    /// Parts in order, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<Part>>,
}

/// A part of a network, or of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Its share of a repetition.
    pub ms: f64,
}

/// Learning rate of training steps.
const RATE: f64 = 1e-3;

/// Repetitions that do not count: the first ones allocate, compile and tune.
const WARM_UP: usize = 3;

/// Steps that are queued before a GPU is waited for; each is said to have taken an equal part of their time.
const UNWAITED: u32 = 8;

/// Measures `network`, which must be on `device`, without autodiff.
pub fn bench(network: Network, device: &Device, config: &BenchConfig) -> BenchReport {
    let BenchConfig { mode, batch_size, input_size, precision, .. } = *config;
    let architecture = network.architecture().clone();
    let shape = [batch_size, input_size, input_size, architecture.input_channels];
    device.seed(0);
    // As one row: CUDA would align each pixel on its own.
    let images = Tensor::<1>::random([shape.iter().product::<usize>()], Distribution::Normal(0.0, 1.0), device);
    let images = images.reshape(shape);
    let (mut recorded, mut not_recorded) = (false, None);
    let (times, profile) = match mode {
        Mode::Infer => {
            let inference = precision.inference(&network);
            let times = repeat(config.time, || {
                wait_for(inference.forward_channels_last(images.clone()));
            });
            let profile = config.profile.then(|| profile_inference(&network, &inference, &images)).flatten();
            (times, profile)
        }
        Mode::Train => {
            let images = precision.of(images);
            let mut step = TrainingStep::new(&network, images.clone(), device, config.gradient_checkpointing);
            if config.record_steps && is_on_gpus(device) {
                match step.record() {
                    Ok(()) => recorded = true,
                    Err(error) => {
                        not_recorded = Some(error.to_string());
                        // What was to be recorded cannot be read any more.
                        step = TrainingStep::new(&network, images, device, config.gradient_checkpointing);
                    }
                }
            }
            // As in training, which seldom waits for a GPU.
            let together = if is_host(device) { 1 } else { UNWAITED };
            let (times, peak) = repeat(config.time, || {
                (0..together).for_each(|_| step.queue());
                step.wait();
            });
            let times = (times.into_iter().map(|time| time / together).collect(), peak);
            let profile = config.profile.then(|| step.profile());
            (times, profile)
        }
    };
    let (times, peak_memory_bytes) = times;
    let milliseconds = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
    };
    let median_ms = milliseconds(0.5);
    BenchReport {
        device: describe(device),
        mode,
        batch_size,
        input_size,
        threads: rayon::current_num_threads(),
        precision,
        instructions: mbconv_nets::instructions(),
        repetitions: times.len(),
        recorded,
        not_recorded,
        images_per_second: batch_size as f64 / median_ms * 1e3,
        median_ms,
        p95_ms: milliseconds(0.95),
        p99_ms: milliseconds(0.99),
        min_ms: milliseconds(0.0),
        peak_memory_bytes,
        profile,
    }
}

/// Times of the repetitions, the quickest first, and the most memory meanwhile.
fn repeat(time: Duration, mut body: impl FnMut()) -> (Vec<Duration>, Option<u64>) {
    memory::forget_peak();
    (0..WARM_UP).for_each(|_| body());
    let mut times = Vec::new();
    let started = Instant::now();
    while times.is_empty() || started.elapsed() < time {
        let began = Instant::now();
        body();
        times.push(began.elapsed());
    }
    times.sort();
    (times, memory::peak())
}

/// Stem, blocks, head, pooling and classifier.
fn part_names(network: &Network) -> impl Iterator<Item = String> + use<> {
    let blocks = network.architecture().blocks.iter();
    let blocks: Vec<_> = blocks.map(|block| format!("stage {} block {}", block.stage + 1, block.index + 1)).collect();
    std::iter::once("stem".to_string()).chain(blocks).chain(["head", "pooling", "classifier"].map(String::from))
}

fn profile_inference(network: &Network, inference: &Inference, images: &Tensor<4>) -> Option<Vec<Part>> {
    let threads = rayon::current_num_threads() as f64;
    let runs: Vec<Vec<Duration>> =
        (0..WARM_UP + 8).map(|_| inference.profile(images.clone())).collect::<Option<_>>()?;
    let parts = part_names(network).enumerate().map(|(index, name)| {
        let mut times: Vec<Duration> = runs[WARM_UP..].iter().map(|run| run[index]).collect();
        times.sort();
        Part { name, ms: times[times.len() / 2].as_secs_f64() * 1e3 / threads }
    });
    Some(parts.collect())
}

/// Waits for a device that runs behind: Burn reads a GPU's memory only once the bytes are asked for.
fn wait_for<const D: usize>(tensor: Tensor<D>) {
    std::hint::black_box(tensor.into_data().as_bytes().first());
}

/// A network that learns one batch over and over.
struct TrainingStep {
    network: Option<Network>,
    optimizer: NetworkOptimizer,
    images: Tensor<4>,
    targets: Tensor<1, Int>,
    recording: Option<Recording>,
}

impl TrainingStep {
    fn new(network: &Network, images: Tensor<4>, device: &Device, gradient_checkpointing: bool) -> Self {
        let mut device = device.clone().autodiff();
        if gradient_checkpointing {
            device = device.gradient_checkpointing();
        }
        let architecture = network.architecture();
        let [batch, ..] = images.dims();
        let targets: Vec<i32> = (0..batch).map(|index| (index % architecture.classes) as i32).collect();
        let trained = crate::optimizer::with_stable_ids(Network::new(architecture, &device));
        let config = OptimizerConfig { learning_rate: RATE, weight_decay: 1e-4, ..OptimizerConfig::default() };
        Self {
            network: Some(trained),
            optimizer: config.init(architecture),
            images: images.to_device(&device),
            targets: Tensor::from_ints(targets.as_slice(), &device),
            recording: None,
        }
    }

    /// Takes some steps, and has what follows repeat another.
    fn record(&mut self) -> Result<(), ExecutionError> {
        (0..WARM_UP).for_each(|_| self.queue());
        let device = self.images.device();
        let numbers = self.optimizer.numbers(RATE);
        let numbers = Tensor::<1>::from_floats(numbers.as_slice(), &device.clone().inner()).into_dispatch();
        let numbers = || Some(Numbers { all: numbers.clone(), start: 0 });
        let window = Window::prepare(&device)?;
        self.step(numbers());
        window.open()?;
        self.step(numbers());
        self.recording = Some(window.close()?);
        Ok(())
    }

    fn loss(&self, logits: Tensor<2>) -> Tensor<1> {
        cross_entropy(logits, self.targets.clone(), 0.0).mean()
    }

    /// One step, which a GPU may still be at.
    fn queue(&mut self) {
        match &self.recording {
            Some(recording) => recording.replay().expect("a recorded step can be repeated"),
            None => self.step(None),
        }
    }

    fn step(&mut self, numbers: Option<Numbers>) {
        let Some(network) = self.network.take() else { return };
        let loss = self.loss(network.forward_channels_last(self.images.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        self.network = Some(self.optimizer.step_by(RATE, network, gradients, numbers));
    }

    /// Waits for a device that runs behind.
    fn wait(&self) {
        if let Some(network) = &self.network {
            wait_for(network.classifier.bias.val());
        }
    }

    /// One step, part by part: the forward pass of each, then the whole backward pass and the update.
    fn profile(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        let Some(network) = self.network.take() else { return parts };
        let mut began = Instant::now();
        let mut lap = |name: String| {
            parts.push(Part { name, ms: began.elapsed().as_secs_f64() * 1e3 });
            began = Instant::now();
        };
        let mut names = part_names(&network);
        let mut name = || format!("forward, {}", names.next().unwrap_or_default());
        let mut x = network.stem.forward(self.images.clone());
        lap(name());
        for block in &network.blocks {
            x = block.forward(x);
            lap(name());
        }
        let x = network.head.forward(x);
        lap(name());
        let [count, height, width, channels] = x.dims();
        let features = x.reshape([count, height * width, channels]).mean_dim(1).reshape([count, channels]);
        let features = features.cast(network.classifier.weight.dtype());
        lap(name());
        let loss = self.loss(network.classifier.forward(features));
        lap("forward, classifier and loss".into());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        lap("backward".into());
        let network = self.optimizer.step(RATE, network, gradients);
        wait_for(network.classifier.bias.val());
        lap("update".into());
        self.network = Some(network);
        parts
    }
}

#[cfg(test)]
mod tests {
    use mbconv_nets::MobileNetV2Config;

    use super::*;

    #[test]
    fn both_modes_measure_every_part() {
        let device = Device::flex();
        for (mode, parts) in [(Mode::Infer, 17 + 4), (Mode::Train, 17 + 6)] {
            let network = MobileNetV2Config::new(5).with_width(0.1).init(&device);
            let config = BenchConfig {
                mode,
                batch_size: 2,
                input_size: 32,
                time: Duration::from_millis(1),
                gradient_checkpointing: false,
                record_steps: true,
                precision: MapPrecision::F32,
                profile: true,
            };
            let report = bench(network, &device, &config);
            assert!(report.repetitions >= 1 && report.images_per_second > 0.0);
            assert!(report.min_ms <= report.median_ms && report.median_ms <= report.p99_ms);
            assert_eq!(report.profile.map(|parts| parts.len()), Some(parts));
        }
    }
}
