//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mbconv_nets::weights::Precision;
use mbconv_train::Group;
use mbconv_train::device::{self, Device, DeviceError};
use mbconv_train::precision::{MapPrecision, NoBf16};
use mbconv_train::shell::quoted;

/// Train, evaluate and use MobileNetV2 and EfficientNet image classifiers.
#[derive(Parser)]
#[command(name = "mbconv", version, about, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train a network from a TOML recipe
    Train(Train),
    /// Train a model further on your own images, with settings that suit it
    Finetune(Finetune),
    /// Measure a model's top-1 and top-5 accuracy on a data set
    Eval(Eval),
    /// Try learning rates from too low to too high and draw the loss
    FindLr(FindLr),
    /// Set training runs side by side
    Compare(Compare),
    /// Classify image files, folders of them, or a list of paths
    Predict(Predict),
    /// Average the weights of several models
    Average(Average),
    /// Write a model for other tools
    Export(Export),
    /// Turn weights of torchvision, timm, EfficientNet-PyTorch or Hugging Face into a model
    Import(Import),
    /// Fetch published weights into the cache and print their path
    Fetch(Fetch),
    /// Look into a data set, check it, pack it into shards or split it
    #[command(subcommand)]
    Data(Data),
    /// Show an architecture's parameters, size, multiply-accumulates and layers
    Info(Info),
    /// List the architectures, or published weights
    List(List),
    /// Draw a network's stages, or the published accuracy of the families over their cost, as SVG
    Draw(Draw),
    /// Scale a network in depth, width and resolution: by formula, to a budget, or by a search
    Scale(Scale),
    /// Measure how fast a network runs here
    Bench(Bench),
    /// Show the devices this build can use
    Devices(JsonArgs),
}

#[derive(Args)]
pub struct Train {
    /// TOML recipe, such as configs/digits.toml
    pub recipe: PathBuf,
    /// Data set, instead of the recipe's
    #[arg(long)]
    pub data: Option<String>,
    /// Folder of the run [default: runs/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Set any key of the recipe, such as optimizer.learning_rate=0.05; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// What to do about a loss or gradient that is not a number [default: the recipe's, or stop]
    #[arg(long, value_enum, value_name = "stop|skip")]
    pub on_nan: Option<OnNan>,
    /// Continue the run in the folder exactly where it stopped
    #[arg(long)]
    pub resume: bool,
    /// Show Burn's dashboard with live curves instead of a progress line (q stops the run)
    #[arg(long)]
    pub tui: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OnNan {
    /// End the run; the last good checkpoint is kept
    Stop,
    /// Leave the update out and go on
    Skip,
}

impl OnNan {
    /// The recipe's key, as `key=value`.
    fn setting(self) -> String {
        match self {
            Self::Stop => "on_nan=stop".into(),
            Self::Skip => "on_nan=skip".into(),
        }
    }
}

impl FindLr {
    /// All that the command line sets of the recipe, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let freeze = self.freeze.as_ref().map(|part| format!("finetune.freeze={part}"));
        let prefix = self.prefix.as_ref().map(|prefix| format!("finetune.prefix={prefix}"));
        [freeze, prefix].into_iter().flatten().chain(self.overrides.iter().cloned()).collect()
    }
}

impl Train {
    /// All that the command line sets of the recipe, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let data = self.data.as_ref().map(|path| format!("data.path={}", serde_json::json!(path)));
        self.overrides.iter().cloned().chain(data).chain(self.on_nan.map(OnNan::setting)).collect()
    }
}

