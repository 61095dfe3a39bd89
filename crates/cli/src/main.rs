//! The `mbconv` program: arguments in, library calls, results out.

/// Prints a line on standard error. Control characters, including line breaks, are escaped. A
/// failed write is ignored, so that a run continues after its terminal is closed.
macro_rules! eprintln {
    ($($argument:tt)*) => { crate::messages::print_line(&format!($($argument)*)) };
}

mod args;
mod commands;
#[cfg(feature = "tui")]
mod dashboard;
mod download;
mod error;
mod messages;
mod model_ref;
mod output;
mod progress_ui;
mod signals;
mod table;
mod terminal;
mod units;

use std::process::ExitCode;

use clap::Parser;
use mbconv_train::text::visible_name;

use crate::args::{Arguments, Command};
use crate::error::CliError;
use crate::terminal::INTERRUPTED;

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
#[global_allocator]
static ALLOCATOR: mbconv_train::device::Allocator = mbconv_train::device::Allocator;

/// Parses the command line. clap's errors repeat the arguments; if one contains control characters,
/// the error is printed escaped.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let is_plain = |text: std::ffi::OsString| visible_name(&text.to_string_lossy()) == text.to_string_lossy();
        if std::env::args_os().all(is_plain) {
            error.exit();
        }
        error.to_string().trim_end().lines().for_each(|line| eprintln!("{line}"));
        std::process::exit(error.exit_code());
    })
}

fn main() -> ExitCode {
    mbconv_train::device::keep_freed_memory();
    // For commands that finish a step first; the others end at once.
    let stop = terminal::stop_on_interrupt;
    let result = match arguments().command {
        Command::Train(args) => commands::train::run(args, stop()),
        Command::Finetune(args) => commands::finetune::run(args, stop()),
        Command::Eval(args) => commands::eval::run(args, stop()),
        Command::Calibrate(args) => commands::calibrate::run(args, stop()),
        Command::Quantize(args) => commands::quantize::run(args, stop()),
        Command::FindLr(args) => commands::find_lr::run(args, stop()),
        Command::Tune(args) => commands::tune::run(args, stop()),
        Command::Compare(args) => commands::compare::run(args),
        Command::Predict(args) => commands::predict::run(args, stop()),
        Command::Explain(args) => commands::explain::run(args, stop()),
        Command::Embed(args) => commands::embed::run(args, stop()),
        Command::Average(args) => commands::average::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Import(args) => commands::import::run(args, stop()),
        Command::Fetch(args) => commands::fetch::run(args, stop()),
        Command::Recipe(command) => commands::recipe::run(command),
        Command::Data(args) => commands::data::run(args, stop()),
        Command::Info(args) => commands::info::run(args),
        Command::List(args) => commands::list::run(args),
        Command::Draw(args) => commands::draw::run(args),
        Command::Scale(args) => commands::scale::run(*args, stop()),
        Command::Bench(args) => commands::bench::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            error.print();
            ExitCode::FAILURE
        }
    }
}
