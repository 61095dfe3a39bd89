//! `mbconv man`

use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::{Arguments, Man};
use crate::error::CliError;
use crate::output::{create_folder, write_file};

pub fn run(args: Man) -> Result<(), CliError> {
    create_folder(&args.folder)?;
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    let pages = write_pages(&root, &args.folder)?;
    eprintln!("wrote {pages} man pages to {}", args.folder.display());
    Ok(())
}

/// Writes the page of a command and those of its subcommands. Returns their number.
fn write_pages(command: &Command, folder: &Path) -> Result<usize, CliError> {
    let source = concat!("mbconv ", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command.clone()).source(source).manual("mbconv manual");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // The text after the options starts with examples.
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n");
    write_file(&folder.join(page.get_filename()), text.as_bytes())?;
    command.get_subcommands().try_fold(1, |pages, subcommand| Ok(pages + write_pages(subcommand, folder)?))
}