#[derive(Args)]
pub struct Finetune {
    /// Model file, folder of a run (its best model), or published weights, to begin with
    #[arg(long, value_name = "MODEL")]
    pub weights: PathBuf,
    /// Network, where the keys, shapes and name of a file of published weights leave it open
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Prefix of the network's keys in the weights, such as backbone., where they contain more
    /// than one network
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Channels of the images: 1 for grey, 3 for colour; another number than the model's adapts its stem
    #[arg(long, value_name = "N", value_parser = positive)]
    pub input_channels: Option<usize>,
    /// Data set; its classes get a new classifier
    #[arg(long)]
    pub data: String,
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Passes over the data [default: by number of images]
    #[arg(long, value_parser = positive)]
    pub epochs: Option<usize>,
    /// Freeze the body (a linear probe), or a number of stages from the image
    #[arg(long, value_name = "PART")]
    pub freeze: Option<String>,
    /// Hold the running statistics of every batch-norm still
    #[arg(long)]
    pub freeze_norms: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Set any key of the recipe, such as optimizer.learning_rate=0.001; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Action on a loss or gradient that is not a number [default: stop]
    #[arg(long, value_enum, value_name = "stop|skip")]
    pub on_nan: Option<OnNan>,
    /// Continue the run in the folder exactly where it stopped
    #[arg(long)]
    pub resume: bool,
    /// Show Burn's dashboard with live curves instead of a progress line (q stops the run)
    #[arg(long)]
    pub tui: bool,
}

impl Finetune {
    /// All that is set of the recipe, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let epochs = self.epochs.map(|epochs| format!("epochs={epochs}"));
        let freeze = self.freeze.as_ref().map(|part| format!("finetune.freeze={part}"));
        let norms = self.freeze_norms.then(|| "finetune.freeze_norms=true".into());
        let prefix = self.prefix.as_ref().map(|prefix| format!("finetune.prefix={prefix}"));
        let on_nan = self.on_nan.map(OnNan::setting);
        [epochs, freeze, norms, prefix]
            .into_iter()
            .flatten()
            .chain(self.overrides.iter().cloned())
            .chain(on_nan)
            .collect()
    }
}

#[derive(Args)]
pub struct Average {
    /// Model files or folders of runs (their best models), then the file to write
    #[arg(required = true, num_args = 2.., value_names = ["MODEL", "OUT"])]
    pub paths: Vec<PathBuf>,
}

