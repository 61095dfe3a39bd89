//! Opening of data sets and progress lines, shared by the commands.

use std::sync::atomic::AtomicBool;

use mbconv_train::data::tools::{self, Work};
use mbconv_train::data::{self, DataSet, OpenOptions};
use mbconv_train::device;

use crate::args::DataArgs;
use crate::error::CliError;
use crate::terminal::Progress;

/// Opens the whole data set. No images are held out, and splits may have different classes.
pub fn open(args: &DataArgs) -> Result<DataSet, CliError> {
    open_with(args, &OpenOptions { val_fraction: 0.0, classes_may_differ: true, ..OpenOptions::default() })
}

/// Opens the data set with these options.
pub fn open_with(args: &DataArgs, options: &OpenOptions) -> Result<DataSet, CliError> {
    device::set_threads(args.workers);
    Ok(data::open(&args.data, options)?)
}

/// Runs `work` on the images of a data set, with a progress line.
pub fn with_progress<T, E>(
    doing: &str,
    data: &DataSet,
    stop: &AtomicBool,
    work: impl FnOnce(&mut Work) -> Result<T, E>,
) -> Result<T, CliError>
where
    CliError: From<E>,
{
    let mut progress = Progress::new();
    let total = tools::images(data);
    let mut advance = |images| progress.advance(doing, images, total, String::new());
    let result = work(&mut Work { stop, progress: &mut advance });
    progress.finish();
    Ok(result?)
}
