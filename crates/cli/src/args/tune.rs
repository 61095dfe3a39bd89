//! Arguments of `tune`.

use std::path::PathBuf;

use clap::Args;

use super::device::DeviceArgs;
use super::json::JsonArgs;
use super::keys::{KeyArgs, short_form};
use super::values::positive;

#[derive(Args)]
pub struct Tune {
    /// Recipe: a TOML file, or a name from `mbconv recipe list`, such as digits
    pub recipe: PathBuf,
    /// Data set [default: the recipe's]
    #[arg(long)]
    pub data: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Search a key of the recipe in log(a,b), uniform(a,b), int(a,b) or choice(x,y,z), or set it
    /// to a value; may be repeated
    #[arg(long = "set", value_name = "KEY=RANGE")]
    pub overrides: Vec<String>,
    /// Number of trials [default: 20]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub trials: Option<usize>,
    /// Train all trials for few epochs, and only the best of them for more (successive halving)
    #[arg(long)]
    pub halving: bool,
    /// With --halving: one of N trials continues, for N times the epochs [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=100))]
    pub eta: Option<u64>,
    /// Metric of the validation split that ranks the trials, short for --set
    /// checkpoint.metric=METRIC
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// Random seed of the trials' values [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Continue the study exactly where it stopped
    #[arg(long)]
    pub resume: bool,
    /// Folder of the study [default: runs/tune- and the recipe's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Tune {
    /// Returns the recipe keys that the command line sets or searches, as `key=value`.
    pub fn settings(&self) -> Vec<String> {
        let data = self.data.as_ref().map(|path| format!("data.path={}", serde_json::json!(path)));
        let metric = short_form("--metric", "checkpoint.metric", self.metric.as_ref(), &self.overrides);
        let short = self.keys.settings(&self.overrides);
        self.overrides.iter().cloned().chain(short).chain(data).chain(metric).collect()
    }
}