#[derive(Args)]
pub struct Eval {
    /// Model file, or folder of a run (its best model)
    pub model: PathBuf,
    /// Data set
    #[arg(long)]
    pub data: String,
    /// Split to evaluate on: val, test, train or all [default: val or else test; all of data
    /// without splits]
    #[arg(long)]
    pub split: Option<String>,
    /// Images a batch
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub batch_size: usize,
    /// Threads that decode images [default: one a processor core]
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
    /// Pass over images that cannot be read, instead of ending with an error
    #[arg(long)]
    pub skip_bad_images: bool,
    #[command(flatten)]
    pub dtype: DtypeArgs,
    /// Write report.html into this folder: curves, confusion matrix, worst mistakes
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct FindLr {
    /// TOML recipe, such as configs/digits.toml; with --weights and --data it may be left out, for the one of finetune
    #[arg(required_unless_present_all = ["weights", "data"])]
    pub recipe: Option<PathBuf>,
    /// Data set, instead of the recipe's
    #[arg(long)]
    pub data: Option<String>,
    /// Model file, folder of a run (its best model), or published weights, to begin with
    #[arg(long, value_name = "MODEL")]
    pub weights: Option<PathBuf>,
    /// Network of the weights, if it cannot be detected; without a recipe
    #[arg(long, value_name = "NAME", requires = "weights", conflicts_with = "recipe")]
    pub arch: Option<String>,
    /// Prefix of the network's keys in the weights, such as backbone., where they contain more
    /// than one network
    #[arg(long, value_name = "PREFIX", requires = "weights")]
    pub prefix: Option<String>,
    /// Freeze the body (a linear probe), or a number of stages from the image
    #[arg(long, value_name = "PART")]
    pub freeze: Option<String>,
    /// Number of updates of each sweep
    #[arg(long, default_value_t = 300, value_parser = positive)]
    pub steps: usize,
    /// Number of sweeps over the learning rates, each from fresh weights and with other batches
    #[arg(long, default_value_t = 3, value_parser = positive)]
    pub sweeps: usize,
    /// First learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-5)]
    pub from: f64,
    /// Last learning rate
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    pub to: f64,
    /// Picture of the curve
    #[arg(long, value_name = "FILE", default_value = "find-lr.svg")]
    pub out: PathBuf,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Set any key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Compare {
    /// Folders of training runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Predict {
    /// Model file, or folder of a run (its best model)
    pub model: PathBuf,
    /// Image files, folders of them, quoted patterns such as 'photos/**/*.jpg', or - for paths from standard input
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Number of classes to show
    #[arg(long, default_value_t = 5, value_parser = positive)]
    pub top_k: usize,
    /// Include the raw outputs of every class (with --json, or --out FILE.jsonl)
    #[arg(long)]
    pub logits: bool,
    /// Write a table into a .csv or .jsonl file, row by row, instead of text on standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit with status 0 even if images cannot be read; they are named in any case
    #[arg(long)]
    pub skip_bad_images: bool,
    #[command(flatten)]
    pub dtype: DtypeArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Export {
    /// Model file, or folder of a run (its best model)
    pub model: PathBuf,
    /// File to write
    pub out: PathBuf,
    /// File format [default: by OUT's extension: .safetensors, .onnx, .bpk or .burnpack]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Whose names the tensors of a safetensors file have [default: torchvision]
    #[arg(long, value_enum)]
    pub layout: Option<Layout>,
    /// Precision of the weights; ONNX has no bf16
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// ONNX: give probabilities (output `probabilities`) instead of logits
    #[arg(long)]
    pub with_softmax: bool,
    /// ONNX: take RGB bytes, [batch, H, W, 3] (input `image`), and normalise them inside
    #[arg(long)]
    pub with_preprocessing: bool,
}

#[derive(Args)]
pub struct Import {
    /// A .pth or .safetensors file, a folder that save_pretrained wrote, or published weights by
    /// name
    pub file: PathBuf,
    /// Model file to write
    pub out: PathBuf,
    /// Network, where keys, shapes and file name leave it open; timm's names will do
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Prefix of the network's keys in the file, such as backbone., where it contains more than
    /// one network
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Channels of the images: another number than the file's adapts the stem, summing its weights for 1 (grey)
    #[arg(long, value_name = "N", value_parser = positive)]
    pub input_channels: Option<usize>,
    /// Text file with one class name a line; another number than the file's makes the classifier new
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// Preprocessing, instead of the source's
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(mbconv_train::import::PRESETS))]
    pub preprocess: Option<String>,
}

#[derive(Args)]
pub struct Fetch {
    /// Name of weights: torchvision/…, timm/…, lukemelas/…, d-li14/…, hf:owner/name, https://… (see `mbconv list --pretrained`)
    pub weights: String,
}

#[derive(Subcommand)]
pub enum Data {
    /// Show what is in a data set: splits, classes, sizes and formats of images, and pictures of each class
    Inspect(Inspect),
    /// Find files that cannot be read, duplicates and leaks between splits; exit status 1 if there are any
    Verify(Verify),
    /// Pack a data set into shards, with a manifest of checksums; done again, it goes on where it stopped
    Pack(Pack),
    /// Divide a data set into training, validation and test images
    Split(Split),
}

#[derive(Args)]
pub struct DataArgs {
    /// Data set
    pub data: String,
    /// Threads that read and decode images [default: one a processor core]
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
}

#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    pub data: DataArgs,
    /// Draw a contact sheet into this PNG file
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Classes on the contact sheet, at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive)]
    pub sheet_classes: usize,
    /// Images of each class on the contact sheet, at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub sheet_images: usize,
    /// Seed of the contact sheet's choice
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    pub data: DataArgs,
    /// Look for images that look alike too: whose perceptual hashes differ in at most so many of 64 bits
    #[arg(long, value_name = "BITS", num_args = 0..=1, require_equals = true, default_missing_value = "4", value_parser = distance)]
    pub near: Option<u32>,
    /// Mention classes with fewer training images than this
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub few: usize,
    /// Move bad files and surplus copies aside, into DIR [default: beside the data set, NAME-aside]; nothing is deleted
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub fix: Option<Option<PathBuf>>,
    /// Only move back what --fix moved into DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with_all = ["fix", "near", "report", "strict"])]
    pub undo: Option<Option<PathBuf>>,
    /// Write all findings into a .json, .csv or .txt file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Let warnings end with exit status 1 too
    #[arg(long)]
    pub strict: bool,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Pack {
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder to write to
    pub out: PathBuf,
    /// Form of the shards
    #[arg(long, value_enum)]
    pub format: ShardFormat,
    /// Shrink images whose shorter side is longer, to so many pixels; the others keep their bytes
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    pub size: Option<usize>,
    /// JPEG quality of the images that are shrunk
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Images a shard, at most
    #[arg(long, value_name = "IMAGES", default_value_t = 5000, value_parser = positive)]
    pub shard_size: usize,
    /// Part of each class to hold out for validation, where the data set has no splits
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    pub val: f64,
    /// Seed of the order of training images, and of what is held out
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Leave images out that cannot be read, instead of ending with an error
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Also take images outside of the data set that links or the table lead to
    #[arg(long)]
    pub follow_links: bool,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ShardFormat {
    /// WebDataset's .tar files
    Wds,
    /// Hugging Face's .parquet files
    Parquet,
}

impl From<ShardFormat> for mbconv_train::curate::pack::PackFormat {
    fn from(format: ShardFormat) -> Self {
        match format {
            ShardFormat::Wds => Self::Wds,
            ShardFormat::Parquet => Self::Parquet,
        }
    }
}

#[derive(Args)]
pub struct Split {
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder to write to
    pub out: PathBuf,
    /// Part of each class for validation
    #[arg(long, value_name = "PART", default_value_t = 0.2)]
    pub val: f64,
    /// Part of each class for testing
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub test: f64,
    /// Seed of the choice
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Put the splits there are together first, instead of dividing the training split and keeping the others
    #[arg(long)]
    pub pool: bool,
    #[command(flatten)]
    pub way: WayArgs,
    /// Leave images out that cannot be decoded, instead of ending with an error
    #[arg(long)]
    pub skip_bad_images: bool,
    /// Also take images outside of the data set that links or the table lead to
    #[arg(long)]
    pub follow_links: bool,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
#[group(multiple = false)]
pub struct WayArgs {
    /// Make hard links to the files, which take no space (the default)
    #[arg(long)]
    pub link: bool,
    /// Copy; the default where images are no files of their own
    #[arg(long)]
    pub copy: bool,
    /// Move the files; `mbconv data verify DATA --undo=OUT` moves them back
    #[arg(long = "move")]
    pub moving: bool,
    /// Only list paths and labels, in train.csv, val.csv and test.csv
    #[arg(long)]
    pub list: bool,
}

#[derive(Args)]
pub struct Info {
    /// Name of an architecture, a model file, a run's folder, a recipe or a stage table (TOML)
    pub subject: String,
    /// Number of classes [default: 1000, or the model's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Side of the input image in pixels [default: the one it was made for]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// Strides of an architecture given by name: imagenet, cifar, or numbers for the stem and each stage
    #[arg(long)]
    pub strides: Option<String>,
    /// Show every layer
    #[arg(long)]
    pub layers: bool,
    /// Images in a batch for which training memory is estimated
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    pub batch_size: usize,
    /// Print the layers as comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    #[command(flatten)]
    pub json: JsonArgs,
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
    /// Name of an architecture, a model file, a run's folder, a recipe or a stage table (TOML)
    #[arg(required_unless_present = "chart")]
    pub subject: Option<String>,
    /// Draw published ImageNet accuracy over multiply-accumulates instead, a curve for each family
    #[arg(long, conflicts_with = "subject")]
    pub chart: bool,
    /// Number of classes [default: 1000, or the model's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Side of the input image in pixels [default: the one it was made for]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args)]
pub struct Scale {
    /// What is scaled: name of an architecture, a stage table, a recipe (which is then the template too), a model file
    /// [default: efficientnet_b0, or the recipe of --run]
    #[arg(long, value_name = "ARCH|FILE")]
    pub base: Option<String>,
    /// How far: a number, several (0,0.5,1) or a range of whole ones (1..7) [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub phi: Option<String>,
    /// Growth of depth
    #[arg(long, default_value_t = 1.2, value_parser = coefficient)]
    pub alpha: f64,
    /// Growth of width
    #[arg(long, default_value_t = 1.1, value_parser = coefficient)]
    pub beta: f64,
    /// Growth of resolution
    #[arg(long, default_value_t = 1.15, value_parser = coefficient)]
    pub gamma: f64,
    /// Scale in one dimension alone, doubling the cost with each φ; several make curves to compare
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["alpha", "beta", "gamma", "grid"])]
    pub only: Vec<Only>,
    /// The largest network with so many multiply-accumulates, such as 1G or 600M
    #[arg(long, value_name = "N", value_parser = quantity, conflicts_with_all = ["phi", "grid"])]
    pub target_macs: Option<u64>,
    /// The largest network with so many parameters, such as 5M
    #[arg(long, value_name = "N", value_parser = quantity, conflicts_with_all = ["phi", "grid"])]
    pub target_params: Option<u64>,
    /// The largest network whose parameters take so much as f32, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with_all = ["phi", "grid"])]
    pub target_size: Option<u64>,
    /// The largest network that takes so long for one image on --device, such as 20ms: measured
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with_all = ["phi", "grid"])]
    pub target_latency: Option<f64>,
    /// Every α, β, γ ≥ 1 with α·β²·γ² near 2, at φ = 1
    #[arg(long, conflicts_with_all = ["phi", "alpha", "beta", "gamma"])]
    pub grid: bool,
    /// Step of the grid
    #[arg(long, default_value_t = 0.05)]
    pub step: f64,
    /// How far α·β²·γ² may be from 2 in the grid
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
    /// Train every network with this recipe (its model aside) and rank them; run again, it goes on where it stopped
    #[arg(long, value_name = "RECIPE", requires_all = ["data", "out"], conflicts_with = "recipe")]
    pub run: Option<PathBuf>,
    /// Data set to train on
    #[arg(long, requires = "run")]
    pub data: Option<String>,
    /// Share of each class's training images to train on; validation stays whole
    #[arg(long, default_value_t = 1.0, value_parser = share, requires = "run")]
    pub share: f64,
    /// How often each network is trained, with the recipe's seed and those that follow it: ranks are by the mean
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000), requires = "run")]
    pub seeds: u64,
    /// Template of the recipes that are written [default: EfficientNet's for ImageNet]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<PathBuf>,
    /// Set any key of the template; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Memory for which batches are suggested
    #[arg(long, default_value = "16GB", value_parser = bytes)]
    pub memory: u64,
    /// Number of classes of what is counted [default: 1000, or the data's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Side of the base's image in pixels [default: the one it was made for]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// Scaled sides are rounded to multiples of this
    #[arg(long, default_value_t = mbconv_train::scale::SIDE_STEP, value_parser = positive)]
    pub side_step: usize,
    /// Folder for the recipes, and for the runs of --run
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    Depth,
    Width,
    Resolution,
    /// All three, with the published coefficients
    Compound,
}

