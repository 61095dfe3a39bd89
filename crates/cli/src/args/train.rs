//! Arguments of the commands that train and compare: `train`, `finetune`, `find-lr`, `compare`,
//! `average`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::device::DeviceArgs;
use super::json::JsonArgs;
use super::keys::{KeyArgs, short_form};
use super::values::{batch_size, positive};

#[derive(Args)]
pub struct Train {
    /// Recipe: a TOML file, or a name from `mbconv recipe list`, such as digits
    pub recipe: PathBuf,
    /// Data set [default: the recipe's]
    #[arg(long)]
    pub data: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Set any key of the recipe, such as optimizer.learning_rate=0.05; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Action on a loss or gradient that is not a number [default: the recipe's, or stop]
    #[arg(long, value_enum, value_name = "stop|skip")]
    pub on_nan: Option<OnNan>,
    /// Continue the run exactly where it stopped
    #[arg(long)]
    pub resume: bool,
    /// Run folder [default: runs/ and the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show Burn's dashboard with live curves instead of a progress line (q stops the run)
    #[arg(long)]
    #[cfg_attr(not(feature = "tui"), arg(hide = true))]
    pub tui: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Train {
    /// Returns the recipe keys that the command line sets, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let data = self.data.as_ref().map(|path| format!("data.path={}", serde_json::json!(path)));
        let short = self.keys.settings(&self.overrides);
        self.overrides.iter().cloned().chain(short).chain(data).chain(self.on_nan.map(OnNan::setting)).collect()
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OnNan {
    /// End the run; the last good checkpoint is kept
    Stop,
    /// Skip the update and continue
    Skip,
}

impl OnNan {
    /// Returns the recipe's key, as `key=value`.
    fn setting(self) -> String {
        match self {
            Self::Stop => "on_nan=stop".into(),
            Self::Skip => "on_nan=skip".into(),
        }
    }
}

#[derive(Args)]
pub struct Finetune {
    /// Initial weights: an architecture (its default published weights), published weights by name,
    /// a model file, or a run folder (its best model)
    #[arg(value_name = "MODEL", required_unless_present = "weights")]
    model: Option<PathBuf>,
    /// Data set; the classifier is replaced unless the classes are the model's
    #[arg(value_name = "DATA", required_unless_present = "data")]
    data_set: Option<String>,
    /// Initial weights, instead of MODEL
    #[arg(long, value_name = "MODEL", conflicts_with = "model")]
    weights: Option<PathBuf>,
    /// Data set, instead of DATA
    #[arg(long, value_name = "DATA", conflicts_with = "data_set")]
    data: Option<String>,
    /// Architecture, if it cannot be detected from the weights
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Prefix of the network's keys, such as backbone., if the weights contain several networks
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Number of image channels: 1 for gray, 3 for color; the stem is adapted if it differs from
    /// the model's
    #[arg(long, value_name = "N", value_parser = positive)]
    pub input_channels: Option<usize>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Layers to freeze: body (a linear probe), or the number of first stages
    #[arg(long, value_name = "PART")]
    pub freeze: Option<String>,
    /// Freeze the running statistics of all batch-norms (the default)
    #[arg(long)]
    pub freeze_norms: bool,
    /// Set any key of the recipe, such as optimizer.learning_rate=0.001; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Action on a loss or gradient that is not a number [default: stop]
    #[arg(long, value_enum, value_name = "stop|skip")]
    pub on_nan: Option<OnNan>,
    /// Continue the run exactly where it stopped
    #[arg(long)]
    pub resume: bool,
    /// Run folder [default: runs/DATA-MODEL]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show Burn's dashboard with live curves instead of a progress line (q stops the run)
    #[arg(long)]
    #[cfg_attr(not(feature = "tui"), arg(hide = true))]
    pub tui: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Finetune {
    /// Returns the model with the initial weights.
    pub fn model(&self) -> &Path {
        self.model.as_deref().or(self.weights.as_deref()).expect("clap requires one of them")
    }

    /// Returns the data set.
    pub fn data(&self) -> &str {
        self.data_set.as_deref().or(self.data.as_deref()).expect("clap requires one of them")
    }

    /// Returns the recipe keys that the command line sets, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let freeze = self.freeze.as_ref().map(|part| format!("finetune.freeze={part}"));
        let norms = self.freeze_norms.then(|| "finetune.freeze_norms=true".into());
        let prefix = self.prefix.as_ref().map(|prefix| format!("finetune.prefix={prefix}"));
        let on_nan = self.on_nan.map(OnNan::setting);
        [freeze, norms, prefix]
            .into_iter()
            .flatten()
            .chain(self.overrides.iter().cloned())
            .chain(self.keys.settings(&self.overrides))
            .chain(on_nan)
            .collect()
    }
}

impl FindLr {
    /// Returns the recipe keys that the command line sets, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let freeze = self.freeze.as_ref().map(|part| format!("finetune.freeze={part}"));
        let prefix = self.prefix.as_ref().map(|prefix| format!("finetune.prefix={prefix}"));
        let batch_size = short_form("--batch-size", "batch_size", self.batch_size.as_ref(), &self.overrides);
        [freeze, prefix].into_iter().flatten().chain(self.overrides.iter().cloned()).chain(batch_size).collect()
    }
}

#[derive(Args)]
pub struct FindLr {
    /// Recipe: a TOML file, or a name from `mbconv recipe list` [default with --weights and --data:
    /// that of finetune]
    #[arg(required_unless_present_all = ["weights", "data"])]
    pub recipe: Option<PathBuf>,
    /// Initial weights: a model file, a run folder (its best model), published weights, or an
    /// architecture (its default published weights)
    #[arg(long, value_name = "MODEL")]
    pub weights: Option<PathBuf>,
    /// Architecture, if it cannot be detected from the weights; without a recipe
    #[arg(long, value_name = "NAME", requires = "weights", conflicts_with = "recipe")]
    pub arch: Option<String>,
    /// Prefix of the network's keys, such as backbone., if the weights contain several networks
    #[arg(long, value_name = "PREFIX", requires = "weights")]
    pub prefix: Option<String>,
    /// Data set [default: the recipe's]
    #[arg(long)]
    pub data: Option<String>,
    /// Layers to freeze: body (a linear probe), or the number of first stages
    #[arg(long, value_name = "PART")]
    pub freeze: Option<String>,
    /// Number of images per batch, or auto for the largest that fits, short for --set batch_size=N
    #[arg(long, value_name = "N", value_parser = batch_size, help_heading = "Training")]
    pub batch_size: Option<String>,
    /// Set any key of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Number of updates of each sweep [default: 600, or 200 from a model's weights]
    #[arg(long, value_parser = positive)]
    pub steps: Option<usize>,
    /// Number of sweeps, each with new initial weights and other batches
    #[arg(long, default_value_t = 3, value_parser = positive)]
    pub sweeps: usize,
    /// First learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-5)]
    pub from: f64,
    /// Last learning rate
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    pub to: f64,
    /// SVG file of the curve
    #[arg(long, value_name = "FILE", default_value = "find-lr.svg")]
    pub out: PathBuf,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Args)]
pub struct Compare {
    /// Folders of training runs
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// HTML file with the curves of all runs and the table
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
}

#[derive(Args)]
pub struct Average {
    /// Models (files, run folders, published weights), then the file to write
    #[arg(required = true, num_args = 2.., value_names = ["MODEL", "OUT"])]
    pub paths: Vec<PathBuf>,
}
