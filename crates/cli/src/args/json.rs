//! The option `--json`.

use clap::Args;

#[derive(Args)]
pub struct JsonArgs {
    /// Print one JSON document on standard output
    #[arg(long)]
    pub json: bool,
}
