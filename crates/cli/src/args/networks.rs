//! Arguments of the commands about networks: `info`, `list`, `draw`, `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mbconv_train::data::ImageSize;

use super::device::{DeviceArgs, DtypeArgs};
use super::json::JsonArgs;
use super::values::{image_size, positive, seconds};

#[derive(Args)]
pub struct Info {
    /// Architecture name, model file, run folder, published weights, recipe or stage table (TOML)
    #[arg(value_name = "MODEL")]
    pub model_ref: String,
    /// Number of classes [default: 1000, or the model's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Image size in pixels: N for a square, or HxW (height, width) [default: the network's]
    #[arg(long, value_parser = image_size)]
    pub input_size: Option<ImageSize>,
    /// Strides of an architecture given by name: imagenet, cifar, or numbers for the stem and each
    /// stage
    #[arg(long)]
    pub strides: Option<String>,
    /// Show every layer
    #[arg(long)]
    pub layers: bool,
    /// Print the layers as comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    #[command(flatten)]
    pub json: JsonArgs,
    /// Batch size for the estimate of training memory
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    pub batch_size: usize,
}

#[derive(Args)]
pub struct List {
    /// List published weights instead, with their accuracy
    #[arg(long)]
    pub pretrained: bool,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Draw {
    /// Architecture name, model file, run folder, published weights, recipe or stage table (TOML)
    #[arg(value_name = "MODEL", required_unless_present = "chart")]
    pub model_ref: Option<String>,
    /// Number of classes [default: 1000, or the model's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Image size in pixels: N for a square, or HxW (height, width) [default: the network's]
    #[arg(long, value_parser = image_size)]
    pub input_size: Option<ImageSize>,
    /// Draw published ImageNet accuracy over multiply-accumulates instead, with one curve per
    /// family
    #[arg(long, conflicts_with = "model_ref")]
    pub chart: bool,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Bench {
    /// Architecture name, model file, run folder, published weights, recipe or stage table (TOML)
    #[arg(value_name = "MODEL")]
    pub model_ref: String,
    /// Image size in pixels: N for a square, or HxW (height, width) [default: the network's]
    #[arg(long, value_parser = image_size)]
    pub input_size: Option<ImageSize>,
    /// Number of classes of an architecture given by name [default: 1000]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Measure inference (images to logits) or whole training steps
    #[arg(long, value_enum, default_value_t = BenchMode::Infer)]
    pub mode: BenchMode,
    /// Duration of the measurement in seconds
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// Show the time of every part of the network
    #[arg(long)]
    pub profile: bool,
    /// In training, recompute activations in the backward pass instead of keeping them
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// In training on a GPU, launch every kernel separately instead of replaying a captured step
    #[arg(long)]
    pub queue_steps: bool,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Images per batch
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub batch_size: usize,
    #[command(flatten)]
    pub dtype: DtypeArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    Infer,
    Train,
}
