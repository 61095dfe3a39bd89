//! Arguments of `eval`, `calibrate` and `predict`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mbconv_train::classifier::Tta;
use mbconv_train::data::{LoaderConfig, OnBadImage};

use super::device::{DeviceArgs, DtypeArgs};
use super::json::JsonArgs;
use super::values::positive;

#[derive(Args)]
pub struct Eval {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    #[command(flatten)]
    pub images: LabelledImages,
    #[command(flatten)]
    pub tta: TtaArgs,
    /// Top-k accuracies to measure, such as 1,3,10 [default: 1,5]
    #[arg(long, value_name = "K", value_delimiter = ',', value_parser = positive)]
    pub top_k: Option<Vec<usize>>,
    /// Print the metrics of every class, not only of the worst
    #[arg(long)]
    pub per_class: bool,
    /// Write the prediction for each image to a .csv or .jsonl file
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Write report.html to this folder: curves, confusion matrix, worst mistakes
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub loader: LoaderArgs,
    #[command(flatten)]
    pub dtype: DtypeArgs,
}

#[derive(Args)]
pub struct Calibrate {
    /// Model file, run folder (its best model), or weights of another library
    pub model: PathBuf,
    #[command(flatten)]
    pub images: LabelledImages,
    /// Model file to write [default: MODEL itself]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub loader: LoaderArgs,
}

/// Images with labels.
#[derive(Args)]
pub struct LabelledImages {
    /// Data set
    #[arg(long)]
    pub data: String,
    /// Split: val, test, train or all [default: val, otherwise test; for data without splits, eval
    /// takes all images, calibrate and quantize those held out in training]
    #[arg(long)]
    pub split: Option<String>,
}

/// Reading of images in batches.
#[derive(Args)]
pub struct LoaderArgs {
    /// Skip unreadable images instead of failing
    #[arg(long)]
    skip_bad_images: bool,
    /// Threads that decode images [default: one per core]
    #[arg(long, value_parser = positive)]
    workers: Option<usize>,
    /// Images per batch
    #[arg(long, default_value_t = 64, value_parser = positive)]
    batch_size: usize,
}

impl LoaderArgs {
    /// Returns the settings of a loader.
    pub fn config(&self) -> LoaderConfig {
        let default = LoaderConfig::default();
        LoaderConfig {
            batch_size: self.batch_size,
            workers: self.workers.unwrap_or(default.workers),
            on_bad_image: if self.skip_bad_images { OnBadImage::Skip } else { OnBadImage::Fail },
            ..default
        }
    }
}

#[derive(Args)]
pub struct TtaArgs {
    /// Test-time augmentation: average the probabilities of the mirror image, of five crops, or of
    /// both
    #[arg(long, value_name = "VIEWS", value_enum, default_value_t = Views::None)]
    pub tta: Views,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Views {
    None,
    Flip,
    FiveCrop,
    TenCrop,
}

impl From<Views> for Tta {
    fn from(views: Views) -> Self {
        match views {
            Views::None => Self::None,
            Views::Flip => Self::Flip,
            Views::FiveCrop => Self::FiveCrop,
            Views::TenCrop => Self::TenCrop,
        }
    }
}

#[derive(Args)]
pub struct Predict {
    /// Model file, run folder (its best model), weights of another library, or published weights by
    /// name
    pub model: PathBuf,
    /// Image files, folders, quoted patterns such as 'photos/**/*.jpg', or - for paths from
    /// standard input
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Exit with status 0 even if images cannot be read; they are always listed
    #[arg(long)]
    pub skip_bad_images: bool,
    #[command(flatten)]
    pub tta: TtaArgs,
    /// Number of classes to show [default: 5; for multi-label models, those above their thresholds]
    #[arg(long, value_parser = positive)]
    pub top_k: Option<usize>,
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
