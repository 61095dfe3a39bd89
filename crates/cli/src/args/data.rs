//! Arguments of the `data` commands.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::json::JsonArgs;
use super::values::{distance, positive};

#[derive(Subcommand)]
pub enum Data {
    /// Show splits, classes, image sizes, formats and samples of a data set
    Inspect(Inspect),
    /// Find unreadable files, duplicates and leaks between splits
    ///
    /// Exits with status 1 if there are any.
    Verify(Verify),
    /// Pack a data set into shards with a manifest of checksums
    ///
    /// A repeated call continues where it stopped.
    Pack(Pack),
    /// Split a data set into training, validation and test images
    Split(Split),
}

#[derive(Args)]
pub struct DataArgs {
    /// Data set
    pub data: String,
    /// Threads that read and decode images [default: one per core]
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    pub data: DataArgs,
    /// Seed for choosing the images of the contact sheet
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Show the first training images of this recipe on the contact sheet, cropped, augmented and
    /// mixed: a TOML file, or a name from `mbconv recipe list`
    #[arg(long, value_name = "RECIPE", requires = "sheet", conflicts_with_all = ["sheet_classes", "sheet_images", "seed"])]
    pub recipe: Option<PathBuf>,
    /// Set any key of the recipe, such as mix.mixup=0.2; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    pub overrides: Vec<String>,
    /// Write a contact sheet to this PNG file
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Maximum number of classes on the contact sheet
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive)]
    pub sheet_classes: usize,
    /// Maximum number of images per class on the contact sheet
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub sheet_images: usize,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    pub data: DataArgs,
    /// Also report near-duplicates (perceptual-hash distance ≤ BITS of 64)
    #[arg(long, value_name = "BITS", num_args = 0..=1, require_equals = true, default_missing_value = "4", value_parser = distance)]
    pub near: Option<u32>,
    /// Report classes with fewer training images than this
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub few: usize,
    /// Move bad files and redundant copies to DIR [default: NAME-aside next to the data set];
    /// nothing is deleted
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub fix: Option<Option<PathBuf>>,
    /// Only move back the files that --fix moved to DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with_all = ["fix", "near", "report", "strict"])]
    pub undo: Option<Option<PathBuf>>,
    /// Exit with status 1 on warnings too
    #[arg(long)]
    pub strict: bool,
    /// Write all findings to a .json, .csv or .txt file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Pack {
    #[command(flatten)]
    pub data: DataArgs,
    /// Output folder
    pub out: PathBuf,
    /// Fraction of each class to hold out for validation, if the data set has no splits
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    pub val: f64,
    /// Seed of the order of training images and of the held-out images
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Skip unreadable images instead of failing
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Include images outside the data set that links or the table refer to
    #[arg(long)]
    pub follow_links: bool,
    /// Format of the shards
    #[arg(long, value_enum)]
    pub format: ShardFormat,
    /// Resize images so that the shorter side is at most PIXELS; smaller images keep their bytes
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    pub size: Option<usize>,
    /// JPEG quality of resized images
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Maximum number of images per shard
    #[arg(long, value_name = "IMAGES", default_value_t = 5000, value_parser = positive)]
    pub shard_size: usize,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Split {
    #[command(flatten)]
    pub data: DataArgs,
    /// Output folder
    pub out: PathBuf,
    /// Fraction of each class for validation
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    pub val: f64,
    /// Fraction of each class for testing
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub test: f64,
    /// Seed of the split
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Merge existing splits first, instead of dividing the training split and keeping the others
    #[arg(long)]
    pub pool: bool,
    /// Skip undecodable images instead of failing
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Include images outside the data set that links or the table refer to
    #[arg(long)]
    pub follow_links: bool,
    #[command(flatten)]
    pub way: WayArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[group(multiple = false)]
pub struct WayArgs {
    /// Hard-link the files, which takes no space (the default)
    #[arg(long)]
    pub link: bool,
    /// Copy the images (the default for images in archives and shards)
    #[arg(long)]
    pub copy: bool,
    /// Move the files; `mbconv data verify DATA --undo=OUT` moves them back
    #[arg(long = "move")]
    pub moving: bool,
    /// Only write paths and labels to train.csv, val.csv and test.csv
    #[arg(long)]
    pub list: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ShardFormat {
    /// WebDataset's .tar files
    Wds,
    /// Hugging Face's .parquet files
    Parquet,
}

impl From<ShardFormat> for mbconv_train::data::tools::pack::PackFormat {
    fn from(format: ShardFormat) -> Self {
        match format {
            ShardFormat::Wds => Self::Wds,
            ShardFormat::Parquet => Self::Parquet,
        }
    }
}