#[derive(Args)]
pub struct Bench {
    /// Name of an architecture, a model file, the folder of a run, a recipe or a stage table (TOML)
    pub subject: String,
    /// What to measure: images to logits, or whole training steps
    #[arg(long, value_enum, default_value_t = BenchMode::Infer)]
    pub mode: BenchMode,
    /// Images at a time
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub batch_size: usize,
    /// Side of the images in pixels [default: the one it was made for]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// Number of classes of an architecture given by name [default: 1000]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// For how long to repeat
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// In training, compute activated maps once more in the backward pass instead of keeping them
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// In training on a GPU, queue every step kernel by kernel instead of repeating a recorded one
    #[arg(long)]
    pub queue_steps: bool,
    #[command(flatten)]
    pub dtype: DtypeArgs,
    /// Show the time of every part
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum BenchMode {
    Infer,
    Train,
}

#[derive(Args)]
pub struct DtypeArgs {
    /// Precision of what is multiplied: bf16 is quicker on a GPU and on processors with AVX512-BF16
    #[arg(long, value_enum, default_value_t = MapDtype::F32)]
    pub dtype: MapDtype,
}

impl DtypeArgs {
    /// The precision, which the device must have; says on standard error if it gains nothing there in evaluation.
    pub fn check(&self, device: &Device) -> Result<MapPrecision, NoBf16> {
        let precision = MapPrecision::from(self.dtype);
        precision.check(device)?;
        if precision.is_slow_to_evaluate(device) {
            eprintln!("--dtype bf16: this processor has no instructions for it, f32 is quicker");
        }
        Ok(precision)
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum MapDtype {
    F32,
    Bf16,
}

#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute: cpu, ndarray, wgpu:N, vulkan:N, cuda:N or auto
    #[arg(long, value_name = "DEV", default_value = "auto")]
    pub device: String,
    /// Threads of the processor to compute with, at most four a core [default: one a core]
    #[arg(long, value_parser = positive)]
    pub threads: Option<usize>,
}

impl DeviceArgs {
    /// The device, with the threads set. Once, before any computation.
    pub fn open(&self) -> Result<Device, DeviceError> {
        device::set_threads(self.threads);
        device::parse(&self.device)
    }

