//! Benchmarks of a network: images per second, latency and memory.

use std::time::{Duration, Instant};

use burn::backend::{DispatchTensor, ExecutionError};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use mbconv_data::ImageSize;
use mbconv_kernels::graph_capture::{CapturedGraph, GraphCapture};
use mbconv_kernels::quantized;
use mbconv_nets::{Architecture, Inference, Network};
use serde::Serialize;

use crate::config::optimizer::OptimizerConfig;
use crate::device::{describe, is_host, is_on_gpus};
use crate::engine::learner::Learner;
use crate::engine::step::{StepInputs, apply_update, forward_backward};
use crate::loss::cross_entropy;
use crate::memory;
use crate::optimizer::clip::Clipping;
use crate::optimizer::param_ids::with_stable_ids;
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
    /// Image size.
    pub input_size: ImageSize,
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
    /// Image size.
    pub input_size: ImageSize,
    /// Number of CPU threads.
    pub threads: usize,
    /// Precision of the feature maps: `f32`, `bf16` or `int8`.
    pub precision: &'static str,
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

/// Inputs of all training steps.
const INPUTS: StepInputs = StepInputs { learning_rate: 1e-3, ema_decay: 0.0, seed: 0 };

/// Number of first repetitions that are not counted, because they allocate memory and compile and
/// tune kernels.
const WARM_UP: usize = 3;

/// Number of training steps between synchronizations with a GPU. Their time is divided evenly among
/// them.
const STEPS_PER_SYNC: u32 = 8;

/// Network to benchmark.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// A network on the benchmark's device, without autodiff.
    Network(&'a Network),
    /// An 8-bit network with the architecture from which it was made, for inference on the CPU.
    EightBits(&'a Architecture, &'a [quantized::Stage]),
}

/// Benchmarks a network on `device`.
///
/// # Panics
/// If an 8-bit network is to be trained.
pub fn bench(subject: Subject, device: &Device, config: &BenchConfig) -> BenchReport {
    let BenchConfig { mode, batch_size, input_size, precision, .. } = *config;
    let [height, width] = input_size.sides();
    let architecture = match subject {
        Subject::Network(network) => network.architecture(),
        Subject::EightBits(architecture, _) => architecture,
    };
    let shape = [batch_size, height, width, architecture.input_channels];
    device.seed(0);
    // Created as a vector, because CUDA would align each pixel separately.
    let images = Tensor::<1>::random([shape.iter().product::<usize>()], Distribution::Normal(0.0, 1.0), device);
    let images = images.reshape(shape);
    let Measured { times, peak_memory_bytes, profile, recorded } = match (subject, mode) {
        (Subject::Network(network), Mode::Infer) => {
            measure_inference(&precision.inference(network), architecture, images, config)
        }
        (Subject::Network(network), Mode::Train) => measure_training(network, images, device, config),
        (Subject::EightBits(_, stages), Mode::Infer) => {
            measure_inference(&Inference::quantized(stages), architecture, images, config)
        }
        (Subject::EightBits(..), Mode::Train) => panic!("8-bit networks are not trained"),
    };
    let (precision, instructions) = match (subject, precision) {
        (Subject::EightBits(..), _) => ("int8", quantized::instructions()),
        (_, MapPrecision::F32) => ("f32", mbconv_nets::instructions()),
        (_, MapPrecision::Bf16) => ("bf16", mbconv_nets::instructions()),
    };
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
        instructions,
        repetitions: times.len(),
        recorded: recorded == Some(Ok(())),
        not_recorded: recorded.and_then(Result::err),
        images_per_second: batch_size as f64 / median_ms * 1e3,
        median_ms,
        p95_ms: milliseconds(0.95),
        p99_ms: milliseconds(0.99),
        min_ms: milliseconds(0.0),
        peak_memory_bytes,
        profile,
    }
}

/// Results of the repetitions.
struct Measured {
    /// Sorted times.
    times: Vec<Duration>,
    peak_memory_bytes: Option<u64>,
    profile: Option<Vec<Part>>,
    /// Result of recording a step, if it was tried.
    recorded: Option<Result<(), String>>,
}

fn measure_inference(
    inference: &Inference,
    architecture: &Architecture,
    images: Tensor<4>,
    config: &BenchConfig,
) -> Measured {
    let (times, peak_memory_bytes) = repeat(config.time, || {
        wait_for(inference.forward_channels_last(images.clone()));
    });
    let profile = config.profile.then(|| profile_inference(architecture, inference, &images)).flatten();
    Measured { times, peak_memory_bytes, profile, recorded: None }
}

