//! Arguments of `scale`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::device::DeviceArgs;
use super::json::JsonArgs;
use super::values::{bytes, coefficient, milliseconds, positive, quantity, share};

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Without a subcommand, the flags of all subcommands are accepted: --target-… selects \
                  `budget`, --grid or --run selects `search`, anything else `formula`."
)]
pub struct Scale {
    #[command(subcommand)]
    command: Option<ScaleCommand>,
    #[command(flatten)]
    short_form: ShortForm,
}

impl Scale {
    /// Returns the given subcommand, or the one selected by the flags of the short form.
    pub fn into_command(self) -> ScaleCommand {
        self.command.unwrap_or_else(|| self.short_form.into_command())
    }
}

#[derive(Subcommand)]
pub enum ScaleCommand {
    /// Scale by coefficients: depth by α^φ, width by β^φ, image size by γ^φ
    Formula(FormulaArgs),
    /// Find the largest network within cost limits
    Budget(BudgetArgs),
    /// List candidate coefficients, or train and rank them
    Search(SearchArgs),
}

#[derive(Args)]
pub struct FormulaArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub series: SeriesArgs,
}

#[derive(Args)]
#[command(mut_group("TargetArgs", |group| group.required(true)))]
pub struct BudgetArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Scale only this dimension
    #[arg(long, value_enum, conflicts_with_all = ["alpha", "beta", "gamma"])]
    pub only: Vec<Only>,
    #[command(flatten)]
    pub coefficients: CoefficientArgs,
    /// Recipe whose network is the default base; only the short form sets it.
    #[arg(skip)]
    pub proxy: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Args)]
#[command(
    mut_arg("base", |arg| arg.help("Network to scale: architecture name, stage table, recipe (also used as the \
                                    template) or model file [default: that of --run, otherwise efficientnet_b0]")),
    mut_arg("out", |arg| arg.help("Folder for the recipes, and for the runs of --run")),
    mut_arg("phi", |arg| arg.help("Instead of the grid, compare these φ: a number, a list (0,0.5,1) or a range of \
                                   integers (1..7)")),
    mut_arg("only", |arg| arg.help("Instead of the grid, scale only these dimensions, each separately, doubling the \
                                    cost per φ")),
    mut_args(|arg| match arg.get_id().as_str() {
        "alpha" | "beta" | "gamma" => arg.requires("phi"),
        _ => arg,
    })
)]
pub struct SearchArgs {
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub grid: GridArgs,
    #[command(flatten)]
    pub series: SeriesArgs,
    #[command(flatten)]
    pub training: TrainingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Args)]
