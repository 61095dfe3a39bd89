//! `mbconv completions`

use clap::CommandFactory;

use crate::args::{Arguments, Completions};
use crate::error::CliError;
use crate::output::print_text;

pub fn run(args: Completions) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "mbconv", &mut script);
    print_text(&String::from_utf8_lossy(&script))
}
