//! Arguments of the commands that integrate the program into a system: `completions`, `man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Args)]
pub struct Completions {
    /// Shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Args)]
pub struct Man {
    /// Folder for the pages, mbconv.1, mbconv-train.1, …
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