fn measure_training(network: &Network, images: Tensor<4>, device: &Device, config: &BenchConfig) -> Measured {
    let images = config.precision.of(images);
    let new_step = || TrainingStep::new(network, images.clone(), device, config.gradient_checkpointing);
    let mut step = new_step();
    let mut recorded = None;
    if config.record_steps && is_on_gpus(device) {
        let result = step.record();
        if result.is_err() {
            // Failed recording leaves the step's memory unreadable.
            step = new_step();
        }
        recorded = Some(result.map_err(|error| error.to_string()));
    }
    // As in training, which rarely synchronizes with a GPU.
    let steps = if is_host(device) { 1 } else { STEPS_PER_SYNC };
    let (times, peak_memory_bytes) = repeat(config.time, || {
        (0..steps).for_each(|_| step.queue());
        step.wait();
    });
    let times = times.into_iter().map(|time| time / steps).collect();
    let profile = config.profile.then(|| step.profile());
    Measured { times, peak_memory_bytes, profile, recorded }
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
fn part_names(architecture: &Architecture) -> impl Iterator<Item = String> + use<> {
    let blocks = architecture.blocks.iter();
    let blocks: Vec<_> = blocks.map(|block| format!("stage {} block {}", block.stage + 1, block.index + 1)).collect();
    std::iter::once("stem".to_string()).chain(blocks).chain(["head", "pooling", "classifier"].map(String::from))
}

fn profile_inference(architecture: &Architecture, inference: &Inference, images: &Tensor<4>) -> Option<Vec<Part>> {
    let threads = rayon::current_num_threads() as f64;
    let runs: Vec<Vec<Duration>> =
        (0..WARM_UP + 8).map(|_| inference.profile(images.clone())).collect::<Option<_>>()?;
    let parts = part_names(architecture).enumerate().map(|(index, name)| {
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
    learner: Option<Learner>,
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
        let network = with_stable_ids(Network::new(architecture, &device));
        let config =
            OptimizerConfig { learning_rate: INPUTS.learning_rate, weight_decay: 1e-4, ..OptimizerConfig::default() };
        Self {
            learner: Some(Learner { network, optimizer: config.init(architecture), average: None }),
            images: images.to_device(&device),
            targets: Tensor::from_ints(targets.as_slice(), &device),
            recording: None,
        }
    }

    /// Runs a few steps and records one, which later calls of [`queue`](Self::queue) replay.
    fn record(&mut self) -> Result<(), ExecutionError> {
        (0..WARM_UP).for_each(|_| self.queue());
        let device = self.images.device();
        let Some(learner) = &self.learner else { return Ok(()) };
        let scalars = INPUTS.scalars(&learner.optimizer, &device).into_dispatch();
        let capture = GraphCapture::prepare(&device)?;
        self.step(Some(&scalars));
        capture.start()?;
        self.step(Some(&scalars));
        self.recording = Some(capture.finish()?);
        Ok(())
    }

    fn losses(&self, logits: Tensor<2>) -> Tensor<1> {
        cross_entropy(logits, self.targets.clone(), 0.0)
    }

    /// Runs a step without waiting for a GPU.
    fn queue(&mut self) {
        match &self.recording {
            Some(recording) => recording.replay().expect("a recorded step can be repeated"),
            None => self.step(None),
        }
    }

    fn step(&mut self, scalars: Option<&DispatchTensor>) {
        let Some(learner) = self.learner.take() else { return };
        let losses = |logits| self.losses(logits);
        let (_, gradients) = forward_backward(&learner.network, self.images.clone(), None, 1.0, losses);
        self.learner = Some(apply_update(learner, gradients, Clipping::default(), INPUTS, scalars));
    }

    /// Synchronizes with the device.
    fn wait(&self) {
        if let Some(learner) = &self.learner {
            wait_for(learner.network.classifier.bias.val());
        }
    }

    /// Measures the parts of a step: the forward pass of each layer, then the whole backward pass
    /// and the optimizer step.
    fn profile(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        let Some(learner) = self.learner.take() else { return parts };
        let network = &learner.network;
        let mut began = Instant::now();
        let mut lap = |name: String| {
            parts.push(Part { name, ms: began.elapsed().as_secs_f64() * 1e3 });
            began = Instant::now();
        };
        let mut names = part_names(network.architecture());
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
        let loss = self.losses(network.classifier.forward(features)).mean();
        lap("forward, classifier and loss".into());
        let gradients = GradientsParams::from_grads(loss.backward(), network);
        lap("backward".into());
        self.learner = Some(apply_update(learner, gradients, Clipping::default(), INPUTS, None));
        self.wait();
        lap("update".into());
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
                input_size: 32.into(),
                time: Duration::from_millis(1),
                gradient_checkpointing: false,
                record_steps: true,
                precision: MapPrecision::F32,
                profile: true,
            };
            let report = bench(Subject::Network(&network), &device, &config);
            assert!(report.repetitions >= 1 && report.images_per_second > 0.0);
            assert!(report.min_ms <= report.median_ms && report.median_ms <= report.p99_ms);
            assert_eq!(report.profile.map(|parts| parts.len()), Some(parts));
        }
    }
}
