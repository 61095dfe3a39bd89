//! Progress on standard error: a bar on a terminal, otherwise plain lines.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use mbconv_train::Event;
use mbconv_train::history::LINE_WIDTH;
use mbconv_train::observe::Observer;

use crate::signals::keep_ignored;

/// Exit status of an interrupted command, as in shells after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Interval between plain progress lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

impl Observer for &mut Progress {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.show(event);
        Ok(())
    }
}

/// Returns a flag that is set by Ctrl-C or a termination signal. A second signal ends the program
/// at once. Ignored signals stay ignored.
pub fn stop_on_interrupt() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        // The current line may contain the terminal's `^C`.
        eprintln!("");
        eprintln!("stopping after this step; interrupt again to stop at once");
    };
    if let Err(error) = keep_ignored(|| ctrlc::set_handler(handler)) {
        eprintln!("note: Ctrl-C ends the program at once ({error})");
    }
    &STOP
}

/// State of plain progress lines.
struct PlainProgress {
    prefix: String,
    started: Instant,
    last_line: Instant,
    /// Number of images done at the start, as in a resumed epoch.
    first: usize,
}

/// Template of the progress bar, which has room for ImageNet's numbers in [`LINE_WIDTH`] columns.
const WITH_TOTAL: &str = "{prefix} {wide_bar} {pos}/{len}  {per_sec}  {eta} left  {msg}";
/// Template of the progress bar on narrower terminals.
const NARROW: &str = "{prefix} {wide_bar} {pos}/{len}  {msg}";
/// Template of the progress bar while the total is unknown.
const WITHOUT_TOTAL: &str = "{prefix} {pos} images  {per_sec}";

/// Returns the number of columns of a terminal. Without a terminal, it is `COLUMNS` or
/// [`LINE_WIDTH`].
pub fn columns(terminal: &Term) -> usize {
    let given = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|&columns| columns > 0);
    terminal.size_checked().map(|(_, columns)| columns.into()).or_else(given).unwrap_or(LINE_WIDTH)
}

/// Returns the template of the progress bar for the current width of the terminal.
fn with_total() -> &'static str {
    if columns(&Term::stderr()) < LINE_WIDTH { NARROW } else { WITH_TOTAL }
}

fn show_as(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").with_key(
            "per_sec",
            |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0} img/s", state.per_sec());
            },
        ));
    }
}

/// A progress display over images.
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: usize,
    classes: usize,
    multi_label: bool,
    /// State without a terminal.
    plain: Option<PlainProgress>,
}

impl Progress {
    /// Returns whether standard error is a terminal and shows a bar.
    pub fn is_shown() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Creates a bar if standard error is a terminal.
    pub fn new() -> Self {
        let bar = Self::is_shown().then(|| {
            let bar = ProgressBar::hidden();
            show_as(&bar, with_total());
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            bar
        });
        Self { bar, epochs: 0, classes: 0, multi_label: false, plain: None }
    }

    /// Shows a training event.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Line(line) => self.line(line),
            Event::Start { epochs, classes, multi_label, .. } => {
                (self.epochs, self.classes, self.multi_label) = (*epochs, *classes, *multi_label);
            }
            Event::Train { epoch, images, total, scores, .. } => {
                let prefix = format!("epoch {epoch}/{}", self.epochs);
                let mut message = format!("loss {:.3}", scores.loss);
                if !self.multi_label {
                    message += &format!("  top-1 {:.1} %", 100.0 * scores.top1);
                }
                self.advance(&prefix, *images, *total, message);
            }
            Event::Validate { images, total } => self.advance("validation", *images, *total, String::new()),
            Event::Epoch(row) => {
                self.plain = None;
                self.line(&row.line(self.classes, columns(&Term::stderr())));
            }
        }
    }

    /// Shows that `images` of `total` are done.
    pub fn advance(&mut self, prefix: &str, images: usize, total: usize, message: String) {
        let Some(bar) = &self.bar else {
            return self.advance_plainly(prefix, images, total, &message);
        };
        if bar.prefix() != prefix || bar.length() != Some(total as u64) {
            show_as(bar, with_total());
            bar.reset();
            bar.set_length(total as u64);
            bar.set_prefix(prefix.to_string());
        }
        bar.set_message(message);
        bar.set_position(images as u64);
    }

    /// Shows on a terminal that `images` are done, of `total` if known.
    pub fn count(&mut self, prefix: &str, images: usize, total: Option<usize>) {
        let Some(bar) = &self.bar else { return };
        match total {
            Some(total) => self.advance(prefix, images, total, String::new()),
            None => {
                if bar.prefix() != prefix {
                    show_as(bar, WITHOUT_TOTAL);
                    bar.set_prefix(prefix.to_string());
                }
                bar.set_position(images as u64);
            }
        }
    }

    /// Hides the bar while `write` writes to the terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn advance_plainly(&mut self, prefix: &str, images: usize, total: usize, message: &str) {
        let now = Instant::now();
        if self.plain.as_ref().is_none_or(|plain| plain.prefix != prefix) {
            self.plain = Some(PlainProgress { prefix: prefix.into(), started: now, last_line: now, first: images });
        }
        let Some(plain) = &mut self.plain else { return };
        if now - plain.last_line >= PLAIN_INTERVAL && images > plain.first {
            let speed = (images - plain.first) as f64 / (now - plain.started).as_secs_f64();
            let left = total.saturating_sub(images) as f64 / speed;
            eprintln!("{prefix}: {images}/{total} images  {speed:.0} img/s  {left:.0} s left  {message}");
            plain.last_line = now;
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
