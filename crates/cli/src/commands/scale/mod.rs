//! `mbconv scale`

mod budget;
mod formula;
mod plan;
mod search;
mod series;

use std::sync::atomic::AtomicBool;

use crate::args::{Scale, ScaleCommand};
use crate::error::CliError;

pub fn run(args: Scale, stop: &AtomicBool) -> Result<(), CliError> {
    match args.into_command() {
        ScaleCommand::Formula(args) => formula::run(args),
        ScaleCommand::Budget(args) => budget::run(args),
        ScaleCommand::Search(args) => search::run(args, stop),
    }
}
