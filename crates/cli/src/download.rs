//! Download of published weights, with a progress bar.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mbconv_hub::{Found, Hub, Progress};

use crate::error::CliError;

/// Downloads the published weights called `weights` into the cache, unless they are there, and
/// returns their file.
pub fn download(weights: &str, stop: &AtomicBool) -> Result<PathBuf, CliError> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::hidden();
        // `wide_msg` is cut to the terminal's width.
        if let Ok(style) = ProgressStyle::with_template("{bar:16} {bytes}/{total_bytes}  {eta} left  {wide_msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_message(weights.to_string());
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar
    });
    let mut announced = false;
    let mut show = |progress: Progress| {
        match &bar {
            _ if progress.retry.is_some() => {
                let note = || eprintln!("note: {}", progress.retry.unwrap_or_default());
                bar.as_ref().map_or_else(note, |bar| bar.suspend(note));
            }
            Some(bar) => {
                bar.set_length(progress.total.unwrap_or(progress.done));
                bar.set_position(progress.done);
            }
            None if !announced => {
                let size = progress.total.map_or(String::new(), |bytes| format!(" ({:.1} MB)", bytes as f64 / 1e6));
                eprintln!("fetching {}{size}", progress.url);
                announced = true;
            }
            None => {}
        }
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = Hub::from_env()?.resolve(weights, &mut show);
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let Found { path, alone } = result?;
    if let Some(error) = alone {
        eprintln!("note: {error}; preprocessing and padding are derived from the name only");
    }
    Ok(path)
}
