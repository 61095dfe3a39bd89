//! `mbconv bench`

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use mbconv_nets::Network;
use mbconv_train::bench::{BenchConfig, BenchReport, Mode, Subject, bench};
use mbconv_train::data::ImageSize;
use mbconv_train::device::Device;
use mbconv_train::model_file::ModelError;
use mbconv_train::quantized_model::QuantizedModel;

use crate::args::{Bench, BenchMode};
use crate::error::CliError;
use crate::model_ref::{ModelRef, NEVER, Source, is_quantized, open_model};
use crate::output::{print_json, print_text};

pub fn run(args: Bench) -> Result<(), CliError> {
    let source = Source::parse(&args.model_ref)?;
    if let Source::Weights(path) = &source
        && is_quantized(path)
    {
        return bench_quantized(&args, path);
    }
    let device = args.device.open()?;
    let (network, size) = match source {
        Source::Weights(path) => {
            let model = open_model(&path, &device, &NEVER)?;
            (model.network, model.card.preprocess.crop)
        }
        source => {
            let ModelRef { options, input_size, .. } = ModelRef::read(source, args.classes)?;
            let architecture = options.architecture()?;
            (Network::new(&architecture, &device), input_size.unwrap_or(architecture.resolution.into()))
        }
    };
    let config = config(&args, size, &device)?;
    let report = bench(Subject::Network(&network), &device, &config);
    if let Some(error) = &report.not_recorded {
        eprintln!("note: kernels were launched one by one, because capturing the step failed: {error}");
    }
    print(&args, &report)
}

/// Benchmarks an 8-bit model.
fn bench_quantized(args: &Bench, path: &Path) -> Result<(), CliError> {
    if args.mode == BenchMode::Train {
        return Err(ModelError::EightBits { path: path.display().to_string() }.into());
    }
    args.dtype.check_8_bits()?;
    let device = args.device.open_for_8_bits()?;
    let QuantizedModel { card, stages, .. } = QuantizedModel::open(path)?;
    let architecture = card.architecture.architecture()?;
    let config = config(args, card.preprocess.crop, &device)?;
    print(args, &bench(Subject::EightBits(&architecture, &stages), &device, &config))
}

fn config(args: &Bench, size: ImageSize, device: &Device) -> Result<BenchConfig, CliError> {
    let mode = match args.mode {
        BenchMode::Infer => Mode::Infer,
        BenchMode::Train => Mode::Train,
    };
    let precision = args.dtype.check(device)?;
    if mode == Mode::Train && precision.is_slow(device) {
        eprintln!("note: --dtype bf16: this processor trains faster in f32");
    }
    Ok(BenchConfig {
        mode,
        batch_size: args.batch_size,
        input_size: args.input_size.unwrap_or(size),
        time: Duration::from_secs_f64(args.seconds),
        gradient_checkpointing: args.gradient_checkpointing,
        record_steps: !args.queue_steps,
        precision,
        profile: args.profile,
    })
}

fn print(args: &Bench, report: &BenchReport) -> Result<(), CliError> {
    if args.json.json {
        return print_json(&serde_json::to_value(report).map_err(std::io::Error::from)?);
    }
    print_text(&table(&args.model_ref, report))
}

fn table(name: &str, report: &BenchReport) -> String {
    let BenchReport { device, mode, batch_size, input_size, threads, instructions, precision, .. } = report;
    let mode = match mode {
        Mode::Infer => "inference",
        Mode::Train if report.recorded => "training by a captured step",
        Mode::Train => "training",
    };
    let mut text = String::new();
    let _ = writeln!(text, "{name}, {mode}, {batch_size} images of {input_size:#} pixels");
    let _ = match device.as_str() {
        "cpu" => writeln!(text, "on cpu, {threads} threads, {instructions}, {precision}\n"),
        other => writeln!(text, "on {other}, {precision}\n"),
    };
    let _ = writeln!(text, "images per second  {:>10.1}", report.images_per_second);
    for (name, value) in [
        ("median", report.median_ms),
        ("95th percentile", report.p95_ms),
        ("99th percentile", report.p99_ms),
        ("fastest", report.min_ms),
    ] {
        let _ = writeln!(text, "{name:<17}  {value:>10.2} ms");
    }
    if let Some(bytes) = report.peak_memory_bytes {
        let _ = writeln!(text, "peak memory        {:>10.1} MB", bytes as f64 / 1e6);
    }
    let _ = writeln!(text, "repetitions        {:>10}", report.repetitions);
    if let Some(parts) = &report.profile {
        let total: f64 = parts.iter().map(|part| part.ms).sum();
        let _ = writeln!(text);
        for part in parts {
            let _ = writeln!(text, "{:<28}{:>9.3} ms {:>6.1} %", part.name, part.ms, 100.0 * part.ms / total);
        }
    }
    text
}
