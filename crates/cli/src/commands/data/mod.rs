//! `mbconv data`

mod inspect;
mod open;
mod pack;
mod split;
mod verify;

use std::sync::atomic::AtomicBool;

use crate::args::Data;
use crate::error::CliError;

pub fn run(args: Data, stop: &AtomicBool) -> Result<(), CliError> {
    match args {
        Data::Inspect(args) => inspect::run(args, stop),
        Data::Verify(args) => verify::run(args, stop),
        Data::Pack(args) => pack::run(args, stop),
        Data::Split(args) => split::run(args, stop),
    }
}