    /// The options that were given, as a command repeats them.
    pub fn repeated(&self) -> String {
        let device = (self.device != "auto").then(|| format!(" --device {}", quoted(&self.device)));
        let threads = self.threads.map(|threads| format!(" --threads {threads}"));
        [device, threads].into_iter().flatten().collect()
    }

    /// The device of one of several processes, with its share of the threads.
    pub fn open_in(&self, group: &Group) -> Result<Device, DeviceError> {
        device::set_threads(self.threads.or_else(|| (group.size() > 1).then(|| group.threads())));
        let name = if self.device == "auto" { device::automatic() } else { &self.device };
        device::parse(&group.device(name))
    }
}

#[derive(Args)]
pub struct JsonArgs {
    /// Print one JSON document on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Safetensors,
    Onnx,
    Burnpack,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Layout {
    Torchvision,
    Timm,
}

impl From<Layout> for mbconv_nets::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Torchvision => Self::Torchvision,
            Layout::Timm => Self::Timm,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl From<MapDtype> for MapPrecision {
    fn from(dtype: MapDtype) -> Self {
        match dtype {
            MapDtype::F32 => Self::F32,
            MapDtype::Bf16 => Self::Bf16,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..1e6).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds".into()),
    }
}

fn distance(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(bits @ 0..=mbconv_train::curate::perceptual::MAX_DISTANCE) => Ok(bits),
        _ => Err(format!("expected a number of bits from 0 to {}", mbconv_train::curate::perceptual::MAX_DISTANCE)),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above 0".into()),
        Ok(number) => Ok(number),
    }
}

fn coefficient(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=10.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0.1 to 10".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}

/// A whole number with an optional thousand (k), million (M) or billion (G or B).
fn quantity(text: &str) -> Result<u64, String> {
    with_unit(text, &[("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9), ("B", 1e9), ("T", 1e12)])
        .filter(|value| (1.0..1e18).contains(value))
        .map(|value| value as u64)
        .ok_or_else(|| "expected a number such as 600M or 1.5G".into())
}

/// Bytes, with decimal and binary units.
fn bytes(text: &str) -> Result<u64, String> {
    const KIBI: f64 = 1024.0;
    let units = [("", 1.0), ("B", 1.0), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];
    let binary = [("KiB", KIBI), ("MiB", KIBI * KIBI), ("GiB", KIBI * KIBI * KIBI)];
    with_unit(text, &[&units[..], &binary].concat())
        .filter(|value| (1.0..1e18).contains(value))
        .map(|value| value as u64)
        .ok_or_else(|| "expected a size such as 10MB or 16GB".into())
}

fn milliseconds(text: &str) -> Result<f64, String> {
    with_unit(text, &[("ms", 1.0), ("s", 1e3), ("us", 1e-3), ("µs", 1e-3)])
        .filter(|value| *value > 0.0 && value.is_finite())
        .ok_or_else(|| "expected a time such as 20ms".into())
}

/// A number and its unit, which may stand apart.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (text[..end].parse::<f64>().ok()?, text[end..].trim());
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| number * factor)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn quantities_have_units() {
        assert_eq!(
            ["1G", "600M", "1.5G", "42", "5 M"].map(|text| quantity(text).unwrap()),
            [1_000_000_000, 600_000_000, 1_500_000_000, 42, 5_000_000]
        );
        assert_eq!(["10MB", "1KiB", "7"].map(|text| bytes(text).unwrap()), [10_000_000, 1024, 7]);
        assert_eq!(["20ms", "1.5s"].map(|text| milliseconds(text).unwrap()), [20.0, 1500.0]);
        assert!(["", "G", "-1", "1X", "0", "1e30", "nan"].iter().all(|text| quantity(text).is_err()));
        assert!(["20", "0ms", "ms"].iter().all(|text| milliseconds(text).is_err()));
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
