//! Arguments of `scale`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::device::DeviceArgs;
use super::json::JsonArgs;
use super::values::{bytes, coefficient, milliseconds, positive, quantity, share};

#[derive(Args)]
pub struct Scale {
    /// Network to scale: architecture name, stage table, recipe (also used as the template) or
    /// model file [default: efficientnet_b0, or the recipe of --run]
    #[arg(long, value_name = "ARCH|FILE")]
    pub base: Option<String>,
    /// Compound coefficient φ: a number, a list (0,0.5,1) or a range of integers (1..7) [default:
    /// 1]
    #[arg(long, allow_hyphen_values = true)]
    pub phi: Option<String>,
    /// Depth factor per φ
    #[arg(long, default_value_t = 1.2, value_parser = coefficient)]
    pub alpha: f64,
    /// Width factor per φ
    #[arg(long, default_value_t = 1.1, value_parser = coefficient)]
    pub beta: f64,
    /// Resolution factor per φ
    #[arg(long, default_value_t = 1.15, value_parser = coefficient)]
    pub gamma: f64,
    /// Scale only these dimensions, each separately, doubling the cost per φ
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["alpha", "beta", "gamma", "grid"])]
    pub only: Vec<Only>,
    /// Find the largest network with at most N multiply-accumulates, such as 1G or 600M
    #[arg(long, value_name = "N", value_parser = quantity, conflicts_with_all = ["phi", "grid"])]
    pub target_macs: Option<u64>,
    /// Find the largest network with at most N parameters, such as 5M
    #[arg(long, value_name = "N", value_parser = quantity, conflicts_with_all = ["phi", "grid"])]
    pub target_params: Option<u64>,
    /// Find the largest network whose f32 parameters take at most BYTES, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with_all = ["phi", "grid"])]
    pub target_size: Option<u64>,
    /// Find the largest network with a measured latency of at most TIME for one image on --device,
    /// such as 20ms
    #[arg(long, value_name = "TIME", value_parser = milliseconds, conflicts_with_all = ["phi", "grid"])]
    pub target_latency: Option<f64>,
    /// List every α, β, γ ≥ 1 with α·β²·γ² near 2, at φ = 1
    #[arg(long, conflicts_with_all = ["phi", "alpha", "beta", "gamma"])]
    pub grid: bool,
    /// Step of the grid
    #[arg(long, default_value_t = 0.05)]
    pub step: f64,
    /// Maximum distance of α·β²·γ² from 2 in the grid
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
    /// Train every network with this recipe and rank them; a repeated call continues where it
    /// stopped
    #[arg(long, value_name = "RECIPE", requires_all = ["data", "out"], conflicts_with = "recipe")]
    pub run: Option<PathBuf>,
    /// Data set to train on
    #[arg(long, requires = "run")]
    pub data: Option<String>,
    /// Fraction of each class's training images to train on; validation uses all images
    #[arg(long, default_value_t = 1.0, value_parser = share, requires = "run")]
    pub share: f64,
    /// Number of runs per network, with consecutive seeds; networks are ranked by the mean
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000), requires = "run")]
    pub seeds: u64,
    /// Template of the recipes to write [default: EfficientNet's for ImageNet]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<PathBuf>,
    /// Set any key of the template; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Memory for which a batch size is suggested
    #[arg(long, default_value = "16GB", value_parser = bytes)]
    pub memory: u64,
    /// Number of classes [default: 1000, or the data's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Image size of the base in pixels [default: the network's]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// Round scaled image sizes to multiples of this
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
