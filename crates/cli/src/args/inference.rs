//! Arguments of `eval` and `predict`.

use std::path::PathBuf;

use clap::Args;

use super::device::{DeviceArgs, DtypeArgs};
use super::json::JsonArgs;
use super::values::positive;

#[derive(Args)]
pub struct Eval {
    /// Model file, run folder (its best model), or weights of another library
    pub model: PathBuf,
    /// Data set
    #[arg(long)]
    pub data: String,
    /// Split to evaluate: val, test, train or all [default: val, otherwise test; all for data
    /// without splits]
    #[arg(long)]
    pub split: Option<String>,
    /// Skip unreadable images instead of failing
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Threads that decode images [default: one per core]
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
    /// Write report.html to this folder: curves, confusion matrix, worst mistakes
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Images per batch
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub batch_size: usize,
    #[command(flatten)]
    pub dtype: DtypeArgs,
}

#[derive(Args)]
pub struct Predict {
    /// Model file, run folder (its best model), or weights of another library
    pub model: PathBuf,
    /// Image files, folders, quoted patterns such as 'photos/**/*.jpg', or - for paths from
    /// standard input
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Exit with status 0 even if images cannot be read; they are always listed
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Number of classes to show
    #[arg(long, default_value_t = 5, value_parser = positive)]
    pub top_k: usize,
    /// Include the logits of every class (with --json, or --out FILE.jsonl)
    #[arg(long)]
    pub logits: bool,
    /// Write the results to a .csv or .jsonl file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub dtype: DtypeArgs,
}
