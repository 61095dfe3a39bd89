//! `mbconv fetch`

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::args::Fetch;
use crate::error::CliError;
use crate::model_ref::locate;
use crate::output::print_text;

pub fn run(args: Fetch, stop: &AtomicBool) -> Result<(), CliError> {
    let path = locate(Path::new(&args.weights), stop)?;
    print_text(&format!("{}\n", path.display()))
}