#[command(
    mut_args(|arg| arg.hide(true)),
    mut_arg("grid", |arg| arg.conflicts_with_all(["phi", "only", "alpha", "beta", "gamma"])),
    mut_group("TargetArgs", |group| group.conflicts_with_all(["phi", "grid"]))
)]
struct ShortForm {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    series: SeriesArgs,
    #[command(flatten)]
    targets: TargetArgs,
    #[arg(long = "grid", id = "grid")]
    is_grid: bool,
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ShortForm {
    fn into_command(self) -> ScaleCommand {
        let Self { network, mut series, targets, is_grid, grid, training, device } = self;
        if !targets.is_empty() {
            let SeriesArgs { only, coefficients, .. } = series;
            return ScaleCommand::Budget(BudgetArgs {
                network,
                targets,
                only,
                coefficients,
                proxy: training.run,
                device,
            });
        }
        if !is_grid && training.run.is_none() {
            return ScaleCommand::Formula(FormulaArgs { network, series });
        }
        if !is_grid && series.only.is_empty() {
            series.phi.get_or_insert_with(|| DEFAULT_PHI.into());
        }
        ScaleCommand::Search(SearchArgs { network, grid, series, training, device })
    }
}

/// Value of --phi if it is not given.
pub const DEFAULT_PHI: &str = "1";

// The base network, and the recipes to write.
#[derive(Args)]
pub struct NetworkArgs {
    /// Network to scale: architecture name, stage table, recipe (also used as the template) or
    /// model file [default: efficientnet_b0]
    #[arg(long, value_name = "ARCH|FILE")]
    pub base: Option<String>,
    /// Number of classes [default: 1000, or the data's]
    #[arg(long, value_parser = positive)]
    pub classes: Option<usize>,
    /// Image size of the base in pixels [default: the network's]
    #[arg(long, value_parser = positive)]
    pub input_size: Option<usize>,
    /// Template of the recipes to write [default: EfficientNet's for ImageNet]
    #[arg(long, value_name = "RECIPE")]
    pub recipe: Option<PathBuf>,
    /// Set any key of the template; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Memory for which a batch size is suggested
    #[arg(long, default_value = "16GB", value_parser = bytes)]
    pub memory: u64,
    /// Round scaled image sizes to multiples of this
    #[arg(long, default_value_t = mbconv_train::scale::SIDE_STEP, value_parser = positive)]
    pub side_step: usize,
    /// Folder for the recipes
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
}

// Coefficients per unit of φ.
#[derive(Args)]
pub struct CoefficientArgs {
    /// Depth factor per φ
    #[arg(long, default_value_t = 1.2, value_parser = coefficient)]
    pub alpha: f64,
    /// Width factor per φ
    #[arg(long, default_value_t = 1.1, value_parser = coefficient)]
    pub beta: f64,
    /// Resolution factor per φ
    #[arg(long, default_value_t = 1.15, value_parser = coefficient)]
    pub gamma: f64,
}

// Networks for several φ and dimensions.
#[derive(Args)]
pub struct SeriesArgs {
    /// Compound coefficient φ: a number, a list (0,0.5,1) or a range of integers (1..7) [default:
    /// 1]
    #[arg(long, allow_hyphen_values = true)]
    pub phi: Option<String>,
    /// Scale only these dimensions, each separately, doubling the cost per φ
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["alpha", "beta", "gamma"])]
    pub only: Vec<Only>,
    #[command(flatten)]
    pub coefficients: CoefficientArgs,
}

// Cost limits.
#[derive(Args)]
pub struct TargetArgs {
    /// Maximum number of multiply-accumulates, such as 1G or 600M
    #[arg(long, value_name = "N", value_parser = quantity)]
    pub target_macs: Option<u64>,
    /// Maximum number of parameters, such as 5M
    #[arg(long, value_name = "N", value_parser = quantity)]
    pub target_params: Option<u64>,
    /// Maximum size of the f32 parameters, such as 10MB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub target_size: Option<u64>,
    /// Maximum measured latency for one image on --device, such as 20ms
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    pub target_latency: Option<f64>,
}

impl TargetArgs {
    fn is_empty(&self) -> bool {
        let Self { target_macs, target_params, target_size, target_latency } = self;
        target_macs.or(*target_params).or(*target_size).is_none() && target_latency.is_none()
    }
}

// All α, β, γ ≥ 1 with α·β²·γ² near 2.
#[derive(Args)]
pub struct GridArgs {
    /// Step of α, β and γ in the grid
    #[arg(long, default_value_t = 0.05)]
    pub step: f64,
    /// Maximum distance of α·β²·γ² from 2 in the grid
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
}

// Training of the candidates.
#[derive(Args)]
pub struct TrainingArgs {
    /// Train every network with this recipe and rank them; a repeated call continues where it
    /// stopped
    #[arg(long, value_name = "RECIPE", requires_all = ["data", "out"], conflicts_with = "recipe")]
    pub run: Option<PathBuf>,
    /// Data set to train on
    #[arg(long, requires = "run", help_heading = "Training")]
    pub data: Option<String>,
    /// Fraction of each class's training images to train on; validation uses all images
    #[arg(long, default_value_t = 1.0, value_parser = share, requires = "run", help_heading = "Training")]
    pub share: f64,
    /// Number of runs per network, with consecutive seeds; networks are ranked by the mean
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000), requires = "run")]
    pub seeds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Only {
    Depth,
    Width,
    Resolution,
    /// All three, with the published coefficients
    Compound,
}
