//! Benchmarks of a network: images per second, latency and memory.

use std::time::{Duration, Instant};

use burn::backend::ExecutionError;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use mbconv_kernels::graph_capture::{CapturedGraph, GraphCapture};
use mbconv_kernels::optimizer_step::StepScalars;
use mbconv_nets::{Inference, Network};
use serde::Serialize;

use crate::device::{describe, is_host, is_on_gpus};
use crate::loss::cross_entropy;
use crate::memory;
use crate::optimizer::{NetworkOptimizer, OptimizerConfig};
use crate::precision::MapPrecision;

/// Measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Inference from images to logits.
    Infer,
    /// Forward pass, loss, backward pass and a step of SGD with momentum, with images that are
    /// already on the device. A GPU is synchronized every eighth step.
    Train,
}

/// Benchmark settings.
#[derive(Clone, Copy, Debug)]
pub struct BenchConfig {
    /// Measured operation.
    pub mode: Mode,
    /// Number of images per batch.
    pub batch_size: usize,
    /// Image size in pixels.
    pub input_size: usize,
    /// Duration of the measurement, without the first repetitions, which are not counted.
    pub time: Duration,
    /// Recompute activations in the backward pass of training instead of storing them.
    pub gradient_checkpointing: bool,
    /// Replay a recorded training step on a GPU, as in training.
    pub record_steps: bool,
    /// Precision of the feature maps.
    pub precision: MapPrecision,
    /// Also measure each part of the network.
    pub profile: bool,
}

/// Benchmark results.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// `cpu`, or the name of the GPU.
    pub device: String,
    /// Measured operation.
    pub mode: Mode,
    /// Number of images per batch.
    pub batch_size: usize,
    /// Image size in pixels.
    pub input_size: usize,
    /// Number of CPU threads.
    pub threads: usize,
    /// Precision of the feature maps.
    pub precision: MapPrecision,
    /// Vector instruction set used by the CPU kernels.
    pub instructions: &'static str,
    /// Number of repetitions.
    pub repetitions: usize,
    /// True if a recorded step was replayed, as in training on GPUs.
    pub recorded: bool,
    /// Error if recording failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_recorded: Option<String>,
    /// Throughput, from the median time.
    pub images_per_second: f64,
    /// Median time of a repetition in milliseconds.
    pub median_ms: f64,
    /// 95th percentile of the time.
    pub p95_ms: f64,
    /// 99th percentile of the time.
    pub p99_ms: f64,
    /// Shortest time.
    pub min_ms: f64,
    /// Peak memory of the process during the repetitions in bytes, including weights, images and
    /// the program, if the operating system provides it.
    pub peak_memory_bytes: Option<u64>,
    /// The parts in order, if profiling is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<Part>>,
}

/// A part of a network or of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Name of the part.
    pub name: String,
    /// Time of the part within a repetition.
    pub ms: f64,
}

/// Learning rate of training steps.
const RATE: f64 = 1e-3;

/// Number of first repetitions that are not counted, because they allocate memory and compile and
/// tune kernels.
const WARM_UP: usize = 3;

/// Number of training steps between synchronizations with a GPU. Their time is divided evenly among
/// them.
const UNWAITED: u32 = 8;

/// Benchmarks `network`, which must be on `device` without autodiff.
pub fn bench(network: Network, device: &Device, config: &BenchConfig) -> BenchReport {
    let BenchConfig { mode, batch_size, input_size, precision, .. } = *config;
    let architecture = network.architecture().clone();
    let shape = [batch_size, input_size, input_size, architecture.input_channels];
    device.seed(0);
    // Created as a vector, because CUDA would align each pixel separately.
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
                        // Failed recording leaves the step's memory unreadable.
                        step = TrainingStep::new(&network, images, device, config.gradient_checkpointing);
                    }
                }
            }
            // As in training, which rarely synchronizes with a GPU.
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

/// Returns the sorted times of the repetitions and the peak memory during them.
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

/// Returns the names of stem, blocks, head, pooling and classifier.
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

/// Synchronizes with the device: Burn reads GPU memory only when the bytes are accessed.
fn wait_for<const D: usize>(tensor: Tensor<D>) {
    std::hint::black_box(tensor.into_data().as_bytes().first());
}

/// A network in training with the same batch in each step.
struct TrainingStep {
    network: Option<Network>,
    optimizer: NetworkOptimizer,
    images: Tensor<4>,
    targets: Tensor<1, Int>,
    recording: Option<CapturedGraph>,
}

impl TrainingStep {
    fn new(network: &Network, images: Tensor<4>, device: &Device, gradient_checkpointing: bool) -> Self {
        let mut device = device.clone().autodiff();
        if gradient_checkpointing {
            device = device.gradient_checkpointing();
        }
        let architecture = network.architecture();
        let [batch, ..] = images.dims();
        let targets: Vec<i32> = (0..batch).map(|index| (index % architecture.num_classes) as i32).collect();
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

    /// Runs a few steps and records one, which later calls of [`queue`](Self::queue) replay.
    fn record(&mut self) -> Result<(), ExecutionError> {
        (0..WARM_UP).for_each(|_| self.queue());
        let device = self.images.device();
        let numbers = self.optimizer.numbers(RATE);
        let numbers = Tensor::<1>::from_floats(numbers.as_slice(), &device.clone().inner()).into_dispatch();
        let numbers = || Some(StepScalars { all: numbers.clone(), start: 0 });
        let capture = GraphCapture::prepare(&device)?;
        self.step(numbers());
        capture.start()?;
        self.step(numbers());
        self.recording = Some(capture.finish()?);
        Ok(())
    }

    fn loss(&self, logits: Tensor<2>) -> Tensor<1> {
        cross_entropy(logits, self.targets.clone(), 0.0).mean()
    }

    /// Runs a step without waiting for a GPU.
    fn queue(&mut self) {
        match &self.recording {
            Some(recording) => recording.replay().expect("a recorded step can be repeated"),
            None => self.step(None),
        }
    }

    fn step(&mut self, numbers: Option<StepScalars>) {
        let Some(network) = self.network.take() else { return };
        let loss = self.loss(network.forward_channels_last(self.images.clone()));
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        self.network = Some(self.optimizer.step_by(RATE, network, gradients, numbers));
    }

    /// Synchronizes with the device.
    fn wait(&self) {
        if let Some(network) = &self.network {
            wait_for(network.classifier.bias.val());
        }
    }

    /// Measures the parts of a step: the forward pass of each layer, then the whole backward pass
    /// and the optimizer step.
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
    fn inference_and_training_report_times_of_all_parts() {
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
